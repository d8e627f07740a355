"""Who is asking, and on which terms: what travels with a call from its connection to its last attempt."""

from contextlib import AbstractContextManager
from typing import Literal, NamedTuple, Protocol

from msgspec import Struct

from llmd.dialects.base import Emit


class Peer(NamedTuple):
    """The other end of a connection. `own` is true for the daemon's own user; `pid` is for the log, never trusted."""

    transport: Literal["unix", "tcp", "http"]
    uid: int | None
    pid: int | None
    own: bool


class Streams(Protocol):
    """Where deltas of a call can go: a connection."""

    def open(self, token: str) -> AbstractContextManager[Emit]:
        """Take `token` for the time of one call. Raises invalid_params if it is in use, or nothing can be streamed."""
        ...


class Context(Struct, frozen=True):
    """One call's terms.

    received  in seconds of the event loop's clock
    emit      where deltas go that were asked for without a token: the HTTP response
    """

    peer: Peer
    request_id: str
    received: float
    streams: Streams
    emit: Emit | None = None
