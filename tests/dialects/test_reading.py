"""Whatever comes, in any dialect and at any cut, is an answer or a failure: never a crash, never a shorter answer."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmd.dialects
from llmd.core.outcomes import Answer, Failure
from llmd.dialects import DIALECTS
from tests.dialects.replies import joined
from tests.dialects.samples import SAMPLES, TEXT, THOUGHT, read_as

ANY = pytest.mark.parametrize("dialect", DIALECTS)

SOURCES = "".join(file.read_text() for file in Path(llmd.dialects.__path__[0]).glob("*.py"))
WORDS = sorted({*re.findall(r'"(\w+)"', SOURCES), *re.findall(r"^    (\w+): ", SOURCES, re.MULTILINE)})
"""What the dialects read: the names of members, and what they may hold."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=25,
)


def changed(draw: st.DataObject, value: Any) -> Any:
    """The same, with something else in some places."""
    if draw.draw(st.integers(0, 9)) == 0:
        return draw.draw(JSON)
    if isinstance(value, dict):
        return {name: changed(draw, inner) for name, inner in value.items()}
    return [changed(draw, inner) for inner in value] if isinstance(value, list) else value


@ANY
def test_a_whole_answer_is_read(dialect: str) -> None:
    sample = SAMPLES[dialect]
    assert read_as(dialect, [sample.whole], stream=False)[0] == sample.answer


@ANY
def test_a_stream_is_the_same_answer_and_so_are_its_deltas(dialect: str) -> None:
    sample = SAMPLES[dialect]
    outcome, deltas = read_as(dialect, sample.stream)
    assert outcome == sample.answer
    assert joined(deltas) == TEXT
    assert "".join(delta.reasoning or "" for delta in deltas) == THOUGHT
    calls = [delta.tool_call for delta in deltas if delta.tool_call]
    assert [(call.index, call.id, call.name) for call in calls][:1] == [(0, "c1", "f")]
    assert json.loads("".join(call.arguments or "" for call in calls)) == {"x": 1}


@ANY
@pytest.mark.parametrize("cut", [False, True], ids=["ended", "broke"])
def test_a_stream_that_ends_before_its_end_is_invalid_at_every_event(dialect: str, cut: bool) -> None:
    sample = SAMPLES[dialect]
    for events in range(sample.ends):
        outcome, _ = read_as(dialect, sample.stream[:events], cut=cut)
        assert isinstance(outcome, Failure), events
        assert (outcome.kind, outcome.billed, outcome.usage) == ("upstream_invalid", "unknown", None)


@ANY
def test_a_body_that_was_cut_is_invalid_even_if_it_parses(dialect: str) -> None:
    outcome, _ = read_as(dialect, [SAMPLES[dialect].whole], stream=False, cut=True)
    assert isinstance(outcome, Failure)
    assert outcome.kind == "upstream_invalid"


@ANY
@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b"<html>", b"\xff", b"[" * 10**6], ids=lambda b: repr(b[:9])
)
def test_a_body_that_is_no_answer_is_invalid(dialect: str, body: bytes) -> None:
    outcome, _ = read_as(dialect, [body], stream=False)
    assert isinstance(outcome, Failure)
    assert outcome.kind == "upstream_invalid"


@ANY
@given(draw=st.data())
def test_any_cut_gives_the_same_outcome(dialect: str, draw: st.DataObject) -> None:
    data = b"".join(SAMPLES[dialect].stream)
    if draw.draw(st.booleans()):
        data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    cuts = sorted(draw.draw(st.sets(st.integers(1, len(data) - 1), max_size=30)))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    outcome, deltas = read_as(dialect, pieces)
    assert outcome == SAMPLES[dialect].answer
    assert joined(deltas) == TEXT


@ANY
@given(draw=st.data(), cut=st.booleans())
def test_a_stream_cut_at_any_byte_never_gives_a_shorter_answer(dialect: str, draw: st.DataObject, cut: bool) -> None:
    data = b"".join(SAMPLES[dialect].stream)
    outcome, _ = read_as(dialect, [data[: draw.draw(st.integers(0, len(data) - 1))]], cut=cut)
    assert isinstance(outcome, Failure) or outcome == SAMPLES[dialect].answer


@ANY
@given(
    st.binary(max_size=200),
    st.booleans(),
    st.booleans(),
    st.sampled_from([200, 204, 302, 400, 404, 429, 500]),
)
def test_any_bytes_are_an_answer_or_a_failure(dialect: str, data: bytes, stream: bool, cut: bool, status: int) -> None:
    outcome, _ = read_as(dialect, [data], stream=stream, cut=cut, status=status)
    assert isinstance(outcome, Answer | Failure)


@ANY
@given(draw=st.data(), stream=st.booleans(), status=st.sampled_from([200, 200, 200, 400, 500]))
def test_any_json_is_an_answer_or_a_failure_that_can_be_told(
    dialect: str, draw: st.DataObject, stream: bool, status: int
) -> None:
    sample = SAMPLES[dialect]
    if stream:
        bodies = [event.partition(b"data: ")[2] or event for event in sample.stream]
        told = [json.dumps(changed(draw, json.loads(body))) for body in bodies if body.strip().startswith(b"{")]
        lines = "ndjson" in sample.content_type
        data = [(f"{body}\n" if lines else f"data: {body}\n\n").encode(errors="replace") for body in told]
        data.append(sample.stream[-1])
    else:
        data = [json.dumps(changed(draw, json.loads(sample.whole))).encode(errors="replace")]
    outcome, deltas = read_as(dialect, data, stream=stream, status=status)
    assert isinstance(outcome, Answer | Failure)
    msgspec.json.encode([outcome, deltas])
    if isinstance(outcome, Answer) and stream:
        assert joined(deltas) == outcome.text
