// The measured agent: the official MCP client makes one call of `read_file` to the real filesystem server, through
// the proxy. No model, no clock, no network: everything that it does is in this file.
//
// KERNEL_POLICY_FILE is the only difference between the gates that share this folder: where that policy refuses the
// call, the refusal is the expected end, and the agent checks that it is one.

import { join } from 'node:path';
import process from 'node:process';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';

const { env } = process;
const fixture = import.meta.dirname;
const refused = -32010;

function required(name) {
  const value = env[name];
  if (!value) throw new Error(`${name} is not set: this agent runs inside a measured run`);
  return value;
}

const work = required('ASSAY_GATES_WORK');
const policy = required('KERNEL_POLICY_FILE');
const input = join(work, 'policy-input.txt');

const transport = new StdioClientTransport({
  command: required('ASSAY_GATES_BIN'),
  args: [
    'mcp-wrap',
    '--policy', join(fixture, policy),
    '--decision-log', required('ASSAY_RUNNER_POLICY_DECISION_LOG'),
    '--event-source', `assay://runner-spike/${required('ASSAY_RUNNER_RUN_ID')}`,
    '--label', 'filesystem',
    '--', process.execPath, join(fixture, 'node_modules/@modelcontextprotocol/server-filesystem/dist/index.js'), work,
  ],
  cwd: work,
  env: { ...env },
});

const client = new Client({ name: 'kernel-policy', version: '1.0.0' });
await client.connect(transport);
let outcome;
try {
  const result = await client.callTool({
    name: 'read_file',
    arguments: { path: input },
    _meta: { tool_call_id: 'tc_runner_policy_001' },
  });
  outcome = result.isError ? 'failed' : result.content[0].text;
} catch (error) {
  if (error.code !== refused) throw error;
  outcome = error.data.reason_code;
}
await client.close();

const expected = policy === 'policy-deny.yaml' ? 'E_TOOL_DENIED' : 'assay runner policy fixture input\n';
console.log(JSON.stringify({ outcome }));
if (outcome !== expected) {
  console.error(`expected ${JSON.stringify(expected)}`);
  process.exitCode = 1;
}
