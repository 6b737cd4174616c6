// The upload action by itself: what it runs, with which environment, and what it tells the job.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { plan } from '../../.github/actions/upload-proof-pack/index.mjs';

const action = fileURLToPath(new URL('../../.github/actions/upload-proof-pack/index.mjs', import.meta.url));

function world(t, script) {
  const folder = mkdtempSync(join(tmpdir(), 'upload-action-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const binary = join(folder, 'assay-gates');
  writeFileSync(binary, `#!/bin/sh\n${script}\n`);
  chmodSync(binary, 0o755);
  const env = {
    PATH: process.env.PATH,
    INPUT_BINARY: binary,
    INPUT_PACK: 'pack',
    INPUT_NAME: 'artifact',
    INPUT_TOKEN: 'api-token',
    ACTIONS_RUNTIME_TOKEN: 'runtime-token',
    ACTIONS_RESULTS_URL: 'http://127.0.0.1:1/',
    ACTIONS_ID_TOKEN_REQUEST_TOKEN: 'oidc-token',
    SOME_SECRET: 'secret',
    GITHUB_RUN_ID: '7',
    GITHUB_OUTPUT: join(folder, 'output'),
  };
  return { folder, env };
}

const start = (env) => spawnSync(process.execPath, [action], { env, encoding: 'utf8' });

test('the child gets the runtime token by its environment, and no other secret', (t) => {
  const { folder, env } = world(t, `env > "$(dirname "$0")/env"; echo "$@" > "$(dirname "$0")/args"; echo "artifact-id=9" >> "$GITHUB_OUTPUT"`);
  const done = start(env);
  assert.equal(done.status, 0, done.stdout + done.stderr);
  const seen = readFileSync(join(folder, 'env'), 'utf8');
  assert.match(seen, /^ACTIONS_RUNTIME_TOKEN=runtime-token$/m);
  assert.match(seen, /^GITHUB_TOKEN=api-token$/m);
  assert.doesNotMatch(seen, /oidc-token|SOME_SECRET|INPUT_/);
  assert.equal(readFileSync(join(folder, 'args'), 'utf8'), 'upload --name=artifact -- pack\n');
  assert.equal(readFileSync(env.GITHUB_OUTPUT, 'utf8'), 'artifact-id=9\n');
});

test('both tokens are masked before anything else is printed', (t) => {
  const { env } = world(t, 'echo "leak: $ACTIONS_RUNTIME_TOKEN"');
  const lines = start(env).stdout.split('\n');
  assert.deepEqual(lines.slice(0, 2), ['::add-mask::runtime-token', '::add-mask::api-token']);
});

test('a failed upload fails the step with its exit code', (t) => {
  const { env } = world(t, 'exit 14');
  assert.equal(start(env).status, 14);
});

test('an upload that is killed fails the step and says so', (t) => {
  const { env } = world(t, 'kill -9 $$');
  const done = start(env);
  assert.equal(done.status, 13);
  assert.match(done.stdout, /::error::assay-gates upload was ended by SIGKILL/);
});

for (const [what, change] of [
  ['no runtime token', { ACTIONS_RUNTIME_TOKEN: '' }],
  ['no results url', { ACTIONS_RESULTS_URL: undefined }],
  ['no pack', { INPUT_PACK: ' ' }],
  ['a binary that is not there', { INPUT_BINARY: '/nonexistent/assay-gates\n::warning::x' }],
]) {
  test(`${what} is an error on one line, before anything runs`, (t) => {
    const { env } = world(t, 'echo must-not-run');
    const done = start(Object.fromEntries(Object.entries({ ...env, ...change }).filter(([, value]) => value !== undefined)));
    assert.equal(done.status, 13);
    assert.match(done.stdout, /^::error::[^\n]+\n$/);
  });
}

test('without an API token the child has none', () => {
  const planned = plan({ INPUT_BINARY: process.execPath, INPUT_PACK: 'p', INPUT_NAME: '-n', ACTIONS_RUNTIME_TOKEN: 't', ACTIONS_RESULTS_URL: 'u', GITHUB_TOKEN: 'ambient' });
  assert.equal(planned.env.GITHUB_TOKEN, undefined);
  assert.deepEqual(planned.args, ['upload', '--name=-n', '--', 'p']);
});
