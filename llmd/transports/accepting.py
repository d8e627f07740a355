"""Accepts connections: each a task of its own, closed behind whoever serves it."""

import errno
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from anyio.abc import SocketListener, TaskGroup

from llmd.errors import trace
from llmd.rpc.hub import Hub

log = logging.getLogger("llmd.transports")

RETRY_ACCEPT_S = 0.1
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_GONE_ALREADY = frozenset({errno.ECONNABORTED, errno.ECONNRESET, errno.ENOTCONN})


async def accept_all(
    listener: SocketListener, hub: Hub, connections: TaskGroup, serve: Callable[[Any], Awaitable[None]]
) -> None:
    """Accept until the daemon stops, each connection served as a task of `connections` and closed behind it."""

    async def one(stream: Any) -> None:
        async with stream:
            try:
                await serve(stream)
            except Exception as error:
                # A mistake of ours ends one connection, not the daemon.
                log.error("a connection failed: %s", trace(error))

    async def accept() -> None:
        waiting = False
        while True:
            try:
                connections.start_soon(one, await listener.accept())
                waiting = False
            except (OSError, anyio.BrokenResourceError) as error:
                cause = error.__cause__ if isinstance(error, anyio.BrokenResourceError) else error
                number = getattr(cause, "errno", None)
                if number in _OUT_OF_RESOURCES:  # what waits in the backlog is accepted when some are free again
                    if not waiting:
                        log.warning("out of descriptors or memory: connections wait")
                    waiting = True
                    await anyio.sleep(RETRY_ACCEPT_S)
                elif number not in _GONE_ALREADY:
                    raise

    async with listener, anyio.create_task_group() as accepting:
        accepting.start_soon(accept)
        await hub.stopping.wait()
        accepting.cancel_scope.cancel()
