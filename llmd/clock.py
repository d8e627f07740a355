"""What time it is, for the shells; the cores are handed a Now and never ask. Sleeping is anyio's."""

import time
from typing import NamedTuple, Protocol


class Now(NamedTuple):
    """One moment: `mono` in seconds of a clock that never goes back, `wall` in seconds since the epoch."""

    mono: float
    wall: float


class Clock(Protocol):
    def now(self) -> Now: ...


class SystemClock:
    def now(self) -> Now:
        return Now(time.monotonic(), time.time())
