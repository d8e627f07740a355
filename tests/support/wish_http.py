"""The wish test's world over real HTTP: a provider that bills at random and misbehaves, and connections to call on."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import anyio
from anyio.abc import TaskGroup, UNIXSocketStream

from llmd.books import UNITS
from tests.support.metered import Meter, bill
from tests.support.treasuries import pass_time
from tests.support.upstream import Exchange

OVERHEAD = 8
CONFIG = """
default_model = "work/m1"
[providers.work]
dialect = "openai"
base_url = "{url}"
overhead_tokens = 8
[providers.work.models.m1]
price = {{ input = 0.1, output = 0.4 }}
max_output_tokens = 300
[ledger]
durability = "process"
"""


class MeteredUpstream:
    """A script (support/upstream.py) whose prompts are "NAME SEED": it bills NAME what the seed says."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    async def __call__(self, exchange: Exchange) -> None:
        sent = exchange.request.json()
        name, seed = sent["messages"][-1]["content"].split(" ")[:2]
        rng, most = Random(seed), len(exchange.request.body) + OVERHEAD
        await pass_time(rng.uniform(0, 0.05))
        if name != "killed" and rng.random() < 0.1:
            await exchange.reply({"error": {"message": "later"}}, rng.choice([429, 422, 404, 400]))
            return
        # What is billed is billed: whether the answer ever arrives is the caller's luck.
        inputs, outputs = _some(rng, most), max(1, _some(rng, sent["max_tokens"]))
        self._meter.count(self._meter.billed, name, bill(inputs, outputs, 1))
        usage = {"prompt_tokens": inputs, "completion_tokens": outputs, "total_tokens": inputs + outputs}
        if name == "killed":
            await exchange.gone()
        elif sent.get("stream"):
            await self._stream(exchange, rng, usage)
        else:
            await self._reply(exchange, rng, usage)

    async def _reply(self, exchange: Exchange, rng: Random, usage: dict[str, int]) -> None:
        choices = [{"index": 0, "message": {"role": "assistant", "content": "word"}, "finish_reason": "stop"}]
        match rng.randrange(60):
            case 0:
                await exchange.reply({"error": {"message": "broken"}}, 500)
            case 1:
                await exchange.reply({"choices": choices})
            case 2:
                exchange.reset()
            case 3:
                await exchange.head(200, "content-length: 1000")
                exchange.close()
            case _:
                await exchange.reply({"choices": choices, "usage": usage})

    async def _stream(self, exchange: Exchange, rng: Random, usage: dict[str, int]) -> None:
        await exchange.begin_stream()
        for _ in range(rng.randrange(4)):
            await exchange.event({"choices": [{"index": 0, "delta": {"content": "word "}}]})
            await pass_time(rng.uniform(0, 0.02))
        if rng.random() < 0.03:
            exchange.close()
            return
        last: dict[str, Any] = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        await exchange.event(last if rng.random() < 0.1 else {**last, "usage": usage})
        await exchange.end_stream()


def _some(rng: Random, most: int) -> int:
    return most if rng.random() < 0.2 else rng.randint(0, most)


class Peer:
    """One connection with any number of calls in flight; None is answered to those that it ends without an answer."""

    def __init__(self, stream: UNIXSocketStream) -> None:
        self._stream = stream
        self._numbers = count(1)
        self._waiting: dict[int, anyio.Event] = {}
        self._replies: dict[int, Any] = {}
        self._writing = anyio.Lock()

    async def read(self) -> None:
        buffer = bytearray()
        try:
            while True:
                buffer += await self._stream.receive(65536)
                *lines, rest = buffer.split(b"\n")
                buffer = rest
                for line in lines:
                    reply = json.loads(line)
                    if "id" in reply:
                        self._replies[reply["id"]] = reply
                        self._waiting[reply["id"]].set()
        except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
            for event in self._waiting.values():
                event.set()

    async def call(self, method: str, *, cancel_after: float | None = None, **params: Any) -> Any:
        """The result, or the error object."""
        number = next(self._numbers)
        answered = self._waiting[number] = anyio.Event()
        await self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        if cancel_after is not None:
            with anyio.move_on_after(cancel_after):
                await answered.wait()
            await self._send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": number}})
        await answered.wait()
        reply = self._replies.pop(number, {})
        return reply.get("result", reply.get("error"))

    async def _send(self, message: Any) -> None:
        async with self._writing:
            await self._stream.send(json.dumps(message).encode() + b"\n")

    async def close(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def connected(socket: Path, group: TaskGroup) -> AsyncIterator[Peer]:
    peer = Peer(await anyio.connect_unix(socket))
    group.start_soon(peer.read)
    try:
        yield peer
    finally:
        await peer.close()


def branches(tree: Any) -> list[Any]:
    """All budgets of a page of `budget.tree`."""
    found = list(tree["budgets"])
    for each in found:
        found += each["below"]
    return found


def check_branch(branch: Any, billed: list[int], cap: int | None) -> None:
    """What was billed before this was told is covered, and nothing is beyond the limit."""
    covered = [branch["settled"][unit] + branch["held"][unit] for unit in UNITS]
    assert all(map(int.__le__, billed, covered)), (branch["label"], billed, covered)
    assert cap is None or covered[0] <= cap
    assert not any(branch["overrun"].values())
