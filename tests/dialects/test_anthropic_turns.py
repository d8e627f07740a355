"""Turns as Anthropic's messages: every kind of part in its place, and what the API would refuse left out or told."""

from base64 import b64encode
from typing import Any

import pytest

from llmd.chat import FilePart, ImagePart, Message, StatePart, TextPart, ToolCallPart, ToolResultPart
from llmd.core.outcomes import Answer
from tests.dialects.samples import SAMPLES, read_as
from tests.support.calls import body, dropped


def said(*turns: Message) -> Any:
    return body("anthropic", messages=list(turns))["messages"]


def test_turns_become_messages_that_alternate_with_every_kind_of_part_in_its_place() -> None:
    turns = [
        Message("system", "be kind"),
        Message("user", [TextPart("see"), ImagePart("image/png", "AAAA"), FilePart("application/pdf", "BBBB")]),
        Message("assistant", [TextPart("hm"), ToolCallPart("c1", "f", {"x": 1}), StatePart("another", [{"a": 1}])]),
        Message("tool", [ToolResultPart("c1", "no", error=True)]),
        Message("user", "go on"),
    ]
    made = body("anthropic", messages=turns)
    assert made["system"] == "be kind"
    assert made["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "see"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "BBBB"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "hm"},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "no", "is_error": True},
                {"type": "text", "text": "go on"},
            ],
        },
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_what_it_thought_goes_back_as_it_came(stream: bool) -> None:
    sample = SAMPLES["anthropic"]
    made, _ = read_as("anthropic", sample.stream if stream else [sample.whole], stream=stream)
    assert isinstance(made, Answer)
    turn = Message("assistant", [TextPart(made.text), StatePart("work", made.state)])
    said = body("anthropic", messages=[Message("user", "a"), turn, Message("user", "b")])["messages"][1]
    assert said == {"role": "assistant", "content": made.state}
    assert made.state[0] == {"type": "thinking", "thinking": "hm ", "signature": "s1"}


def test_a_file_of_text_is_sent_as_text() -> None:
    written = "Dummy TXT file é\n"
    file = FilePart("text/markdown; charset=utf-8", b64encode(written.encode()).decode())
    source = {"type": "text", "media_type": "text/plain", "data": written}
    assert said(Message("user", [file])) == [{"role": "user", "content": [{"type": "document", "source": source}]}]


@pytest.mark.parametrize(
    "file",
    [FilePart("application/zip", "AAAA"), FilePart("text/plain", "/w=="), FilePart("text/plain", "no base64")],
    ids=["no document", "no UTF-8", "no base64"],
)
def test_a_file_that_cannot_be_sent_is_told_once(file: FilePart) -> None:
    turn = Message("user", [TextPart("see"), file, file])
    assert said(turn) == [{"role": "user", "content": [{"type": "text", "text": "see"}]}]
    assert dropped("anthropic", messages=[turn]) == ["file"]


@pytest.mark.parametrize("empty", ["", " \n", [], [TextPart("")], [StatePart("another", [])]], ids=repr)
def test_a_turn_without_a_word_is_left_out(empty: Any) -> None:
    turns = [Message("user", "a"), Message("assistant", empty), Message("user", "b")]
    both = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert said(*turns) == [{"role": "user", "content": both}]


def test_a_blank_text_beside_a_call_is_left_out() -> None:
    call = ToolCallPart("c1", "f", {})
    turn = Message("assistant", [TextPart("\n\n"), call])
    assert [block["type"] for block in said(Message("user", "a"), turn)[1]["content"]] == ["tool_use"]


@pytest.mark.parametrize(
    "answered",
    [
        [Message("user", [TextPart("go on"), ToolResultPart("c1", "yes")])],
        [Message("user", "go on"), Message("tool", [ToolResultPart("c1", "yes")])],
    ],
    ids=["in one turn", "in two"],
)
def test_results_stand_before_what_else_is_said(answered: list[Message]) -> None:
    asked = [Message("user", "a"), Message("assistant", [ToolCallPart("c1", "f", {})])]
    assert said(*asked, *answered)[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "c1", "content": "yes"},
        {"type": "text", "text": "go on"},
    ]
