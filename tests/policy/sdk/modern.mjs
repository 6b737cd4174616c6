// A server of the newest revision, by the official SDK.
import { McpServer } from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';

serveStdio(() => {
  const server = new McpServer({ name: 'modern', version: '1.0.0' });
  server.registerTool('greet', { description: 'Greets.' }, () => ({ content: [{ type: 'text', text: 'hello' }] }));
  server.registerTool('fail', { description: 'Fails.' }, () => { throw new Error('on purpose'); });
  return server;
});
