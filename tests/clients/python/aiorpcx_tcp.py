"""aiorpcX, unmodified: newline frames over TCP, requests together, a batch. Usage: PORT."""

import asyncio
import json
import sys

import aiorpcx


async def main() -> None:
    async with aiorpcx.connect_rs("127.0.0.1", int(sys.argv[1])) as session:
        calls = [session.send_request("execute", {"model": "echo/echo", "prompt": f"p{n}"}) for n in range(20)]
        texts = [done["text"] for done in await asyncio.gather(*calls)]
        async with session.send_batch() as batch:
            batch.add_request("ping")
            batch.add_request("execute", {"model": "echo/echo", "prompt": "in a batch"})
        first, second = batch.results
        try:
            await session.send_request("execute", {"promt": "x"})
        except aiorpcx.RPCError as error:
            code = error.code
    print(json.dumps([texts == [f"p{n}" for n in range(20)], first, second["text"], code]))


asyncio.run(main())
