"""Whatever comes, at whatever cut, is an answer or a failure: never a crash, never a shorter answer."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from llmd.dialects.base import Answer, Failure
from tests.dialects.replies import DONE, STREAM, answer, event, joined, read

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = (
    "id",
    "model",
    "choices",
    "index",
    "message",
    "delta",
    "content",
    "tool_calls",
    "function",
    "name",
    "arguments",
)
NAMES += (
    "finish_reason",
    "usage",
    "prompt_tokens",
    "completion_tokens",
    "x_groq",
    "error",
    "code",
    "reasoning",
    "text",
)
REPLIES = st.recursive(
    JSON,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=25,
)
CHOICES = st.fixed_dictionaries({"choices": st.lists(st.fixed_dictionaries({"message": REPLIES, "delta": REPLIES}))})


@given(st.binary(max_size=200), st.booleans(), st.booleans(), st.sampled_from([200, 204, 302, 400, 404, 429, 500]))
def test_any_bytes_are_an_answer_or_a_failure(data: bytes, stream: bool, cut: bool, status: int) -> None:
    outcome, _ = read(data, stream=stream, cut=cut, status=status)
    assert isinstance(outcome, Answer | Failure)


@given(st.lists(REPLIES | CHOICES, max_size=4), st.booleans(), st.sampled_from([200, 400, 500]))
def test_any_json_is_an_answer_or_a_failure_that_can_be_told(replies: list[Any], stream: bool, status: int) -> None:
    bodies = [json.dumps(reply).encode(errors="replace") for reply in replies]
    data = [*map(event, bodies), DONE] if stream else bodies[:1]
    outcome, deltas = read(data, stream=stream, status=status)
    assert isinstance(outcome, Answer | Failure)
    msgspec.json.encode([outcome, deltas])
    if isinstance(outcome, Answer) and stream:
        assert joined(deltas) == outcome.text


@given(st.data(), st.sampled_from([b"".join(STREAM), b"".join(STREAM).replace(b"\n", b"\r\n")]))
def test_any_cut_gives_the_same_outcome(draw: st.DataObject, data: bytes) -> None:
    cuts = sorted(draw.draw(st.sets(st.integers(1, len(data) - 1), max_size=30)))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    outcome, deltas = read(pieces, stream=True)
    assert isinstance(outcome, Answer)
    assert outcome == answer(data, stream=True)
    assert joined(deltas) == outcome.text


@given(at=st.integers(0, len(b"".join(STREAM)) - 1), cut=st.booleans())
def test_a_stream_cut_at_any_byte_never_gives_a_shorter_answer(at: int, cut: bool) -> None:
    data = b"".join(STREAM)
    outcome, _ = read(data[:at], stream=True, cut=cut)
    assert isinstance(outcome, Failure) or outcome == answer(data, stream=True)
