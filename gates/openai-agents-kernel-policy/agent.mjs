// The measured agent: one real SDK run, one tool call, no network.
//
// What flows through one tool call: the local model asks for `read_file` with a fixed call id, the SDK
// reports it (sdk-events.mjs), sends it over MCP stdio through the proxy, which decides, and the server
// (server.mjs) reads the file. The call id travels as `_meta.tool_call_id` of the MCP request.
//
// ASSAY_GATES_SCENARIO is the only difference between the gates that share this folder.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import { Agent, MCPServerStdio, Runner, setTracingDisabled, tool } from '@openai/agents';
import { z } from 'zod';
import { LocalModelProvider } from './model.mjs';
import { reportTo } from './sdk-events.mjs';

const fixture = import.meta.dirname;
const { env } = process;
const scenario = env.ASSAY_GATES_SCENARIO ?? 'matched_safe_read';
const work = required('ASSAY_GATES_WORK');

function required(name) {
  const value = env[name];
  if (!value) throw new Error(`${name} is not set: this agent runs inside a measured run`);
  return value;
}

setTracingDisabled(true);
const runner = new Runner({
  modelProvider: new LocalModelProvider(scenario),
  tracingDisabled: true,
  // One call at a time: the metadata resolver below is told the tool, not the call.
  toolExecution: { maxFunctionToolConcurrency: 1 },
});
const report = reportTo(runner);

// The hook runs before the resolver of the same call, so the id is the SDK's own.
let callId;
runner.on('agent_tool_start', (_context, _agent, _tool, { toolCall }) => {
  callId = toolCall.callId;
});

const server = new MCPServerStdio({
  name: 'files',
  command: required('ASSAY_GATES_BIN'),
  args: [
    'mcp-wrap',
    '--policy', join(fixture, 'policy.yaml'),
    '--decision-log', required('ASSAY_RUNNER_POLICY_DECISION_LOG'),
    '--event-source', `assay://runner-spike/${required('ASSAY_RUNNER_RUN_ID')}`,
    '--label', 'files',
    '--', process.execPath, join(fixture, 'server.mjs'),
  ],
  cwd: work,
  env: { ...env },
  cacheToolsList: true,
  clientSessionTimeoutSeconds: Number(required('ASSAY_GATES_SERVER_TIMEOUT_SECONDS')),
  toolMetaResolver: () => (scenario === 'weak_join_fallback' ? undefined : { tool_call_id: callId }),
  errorFunction: null,
});

// A tool that never passes the proxy; only the scenario that shows such a call offers it.
const unproxied = tool({
  name: 'count_words',
  description: 'Counts the words of a text.',
  parameters: z.object({ text: z.string() }),
  execute: ({ text }) => String(text.split(/\s+/).filter(Boolean).length),
});

try {
  await server.connect();
  const agent = new Agent({
    name: 'reader',
    instructions: 'Read the file that the user names.',
    mcpServers: [server],
    tools: scenario === 'unbound_tool_call' ? [unproxied] : [],
  });
  const prompt = readFileSync(join(work, 'openai-agents-input.txt'), 'utf8');
  const result = await runner.run(agent, prompt);
  if (scenario === 'runtime_side_effect') {
    // No tool call is open: the runtime itself leaves something behind.
    writeFileSync(join(work, 'runtime-side-effect.txt'), 'written by the runtime\n');
  }
  process.stdout.write(`${result.finalOutput}\n`);
} catch (error) {
  report.failed();
  process.stderr.write(`${error instanceof Error ? error.stack : error}\n`);
  process.exitCode = 1;
} finally {
  await server.close();
}
