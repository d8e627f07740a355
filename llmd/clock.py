"""What time it is, twice: a clock that only goes forward, and the wall's."""

import time
from typing import NamedTuple

import anyio


class Now(NamedTuple):
    """`mono` in seconds of the event loop's clock, for durations; `wall_ms` since the epoch, which may jump."""

    mono: float
    wall_ms: int


class Clock:
    """The machine's clocks; inside a running loop."""

    def now(self) -> Now:
        return Now(anyio.current_time(), time.time_ns() // 1_000_000)
