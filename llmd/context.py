"""Who is asking, and on which terms: what travels with a call from its connection to its last attempt."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Protocol

import anyio
from msgspec import UNSET, Struct, UnsetType

from llmd.books import Amounts
from llmd.chat import Delta
from llmd.errors import LLMError


class Peer(NamedTuple):
    """The other end of a connection. `own` is true for the daemon's own user; `pid` is for the log, never trusted.

    labels  what the configuration fixes for a user that it lists; None for any other
    """

    transport: Literal["unix", "tcp", "http"]
    uid: int | None
    pid: int | None
    own: bool
    labels: Mapping[str, str] | None = None


Notify = Callable[[str, Struct], Awaitable[None]]
"""Sends a notification, its method and params; awaiting it is the back-pressure."""


class Stream(Protocol):
    """Where what comes of calls goes as it comes, under one token; awaiting it is the back-pressure."""

    async def delta(self, delta: Delta, index: int | UnsetType = UNSET) -> None:
        """`index` is that of one call among many."""
        ...

    async def done(self, index: int, outcome: str) -> None:
        """One call of many has ended, "ok" or with an error of this kind."""
        ...


class Connection(Protocol):
    """What a call may use of the connection that it came on. Raises invalid_params where it has nothing of the kind."""

    def stream(self, token: str) -> AbstractContextManager[Stream]:
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

    method    what was called, for the log
    received  in seconds of the event loop's clock
    stream    where deltas go that were asked for without a token: the HTTP response
    posted    what the attempts of this call have cost, one by one; filled as they resolve
    partial   what is told with the error of a call that is cancelled or too late; filled as it comes
    """

    peer: Peer
    request_id: str
    received: float
    connection: Connection
    stream: Stream | None = None
    posted: list[Amounts] = []
    partial: dict[str, Any] = {}
    method: str = ""

    def overdue(self, reason: str = "", **data: Any) -> LLMError:
        """deadline_exceeded, now; the elapsed time says why, if nothing else does."""
        elapsed_ms = round((anyio.current_time() - self.received) * 1000)
        told = reason or f"no answer within {elapsed_ms} ms"
        return LLMError("deadline_exceeded", told, elapsed_ms=elapsed_ms, **data, **self.partial)

    def cancelled(self, reason: str) -> LLMError:
        return LLMError("cancelled", "the call was cancelled", reason=reason, **self.partial)
