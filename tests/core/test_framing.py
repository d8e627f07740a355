"""Framing: rows that run whole and byte by byte, and any bytes at any cuts against a model that looks at every byte."""

import re
from collections.abc import Sequence
from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmd.core import jsonrpc
from llmd.core.framing import HEADER_BYTES_MAX, Fault, FrameDecoder, Style, frame

BROKEN, GARBLED, TOO_LARGE = Fault.BROKEN, Fault.GARBLED, Fault.TOO_LARGE
LIMIT = 40
SPACE = b" \t\r\n"
Item = bytes | Fault


def read(text: bytes) -> bytes | None:
    """The text of any JSON object or array."""
    try:
        msgspec.json.decode(text.decode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    text = text.strip(SPACE)
    return text if text[:1] in (b"{", b"[") else None


def decode(chunks: Sequence[bytes], limit: int = LIMIT) -> list[Item]:
    """Everything that comes out, the end included; holds what must hold on the way."""
    decoder = FrameDecoder(read, limit)
    found: list[Item] = []
    for chunk in chunks:
        found += decoder.feed(chunk)
        assert decoder.buffered <= max(limit, HEADER_BYTES_MAX)
        assert decoder.closed == (found[-1:] in ([GARBLED], [TOO_LARGE]))
    assert not {GARBLED, TOO_LARGE} & {item for item in found[:-1] if isinstance(item, Fault)}
    last = decoder.end()
    assert last is None or not found or found[-1] not in (GARBLED, TOO_LARGE)
    return found if last is None else [*found, last]


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def head(length: object, more: str = "") -> bytes:
    return f"{more}Content-Length: {length}\r\n\r\n".encode()


ROWS: dict[str, tuple[bytes, list[Item]]] = {
    "nothing": (b"", []),
    "white space": (b" \t\r\n", []),
    "a line": (b'{"a":1}\n', [b'{"a":1}']),
    "a value that no newline ends": (b"[1]", [b"[1]"]),
    "values without anything between": (b"{}[]{}", [b"{}", b"[]", b"{}"]),
    "brackets in strings are letters": (b'["}]"]["\\"]"]{"[":"\\\\"}', [b'["}]"]', b'["\\"]"]', b'{"[":"\\\\"}']),
    "a line that closes but is wrong": (b"{]\n{}", [BROKEN, b"{}"]),
    "a value that closes but is wrong, and one right behind": (b"[1,]{}", [BROKEN, b"{}"]),
    "a value open at a newline": (b"[1,\n2]\n{}", [BROKEN, BROKEN, b"{}"]),
    "a string open at a newline": (b'["\n"]\n[]', [BROKEN, BROKEN, b"[]"]),
    "a backslash before a newline": (b'["\\\n[]', [BROKEN, b"[]"]),
    "an escaped quote at a newline": (b'["\\"\n[]', [BROKEN, b"[]"]),
    "garbage between values goes to the newline": (b"[] x {}\n{}", [b"[]", BROKEN, b"{}"]),
    "a closing bracket too many": (b"[]]\n[]", [b"[]", BROKEN, b"[]"]),
    "garbage to the end": (b"[]xxx", [b"[]", BROKEN]),
    "an open value at the end": (b'["a', [BROKEN]),
    "a value at the limit": (b"[%b]" % (b" " * (LIMIT - 2)), [b"[%b]" % (b" " * (LIMIT - 2))]),
    "a value above the limit": (b"[%b]{}" % (b" " * (LIMIT - 1)), [TOO_LARGE]),
    "a line above the limit, its value not": (b"[]" + b" " * LIMIT + b"\n[]", [b"[]", b"[]"]),
    "an open value at the limit when its line ends": (b"[%b\n[]" % (b" " * (LIMIT - 1)), [BROKEN, b"[]"]),
    "an open value above the limit": (b"[" + b" " * LIMIT, [TOO_LARGE]),
    "first of all garbage": (b"x{}\n{}", [GARBLED]),
    "a body": (head(2) + b"{}", [b"{}"]),
    "bodies": (head(2) + b"{}" + head(3) + b"[1]", [b"{}", b"[1]"]),
    "a body with lines": (head(5) + b"{\n\n}\n", [b"{\n\n}"]),
    "a body that is wrong": (head(2) + b"{]" + head(2) + b"{}", [BROKEN, b"{}"]),
    "a body of nothing": (head(0) + head(2) + b"{}", [BROKEN, b"{}"]),
    "a header beside, in any case": (head(2, "CONTENT-TYPE:x\r\n").lower() + b"{}", [b"{}"]),
    "a length twice": (head(2, "Content-Length:2\r\n") + b"{}", [b"{}"]),
    "two lengths": (head(2, "Content-Length:3\r\n") + b"{}", [GARBLED]),
    "a length that is none": (head("+2") + b"{}", [GARBLED]),
    "a length of too many digits": (head("0" * 15 + "2") + b"{}", [GARBLED]),
    "no length": (b"Content-Type: a\r\n\r\n{}", [GARBLED]),
    "a header without a name": (head(2, "C: a\r\n: b\r\n") + b"{}", [GARBLED]),
    "a header without a colon": (head(2, "C\r\n") + b"{}", [GARBLED]),
    "a bare newline": (b"Content-Length: 2\n\n{}", [GARBLED]),
    "a body at the limit": (head(LIMIT) + b"[]".ljust(LIMIT), [b"[]"]),
    "a body above the limit": (head(LIMIT + 1), [TOO_LARGE]),
    "headers at their limit": (head(2, f"C:{'a' * (HEADER_BYTES_MAX - 25)}\r\n") + b"{}", [b"{}"]),
    "headers above their limit": (head(2, f"C:{'a' * (HEADER_BYTES_MAX - 24)}\r\n") + b"{}", [GARBLED]),
    "open headers at the end": (b"Content-Len", [GARBLED]),
    "a body cut by the end": (head(2) + b"{", [GARBLED]),
    "a value behind a body": (head(2) + b"{}[]\n", [b"{}", GARBLED]),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_read_the_same_whole_and_byte_by_byte(name: str) -> None:
    data, expected = ROWS[name]
    assert decode([data]) == expected
    assert decode(bytewise(data)) == expected


# -- any bytes ----------------------------------------------------------------------------------------------------


def model(data: bytes) -> list[Item]:
    """Newline-delimited JSON as the protocol says it, one byte at a time."""
    found: list[Item] = []
    value, depth, in_string, escaped, skipping = b"", 0, False, False, False
    for byte in bytewise(data):
        if byte == b"\n" or skipping:
            if depth:
                found.append(BROKEN)
            value, depth, in_string, escaped, skipping = b"", 0, False, False, byte != b"\n"
            continue
        if not depth and byte not in b"{[":
            skipping = byte not in SPACE
            found += [BROKEN] * skipping
            continue
        value += byte
        if escaped or (in_string and byte == b"\\"):
            escaped = not escaped
        elif byte == b'"':
            in_string = not in_string
        elif not in_string:
            depth += (byte in b"{[") - (byte in b"}]")
        if len(value) > LIMIT:
            return [*found, TOO_LARGE]
        if not depth:
            found.append(read(value) or BROKEN)
            value = b""
    return [*found, BROKEN] if depth else found


MARKS = [b"{", b"}", b"[", b"]", b'"', b"\\", b"\n", b" ", b"\r", b",", b":", b"1", b"a", b"\xff", b"\xc3\xa9", b"\0"]
VALUES = [b"{}", b"[]", b'{"a":1}', b'["]"]', b'"\\""', b"[[[[", b"]]]]", b"null", b'"\\ud800"', b"x" * 13, b"[]\n"]
NAMES = [b"Content-Length: ", b"content-length:", b"X: y\r\n", b":", b"\r", b"\r\n", b"\r\n\r\n", b"\n", b"a" * 1500]
BODIES = [b"0", b"2", b"7", b"50", b"-1", b"{}", b"{]", b"\xff", head(2) + b"{}", head(7) + b'{"a":1}']
jsonish = st.lists(st.sampled_from(MARKS) | st.sampled_from(VALUES)).map(b"".join)
headish = st.lists(st.sampled_from(NAMES) | st.sampled_from(BODIES)).map(b"".join)
anything = st.one_of(st.binary(), jsonish, jsonish.map(lambda data: b"[" + data), headish.map(lambda data: b"C" + data))
cuts = st.lists(st.integers(0, 400))


def pieces(data: bytes, places: list[int]) -> list[bytes]:
    return [data[start:end] for start, end in pairwise([0, *sorted(places), len(data)])]


@given(data=anything, places=cuts)
def test_no_cut_changes_what_comes_out_of_any_bytes(data: bytes, places: list[int]) -> None:
    whole = decode([data])
    assert decode(pieces(data, places)) == whole
    assert decode(bytewise(data)) == whole


@given(data=jsonish, places=cuts)
@example(data=b'["\\\\"]', places=[3])
@example(data=b'[""\\\n[]', places=[])
def test_lines_are_read_as_the_protocol_says(data: bytes, places: list[int]) -> None:
    data = b"[]" + data
    assert decode(pieces(data, places)) == model(data)


@given(data=anything)
def test_after_any_bytes_a_connection_of_lines_is_closed_or_reads_on(data: bytes) -> None:
    decoder = FrameDecoder(read, LIMIT)
    list(decoder.feed(data))
    after = list(decoder.feed(b"\n[7]"))
    if decoder.closed:
        assert [item for item in after if item not in (GARBLED, TOO_LARGE)] == []
        assert list(decoder.feed(b"\n[7]")) == []
        assert decoder.buffered == 0
    elif decoder.style == "lines":
        assert after[-1] == b"[7]"


# -- what else a session relies on --------------------------------------------------------------------------------


def test_a_value_is_parsed_once_however_it_comes() -> None:
    parsed: list[int] = []

    def count(text: bytes) -> bytes:
        parsed.append(len(text))
        return text

    value = b"[%b]" % (b"[1]," * 10_000)
    decoder = FrameDecoder(count)
    assert [*decoder.feed(value[:1]), *(item for byte in bytewise(value[1:]) for item in decoder.feed(byte))] == [value]
    assert parsed == [len(value)]


def test_values_that_share_a_line_are_parsed_once_each() -> None:
    parsed: list[int] = []

    def count(text: bytes) -> bytes | None:
        parsed.append(len(text))
        return read(text)

    data = b"[1]" * 1000 + b"\n"
    assert list(FrameDecoder(count).feed(data)) == [b"[1]"] * 1000
    assert sum(parsed) <= 2 * len(data), "the line in vain, and each value"


def test_garbage_to_the_end_of_its_line_is_not_kept() -> None:
    decoder = FrameDecoder(read, LIMIT)
    assert list(decoder.feed(b"[]x")) == [b"[]", BROKEN]
    for _ in range(3):
        assert list(decoder.feed(b"y" * 10_000)) == []
        assert decoder.buffered == 0


def test_the_limit_can_change_between_two_messages_that_came_together() -> None:
    decoder = FrameDecoder(read, 4)
    found: list[Item] = []
    for item in decoder.feed(b"[] [1,2,3]"):
        found.append(item)
        decoder.limit = 100
    assert found == [b"[]", b"[1,2,3]"]


@pytest.mark.parametrize("cut", [0, -1], ids=["whole", "without its newline"])
def test_how_deep_a_value_may_nest_does_not_depend_on_the_cut(cut: int) -> None:
    def reads(depth: int, at: int) -> bool:
        data = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":%b%b}\n' % (b"[" * depth, b"]" * depth)
        decoder = FrameDecoder(jsonrpc.parse)
        (found,) = [item for piece in (data[:at], data[at:]) for item in decoder.feed(piece)]
        return found is not BROKEN

    deepest, too_deep = 1, 100_000
    while too_deep - deepest > 1:
        middle = (deepest + too_deep) // 2
        deepest, too_deep = (middle, too_deep) if reads(middle, 0) else (deepest, middle)
    assert [reads(deepest, cut), reads(too_deep, cut)] == [True, False]


@pytest.mark.parametrize("style", ["lines", "headers"])
@given(value=st.recursive(st.text() | st.integers() | st.none(), st.lists), places=cuts)
def test_what_is_framed_is_read_again(style: Style, value: object, places: list[int]) -> None:
    message = msgspec.json.encode([value])
    framed = frame(message, style)
    if style == "headers":
        assert re.match(rb"Content-Length: [0-9]+\r\n\r\n\[", framed)
    assert decode(pieces(framed, places), limit=10**6) == [message]
