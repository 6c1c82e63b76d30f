"""Lists and calls with the Python SDK: client.py URL TOKEN MODE."""

import asyncio
import json
import sys

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def main(url: str, token: str, mode: str) -> None:
    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"})
    async with Client(streamable_http_client(url, http_client=http), mode=mode) as client:
        tools = await client.list_tools()
        echo = await client.call_tool("demo__echo", {"message": "from python"})
        print(json.dumps({
            "version": client.protocol_version,
            "tools": [tool.name for tool in tools.tools],
            "echo": echo.content[0].text,
        }))


asyncio.run(main(*sys.argv[1:]))
