"""One connection to the daemon, on the standard library alone: the command line's path, and below the sync client.

Speaks protocol 1 over the Unix socket, one JSON value a line. Raises NoDaemon and ConnectionLost; an error that the
daemon answers with is a value, not an exception, for the caller to show.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

TYPE_CHECKING = False  # typing takes 3 ms to load, and every call pays for it
if TYPE_CHECKING:
    from typing import Any

RECEIVE_BYTES = 256 * 1024


class NoDaemon(Exception):
    """Nothing answers at any of these sockets; `forbidden` is the one that would not let us try."""

    def __init__(self, sockets: Iterable[Path], forbidden: Path | None = None) -> None:
        self.sockets = list(sockets)
        self.forbidden = forbidden
        where = " or ".join(map(str, self.sockets))
        super().__init__(f"{forbidden} belongs to another user" if forbidden else f"no daemon listens on {where}")


class ConnectionLost(Exception):
    """The connection broke before the answer: whether the call was made is unknown."""


class Wire:
    """One connection, to the socket at `path`. Not safe for threads."""

    path: Path

    def __init__(self, sockets: Iterable[Path], timeout_s: float | None = None) -> None:
        """Connect to the first of `sockets` where somebody listens, within `timeout_s`, which holds for receives too.

        Raises NoDaemon, and TimeoutError where somebody listens who accepts nobody.
        """
        tried = list(sockets)
        forbidden: Path | None = None
        self._buffer = bytearray()
        self._at = 0
        for path in tried:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._connect(path, timeout_s)
            except TimeoutError:
                self._socket.close()
                raise
            except PermissionError:
                self._socket.close()
                forbidden = forbidden or path
                continue
            except OSError:  # not there, refused, or a name too long: nobody to talk to
                self._socket.close()
                continue
            self._socket.settimeout(timeout_s)
            self.path = path
            return
        raise NoDaemon(tried, forbidden)

    def _connect(self, path: Path, timeout_s: float | None) -> None:
        if timeout_s is None:
            self._socket.connect(str(path))
            return
        import struct  # takes 0.4 ms to load, and calls do without it

        # The kernel's timeout: with one of Python's, a socket whose queue is full would fail at once.
        timeval = struct.pack("@ll", int(timeout_s), round(timeout_s % 1 * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
        try:
            self._socket.connect(str(path))
        except BlockingIOError:
            raise TimeoutError from None
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bytes(len(timeval)))

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def ended(self) -> bool:
        """Whether the other end has closed it, with nothing left to read; does not wait."""
        try:
            return not self._buffer and not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def settimeout(self, timeout_s: float | None) -> None:
        """What each receive from now on may take before it is a TimeoutError."""
        self._socket.settimeout(timeout_s)

    def send(self, message: str) -> None:
        """One message. A peer that has stopped reading may still have answered, so that is for `receive` to find."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(message.encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        """The next message. Raises ConnectionLost, and TimeoutError if the wire has a timeout."""
        try:
            message = json.loads(self.receive_line())
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):  # what makes no sense is as good as no answer
            raise ConnectionLost
        return message

    def receive_line(self) -> bytes:
        """The same, unread."""
        while (end := self._buffer.find(b"\n", self._at)) < 0:
            self._at = len(self._buffer)
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except ConnectionResetError:
                data = b""
            if not data:
                raise ConnectionLost
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._at = 0
        return line

    def call(
        self, method: str, params: str = "{}", heard: Callable[[str, dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        """The reply object, with `result` or `error`. `params` is a JSON object without newlines.

        `heard` is told of the notifications that come before it: their methods and params.
        Interrupted, it cancels the call and lets the interrupt through. Raises ConnectionLost.
        """
        self.send(f'{{"jsonrpc":"2.0","id":1,"method":{json.dumps(method)},"params":{params}}}')
        try:
            while "method" in (message := self.receive()):
                if heard is not None:
                    heard(message["method"], message["params"])
        except BaseException as error:
            if not isinstance(error, ConnectionLost):
                self._cancel()
            raise
        return message

    def _cancel(self) -> None:
        """Ask the daemon to stop, and wait a moment for it to say that it has."""
        self._socket.settimeout(2)
        self.send('{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":1}}')
        with suppress(ConnectionLost, TimeoutError):
            while "method" in self.receive():
                pass
