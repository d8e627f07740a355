"""Where one message ends and the next begins, on a stream of bytes.

Owns the three ways a client may frame (newlines, bare JSON values, Content-Length headers), chosen once from the first
byte that is not white space, and their limits. Refuses to know what a message means: it is handed `parse`, which
answers None for bytes that are not JSON. How the bytes were cut never changes what comes out.
"""

import re
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

FRAME_BYTES_MAX = 16 * 2**20
HEADER_BYTES_MAX = 4096

_SPACE = b" \t\r\n"
_OUTSIDE_STRING = re.compile(rb'[][{}"\n]')
_INSIDE_STRING = re.compile(rb'["\\\n]')
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
_LENGTH = re.compile(rb"[0-9]{1,15}")


class Fault(Enum):
    """What stands in a message's place when there is none."""

    BROKEN = "broken"  # not JSON: one error, and reading goes on
    GARBLED = "garbled"  # no way to tell where the next message begins: one error, then close
    TOO_LARGE = "too_large"  # longer than the limit: one error, then close


Style = Literal["lines", "headers"]


class FrameDecoder(Generic[T]):
    """Bytes in at any cut, parsed messages and Faults out.

    limit   the longest message in bytes; may be changed between messages
    style   how this peer frames, None until its first byte; answer it in kind with `frame`
    closed  true after GARBLED or TOO_LARGE: whatever else comes is ignored
    """

    def __init__(self, parse: Callable[[bytes], T | None], limit: int = FRAME_BYTES_MAX) -> None:
        self.limit = limit
        self.style: Style | None = None
        self.closed = False
        self._parse = parse
        self._buffer = bytearray()
        # The state of a scan through a value that has begun: looked at up to _at, _depth brackets open.
        self._at = 0
        self._depth = 0
        self._in_string = False
        self._line_start = True
        self._skipping = False  # to the end of a broken line
        self._body_bytes: int | None = None  # after a header block

    @property
    def buffered(self) -> int:
        """How many bytes wait for the rest of their message."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[T | Fault]:
        """Take `data` and give what is complete, lazily: `limit` may be changed between two messages."""
        if not self.closed:
            self._buffer += data
        while (item := self._next()) is not None:
            yield item

    def end(self) -> Fault | None:
        """The peer will send no more: what stands open can never become a message."""
        unfinished = not self.closed and (bool(self._buffer) or self._body_bytes is not None)
        self.closed = True
        self._buffer.clear()
        if not unfinished:
            return None
        return Fault.GARBLED if self.style == "headers" else Fault.BROKEN

    def _next(self) -> T | Fault | None:
        if self.closed:
            return None
        if self.style is None and not self._choose_style():
            return Fault.GARBLED if self.closed else None
        return self._next_value() if self.style == "lines" else self._next_body()

    def _choose_style(self) -> bool:
        self._drop_space()
        if not self._buffer:
            return False
        if self._buffer[0] in b"{[":
            self.style = "lines"
        elif self._buffer[0] in b"Cc":
            self.style = "headers"
        else:
            self._close()
            return False
        return True

    def _drop_space(self) -> None:
        if self._buffer and self._buffer[0] in _SPACE:
            del self._buffer[: len(self._buffer) - len(self._buffer.lstrip(_SPACE))]

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _close(self) -> None:
        self.closed = True
        self._buffer.clear()

    def _too_large(self) -> Fault:
        self._close()
        return Fault.TOO_LARGE

    # -- newlines and bare values ---------------------------------------------------------------------------------

    def _next_value(self) -> T | Fault | None:
        if self._depth == 0:
            if self._skipping and not self._skip_line():
                return None
            if (newline := self._leading_newline()) and not self._line_start:
                self._line_start = newline
            if not self._buffer:
                return None
            if self._buffer[0] not in b"{[":
                self._skipping = True
                return Fault.BROKEN
            if self._line_start and (message := self._whole_line()) is not None:
                return message
            self._line_start = False
        end = self._scan()
        if end is None:
            return self._too_large() if len(self._buffer) > self.limit else None
        return self._end_value(end)

    def _leading_newline(self) -> bool:
        """Drop white space; True if a newline was in it."""
        if self._buffer and self._buffer[0] not in _SPACE:
            return False
        before = self._buffer[: len(self._buffer) - len(self._buffer.lstrip(_SPACE))]
        del self._buffer[: len(before)]
        return b"\n" in before

    def _skip_line(self) -> bool:
        end = self._buffer.find(b"\n")
        if end < 0:
            self._buffer.clear()
            return False
        del self._buffer[: end + 1]
        self._skipping = False
        self._line_start = True
        return True

    def _whole_line(self) -> T | None:
        """The common case, a line that is one value, needs no scan: a parser reads it faster than we do."""
        end = self._buffer.find(b"\n")
        if not 0 <= end <= self.limit:
            return None
        message = self._parse(bytes(self._buffer[:end]))
        if message is not None:
            del self._buffer[: end + 1]
        return message

    def _scan(self) -> int | None:
        """The end of the value that has begun, or of the line that leaves it open; None where neither has come."""
        buffer, at, depth, in_string = self._buffer, self._at, self._depth, self._in_string
        while (found := (_INSIDE_STRING if in_string else _OUTSIDE_STRING).search(buffer, at)) is not None:
            at = found.end()
            byte = buffer[at - 1]
            if byte == 0x0A:
                return at
            if byte == 0x22:
                in_string = not in_string
            elif byte == 0x5C:
                if at == len(buffer):
                    at -= 1  # what it escapes has not come yet: look at it again
                    break
                if buffer[at] != 0x0A:
                    at += 1
            elif byte in b"{[":
                depth += 1
            else:
                depth -= 1
                if depth == 0:
                    return at
        else:
            at = len(buffer)
        self._at, self._depth, self._in_string = at, depth, in_string
        return None

    def _end_value(self, end: int) -> T | Fault:
        # How deep a value may nest depends on how deep the stack is: parse is called from here as from _whole_line.
        open_at_newline = self._buffer[end - 1] == 0x0A
        self._at, self._depth, self._in_string = 0, 0, False
        if end - open_at_newline > self.limit:
            return self._too_large()
        self._line_start = open_at_newline
        value = self._take(end)
        message = None if open_at_newline else self._parse(value)
        return Fault.BROKEN if message is None else message

    # -- Content-Length headers -----------------------------------------------------------------------------------

    def _next_body(self) -> T | Fault | None:
        if self._body_bytes is None:
            fault = self._read_header()
            if fault is not None:
                return fault
        if self._body_bytes is None or len(self._buffer) < self._body_bytes:
            return None
        message = self._parse(self._take(self._body_bytes))
        self._body_bytes = None
        return Fault.BROKEN if message is None else message

    def _read_header(self) -> Fault | None:
        end = self._buffer.find(b"\r\n\r\n", 0, HEADER_BYTES_MAX)
        if end < 0:
            if len(self._buffer) < HEADER_BYTES_MAX and not self._bare_newline(len(self._buffer)):
                return None
            self._close()
            return Fault.GARBLED
        length = None if self._bare_newline(end) else _content_length(bytes(self._buffer[:end]))
        if length is None:
            self._close()
            return Fault.GARBLED
        if length > self.limit:
            return self._too_large()
        del self._buffer[: end + 4]
        self._body_bytes = length
        return None

    def _bare_newline(self, end: int) -> bool:
        """A newline without its carriage return: a peer that never sends the end of the header block we wait for."""
        return self._buffer.count(b"\n", 0, end) != self._buffer.count(b"\r\n", 0, end)


def _content_length(block: bytes) -> int | None:
    """The length that a header block gives, None where it gives none or more than one."""
    lengths = set()
    for line in block.split(b"\r\n"):
        header = _HEADER.fullmatch(line)
        if header is None:
            return None
        if header[1].lower() == b"content-length":
            if _LENGTH.fullmatch(header[2]) is None:
                return None
            lengths.add(int(header[2]))
    return lengths.pop() if len(lengths) == 1 else None


def frame(message: bytes, style: Style | None) -> bytes:
    """One outgoing message in the peer's own style."""
    if style == "headers":
        return b"Content-Length: %d\r\n\r\n%b" % (len(message), message)
    return message + b"\n"
