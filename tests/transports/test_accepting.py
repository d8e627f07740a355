"""Accepting goes on when descriptors run out, and stops for anything else."""

import errno
from typing import Any

import anyio
import pytest

from llmd.rpc.hub import Hub
from llmd.transports.accepting import accept_all

pytestmark = pytest.mark.anyio


def hub() -> Hub:
    unused: Any = None
    return Hub(unused, unused)


class Listener:
    """Accepts what its script says: an error, or a stream."""

    def __init__(self, script: list[Any]) -> None:
        self._script = iter(script)

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        self.closed = True

    closed = False

    async def accept(self) -> Any:
        step = next(self._script, None)
        if step is None:
            await anyio.sleep_forever()
        if isinstance(step, int):
            error = anyio.BrokenResourceError()
            error.__cause__ = OSError(step, "scripted")
            raise error
        return step


class Stream:
    """Says that it was closed."""

    def __init__(self) -> None:
        self.closed = anyio.Event()

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        self.closed.set()


async def test_out_of_descriptors_connections_wait_and_are_then_served() -> None:
    stream, served = Stream(), anyio.Event()

    async def serve(given: object) -> None:
        assert given is stream
        served.set()

    async with anyio.create_task_group() as group:
        listener: Any = Listener([errno.EMFILE, errno.ENFILE, errno.ECONNABORTED, stream])
        group.start_soon(accept_all, listener, hub(), group, serve)
        await served.wait()
        await stream.closed.wait()
        group.cancel_scope.cancel()


async def test_a_mistake_of_ours_ends_one_connection_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    first, second = Stream(), Stream()

    async def serve(given: object) -> None:
        if given is first:
            raise RuntimeError("can" + "ary")

    async with anyio.create_task_group() as group:
        listener: Any = Listener([first, second])
        group.start_soon(accept_all, listener, hub(), group, serve)
        await first.closed.wait()
        await second.closed.wait()
        group.cancel_scope.cancel()
    assert "a connection failed: RuntimeError" in caplog.text
    assert "canary" not in caplog.text


async def test_a_daemon_that_stops_accepts_no_more_and_closes_the_listener() -> None:
    shared, listener = hub(), Listener([])
    given: Any = listener
    async with anyio.create_task_group() as group:
        group.start_soon(accept_all, given, shared, group, lambda stream: anyio.sleep_forever())
        await anyio.wait_all_tasks_blocked()
        assert not listener.closed
        shared.stopping.set()
    assert listener.closed


async def test_any_other_error_is_not_hidden() -> None:
    listener: Any = Listener([errno.EBADF])
    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as group:
            await accept_all(listener, hub(), group, lambda stream: anyio.sleep_forever())
    assert caught.group_contains(anyio.BrokenResourceError)
