"""What time it is, twice: a clock that only goes forward, and the wall's."""

import time
from collections.abc import Callable
from typing import NamedTuple

import anyio


class Now(NamedTuple):
    """`mono` in seconds of the event loop's clock, for durations; `wall_ms` since the epoch, which may jump."""

    mono: float
    wall_ms: int


class Clock:
    """The machine's clocks; inside a running loop. `mono` is the loop's, asked directly where that is known."""

    def __init__(self, mono: Callable[[], float] = anyio.current_time) -> None:
        self._mono = mono

    def now(self) -> Now:
        return Now(self._mono(), time.time_ns() // 1_000_000)
