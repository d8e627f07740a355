"""What is on its way to providers: how each model is doing, and who waits for a place at a provider.

Outlives a reload, so that what was promised to a provider for this minute stays promised.
"""

from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Hashable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import anyio

from llmd.catalog import ProviderRow
from llmd.core.health import Health, Reason, Trouble
from llmd.core.pacing import Step, Window
from llmd.core.rows import ModelRow

TARGETS_MAX = 4096


class _Waiter:
    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.turn = anyio.Event()


class WindowFull(Exception):
    """There is no room in this minute: `trouble` says when there is."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.reason)
        self.trouble = trouble


@dataclass
class Place:
    """A call's place at a provider: what it takes of the minute, `used` tokens, and whether it was sent after all."""

    request: Step
    estimate: Step
    used: int
    sent: bool = False


class Gate:
    """A provider's places: calls in flight at once, requests and tokens a minute.

    Who waits is let in in order of arrival, each caller in turn with the others.
    """

    def __init__(self) -> None:
        self._places: int | None = None
        self._requests, self._tokens = Window(), Window()
        self._in_flight = 0
        self._queues: OrderedDict[Hashable, deque[_Waiter]] = OrderedDict()

    def limit(self, row: ProviderRow) -> None:
        """Take these limits from now on."""
        self._places = row.max_concurrency
        self._requests.limit, self._tokens.limit = row.requests_per_minute, row.tokens_per_minute
        self._call_next()

    def full_until(self, now: float) -> float | None:
        """When a minute's windows have room again, None if they have."""
        free = max(self._requests.free_at(now, 1), self._tokens.free_at(now, 1))
        return free if free > now else None

    @asynccontextmanager
    async def place(self, caller: Hashable, tokens: int, *, patient: bool = True) -> AsyncIterator[Place]:
        """A place for a call of about so many tokens, which counts in its minute if it was `sent`.

        Raises WindowFull where the minute has no room and the caller is not `patient`.
        """
        await self._enter(caller, tokens, patient)
        now = anyio.current_time()
        place = Place(self._requests.take(now, 1), self._tokens.take(now, tokens), tokens)
        self._in_flight += 1
        self._call_next()
        try:
            yield place
        finally:
            self._in_flight -= 1
            if not place.sent:
                self._requests.correct(place.request, -1)
            self._tokens.correct(place.estimate, (place.used if place.sent else 0) - tokens)
            self._call_next()

    async def _enter(self, caller: Hashable, tokens: int, patient: bool) -> None:
        """Return in one's turn, when there is room."""
        if not self._queues and self._wait_s(tokens) == 0:
            return
        waiter, entered = _Waiter(tokens), False
        self._queues.setdefault(caller, deque()).append(waiter)
        try:
            while True:
                wait_s = self._wait_s(tokens) if self._next() is waiter else None
                if entered := wait_s == 0:
                    return
                if wait_s is not None and not patient:
                    raise WindowFull(Trouble("rate_window_full", anyio.current_time() + wait_s))
                waiter.turn = anyio.Event()
                with anyio.move_on_after(wait_s):
                    await waiter.turn.wait()
        finally:
            queue = self._queues[caller]
            queue.remove(waiter)
            if not queue:
                del self._queues[caller]
            elif entered:
                self._queues.move_to_end(caller)
            self._call_next()

    def _wait_s(self, tokens: int) -> float | None:
        """Seconds until there is room, 0 if there is; None where somebody has to leave first."""
        if self._places is not None and self._in_flight >= self._places:
            return None
        now = anyio.current_time()
        return max(self._requests.free_at(now, 1), self._tokens.free_at(now, tokens)) - now

    def _next(self) -> _Waiter | None:
        return next(iter(self._queues.values()))[0] if self._queues else None

    def _call_next(self) -> None:
        if (waiter := self._next()) is not None:
            waiter.turn.set()


class Traffic:
    """The gates of providers and the health of their models."""

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}
        self._healths: dict[str, Health] = {}

    def configure(self, rows: Mapping[str, ProviderRow]) -> None:
        """These are the providers from now on. What their models have failed with may have been mended."""
        for name, row in rows.items():
            self._gates.setdefault(name, Gate()).limit(row)
        for health in self._healths.values():
            health.mended()

    def gate(self, provider: str) -> Gate:
        return self._gates[provider]

    def health(self, row: ModelRow) -> Health:
        """How this model is doing; of those that have not been used for longest, nothing is known any more."""
        health = self._healths.pop(row.target, None) or Health()
        self._healths[row.target] = health
        if len(self._healths) > TARGETS_MAX:
            del self._healths[next(iter(self._healths))]
        return health

    def trouble(self, row: ModelRow, now: float) -> Trouble | None:
        """What stands in the way of a call to this model now."""
        gate, health = self._gates.get(row.provider), self._healths.get(row.target)
        trouble = health.trouble(now) if health is not None else None
        if trouble is None and gate is not None and (until := gate.full_until(now)) is not None:
            return Trouble("rate_window_full", until)
        return trouble

    def states(self, now: float) -> dict[str, Reason | Literal["ready"]]:
        """Of each model that was called, by "provider/model", what stands in the way of a call, if anything does."""
        troubles = {target: health.trouble(now) for target, health in self._healths.items()}
        return {target: "ready" if trouble is None else trouble.reason for target, trouble in troubles.items()}

    def pace(self, row: ModelRow, streams: bool) -> float | None:
        """Seconds that an answer takes on average, or its first piece."""
        health = self._healths.get(row.target)
        return None if health is None else health.first_token_s if streams else health.total_s
