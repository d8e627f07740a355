"""The output queue: bytes in order, at most a chunk at a time, and waits that end exactly when enough is written."""

from collections.abc import Awaitable, Callable

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.rpc.output import CHUNK_BYTES, Output
from tests.support.sessions import DEADLINE_S, Runner

pytestmark = pytest.mark.anyio

HIGH_WATER = 10


class Waiter:
    """Whether a wait that was started has ended."""

    def __init__(self, wait: Callable[[], Awaitable[object]]) -> None:
        self._wait = wait
        self.ended = False
        self.result: object = None

    async def run(self) -> None:
        with anyio.fail_after(DEADLINE_S):
            self.result = await self._wait()
        self.ended = True


async def _drain(output: Output) -> list[bytes]:
    taken = []
    while output.size:
        taken.append(await output.take())
        output.written(len(taken[-1]))
    return taken


async def test_small_messages_leave_together_in_order() -> None:
    output = Output(HIGH_WATER)
    for message in (b"one\n", b"two\n", b"three\n"):
        output.push(message)
    assert await output.take() == b"one\ntwo\nthree\n"


async def test_a_long_message_leaves_in_chunks_and_what_follows_stays_behind_it() -> None:
    output = Output(HIGH_WATER)
    long = bytes(range(256)) * (CHUNK_BYTES // 256) * 2 + b"end\n"
    output.push(long)
    output.push(b"next\n")
    assert await _drain(output) == [long[:CHUNK_BYTES], long[CHUNK_BYTES : 2 * CHUNK_BYTES], b"end\nnext\n"]


@given(
    messages=st.lists(st.integers(0, 3).flatmap(lambda n: st.binary(min_size=n, max_size=n + 2)), max_size=8),
    scale=st.sampled_from([1, 9_000, 40_000]),
)
def test_all_that_is_pushed_is_taken_in_order_and_chunks_are_bounded(messages: list[bytes], scale: int) -> None:
    output = Output(HIGH_WATER)
    for message in messages:
        output.push(message * scale)
    assert output.size == sum(map(len, messages)) * scale
    with Runner() as runner:
        taken = runner.run(_drain(output))
    assert b"".join(taken) == b"".join(message * scale for message in messages)
    assert all(len(chunk) <= CHUNK_BYTES for chunk in taken)
    assert output.size == 0


async def test_a_writer_waits_for_the_first_bytes_and_again_for_the_next() -> None:
    output = Output(HIGH_WATER)
    for message in (b"first", b"second"):
        waiter = Waiter(output.take)
        async with anyio.create_task_group() as group:
            group.start_soon(waiter.run)
            await anyio.wait_all_tasks_blocked()
            assert not waiter.ended
            output.push(message)
        assert waiter.result == message


async def test_room_is_there_up_to_the_high_water_mark_and_not_above() -> None:
    output = Output(HIGH_WATER)
    output.push(b"x" * HIGH_WATER)
    with anyio.fail_after(1):
        await output.room()
    output.push(b"x")
    first, second = Waiter(output.room), Waiter(output.room)
    async with anyio.create_task_group() as group:
        group.start_soon(first.run)
        group.start_soon(second.run)
        await anyio.wait_all_tasks_blocked()
        await output.take()
        await anyio.wait_all_tasks_blocked()
        assert not first.ended, "what is being written is not written yet"
        output.written(1)
        await anyio.wait_all_tasks_blocked()
        assert first.ended
        assert second.ended


async def test_flushed_waits_until_the_last_byte_is_written() -> None:
    output = Output(HIGH_WATER)
    with anyio.fail_after(1):
        await output.flushed()
    output.push(b"x" * (HIGH_WATER + 2))
    flushed, room = Waiter(output.flushed), Waiter(output.room)
    async with anyio.create_task_group() as group:
        group.start_soon(flushed.run)
        group.start_soon(room.run)
        await anyio.wait_all_tasks_blocked()
        output.written(HIGH_WATER)
        await anyio.wait_all_tasks_blocked()
        assert [room.ended, flushed.ended] == [True, False]
        output.written(1)
        await anyio.wait_all_tasks_blocked()
        assert not flushed.ended
        output.written(1)
    assert flushed.ended


class Taker:
    """A socket that takes so many bytes at a time without waiting."""

    def __init__(self, at_once: int) -> None:
        self.taken = bytearray()
        self.at_once = at_once

    def send_now(self, data: bytes | memoryview) -> int:
        self.taken += data[: self.at_once]
        return min(len(data), self.at_once)


async def test_flush_writes_at_once_what_can_be_written_and_leaves_the_rest_to_the_writer() -> None:
    taker = Taker(at_once=5)
    output = Output(HIGH_WATER, taker.send_now)
    output.push(b"one\n", wake=False)
    output.push(b"two\n", wake=False)
    assert taker.taken == b""
    output.flush()
    assert (taker.taken, output.size) == (b"one\nt", 3)
    assert await output.take() == b"wo\n"


async def test_nothing_overtakes_what_the_writer_has_in_its_hands() -> None:
    taker = Taker(at_once=100)
    output = Output(HIGH_WATER, taker.send_now)
    output.push(b"first")
    assert await output.take() == b"first"
    output.push(b"second", wake=False)
    output.flush()
    assert taker.taken == b""
    output.written(5)
    output.flush()
    assert (taker.taken, output.size) == (b"second", 0)


async def test_the_writer_wakes_for_what_a_flush_could_not_write() -> None:
    output = Output(HIGH_WATER, Taker(at_once=0).send_now)
    waiter = Waiter(output.take)
    async with anyio.create_task_group() as group:
        group.start_soon(waiter.run)
        await anyio.wait_all_tasks_blocked()
        output.push(b"late", wake=False)
        await anyio.wait_all_tasks_blocked()
        assert not waiter.ended
        output.flush()
    assert waiter.result == b"late"


async def test_a_wait_for_room_writes_first_what_waits_for_a_flush() -> None:
    taker = Taker(at_once=100)
    output = Output(HIGH_WATER, taker.send_now)
    output.push(b"x" * (HIGH_WATER + 1), wake=False)
    with anyio.fail_after(DEADLINE_S):
        await output.room()
    assert output.size == 0


async def test_push_never_waits_however_full_the_queue_is() -> None:
    output = Output(HIGH_WATER)
    for _ in range(1000):
        output.push(b"x" * CHUNK_BYTES)
    assert output.size == 1000 * CHUNK_BYTES
