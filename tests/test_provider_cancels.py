"""A cancelled call is really aborted upstream, at whatever point it was, and leaves nothing behind."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from llmd.core.outcomes import Answer
from llmd.settings import KeySettings
from tests.support.calls import Caller, caller
from tests.support.processes import ended
from tests.support.upstream import Exchange, scripted

pytestmark = pytest.mark.anyio

Point = Callable[[Exchange], Awaitable[None]]


async def before_headers(exchange: Exchange) -> None:
    pass


async def after_headers(exchange: Exchange) -> None:
    await exchange.begin_stream()


async def within_a_chunk(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.send(b'ff\r\ndata: {"choices": [')


async def between_events(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.event({"choices": [{"delta": {"content": "one"}}]})


async def behind_the_end_mark(exchange: Exchange) -> None:
    await between_events(exchange)
    await exchange.event(b"[DONE]")


POINTS = [before_headers, after_headers, within_a_chunk, between_events, behind_the_end_mark]


async def cancelled_at(point: Point, upstream: "Stalling", made: Caller) -> None:
    """Make one call, cancel it when the upstream has said what `point` says, and wait until it sees the abort."""
    upstream.point = point
    async with anyio.create_task_group() as group:
        reached = upstream.expect()
        group.start_soon(made.send, True)
        await reached.wait()
        if point is between_events:
            await made.first_delta.wait()
        group.cancel_scope.cancel()


class Stalling:
    """A script that says what `point` says, then nothing more until the client goes."""

    def __init__(self) -> None:
        self.point: Point = before_headers
        self.aborted = 0
        self._reached = anyio.Event()

    def expect(self) -> anyio.Event:
        self._reached = anyio.Event()
        return self._reached

    async def __call__(self, exchange: Exchange) -> None:
        await self.point(exchange)
        self._reached.set()
        await exchange.gone()
        self.aborted += 1


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.__name__)
async def test_a_cancel_closes_the_connection_upstream(point: Point) -> None:
    stalling = Stalling()
    async with scripted(stalling) as upstream, caller(upstream.url) as made:
        await cancelled_at(point, stalling, made)
        await upstream.until(lambda up: up.open == 0)
        assert stalling.aborted == 1


async def test_a_cancel_while_the_caller_is_not_reading_closes_the_connection_upstream() -> None:
    stalling = Stalling()
    stalling.point = between_events
    entered = anyio.Event()

    async def never(delta: object) -> None:
        entered.set()
        await anyio.sleep_forever()

    async with scripted(stalling) as upstream, caller(upstream.url) as made:
        async with anyio.create_task_group() as group:
            group.start_soon(made.provider.send, made.call(stream=True), never)
            await entered.wait()
            group.cancel_scope.cancel()
        await upstream.until(lambda up: up.open == 0)


async def test_two_hundred_cancels_at_every_point_leave_no_descriptor() -> None:
    stalling = Stalling()

    async def script(exchange: Exchange) -> None:
        await (exchange.reply() if b"last" in exchange.request.body else stalling(exchange))

    async with scripted(script) as upstream, caller(upstream.url) as made:
        await cancelled_at(before_headers, stalling, made)
        await upstream.until(lambda up: up.open == 0)
        before = len(os.listdir("/proc/self/fd"))
        for number in range(200):
            await cancelled_at(POINTS[number % len(POINTS)], stalling, made)
        await upstream.until(lambda up: up.open == 0)
        assert len(os.listdir("/proc/self/fd")) <= before
        assert stalling.aborted == 201
        assert isinstance(await made.provider.send(made.call(prompt="last"), None), Answer)


async def test_a_cancel_before_the_connection_stands_writes_nothing() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply()

    async with scripted(script) as upstream, caller(upstream.url) as made:
        async with anyio.create_task_group() as group:
            group.start_soon(made.send)
            group.cancel_scope.cancel()
        assert isinstance(await made.send(), Answer)
        assert len(upstream.requests) == 1


async def test_a_cancel_ends_the_command_that_a_key_is_waited_for_from(tmp_path: Path) -> None:
    told, never = tmp_path / "told", tmp_path / "never"
    os.mkfifo(told)
    os.mkfifo(never)
    key = KeySettings(command=["/bin/sh", "-c", f'echo $$ > "{told}"; exec cat "{never}"'])

    async def script(exchange: Exchange) -> None:
        await exchange.reply()

    async with scripted(script) as upstream, caller(upstream.url, key) as made:
        async with anyio.create_task_group() as group:
            group.start_soon(made.send)
            process = await anyio.Path(told).read_text()
            group.cancel_scope.cancel()
        await ended(int(process))
        assert upstream.requests == []
