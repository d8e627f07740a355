"""A treasury in the test's own process: opened on a journal in memory, running, its wall clock the test's to set.

Time is virtual (`in_virtual_time`): a wait of an hour takes as long as the others need to have nothing left to do.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial, wraps
from typing import Any

import anyio
import msgspec
import pytest
import trio
from anyio.lowlevel import checkpoint
from trio.testing import MockClock

from llmd.books import (
    BudgetParams,
    ChargeParams,
    CloseParams,
    OpenParams,
    ResizeParams,
    Snapshot,
    Statement,
    StatementParams,
    Tree,
    TreeParams,
)
from llmd.budget_operations import BudgetOperations
from llmd.clock import Clock, Now
from llmd.context import Context, Notify, Peer
from llmd.core.budget import Budget
from llmd.errors import LLMError
from llmd.journal import Batch, DurabilityLost, WriteFailed
from llmd.journal.memory import MemoryJournal
from llmd.payer import Payer
from llmd.replays import Replays
from llmd.settings import BudgetSettings
from llmd.treasury import Treasury
from tests.support.sessions import OWN

START_MS = 1_795_000_000_000
BUDGETS_MAX = 1000


def in_virtual_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test on a clock that jumps ahead whenever everybody waits."""
    assert inspect.iscoroutinefunction(test)

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        trio.run(partial(test, *args, **kwargs), clock=MockClock(autojump_threshold=0))

    return run


async def pass_time(seconds: float) -> None:
    """Let virtual time pass."""
    with anyio.move_on_after(seconds):
        await anyio.sleep_forever()


async def settle_down() -> None:
    """Let everybody go on until all wait for something or for time to pass."""
    await anyio.wait_all_tasks_blocked()


class WallClock(Clock):
    """The loop's clock, and a wall clock that stands where the test has put it."""

    def __init__(self) -> None:
        self.wall_ms = START_MS
        self._ahead_s = 0.0

    def now(self) -> Now:
        return Now(anyio.current_time() + self._ahead_s, self.wall_ms)

    def skip(self, ms: int) -> None:
        """Be so much later by both clocks, at once."""
        self.wall_ms += ms
        self._ahead_s += ms / 1000


class ScriptedJournal(MemoryJournal):
    """A journal that fails when told to: `failing` refuses a batch whole, `lost` for good; `stall` has writes wait."""

    def __init__(self, image: Mapping[str, bytes] | None = None) -> None:
        super().__init__()
        self._rows.update(image or {})
        self._began = self.image()
        self.batches: list[Batch] = []
        self.failing = False
        self.lost = False
        self.closed = False
        self.reason: str | None = None
        self.writing = 0
        self.go = anyio.Event()
        self.go.set()

    @property
    def read_only(self) -> str | None:
        return self.reason

    def image(self) -> dict[str, bytes]:
        """What a crash at this moment leaves."""
        return dict(self._rows)

    def images(self) -> list[dict[str, bytes]]:
        """What a crash behind each of its writes would have left."""
        found, rows = [], self._began
        for batch in self.batches:
            rows = {key: row for key, row in {**rows, **batch.rows}.items() if row is not None}
            found.append(rows)
        return found

    def stall(self) -> None:
        """Have writes wait until `go` is set."""
        self.go = anyio.Event()

    async def write(self, batch: Batch) -> None:
        assert not self.writing, "one write at a time"
        self.writing += 1
        try:
            with anyio.CancelScope(shield=True):
                await checkpoint()
                await self.go.wait()
            if self.lost:
                raise DurabilityLost("the disk is gone")
            if self.failing or self.reason is not None:
                raise WriteFailed("the disk is full")
            await super().write(batch)
            self.batches.append(batch)
        finally:
            self.writing -= 1

    async def aclose(self) -> None:
        self.closed = True


class Line:
    """A connection: what runs on it is run by the test, in `group`; `end` is its end."""

    def __init__(self, *, ended: bool = False) -> None:
        self.ended = ended
        self.told: list[tuple[str, msgspec.Struct]] = []
        self.watches: dict[str, Callable[[Notify], Awaitable[None]]] = {}
        self.ends: list[Callable[[], None]] = []

    @contextmanager
    def stream(self, token: str) -> Any:
        raise AssertionError("nothing is streamed here")
        yield

    def watch(self, token: str, run: Callable[[Notify], Awaitable[None]]) -> None:
        self.watches[token] = run

    def unwatch(self, token: str) -> bool:
        return self.watches.pop(token, None) is not None

    def at_end(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.ends.append(callback)
        return lambda: self.ends.remove(callback)

    def end(self) -> None:
        for callback in list(self.ends):
            callback()

    async def notify(self, method: str, params: msgspec.Struct) -> None:
        await checkpoint()
        self.told.append((method, params))


def context(line: Line | None = None, peer: Peer = OWN, request_id: str = "r1") -> Context:
    return Context(peer, request_id, anyio.current_time(), line or Line())


class Bank:
    """A treasury with what works on it, and short words for what tests ask of it."""

    def __init__(self, treasury: Treasury, clock: WallClock, journal: ScriptedJournal) -> None:
        self.treasury = treasury
        self.clock = clock
        self.journal = journal
        self.replays = Replays(treasury)
        self.operations = BudgetOperations(treasury, self.replays)
        self.default_max_tokens = 1024
        self.payer = Payer(treasury, lambda: self.default_max_tokens)

    def budget(self, handle: str) -> Budget:
        return self.treasury.named(handle)

    async def open(self, total: int | None = 4000, ctx: Context | None = None, **params: Any) -> str:
        """Its handle."""
        if "limits" not in params:
            params["total"] = total
        opened = await self.operations.open(msgspec.convert(params, OpenParams), ctx or context())
        return opened.budget

    async def charge(self, handle: str, tokens: int, ctx: Context | None = None, **params: Any) -> Snapshot:
        asked = {"budget": handle, "amounts": {"total_tokens": tokens}, **params}
        return await self.operations.charge(msgspec.convert(asked, ChargeParams), ctx or context())

    async def resize(self, handle: str, **params: Any) -> Snapshot:
        return await self.operations.resize(msgspec.convert({"budget": handle, **params}, ResizeParams))

    async def close(self, handle: str, **params: Any) -> Statement:
        return await self.operations.close(msgspec.convert({"budget": handle, **params}, CloseParams), context())

    def get(self, handle: str) -> Snapshot:
        return self.operations.get(BudgetParams(budget=handle), context())

    def tree(self, handle: str, **more: Any) -> Tree:
        return self.operations.tree(msgspec.convert({"budget": handle, **more}, TreeParams), context())

    async def statement(self, handle: str, **more: Any) -> Statement:
        params = msgspec.convert({"budget": handle, **more}, StatementParams)
        return await self.operations.statement(params, context())

    def tokens(self, handle: str) -> tuple[int, int]:
        """How many are settled, and how many held."""
        told = self.get(handle)
        return told.settled.total_tokens, told.held.total_tokens

    def is_at_rest(self) -> bool:
        """Whether nothing is held and nobody waits."""
        treasury = self.treasury
        return not treasury.ledger.holds and not len(treasury.queues) and not treasury.aborts


@asynccontextmanager
async def bank(
    journal: ScriptedJournal | None = None,
    configured: Mapping[str, Mapping[str, Any]] | None = None,
    budgets_max: int = BUDGETS_MAX,
) -> AsyncIterator[Bank]:
    """Opened and running. Ends as a crash would: what was not written is lost."""
    clock, journal = WallClock(), journal or ScriptedJournal()
    treasury = Treasury(clock, settings(configured), budgets_max)
    async with anyio.create_task_group() as group:
        treasury.open(journal)
        group.start_soon(treasury.run)
        yield Bank(treasury, clock, journal)
        group.cancel_scope.cancel()


def settings(configured: Mapping[str, Mapping[str, Any]] | None) -> dict[str, BudgetSettings]:
    return {name: msgspec.convert(table, BudgetSettings) for name, table in (configured or {}).items()}


@contextmanager
def refused(kind: str, **data: Any) -> Any:
    """What is inside ends with this error, and `data` is part of its data."""
    with pytest.raises(LLMError) as caught:
        yield caught
    assert caught.value.kind == kind, caught.value
    assert {name: caught.value.data.get(name) for name in data} == data


def sum_of(entries: Iterable[Any], unit: str) -> int:
    """What entries of a statement have posted."""
    signs = {"settle": 1, "charge": 1, "undo": -1}
    return sum(signs.get(entry.kind, 0) * entry.amounts.get(unit, 0) for entry in entries)
