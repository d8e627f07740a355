"""Calls that run together: bounded, in order, none failing another."""

import anyio
import pytest

from llmd.chat import Completion
from llmd.errors import LLMError
from llmd.many import Result, together
from tests.support.treasuries import in_virtual_time


class Calls:
    """Calls that take as many seconds as their numbers say; those of `failing` end with these errors."""

    def __init__(self, seconds: list[float], failing: dict[int, Exception] | None = None) -> None:
        self.running = 0
        self.peak = 0
        self.ended: dict[int, Result] = {}
        self._seconds = seconds
        self._failing = failing or {}

    async def run(self, limit: int | None = None) -> None:
        await together([self._call(number) for number in range(len(self._seconds))], limit, self._end)

    def _call(self, number: int):  # type: ignore[no-untyped-def] # a coroutine function
        async def call() -> Completion:
            self.running += 1
            self.peak = max(self.peak, self.running)
            try:
                with anyio.move_on_after(self._seconds[number]):
                    await anyio.sleep_forever()
            finally:
                self.running -= 1
            if number in self._failing:
                raise self._failing[number]
            return number  # type: ignore[return-value] # stands for a completion

        return call

    async def _end(self, number: int, result: Result) -> None:
        self.ended[number] = result


@in_virtual_time
async def test_they_take_as_long_as_the_slowest_and_end_in_their_own_time() -> None:
    calls, began = Calls([3.0, 1.0, 2.0]), anyio.current_time()
    await calls.run()
    assert anyio.current_time() - began == pytest.approx(3.0)
    assert (list(calls.ended), calls.peak) == ([1, 2, 0], 3)


@in_virtual_time
async def test_no_more_run_at_once_than_may_and_the_next_begins_when_one_ends() -> None:
    calls, began = Calls([1.0] * 10), anyio.current_time()
    await calls.run(limit=3)
    assert anyio.current_time() - began == pytest.approx(4.0)
    assert (len(calls.ended), calls.peak) == (10, 3)


@in_virtual_time
async def test_one_that_fails_fails_no_other_even_where_llmd_is_broken(caplog: pytest.LogCaptureFixture) -> None:
    calls = Calls([1.0, 1.0, 2.0], {0: LLMError("no_route", "no"), 1: ValueError("a secret")})
    await calls.run()
    kinds = [result.kind if isinstance(result, LLMError) else "ok" for _, result in sorted(calls.ended.items())]
    assert kinds == ["no_route", "internal_error", "ok"]
    assert "ValueError" in caplog.text
    assert "a secret" not in caplog.text


@in_virtual_time
async def test_a_cancel_ends_all_of_them_and_starts_no_more() -> None:
    calls = Calls([1.0, 5.0, 5.0, 5.0])
    with anyio.move_on_after(2):
        await calls.run(limit=2)
    assert (list(calls.ended), calls.running) == ([0], 0)
