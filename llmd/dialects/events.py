"""The events of a stream from bytes at any cut: server-sent ones, or a JSON object a line.

Server-sent events are framed as in the WHATWG HTML standard, section 9.2.6. Lines end at CR LF, LF or CR and nowhere
else: other Unicode line ends are legal inside JSON.
"""

from msgspec import Struct

EVENT_BYTES_MAX = 16 * 2**20


class Event(Struct):
    name: bytes  # empty where the stream named none
    data: bytes


class _Decoder:
    """`feed` gives the events that are complete. `overflowed` is true after one longer than `limit` bytes."""

    end_of_event = b"\n"

    def __init__(self, limit: int = EVENT_BYTES_MAX) -> None:
        self.overflowed = False
        self._limit = limit
        self._held = b""  # a CR that may be half of a CR LF
        self._pieces: list[bytes] = []  # of an event that is not complete, their lines ended by LF
        self._size = 0

    def feed(self, data: bytes) -> list[Event]:
        if self.overflowed:
            return []
        if self._held or b"\r" in data:
            data = self._held + data
            self._held = b"\r" if data.endswith(b"\r") else b""
            data = data.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        before = self._pieces[-1][-1:] if self._pieces else b""
        if self.end_of_event not in before + data:
            return self._keep(data)  # joined once, when the event ends
        *blocks, rest = b"".join((*self._pieces, data)).split(self.end_of_event)
        self._pieces, self._size = [], 0
        self._keep(rest)
        return self._events(blocks)

    def end(self) -> list[Event]:
        """A stream that ends right behind its last data line, without the empty one, still meant it."""
        return self.feed(b"\n\n")

    def _keep(self, piece: bytes) -> list[Event]:
        if piece:
            self._pieces.append(piece)
            self._size += len(piece)
            if self._size > self._limit:
                self.overflowed = True
                self._pieces = []
        return []

    def _events(self, blocks: list[bytes]) -> list[Event]:
        """The events that stand in these, one in each at most."""
        raise NotImplementedError


class LineDecoder(_Decoder):
    """Each line is an event, but for empty ones."""

    def _events(self, blocks: list[bytes]) -> list[Event]:
        return [Event(b"", block) for block in blocks if block.strip()]


class SSEDecoder(_Decoder):
    """Server-sent events."""

    end_of_event = b"\n\n"

    def __init__(self, limit: int = EVENT_BYTES_MAX) -> None:
        super().__init__(limit)
        self._begun = False

    def _events(self, blocks: list[bytes]) -> list[Event]:
        if not self._begun:
            blocks[0], self._begun = blocks[0].removeprefix(b"\xef\xbb\xbf"), True
        events: list[Event] = []
        for block in blocks:
            lines = block.split(b"\n")
            # Nearly every event is one of these two: a line of data, or that behind its name.
            if len(lines) == 1 and block[:6] == b"data: ":
                events.append(Event(b"", block[6:]))
            elif len(lines) == 2 and block[:7] == b"event: " and lines[1][:6] == b"data: ":
                events.append(Event(lines[0][7:], lines[1][6:]))
            elif (event := _of_lines(lines)) is not None:
                events.append(event)
        return events


def _of_lines(lines: list[bytes]) -> Event | None:
    name, data = b"", []
    for line in lines:
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return Event(name, b"\n".join(data)) if data else None
