"""The events of a stream from bytes at any cut: server-sent ones, or a JSON object a line.

Server-sent events are framed as in the WHATWG HTML standard, section 9.2.6. Lines end at CR LF, LF or CR and nowhere
else: other Unicode line ends are legal inside JSON.
"""

from typing import NamedTuple

EVENT_BYTES_MAX = 16 * 2**20


class Event(NamedTuple):
    name: bytes  # empty where the stream named none
    data: bytes


class _Decoder:
    """`feed` gives the events that are complete. `overflowed` is true after one longer than `limit` bytes."""

    def __init__(self, limit: int = EVENT_BYTES_MAX) -> None:
        self.overflowed = False
        self._limit = limit
        self._size = 0  # of the lines of an event that is not complete
        self._pieces: list[bytes] = []  # of a line that has not ended
        self._pieces_size = 0

    def feed(self, data: bytes) -> list[Event]:
        if self.overflowed:
            return []
        if b"\n" not in data and b"\r" not in data:
            return self._keep(data)  # joined once, when the line ends
        data = b"".join((*self._pieces, data))
        self._pieces, self._pieces_size = [], 0
        if b"\r" in data:
            # A CR that comes last may be half of a CR LF: it waits for what follows.
            held, data = (b"\r", data[:-1]) if data.endswith(b"\r") else (b"", data)
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
        *lines, rest = data.split(b"\n")
        events = [event for line in lines if (event := self._line(line)) is not None]
        self._keep(rest)
        return events

    def end(self) -> list[Event]:
        """A stream that ends right behind its last data line, without the empty one, still meant it."""
        return self.feed(b"\n\n")

    def _keep(self, piece: bytes) -> list[Event]:
        self._pieces.append(piece)
        self._pieces_size += len(piece)
        if self._pieces_size + self._size > self._limit:
            self.overflowed = True
            self._pieces = []
        return []

    def _line(self, line: bytes) -> Event | None:
        """The event that this line completes."""
        raise NotImplementedError


class LineDecoder(_Decoder):
    """Each line is an event, but for empty ones."""

    def _line(self, line: bytes) -> Event | None:
        return Event(b"", line) if line.strip() else None


class SSEDecoder(_Decoder):
    """Server-sent events."""

    def __init__(self, limit: int = EVENT_BYTES_MAX) -> None:
        super().__init__(limit)
        self._name = b""
        self._data: list[bytes] = []
        self._first = True  # no line has ended yet

    def _line(self, line: bytes) -> Event | None:
        if self._first:
            line, self._first = line.removeprefix(b"\xef\xbb\xbf"), False
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._size += len(value)
        elif field == b"event":
            self._name = value
        return None

    def _dispatch(self) -> Event | None:
        event = Event(self._name, b"\n".join(self._data)) if self._data else None
        self._name, self._data, self._size = b"", [], 0
        return event
