"""What connections share: how much is in flight, and when nothing is."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from llmd.errors import LLMError
from llmd.rpc.hub import STRANGERS_MAX, Hub
from llmd.settings import Limits

pytestmark = pytest.mark.anyio


def hub() -> Hub:
    unused: Any = None
    return Hub(unused, unused)


async def test_calls_and_their_bytes_are_counted_while_they_run() -> None:
    shared = hub()
    shared.begin(100)
    shared.begin(20)
    assert (shared.in_flight, shared.input_bytes) == (2, 120)
    shared.finish(100)
    assert (shared.in_flight, shared.input_bytes) == (1, 20)


def refused(shared: Hub, connection: str, known: bool) -> str:
    """Why it may not enter; empty if it may."""
    try:
        shared.enter(connection, known=known)
    except LLMError as error:
        return error.kind
    return ""


async def test_strangers_are_counted_apart_and_are_few() -> None:
    unused: Any = None
    shared = Hub(unused, lambda: Limits(connections=100))
    strangers = [refused(shared, f"s{number}", known=False) for number in range(STRANGERS_MAX + 1)]
    assert strangers == [""] * STRANGERS_MAX + ["busy"]
    assert refused(shared, "s0", known=False) == "", "it is in"
    known = [refused(shared, f"k{number}", known=True) for number in range(101)]
    assert known == [""] * 100 + ["busy"]
    assert refused(shared, "s0", known=True) == "busy"
    shared.forget("k0")
    assert refused(shared, "s0", known=True) == ""
    assert refused(shared, "another", known=False) == "", "one stranger less"


async def ends_with(wait: Callable[[], Awaitable[None]], first: Callable[[], None], last: Callable[[], None]) -> None:
    """`wait` goes on waiting behind `first`, and ends behind `last`."""
    ended = anyio.Event()

    async def run() -> None:
        await wait()
        ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        first()
        await anyio.wait_all_tasks_blocked()
        assert not ended.is_set()
        last()
    assert ended.is_set()


async def test_idle_waits_for_the_last_call_and_no_longer() -> None:
    shared = hub()
    await shared.idle()
    shared.begin(0)
    shared.begin(0)
    await ends_with(shared.idle, lambda: shared.finish(0), lambda: shared.finish(0))


async def test_empty_waits_for_the_last_connection() -> None:
    shared = hub()
    first: Any = "first"
    second: Any = "second"
    shared.sessions |= {first, second}
    await ends_with(shared.empty, lambda: shared.leave(first), lambda: shared.leave(second))
