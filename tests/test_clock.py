"""The two clocks: the loop's, which only goes forward, and the wall's."""

import time

import anyio
import anyio.lowlevel

from llmd.clock import Clock


def test_the_clock_tells_the_loops_time_in_seconds_and_the_walls_in_milliseconds() -> None:
    async def main() -> None:
        loop, wall = anyio.current_time(), time.time()
        now = Clock().now()
        assert loop <= now.mono <= anyio.current_time()
        assert int(wall * 1000) <= now.wall_ms <= time.time() * 1000

    anyio.run(main)


def test_the_forward_clock_is_the_one_that_deadlines_are_told_in() -> None:
    async def main() -> None:
        clock = Clock()
        with anyio.CancelScope(deadline=clock.now().mono - 1) as passed:
            await anyio.lowlevel.checkpoint()
        assert passed.cancelled_caught

    anyio.run(main)
