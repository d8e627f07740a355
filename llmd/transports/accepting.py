"""Accepts connections: each a task of its own, closed behind whoever serves it."""

import errno
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from anyio.abc import SocketListener, TaskGroup

from llmd.errors import trace

log = logging.getLogger("llmd.transports")

RETRY_ACCEPT_S = 0.1
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_GONE_ALREADY = frozenset({errno.ECONNABORTED, errno.ECONNRESET, errno.EINVAL, errno.ENOTCONN})


async def accept_all(listener: SocketListener, connections: TaskGroup, serve: Callable[[Any], Awaitable[None]]) -> None:
    """Accept for ever, each connection served as a task of `connections` and closed behind it.

    Out of descriptors, what waits in the backlog is accepted when some are free again.
    """

    async def one(stream: Any) -> None:
        async with stream:
            try:
                await serve(stream)
            except Exception as error:
                # A mistake of ours ends one connection, not the daemon.
                log.error("a connection failed: %s", trace(error))

    async with listener:
        while True:
            try:
                stream = await listener.accept()
            except (OSError, anyio.BrokenResourceError) as error:
                cause = error.__cause__ if isinstance(error, anyio.BrokenResourceError) else error
                number = getattr(cause, "errno", None)
                if number in _GONE_ALREADY:
                    continue
                if number not in _OUT_OF_RESOURCES:
                    raise
                log.warning("out of descriptors or memory: connections wait")
                await anyio.sleep(RETRY_ACCEPT_S)
                continue
            connections.start_soon(one, stream)
