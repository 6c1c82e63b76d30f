// Lists and calls with the TypeScript SDK, first generation: client-v1.mjs URL TOKEN.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const [url, token] = process.argv.slice(2);
const client = new Client({ name: 'test', version: '1' });
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers: { Authorization: `Bearer ${token}` } } }));
const { tools } = await client.listTools();
const echo = await client.callTool({ name: 'demo__echo', arguments: { message: 'from typescript' } });
console.log(JSON.stringify({ tools: tools.map((tool) => tool.name), echo: echo.content[0].text }));
await client.close();
