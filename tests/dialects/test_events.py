"""Server-sent events: the framing of the standard, at every cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.dialects.events import Event, SSEDecoder


def events(*pieces: bytes) -> list[Event]:
    decoder = SSEDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)] + decoder.end()


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\n", [(b"", b"a")]),
        (b"data:a\n\n", [(b"", b"a")]),
        (b"data:  a \n\n", [(b"", b" a ")]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [(b"", b"a"), (b"", b"b")]),
        (b"data: a\r\rdata: b\r\r", [(b"", b"a"), (b"", b"b")]),
        (b"data: a\ndata: b\n\n", [(b"", b"a\nb")]),
        (b"event: error\ndata: a\n\ndata: b\n\n", [(b"error", b"a"), (b"", b"b")]),
        (b": comment\n\n:\n\ndata: a\n\n", [(b"", b"a")]),
        (b"event: ping\n\ndata: a\n\n", [(b"", b"a")]),
        (b"data: a\nevent: late\n\n", [(b"late", b"a")]),
        (b"event: a\nevent: b\ndata: a\n\n", [(b"b", b"a")]),
        (b"id: 1\nretry: 5\nother: x\ndata: a\n\n", [(b"", b"a")]),
        (b"data\n\n", [(b"", b"")]),
        (b"data: a: b\n\n", [(b"", b"a: b")]),
        (b"\n\n\ndata: a\n\n\n\n", [(b"", b"a")]),
        (b"data: a\n", [(b"", b"a")]),
        (b"data: a", [(b"", b"a")]),
        (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [(b"", b"a")]),
        ("data: \u2028\u2029\u0085\x0b\x0c\n\n".encode(), [(b"", "\u2028\u2029\u0085\x0b\x0c".encode())]),
        (b"", []),
    ],
    ids=repr,
)
def test_a_stream_is_these_events_whole_and_byte_by_byte(stream: bytes, expected: list[tuple[bytes, bytes]]) -> None:
    told = [Event(name, data) for name, data in expected]
    assert events(stream) == told
    assert events(*(stream[at : at + 1] for at in range(len(stream)))) == told


def test_an_event_is_given_as_soon_as_it_is_complete() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a\n") == []
    assert decoder.feed(b"\ndata: b") == [Event(b"", b"a")]
    assert decoder.feed(b"\n\n") == [Event(b"", b"b")]


LINES = st.sampled_from([b"data: a", b"data:", b"event: x", b":c", b"", b"data: \xe2\x80\xa8", b"\xef\xbb\xbf"])
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(st.tuples(LINES, ENDS), max_size=12), st.data())
def test_how_the_bytes_were_cut_does_not_matter(lines: list[tuple[bytes, bytes]], draw: st.DataObject) -> None:
    stream = b"".join(line + end for line, end in lines)
    cuts = sorted(draw.draw(st.sets(st.integers(0, len(stream)), max_size=10)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert events(*pieces) == events(stream)


@pytest.mark.parametrize("piece", [b"data: xxxxxxxx", b"data: xxxxxxxx\n"], ids=["one line", "many lines"])
def test_an_event_beyond_the_limit_stops_the_reading(piece: bytes) -> None:
    decoder = SSEDecoder(limit=100)
    for _ in range(20):
        assert decoder.feed(piece) == []
    assert decoder.overflowed
    assert decoder.feed(b"\n\ndata: a\n\n") == []
    assert decoder.end() == []


def test_many_events_are_no_overflow() -> None:
    decoder = SSEDecoder(limit=100)
    assert len([event for _ in range(100) for event in decoder.feed(b"data: xxxxxxxx\n\n")]) == 100
    assert not decoder.overflowed
