// Lists and calls with the TypeScript SDK, second generation: client.mjs URL TOKEN MODE.
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const [url, token, mode] = process.argv.slice(2);
const negotiation = mode === 'legacy' || mode === 'auto' ? mode : { pin: mode };
const client = new Client({ name: 'test', version: '1' }, { versionNegotiation: { mode: negotiation } });
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers: { Authorization: `Bearer ${token}` } } }));
const { tools } = await client.listTools();
const echo = await client.callTool({ name: 'demo__echo', arguments: { message: 'from typescript' } });
console.log(JSON.stringify({ tools: tools.map((tool) => tool.name), echo: echo.content[0].text }));
await client.close();
