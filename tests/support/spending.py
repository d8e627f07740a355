"""A tree of budgets spent from on all sides, and a provider with a meter of its own: what a crash is tried on.

`Meter` is the provider: it bills a request from the moment that it has it, and knows budgets only by what the prompt
says. `Spending` is everybody who calls, and remembers what was sent and what was acknowledged. Both count what happens
as `Moments`, at one of which the test strikes.
"""

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal

import anyio
import anyio.lowlevel
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.support.upstream import Exchange

INPUT_NANO, OUTPUT_NANO = 1_000, 2_000
MOMENTS_MAX = 1_500

CONFIG = """
[providers.up]
dialect = "openai"
base_url = "{url}"
overhead_tokens = 16
models.m.price = {{ input = 1, output = 2 }}

[[routing.rules]]
prefer = [{{ provider = "up", model = "m" }}]
retry = 0  # one request for each call: the audit tells them by their numbers

[ledger]
durability = "{durability}"

[budgets.monthly]
window = "month"
limits.total_tokens = {cap}
"""

REFUSALS = {
    *("budget_busy", "budget_closed", "budget_contended", "budget_exceeded"),
    *("deadline_exceeded", "upstream_rate_limited", "upstream_unavailable", "no_route"),
}
"""What may be answered under such a load, besides results."""

Kind = Literal["sent", "arrival", "chunk", "billed", "reply"]


class Gone(Exception):
    """The daemon is not there any more."""


class Moments:
    """Everything that happens, in order; `act` comes at the `number`th of one `kind`, or late if that never comes."""

    def __init__(self, kind: Kind, number: int, act: Callable[[], None]) -> None:
        self._kind = kind
        self._number = number
        self._act = act
        self._counted: Counter[str] = Counter()
        self.now = 0

    def __call__(self, kind: Kind) -> int:
        """Something happens. Returns its number in the order of everything."""
        self.now += 1
        self._counted[kind] += 1
        if (kind == self._kind and self._counted[kind] == self._number) or self.now == MOMENTS_MAX:
            self._act()
        return self.now


class Meter:
    """What the provider bills: tokens in and out by the number of a call, and whose budget its prompt named."""

    def __init__(self, rng: Random, moments: Moments) -> None:
        self.billed: dict[int, tuple[int, int]] = {}
        self.arrived: dict[int, int] = {}
        self.budgets: dict[int, str] = {}
        self._rng = rng
        self._moments = moments

    async def script(self, exchange: Exchange) -> None:
        request, rng = exchange.request.json(), self._rng
        number = request.get("max_tokens") or request["max_completion_tokens"]
        assert number not in self.arrived, "one request for each call"
        label = request["messages"][0]["content"].split()[-1]
        used = rng.randint(1, len(exchange.request.body)), rng.randint(1, number)
        refuses = rng.random() < 0.05
        if not refuses:
            self.billed[number] = used
        self.budgets[number] = label
        self.arrived[number] = self._moments("arrival")
        for _ in range(rng.randrange(40)):
            await anyio.lowlevel.checkpoint()
        if refuses:
            await exchange.reply({"error": {"message": "too many"}}, 429)
        elif rng.random() < 0.05:
            exchange.reset()
        elif request.get("stream"):
            await self._stream(exchange, used)
        else:
            choice = {"index": 0, "message": {"role": "assistant", "content": "spent"}, "finish_reason": "stop"}
            await exchange.reply({"id": "1", "model": "m", "choices": [choice], "usage": _usage(*used)})
            self._moments("billed")

    async def _stream(self, exchange: Exchange, used: tuple[int, int]) -> None:
        await exchange.begin_stream()
        for _ in range(self._rng.randint(1, 6)):
            await exchange.event({"choices": [{"index": 0, "delta": {"content": "spent "}}]})
            self._moments("chunk")
            await anyio.lowlevel.checkpoint()
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": _usage(*used)}
        await exchange.event(last)
        self._moments("billed")
        await exchange.end_stream()


def _usage(tokens_in: int, tokens_out: int) -> dict[str, int]:
    return {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}


class Caller:
    """One connection, one call at a time."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream
        self._lines = BufferedByteReceiveStream(stream)
        self._ids = itertools.count(1)

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The reply, with `result` or `error`. Raises Gone."""
        message = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        try:
            await self._stream.send(json.dumps(message).encode() + b"\n")
            while True:
                reply: dict[str, Any] = json.loads(await self._lines.receive_until(b"\n", 2**24))
                if "method" not in reply:
                    return reply
        except (anyio.BrokenResourceError, anyio.EndOfStream, anyio.IncompleteRead, OSError):
            raise Gone from None


async def calling(stack: AsyncExitStack, socket: Path) -> Caller:
    try:
        return Caller(await stack.enter_async_context(await anyio.connect_unix(os.fspath(socket))))
    except OSError:
        raise Gone from None


@dataclass
class Asked:
    """One operation: when it was sent and answered in the order of moments, and the answer.

    replayed  the answer is that of a later life, in which it came again
    """

    method: str
    params: dict[str, Any]
    sent: int
    answered: int | None = None
    reply: dict[str, Any] = field(default_factory=dict)
    replayed: bool = False

    @property
    def result(self) -> dict[str, Any] | None:
        """None where it was refused, or nobody knows."""
        return self.reply.get("result")


@dataclass
class Node:
    label: str
    parent: str | None
    handle: str
    id: str


class Spending:
    """Everybody who spends, on connections of their own."""

    def __init__(self, rng: Random, moments: Moments, socket: Path, cap: int, *, windowed: bool) -> None:
        self.asked: list[Asked] = []
        self.nodes: dict[str, Node] = {}
        self.closed: set[str] = set()
        self.root = "monthly" if windowed else "a"
        self._rng = rng
        self._moments = moments
        self._socket = socket
        self._cap = cap
        self._windowed = windowed
        self._numbers = itertools.count(16)

    async def plant(self) -> None:
        """The tree: a -> b -> four of c, with guarantees, or below the root of the month without."""
        cap = self._cap
        async with AsyncExitStack() as stack:
            caller = await calling(stack, self._socket)
            if self._windowed:
                found = await caller.call("budget.get", budget="monthly")
                self.nodes["monthly"] = Node("monthly", None, "monthly", found["result"]["id"])
            else:
                await self.open(caller, "a", None, cap, 0)
            await self.open(caller, "b", self.root, cap * 7 // 10, cap * 3 // 10)
            for number in range(4):
                await self.open(caller, f"c{number}", "b", cap * 3 // 10, cap // 20)

    async def run(self) -> None:
        """Spend until the daemon is gone."""
        async with anyio.create_task_group() as group:
            for work in [self._execute] * 12 + [self._charge] * 3 + [self._open_and_close] * 2 + [self._resize]:
                group.start_soon(self._repeat, work)

    async def _repeat(self, work: Callable[[Caller], Any]) -> None:
        try:
            async with AsyncExitStack() as stack:
                caller = await calling(stack, self._socket)
                while True:
                    await work(caller)
        except Gone:
            pass

    async def ask(self, caller: Caller, method: str, **params: Any) -> Asked:
        asked = Asked(method, params, self._moments("sent"))
        self.asked.append(asked)
        asked.reply = await caller.call(method, **params)
        asked.answered = self._moments("reply")
        assert asked.result is not None or asked.reply["error"]["data"]["kind"] in REFUSALS, asked
        return asked

    async def open(self, caller: Caller, label: str, parent: str | None, limit: int, guarantee: int) -> None:
        params: dict[str, Any] = {"label": label, "total": limit, "idempotency_key": f"open {label}"}
        if parent is not None:
            params["parent"] = self.nodes[parent].handle
        if guarantee and not self._windowed:
            params["guarantee"] = {"total_tokens": guarantee}
        asked = await self.ask(caller, "budget.open", **params)
        if asked.result is not None:
            self.nodes[label] = Node(label, parent, asked.result["budget"], asked.result["id"])

    def _any(self) -> Node:
        """Now and then one that is closing, or closed."""
        node = self._rng.choice(list(self.nodes.values()))
        return node if node.label not in self.closed or self._rng.random() < 0.1 else self._any()

    async def _execute(self, caller: Caller) -> None:
        number, node = next(self._numbers), self._any()
        params = {"prompt": f"spend {node.label}", "max_tokens": number, "budget": node.handle}
        if self._rng.random() < 0.4:
            params["stream"] = f"s{number}"
        if self._rng.random() < 0.05:
            params["timeout_ms"] = self._rng.randint(1, 30)
        await self.ask(caller, "execute", **params, wait_ms=100)

    async def _charge(self, caller: Caller) -> None:
        number, node = next(self._numbers), self._any()
        params: dict[str, Any] = {"amounts": {"total_tokens": self._rng.randint(1, 50)}, "note": f"charge {number}"}
        if self._rng.random() < 0.5:
            params["idempotency_key"] = params["note"]
        await self.ask(caller, "budget.charge", budget=node.handle, **params)

    async def _open_and_close(self, caller: Caller) -> None:
        label = f"d{next(self._numbers)}"
        parent = self._rng.choice([known for known in self.nodes if known[0] in "bc"])
        await self.open(caller, label, parent, 3_000, self._rng.choice([0, 200]))
        for _ in range(self._rng.randrange(4)):
            await self._charge(caller)
        if label in self.nodes and self._rng.random() < 0.7:
            mode = self._rng.choice(["drain", "cancel"])
            self.closed.add(label)
            await self.ask(caller, "budget.close", budget=self.nodes[label].handle, mode=mode)

    async def _resize(self, caller: Caller) -> None:
        number, cap = self._rng.randrange(4), self._cap
        child = self.nodes[f"c{number}"].id
        limits = {"total_tokens": self._rng.randint(cap // 10, cap // 2)}
        guarantee = {} if self._windowed else {"total_tokens": self._rng.choice([0, cap // 30])}
        b = self.nodes["b"].handle
        await self.ask(caller, "budget.resize", budget=b, child=child, limits=limits, guarantee=guarantee)
