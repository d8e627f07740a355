"""Who is asking, and on which terms: what travels with a call from its connection to its last attempt."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Protocol

import anyio
from msgspec import Struct

from llmd.books import Amounts
from llmd.dialects.base import Emit
from llmd.errors import LLMError


class Peer(NamedTuple):
    """The other end of a connection. `own` is true for the daemon's own user; `pid` is for the log, never trusted."""

    transport: Literal["unix", "tcp", "http"]
    uid: int | None
    pid: int | None
    own: bool


Notify = Callable[[str, Struct], Awaitable[None]]
"""Sends a notification, its method and params; awaiting it is the back-pressure."""


class Connection(Protocol):
    """What a call may use of the connection that it came on. Raises invalid_params where it has nothing of the kind."""

    def stream(self, token: str) -> AbstractContextManager[Emit]:
        """Take `token` for the deltas of one call. Raises invalid_params if it is in use."""
        ...

    def watch(self, token: str, run: Callable[[Notify], Awaitable[None]]) -> None:
        """Run this beside the calls, until it returns, `unwatch` is called or the connection ends."""
        ...

    def unwatch(self, token: str) -> bool:
        """Whether there was such a watch."""
        ...

    @property
    def ended(self) -> bool:
        """Whether a call that is cancelled lost its caller, who may come back, and was not called off."""
        ...

    def at_end(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call this when the connection has ended, unless what is returned was called before."""
        ...


class Context(Struct, frozen=True):
    """One call's terms.

    received  in seconds of the event loop's clock
    emit      where deltas go that were asked for without a token: the HTTP response
    posted    what the attempts of this call have cost, one by one; filled as they resolve
    """

    peer: Peer
    request_id: str
    received: float
    connection: Connection
    emit: Emit | None = None
    posted: list[Amounts] = []

    def overdue(self, reason: str = "", **data: Any) -> LLMError:
        """deadline_exceeded, now; the elapsed time says why, if nothing else does."""
        elapsed_ms = round((anyio.current_time() - self.received) * 1000)
        told = reason or f"no answer within {elapsed_ms} ms"
        return LLMError("deadline_exceeded", told, elapsed_ms=elapsed_ms, **data)
