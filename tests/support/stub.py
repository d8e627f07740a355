"""A provider in the test's own process that answers when and what the test says, and remembers what it was sent."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
from anyio.abc import TaskGroup

from llmd.chat import Ask, Chat, Completion, Usage
from llmd.core.outcomes import Answer, Outcome
from llmd.core.rows import ModelRow
from llmd.dialects.base import Emit, HttpCall
from llmd.errors import LLMError
from llmd.executor import Executor
from tests.support.metered import metered_upstreams
from tests.support.treasuries import Bank, bank, context, settle_down

OVERHEAD = 8  # of the row that metered_upstreams makes


class Sent(msgspec.Struct):
    said: str
    max_tokens: int | None


def used(inputs: int, outputs: int) -> Answer:
    usage = Usage(input_tokens=inputs, output_tokens=outputs, total_tokens=inputs + outputs)
    return Answer(text="", finish_reason="stop", usage=usage)


def input_bound(said: str, max_tokens: int) -> int:
    """The most input tokens of such a call: its bytes, and the overhead."""
    return len(msgspec.json.encode(Sent(said, max_tokens))) + OVERHEAD


HELD = input_bound("x", 100) + 100
"""What a call for 100 tokens holds."""


class Stub:
    """`go` lets the calls in it answer `outcome`; `counted` is what it counts."""

    def __init__(self, outcome: Outcome | None = None, counted: int | None = None) -> None:
        self.outcome = outcome or used(1, 1)
        self.sent: list[Sent] = []
        self.counted = counted
        self.counts = 0
        self.aborted = 0
        self.go = anyio.Event()

    def request(self, chat: Chat, row: ModelRow, max_tokens: int | None, stream: bool) -> HttpCall:
        body = msgspec.json.encode(Sent(chat.prompt or "", max_tokens))
        return HttpCall(row=row, url="stub:", headers={}, body=body, stream=stream, dropped=[])

    async def count(self, call: HttpCall) -> int | None:
        await anyio.lowlevel.checkpoint()
        self.counts += 1
        return self.counted

    async def send(self, call: HttpCall, emit: Emit | None) -> Outcome:
        self.sent.append(msgspec.json.decode(call.body, type=Sent))
        try:
            await self.go.wait()
        except BaseException:
            self.aborted += 1
            raise
        return self.outcome


class Calling:
    """One call that runs beside the test: `end` is its Completion or its error, None as long as it runs."""

    def __init__(self) -> None:
        self.end: Completion | LLMError | None = None
        self.scope = anyio.CancelScope()
        self.over = anyio.Event()

    @property
    def kind(self) -> str | None:
        return self.end.kind if isinstance(self.end, LLMError) else None

    async def run(self, executor: Executor, ask: Ask, emit: Emit | None) -> None:
        with self.scope:
            try:
                self.end = await executor.execute(ask, context(), emit)
            except LLMError as error:
                self.end = error
        self.over.set()


class Caller:
    """Makes calls under the budgets of a bank, in `group`."""

    def __init__(self, bank: Bank, group: TaskGroup, stub: Stub | None = None, **settings: Any) -> None:
        self.stub = stub or Stub()
        upstreams = metered_upstreams(self.stub, **settings)
        self.executor = Executor(lambda: upstreams, bank.payer, roll=lambda: 0.0)
        self._group = group

    async def begin(self, budget: str | None, said: str = "x", **params: Any) -> Calling:
        """A call, when it has got as far as it gets by itself."""
        calling = Calling()
        ask = msgspec.convert({"prompt": said, "budget": budget, **params}, Ask)
        self._group.start_soon(calling.run, self.executor, ask, None)
        await settle_down()
        return calling

    async def finish(self) -> None:
        """Have every call answer that was sent."""
        go, self.stub.go = self.stub.go, anyio.Event()
        go.set()
        await settle_down()


@asynccontextmanager
async def calling(
    stub: Stub | None = None, configured: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[tuple[Bank, Caller]]:
    """A bank, and who calls under its budgets; behind it nothing is held and nobody waits."""
    async with bank(configured=configured) as opened, anyio.create_task_group() as group:
        yield opened, Caller(opened, group, stub, **settings)
        group.cancel_scope.cancel()
    assert opened.is_at_rest()
