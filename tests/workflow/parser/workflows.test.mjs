// GitHub's own parser accepts every workflow and action of this repository, and refuses a broken one.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { convertWorkflowTemplate, parseWorkflow, NoOperationTraceWriter } from '@actions/workflow-parser';
import { parseAction } from '@actions/workflow-parser/actions/action-parser';

const github = fileURLToPath(new URL('../../../.github/', import.meta.url));
const trace = new NoOperationTraceWriter();

async function errors(name, content) {
  const parsed = parseWorkflow({ name, content }, trace);
  const found = parsed.context.errors.getErrors().map((error) => error.message);
  if (found.length > 0 || !parsed.value) return found;
  const template = await convertWorkflowTemplate(parsed.context, parsed.value);
  return (template.errors ?? []).map((error) => error.Message ?? error.message ?? String(error));
}

const workflows = readdirSync(`${github}workflows`).filter((name) => /\.ya?ml$/.test(name));

test('there are the workflows that the project ships', () => {
  assert.deepEqual(workflows.sort(), ['ci.yml', 'fresh.yml', 'gates-fleet.yml', 'gates.yml', 'host-health.yml', 'hosts.yml', 'lane.yml', 'release.yml']);
});

for (const name of workflows) {
  test(`${name} is accepted`, async () => {
    assert.deepEqual(await errors(name, readFileSync(`${github}workflows/${name}`, 'utf8')), []);
  });
}

test('a workflow with a wrong key is refused, so that acceptance means something', async () => {
  assert.notDeepEqual(await errors('x.yml', 'on: push\njobs:\n  a:\n    runs-ons: x\n    steps: []\n'), []);
});

test('the upload action is accepted', () => {
  const content = readFileSync(`${github}actions/upload-proof-pack/action.yml`, 'utf8');
  const parsed = parseAction({ name: 'action.yml', content }, trace);
  assert.deepEqual(parsed.context.errors.getErrors().map((error) => error.message), []);
});
