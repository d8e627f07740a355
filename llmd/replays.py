"""Operations that may come twice: with the same idempotency key and params, the second gets the first one's answer.

One that still runs is joined. The answer is kept in the same batch as what it tells of, so that after a crash there are
both or neither; and only answers that stand for something in the ledger are kept.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import anyio
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmd.chat import Ask, Completion
from llmd.context import Context
from llmd.core.amounts import by_unit, pack_all
from llmd.core.answers import Answered, conflict, outcome_unknown
from llmd.errors import LLMError
from llmd.treasury import ANSWER, INDEX, Treasury

T = TypeVar("T", bound=Struct)

Keep = Callable[[Struct], None]
"""Takes an operation's answer, in the same breath in which the ledger changes."""


class _Told(Struct, frozen=True, omit_defaults=True):
    """How a call has ended: one of these."""

    ok: Completion | None = None
    error: dict[str, Any] | None = None

    def completion(self) -> Completion:
        """Raises the error."""
        if self.ok is not None:
            return replace(self.ok, replayed=True)
        assert self.error is not None
        data = dict(self.error["data"])
        raise LLMError(data.pop("kind"), self.error["message"], retryable=data.pop("retryable"), **data)


class _Running:
    def __init__(self, params: str) -> None:
        self.params = params
        self.done = anyio.Event()


class Replays:
    """The keys that have come to `treasury`."""

    def __init__(self, treasury: Treasury) -> None:
        self._treasury = treasury
        self._running: dict[str, _Running] = {}

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

        A call that may have cost something is not made again: its error is kept, or `outcome_unknown` where it was cut.
        """
        treasury = self._treasury
        await treasury.ready()
        treasury.check()
        key = _digest((ctx.peer.uid, "execute", ask.budget, ask.idempotency_key))
        wanted = _digest(replace(ask, stream=None, timeout_ms=1, wait_ms=None, metadata={}))
        if (data := await self._found(key, wanted)) is not None:
            return msgspec.json.decode(data, type=_Told).completion()
        with self._run(key, wanted):
            begun = treasury.clock.now().wall_ms
            held = ask.budget is not None or treasury.has_default
            self._note(key, Answered(wanted, begun, call=ctx.request_id, held=held))
            try:
                await treasury.flusher.settled()
                done = await run()
            except BaseException as error:
                if not ctx.posted:
                    self._drop(key)
                else:
                    cut = outcome_unknown(by_unit(sum(map(pack_all, ctx.posted))))
                    kept = error if isinstance(error, LLMError) else cut
                    self._keep(key, wanted, _Told(error=kept.to_object()))
                raise
            self._keep(key, wanted, _Told(ok=done))
            return done

    async def _found(self, key: str, params: str) -> bytes | None:
        """What this key was answered with; one that still runs is waited for."""
        while (running := self._running.get(key)) is not None:
            if running.params != params:
                raise conflict()
            await running.done.wait()
        if not self._treasury.answers.is_answered(key, params):
            return None
        await self._treasury.flusher.flushed()
        return await self._treasury.journal.row(ANSWER + key)

    @contextmanager
    def _run(self, key: str, params: str) -> Iterator[None]:
        running = self._running[key] = _Running(params)
        try:
            yield
        finally:
            del self._running[key]
            running.done.set()

    def _keep(self, key: str, params: str, answer: Struct) -> None:
        data = msgspec.json.encode(answer)
        self._note(key, Answered(params, self._treasury.clock.now().wall_ms, len(data)))
        self._treasury.ledger.changes.row(ANSWER + key, data)

    def _note(self, key: str, answered: Answered) -> None:
        self._treasury.answers.keep(key, answered)
        self._treasury.ledger.changes.row(INDEX + key, msgspec.json.encode(answered))
        self._treasury.forget(self._treasury.clock.now())
        self._treasury.flusher.changed()

    def _drop(self, key: str) -> None:
        self._treasury.flusher.changed()
        self._treasury.drop_answer(key)


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()[:40]
