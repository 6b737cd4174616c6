// Whether the dedicated runner is there, from what GitHub says of runners and of the queue.
//
//   available             a runner with the label is online, and jobs don't wait beside an idle one
//   expected_offline      none is online, and somebody has said so beforehand
//   unavailable           none is online, and nothing waits for it
//   demand_backed_outage  jobs wait, and no runner takes them
//   unknown               GitHub did not answer, or not with what was asked; never taken for health
import { appendFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

/** A job that waits this long beside an idle runner shows that the runner does not take it. */
const PATIENCE_MS = 30 * 60 * 1000;
const HEALTHY = new Set(['available', 'expected_offline']);

/**
 * The state, from plain values.
 * runners: [{ name, status, busy, labels: [{ name }] }] of the API, or null when it could not be asked;
 * queued: [{ id, created_at }] of runs that wait, or null; offlineUntil: RFC 3339 or ''; now: milliseconds.
 */
export function state({ runners, queued, label, offlineUntil, now }) {
  if (!Array.isArray(runners) || !Array.isArray(queued)) {
    return { state: 'unknown', why: 'GitHub did not say which runners there are or what waits for them' };
  }
  const malformed = runners.some((runner) => typeof runner?.status !== 'string' || !Array.isArray(runner.labels));
  const times = queued.map((run) => Date.parse(run?.created_at));
  if (malformed || times.some(Number.isNaN)) {
    return { state: 'unknown', why: 'GitHub answered with something else than runners and runs' };
  }
  const until = offlineUntil ? Date.parse(offlineUntil) : 0;
  if (Number.isNaN(until)) {
    return { state: 'unknown', why: `expected an RFC 3339 time in ASSAY_GATES_OFFLINE_UNTIL, found ${JSON.stringify(offlineUntil)}` };
  }
  const ours = runners.filter((runner) => runner.labels.some((found) => found.name === label));
  const online = ours.filter((runner) => runner.status === 'online');
  const waiting = `${queued.length} runs wait`;
  if (online.length > 0) {
    const idle = online.some((runner) => runner.busy === false);
    const ignored = times.filter((time) => now - time > PATIENCE_MS).length;
    if (idle && ignored > 0) {
      return { state: 'demand_backed_outage', why: `${ignored} runs have waited for more than 30 minutes beside an idle runner` };
    }
    return { state: 'available', why: `${online.length} of ${ours.length} runners with the label are online; ${waiting}` };
  }
  const found = ours.length === 0 ? 'no runner has the label' : `none of ${ours.length} runners with the label is online`;
  if (now < until) return { state: 'expected_offline', why: `${found}, as announced until ${offlineUntil}; ${waiting}` };
  if (queued.length > 0) return { state: 'demand_backed_outage', why: `${found}, and ${waiting}` };
  return { state: 'unavailable', why: `${found}; nothing waits` };
}

/** One page after the other; null when any answer is not what was asked for. */
async function all(url, token, key) {
  if (!token) return null;
  const found = [];
  for (let page = 1; page <= 10; page += 1) {
    const answer = await fetch(`${url}${url.includes('?') ? '&' : '?'}per_page=100&page=${page}`, {
      headers: { authorization: `Bearer ${token}`, accept: 'application/vnd.github+json', 'x-github-api-version': '2022-11-28' },
      signal: AbortSignal.timeout(30_000),
    });
    if (!answer.ok) return null;
    const rows = (await answer.json())[key];
    if (!Array.isArray(rows)) return null;
    found.push(...rows);
    if (rows.length < 100) return found;
  }
  return null;
}

async function waiting(repository, workflows, token) {
  const found = [];
  for (const workflow of workflows) {
    const rows = await all(`${repository}/actions/workflows/${encodeURIComponent(workflow)}/runs?status=queued`, token, 'workflow_runs');
    if (rows === null) return null;
    found.push(...rows);
  }
  return found;
}

/** Asks, decides, tells the job; gives the exit code. */
export async function main(env, out = process.stdout, now = Date.now()) {
  const repository = `${env.GITHUB_API_URL}/repos/${env.GITHUB_REPOSITORY}`;
  const quiet = (asked) => asked.catch(() => null);
  const [runners, queued] = await Promise.all([
    quiet(all(`${repository}/actions/runners`, env.RUNNERS_TOKEN, 'runners')),
    quiet(waiting(repository, env.WORKFLOWS.split(','), env.ACTIONS_TOKEN)),
  ]);
  const found = state({ runners, queued, label: env.LABEL, offlineUntil: env.OFFLINE_UNTIL ?? '', now });
  const healthy = HEALTHY.has(found.state);
  out.write(`${JSON.stringify({ schema: 'assay.gates.host_health.v0', label: env.LABEL, ...found })}\n`);
  if (!healthy) out.write(`::error title=Host health::${found.state}: ${found.why.replaceAll('%', '%25').replaceAll('\n', '%0A')}\n`);
  if (env.GITHUB_STEP_SUMMARY) appendFileSync(env.GITHUB_STEP_SUMMARY, `**${found.state}**: ${found.why}\n`);
  return healthy ? 0 : 1;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  process.exitCode = await main(process.env);
}
