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

from llmd.core.answers import Answered, conflict
from llmd.errors import LLMError
from llmd.treasury import ANSWER, INDEX, Treasury

T = TypeVar("T", bound=Struct)

Keep = Callable[[Struct], None]
"""Takes an operation's answer, in the same breath in which the ledger changes."""


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
        while (running := self._running.get(key)) is not None:
            if running.params != wanted:
                raise conflict()
            await running.done.wait()
        if self._treasury.answers.is_answered(key, wanted):
            await self._treasury.flusher.flushed()
            data = await self._treasury.journal.row(ANSWER + key)
            if data is not None:
                return msgspec.json.decode(data, type=kind)
        with self._run(key, wanted):
            return await run(lambda answer: self._keep(key, wanted, answer))

    @contextmanager
    def _run(self, key: str, params: str) -> Iterator[None]:
        running = self._running[key] = _Running(params)
        try:
            yield
        except LLMError:
            self._drop(key)
            raise
        finally:
            del self._running[key]
            running.done.set()

    def _keep(self, key: str, params: str, answer: Struct) -> None:
        data = msgspec.json.encode(answer)
        answered = Answered(params, self._treasury.clock.now().wall_ms, len(data))
        self._treasury.answers.keep(key, answered)
        self._treasury.ledger.changes.row(INDEX + key, msgspec.json.encode(answered))
        self._treasury.ledger.changes.row(ANSWER + key, data)

    def _drop(self, key: str) -> None:
        """What it told of is not there."""
        if self._treasury.answers.drop(key):
            self._treasury.ledger.changes.row(INDEX + key, None)
            self._treasury.ledger.changes.row(ANSWER + key, None)


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()[:40]
