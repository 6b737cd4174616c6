// What the SDK itself reports, one JSON line per event: its own lifecycle hooks, nothing inferred.

import { openSync, readFileSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import process from 'node:process';

const { env } = process;
const SOURCE = 'openai-agents-fixture';

// The name and version are those of the package that was really loaded.
function installed() {
  const manifest = createRequire(import.meta.url).resolve('@openai/agents').replace(/\/dist\/.*$/, '/package.json');
  const { name, version } = JSON.parse(readFileSync(manifest, 'utf8'));
  return { name, version };
}

/** Writes the run's events to the log that the driver asked for. */
export function reportTo(runner) {
  const log = openSync(env.ASSAY_RUNNER_SDK_EVENT_LOG, 'a');
  const sdk = installed();
  let seq = 0;
  const write = (eventType, toolCall, toolName) => {
    const event = {
      schema: env.ASSAY_RUNNER_SDK_EVENT_SCHEMA,
      run_id: env.ASSAY_RUNNER_RUN_ID,
      seq: seq++,
      event_type: eventType,
      source: SOURCE,
      sdk_name: sdk.name,
      sdk_version: sdk.version,
      tool_call_id: toolCall?.callId ?? null,
      tool: toolName ?? null,
    };
    writeSync(log, `${JSON.stringify(event)}\n`);
  };
  runner.on('agent_tool_start', (_context, _agent, tool, { toolCall }) => write('tool_call_started', toolCall, tool.name));
  runner.on('agent_tool_end', (_context, _agent, tool, _result, { toolCall }) =>
    write('tool_call_completed', toolCall, tool.name));
  runner.on('agent_end', () => write('run_finished'));
  return { failed: () => write('run_failed') };
}
