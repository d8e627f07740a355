"""What all connections of a daemon share: the methods, the limits, what is in flight, whether it is draining."""

import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import anyio

from llmd.errors import LLMError
from llmd.rpc.dispatch import Dispatcher
from llmd.settings import Limits

RETRY_AFTER_MS = 100
STRANGERS_MAX = 64  # connections of strangers, who take none of the places of all others

Listed = Mapping[int, Mapping[str, str]]
"""The fixed labels of each listed user, by uid."""

NOBODY: Listed = MappingProxyType({})


class Connection(Protocol):
    """What a daemon that stops may do to a connection."""

    def cancel_calls(self) -> None: ...

    def end(self) -> None: ...


class Hub:
    """What all connections of a daemon share: the methods, the limits, what is in flight, whether it is draining."""

    def __init__(
        self, dispatcher: Dispatcher, limits: Callable[[], Limits], listed: Callable[[], Listed] = lambda: NOBODY
    ) -> None:
        self.dispatcher = dispatcher
        self.limits = limits
        self.listed = listed  # who is served besides the daemon's own user
        self.stopping = anyio.Event()
        self.input_bytes = 0
        self.messages = 0  # that have come, on all connections
        self.sessions: set[Connection] = set()
        self._known: set[object] = set()
        self._strangers: set[object] = set()
        self.numbers = itertools.count(1)
        self._in_flight = 0
        self._idle = anyio.Event()
        self._empty = anyio.Event()

    @property
    def draining(self) -> bool:
        """Whether the daemon is stopping: no new calls are taken."""
        return self.stopping.is_set()

    @property
    def in_flight(self) -> int:
        """Calls that are running, on all connections."""
        return self._in_flight

    def begin(self, size: int) -> None:
        """A call with params of this many bytes starts."""
        self._in_flight += 1
        self.input_bytes += size

    def finish(self, size: int) -> None:
        self._in_flight -= 1
        self.input_bytes -= size
        if not self._in_flight:
            self._idle.set()

    def enter(self, connection: object, *, known: bool) -> None:
        """Count an open connection; one that has entered as a stranger's may enter again, as known. Raises busy.

        known  whether the kernel or the token says that its peer may call
        """
        limit = self.limits().connections
        limit, entered = (limit, self._known) if known else (min(limit, STRANGERS_MAX), self._strangers)
        if connection in entered:
            return
        if len(entered) >= limit:
            whose = "" if known else " of others, who have shown no token"
            raise LLMError("busy", f"the daemon has {limit} connections{whose}", retry_after_ms=RETRY_AFTER_MS)
        self._strangers.discard(connection)
        entered.add(connection)

    def forget(self, connection: object) -> None:
        """Count it no more, if it ever was."""
        self._known.discard(connection)
        self._strangers.discard(connection)

    def leave(self, session: Connection) -> None:
        self.forget(session)
        self.sessions.discard(session)
        if not self.sessions:
            self._empty.set()

    async def empty(self) -> None:
        """Wait until no connection is left."""
        while self.sessions:
            self._empty = anyio.Event()
            await self._empty.wait()

    async def idle(self) -> None:
        """Wait until no call is running."""
        while self._in_flight:
            self._idle = anyio.Event()
            await self._idle.wait()
