// The states of the host, from plain values and over HTTP.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { main, state } from '../../.github/scripts/host-health.mjs';

const now = Date.parse('2026-05-01T12:00:00Z');
const runner = (status, busy = false, label = 'assay-bpf-runner') => ({ name: 'r', status, busy, labels: [{ name: 'self-hosted' }, { name: label }] });
const run = (minutes) => ({ id: 1, created_at: new Date(now - minutes * 60_000).toISOString() });
const found = (runners, queued, offlineUntil = '') => state({ runners, queued, label: 'assay-bpf-runner', offlineUntil, now }).state;

for (const [expected, runners, queued, offlineUntil] of [
  ['available', [runner('online')], []],
  ['available', [runner('online'), runner('offline')], [run(5)]],
  ['available', [runner('online', true)], [run(300)]],
  ['demand_backed_outage', [runner('online')], [run(31)]],
  ['demand_backed_outage', [runner('offline')], [run(1)]],
  ['demand_backed_outage', [], [run(1)]],
  ['demand_backed_outage', [runner('online', false, 'another-label')], [run(1)]],
  ['unavailable', [runner('offline')], []],
  ['unavailable', [], []],
  ['expected_offline', [runner('offline')], [], '2026-05-01T13:00:00Z'],
  ['expected_offline', [], [run(5)], '2026-05-01T13:00:00Z'],
  ['unavailable', [runner('offline')], [], '2026-05-01T11:00:00Z'],
  ['available', [runner('online')], [], '2026-05-01T13:00:00Z'],
  ['unknown', null, []],
  ['unknown', [runner('online')], null],
  ['unknown', [{}], []],
  ['unknown', [runner('online')], [{ created_at: 'yesterday' }]],
  ['unknown', [runner('offline')], [], 'tomorrow'],
]) {
  test(`${expected}: ${JSON.stringify([runners?.map((r) => r.status), queued?.length, offlineUntil])}`, () => {
    assert.equal(found(runners, queued, offlineUntil), expected);
  });
}

async function ask(t, answers, tokens = { RUNNERS_TOKEN: 'admin', ACTIONS_TOKEN: 'job' }) {
  const asked = [];
  const server = createServer((request, response) => {
    asked.push([request.url, request.headers.authorization]);
    const [status, body] = answers(new URL(request.url, 'http://x'));
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(body));
  });
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  t.after(() => server.close());
  let text = '';
  const env = { GITHUB_API_URL: `http://127.0.0.1:${server.address().port}`, GITHUB_REPOSITORY: 'o/r', LABEL: 'assay-bpf-runner', WORKFLOWS: 'gates.yml,gates-fleet.yml', ...tokens };
  const exit = await main(env, { write: (more) => (text += more) }, now);
  return { exit, asked, text, state: JSON.parse(text.split('\n')[0]).state };
}

const healthy = (url) => (url.pathname.endsWith('/runners') ? [200, { runners: [runner('online')] }] : [200, { workflow_runs: [] }]);

test('a healthy host is green, and each question bears the token that may ask it', async (t) => {
  const done = await ask(t, healthy);
  assert.equal(done.exit, 0);
  assert.equal(done.state, 'available');
  for (const [url, token] of done.asked) assert.equal(token, url.includes('/actions/runners?') ? 'Bearer admin' : 'Bearer job');
  assert.equal(done.asked.length, 3);
});

test('runners beyond the first page count', async (t) => {
  const done = await ask(t, (url) => {
    if (!url.pathname.endsWith('/runners')) return [200, { workflow_runs: [] }];
    return [200, { runners: url.searchParams.get('page') === '1' ? Array(100).fill(runner('offline')) : [runner('online')] }];
  });
  assert.equal(done.state, 'available');
});

for (const [what, answers, tokens] of [
  ['a refusal', () => [403, { message: 'Resource not accessible' }]],
  ['a queue that is not told', (url) => (url.pathname.endsWith('/runners') ? healthy(url) : [502, {}])],
  ['an answer of another shape', () => [200, { message: 'hello' }]],
  ['no token', healthy, { RUNNERS_TOKEN: '', ACTIONS_TOKEN: 'job' }],
]) {
  test(`${what} is unknown and red`, async (t) => {
    const done = await ask(t, answers, tokens);
    assert.equal(done.state, 'unknown');
    assert.equal(done.exit, 1);
    assert.match(done.text, /::error title=Host health::unknown/);
  });
}
