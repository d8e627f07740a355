"""Operations that may come twice: with the same idempotency key and params, the second gets the first one's answer.

One that still runs is joined. The answer is kept in the same batch as what it tells of, so that after a crash there are
both or neither; and only answers that stand for something in the ledger are kept.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import anyio
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmd.chat import Ask, Completion
from llmd.context import Context
from llmd.core.amounts import by_unit, pack_all
from llmd.core.answers import Told, conflict, outcome_unknown, row_of
from llmd.errors import LLMError
from llmd.treasury import Treasury

T = TypeVar("T", bound=Struct)

Keep = Callable[[Struct], None]
"""Takes an operation's answer, in the same breath in which the ledger changes."""


class _Running:
    """One that has begun, and how many wait for it."""

    def __init__(self, params: str) -> None:
        self.params = params
        self.done = anyio.Event()
        self.scope = anyio.CancelScope()
        self.callers = 0
        self.done_with: Completion | None = None
        self.error: Exception | None = None

    def completion(self) -> Completion:
        """Raises what it has ended with; called off by another, or by the daemon's end, it is cancelled."""
        if self.error is not None:
            raise self.error
        if self.done_with is None:
            raise LLMError("cancelled", "the call was cancelled", reason="shutting_down")
        return self.done_with


class Replays:
    """The keys that have come to `treasury`."""

    def __init__(self, treasury: Treasury) -> None:
        self._treasury = treasury
        self._running: dict[str, _Running] = {}
        self._idle = anyio.Event()

    async def once(
        self, scope: tuple[Any, ...], params: Struct, run: Callable[[Keep], Awaitable[T]], kind: type[T]
    ) -> T:
        """What `run` returns, or what it returned when this key came first.

        scope  the key, and what it is a key of; without one (the last is None), there is nothing to replay
        """
        if scope[-1] is None:
            return await run(lambda answer: None)
        key, wanted = _digest(scope), _digest(params)
        if (data := await self._found(key, wanted)) is not None:
            return msgspec.json.decode(data, type=kind)
        with self._run(key, wanted):
            try:
                return await run(lambda answer: self._keep(key, wanted, answer))
            except LLMError:
                self._drop(key)  # what it told of is not there
                raise

    async def execute(self, ask: Ask, ctx: Context, run: Callable[[], Awaitable[Completion]]) -> Completion:
        """The completion of `run`, or the one that this key has had already: then it is `replayed`.

        The call is nobody's own: it outlives a caller whose connection was lost, and ends when the last one calls it
        off. It is not made again if it may have cost something: its error is kept, or `outcome_unknown` where it was
        cut. Raises deadline_exceeded of this caller's own.
        """
        with anyio.CancelScope(deadline=ctx.received + ask.timeout_ms / 1000):
            treasury = self._treasury
            await treasury.at_work()
            treasury.check()
            key = _digest((ctx.peer.uid, "execute", ask.budget, ask.idempotency_key))
            wanted = _digest(replace(ask, stream=None, timeout_ms=1, wait_ms=None, metadata={}))
            if (data := await self._found(key, wanted, ctx)) is not None:
                return msgspec.json.decode(data, type=Told).completion()
            call = self._running[key] = _Running(wanted)
            treasury.spawn(partial(self._make, key, call, ask, ctx, run))
            await self._join(call, ctx)
            return call.completion()
        raise ctx.overdue()

    async def _make(
        self, key: str, call: "_Running", ask: Ask, ctx: Context, run: Callable[[], Awaitable[Completion]]
    ) -> None:
        """Make the call, and keep how it ended."""
        treasury = self._treasury
        held = ask.budget is not None or treasury.roots.default is not None
        treasury.answers.begin(key, call.params, self._now_ms(), ctx.request_id, held=held)
        try:
            with call.scope:
                await treasury.flusher.settled()
                call.done_with = await run()
        except Exception as error:
            call.error = error
        finally:
            kept = Told(ok=call.done_with) if call.done_with is not None else None
            if kept is None and ctx.posted:
                cut = call.error is None or getattr(call.error, "kind", "deadline_exceeded") == "deadline_exceeded"
                told = outcome_unknown(by_unit(sum(map(pack_all, ctx.posted)))) if cut else call.error
                kept = Told(error=told.to_object()) if isinstance(told, LLMError) else None
            if kept is None:
                self._drop(key)
            else:
                self._keep(key, call.params, kept)
            del self._running[key]
            call.done.set()
            if not self._running:
                self._idle.set()

    async def _join(self, call: "_Running", ctx: Context) -> None:
        """Wait for its end; who goes on purpose and leaves nobody behind calls it off."""
        call.callers += 1
        try:
            await call.done.wait()
        finally:
            call.callers -= 1
            if not call.callers and not ctx.connection.ended:
                call.scope.cancel()

    async def idle(self) -> None:
        """Wait until no call with a key is running."""
        while self._running:
            self._idle = anyio.Event()
            await self._idle.wait()

    async def _found(self, key: str, params: str, ctx: Context | None = None) -> bytes | None:
        """What this key was answered with; one that still runs is waited for."""
        while (running := self._running.get(key)) is not None:
            if running.params != params:
                raise conflict()
            await (running.done.wait() if ctx is None else self._join(running, ctx))
        if not self._treasury.answers.is_answered(key, params):
            return None
        await self._treasury.flusher.flushed()
        return await self._treasury.journal.row(row_of(key))

    @contextmanager
    def _run(self, key: str, params: str) -> Iterator[None]:
        running = self._running[key] = _Running(params)
        try:
            yield
        finally:
            del self._running[key]
            running.done.set()

    def _keep(self, key: str, params: str, answer: Struct) -> None:
        self._treasury.answers.keep(key, params, self._now_ms(), answer)
        self._treasury.flusher.changed()

    def _now_ms(self) -> int:
        return self._treasury.steady_ms(self._treasury.clock.now())

    def _drop(self, key: str) -> None:
        self._treasury.answers.drop(key)
        self._treasury.flusher.changed()


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()[:40]
