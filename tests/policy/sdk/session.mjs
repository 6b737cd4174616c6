// One session of an official MCP client with a real server; prints what the client saw as one JSON document.
// usage: node session.mjs GENERATION SERVER FOLDER COMMAND ARGUMENT...
// GENERATION: 1 (@modelcontextprotocol/sdk) or 2 (@modelcontextprotocol/client, newest revision with fallback).

import { join } from 'node:path';
import process from 'node:process';

const [generation, kind, folder, command, ...args] = process.argv.slice(2);
const [{ Client }, { StdioClientTransport }] = generation === '1'
  ? await Promise.all([
      import('@modelcontextprotocol/sdk/client/index.js'),
      import('@modelcontextprotocol/sdk/client/stdio.js'),
    ])
  : await Promise.all([import('@modelcontextprotocol/client'), import('@modelcontextprotocol/client/stdio')]);

const options = generation === '1' ? {} : { versionNegotiation: { mode: 'auto' } };
const client = new Client({ name: 'session', version: '1.0.0' }, options);
const transport = new StdioClientTransport({ command, args, env: { ...process.env }, stderr: 'ignore' });
await client.connect(transport);

const seen = {};
async function note(name, work) {
  try {
    seen[name] = await work();
  } catch (error) {
    seen[name] = { error: error.code ?? error.name, message: error.message, data: error.data };
  }
}
const call = (name, parameters, id) => {
  const meta = id ? { _meta: { tool_call_id: id } } : {};
  return client.callTool({ name, arguments: parameters, ...meta });
};

seen.server = client.getServerVersion();
seen.capabilities = client.getServerCapabilities();
seen.instructions = client.getInstructions();
await note('tools', () => client.listTools());
if (kind === 'filesystem') {
  await note('read', () => call('read_file', { path: join(folder, 'input.txt') }, 'tc_read'));
  await note('missing', () => call('read_file', { path: join(folder, 'missing.txt') }));
  await note('outside', () => call('read_file', { path: '/etc/hostname' }));
  await note('wrong arguments', () => call('read_file', { path: 5 }));
  await note('unknown tool', () => call('read_minds', {}));
  // Large in both directions, with everything that escapes.
  const large = 'line "quoted" \\ \u00e9\u{1f600}\u2028\t\n'.repeat(150_000);
  await note('write large', () => call('write_file', { path: join(folder, 'large.txt'), content: large }));
  await note('read large', async () => {
    const { content } = await call('read_text_file', { path: join(folder, 'large.txt') });
    return { same: content[0].text === large, length: content[0].text.length };
  });
  await note('together', () => Promise.all(
    Array.from({ length: 20 }, () => call('read_file', { path: join(folder, 'input.txt') })),
  ));
} else if (kind === 'everything') {
  await note('echo', () => call('echo', { message: 'h\u00e9llo\u2028' }));
  await note('sum', () => call('get-sum', { a: 2, b: 3 }));
  await note('structured', () => call('get-structured-content', { location: 'Chicago' }));
  await note('resources', () => client.listResources());
  await note('prompts', () => client.listPrompts());
  await note('prompt', () => client.getPrompt({ name: 'simple-prompt' }));
  await note('unknown resource', () => client.readResource({ uri: 'demo://nowhere' }));
  await note('progress', async () => {
    const steps = [];
    const result = await client.callTool(
      { name: 'trigger-long-running-operation', arguments: { duration: 0.04, steps: 4 } },
      ...(generation === '1' ? [undefined] : []),
      { onprogress: (progress) => steps.push(progress) },
    );
    // The last step may come before or after the result.
    return { steps: steps.slice(0, 3), result };
  });
  await note('cancelled', async () => {
    const giveUp = new AbortController();
    await client.callTool(
      { name: 'trigger-long-running-operation', arguments: { duration: 60, steps: 6000 } },
      ...(generation === '1' ? [undefined] : []),
      { signal: giveUp.signal, onprogress: () => giveUp.abort('enough') },
    );
  });
  await note('after the cancellation', () => call('echo', { message: 'still here' }));
} else if (kind === 'modern') {
  await note('greet', () => call('greet', {}, 'tc_greet'));
  await note('fail', () => call('fail', {}));
  await note('unknown tool', () => call('nothing', {}));
}
await client.close();
process.stdout.write(JSON.stringify(seen, null, 1));
