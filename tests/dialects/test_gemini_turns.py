"""Turns as Gemini's contents: every kind of part in its place, and its own words back as they came."""

from typing import Any

import pytest

from llmd.chat import FilePart, ImagePart, Message, StatePart, TextPart, ToolCallPart, ToolResultPart
from llmd.core.outcomes import Answer
from tests.dialects.samples import SAMPLES, read_as, sse
from tests.support.calls import body


def test_turns_become_contents_and_a_result_finds_the_name_of_its_call() -> None:
    turns = [
        Message("system", "be kind"),
        Message("user", [TextPart("see"), ImagePart("image/png", "AAAA"), FilePart("application/pdf", "BBBB")]),
        Message("assistant", [ToolCallPart("c1", "f", {"x": 1}), ToolCallPart("c2", "g", {})]),
        Message("tool", [ToolResultPart("c2", "no", error=True), ToolResultPart("c1", "yes")]),
        Message("user", "go on"),
    ]
    assert body("gemini", messages=turns)["contents"] == [
        {
            "role": "user",
            "parts": [
                {"text": "see"},
                {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
                {"inlineData": {"mimeType": "application/pdf", "data": "BBBB"}},
            ],
        },
        {
            "role": "model",
            "parts": [
                {"functionCall": {"name": "f", "args": {"x": 1}}},
                {"functionCall": {"name": "g", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "g", "response": {"error": "no"}}},
                {"functionResponse": {"name": "f", "response": {"result": "yes"}}},
                {"text": "go on"},
            ],
        },
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_signed_goes_back_as_it_came(stream: bool) -> None:
    sample = SAMPLES["gemini"]
    made, _ = read_as("gemini", sample.stream if stream else [sample.whole], stream=stream)
    assert isinstance(made, Answer)
    turn = Message("assistant", [TextPart(made.text), StatePart("work", made.state)])
    assert body("gemini", messages=[Message("user", "a"), turn])["contents"][1] == {
        "role": "model",
        "parts": made.state,
    }
    assert made.state[-1]["thoughtSignature"] == "s1"


def test_an_id_that_gemini_gave_goes_back_with_the_call_and_its_result() -> None:
    call = {"functionCall": {"name": "f", "args": {}, "id": "g1"}}
    made, _ = read_as("gemini", sse({"candidates": [{"content": {"parts": [call]}, "finishReason": "STOP"}]}))
    assert isinstance(made, Answer)
    assert made.tool_calls[0].id == "g1"
    turn = Message("assistant", [ToolCallPart("g1", "f", {}), StatePart("work", made.state)])
    said: Any = body("gemini", messages=[Message("user", "a"), turn, Message("tool", [ToolResultPart("g1", "yes")])])
    assert said["contents"][1:] == [
        {"role": "model", "parts": [call]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"result": "yes"}, "id": "g1"}}]},
    ]


@pytest.mark.parametrize("state", [None, 1, [1], [{"functionCall": 1}], [{"functionCall": {"id": 1}}]], ids=repr)
def test_what_is_no_state_of_geminis_has_no_ids(state: Any) -> None:
    turn = Message("assistant", [ToolCallPart("g1", "f", {}), StatePart("work", state)])
    said: Any = body("gemini", messages=[turn, Message("tool", [ToolResultPart("g1", "yes")])])
    assert said["contents"][1]["parts"] == [{"functionResponse": {"name": "f", "response": {"result": "yes"}}}]


@pytest.mark.parametrize("empty", [[], [StatePart("another", [])]], ids=repr)
def test_a_turn_without_parts_is_left_out(empty: Any) -> None:
    turns = [Message("user", "a"), Message("assistant", empty), Message("user", "b")]
    assert body("gemini", messages=turns)["contents"] == [{"role": "user", "parts": [{"text": "a"}, {"text": "b"}]}]


def test_an_empty_text_is_one_as_well() -> None:
    assert body("gemini", prompt="")["contents"] == [{"role": "user", "parts": [{"text": ""}]}]
