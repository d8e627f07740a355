"""The words of OpenAI's Responses: what a request becomes in them, and what of an answer only they have."""

from typing import Any

import pytest

from llmd.chat import (
    FilePart,
    ImagePart,
    Message,
    NamedTool,
    Reasoning,
    ResponseFormat,
    StatePart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from llmd.core.outcomes import Answer
from llmd.dialects import DIALECTS
from tests.dialects.samples import SAMPLES, read_as
from tests.support.calls import ask, body, dropped, row

NAME = "openai-responses"
SCHEMA = {"type": "object"}
BARE = {
    "model": "m1",
    "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}],
    "store": False,
}
SEALED = {"include": ["reasoning.encrypted_content"]}


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, {}),
        ({"system": "be kind"}, {"instructions": "be kind"}),
        ({"temperature": 0.0, "top_p": 0.5}, {"temperature": 0.0, "top_p": 0.5}),
        ({"reasoning": Reasoning(effort="low")}, {"reasoning": {"effort": "low", "summary": "auto"}, **SEALED}),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        ({"tool_choice": NamedTool("f")}, {"tool_choice": {"type": "function", "name": "f"}}),
        (
            {"tools": [Tool("f", SCHEMA), Tool("g", SCHEMA, "does g")]},
            {
                "tools": [
                    {"type": "function", "name": "f", "parameters": SCHEMA, "strict": False},
                    {"type": "function", "name": "g", "parameters": SCHEMA, "strict": False, "description": "does g"},
                ]
            },
        ),
        (
            {"response_format": ResponseFormat("form", SCHEMA)},
            {"text": {"format": {"type": "json_schema", "name": "form", "schema": SCHEMA, "strict": True}}},
        ),
    ],
    ids=repr,
)
def test_a_param_is_said_as_responses_say_it(params: dict[str, Any], said: dict[str, Any]) -> None:
    assert body(NAME, **params) == {**BARE, **said}
    assert dropped(NAME, **params) == []


def test_the_limit_is_the_one_that_was_decided_and_a_stream_is_asked_for() -> None:
    assert body(NAME, 20, stream=True) == {**BARE, "max_output_tokens": 20, "stream": True}


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"seed": 7, "stop": "END"}, ["stop", "seed"]),
        ({"reasoning": Reasoning(tokens=9)}, ["reasoning"]),
    ],
    ids=repr,
)
def test_what_cannot_be_said_is_told_as_dropped(params: dict[str, Any], names: list[str]) -> None:
    assert dropped(NAME, **params) == names
    assert body(NAME, **params) == BARE


def test_an_image_among_the_instructions_is_told_as_dropped() -> None:
    parts = [TextPart("be kind"), ImagePart("image/png", "AAAA"), FilePart("text/csv", "AAAA")]
    turns = [Message("system", "be brief"), Message("system", parts), Message("user", "hello")]
    assert dropped(NAME, messages=turns) == ["messages[1].content[1]", "messages[1].content[2]"]
    assert body(NAME, messages=turns)["instructions"] == "be brief\n\nbe kind"
    assert dropped(NAME, messages=[Message("user", parts)]) == []


def test_thoughts_are_asked_for_sealed_only_of_a_model_that_reasons() -> None:
    assert "include" not in body(NAME)
    assert body(NAME, facts={"refuses": ("temperature", "top_p")})["include"] == SEALED["include"]
    assert body(NAME, reasoning=Reasoning(effort="none"))["include"] == SEALED["include"]


def test_turns_become_items_with_calls_and_results_of_their_own() -> None:
    turns = [
        Message("system", "be kind"),
        Message("user", [TextPart("see"), ImagePart("image/png", "AAAA"), FilePart("application/pdf", "BBBB")]),
        Message("assistant", [TextPart("hm"), ToolCallPart("c1", "f", {"x": 1}), StatePart("another", [{"a": 1}])]),
        Message("tool", [ToolResultPart("c1", "yes")]),
        Message("user", "go on"),
    ]
    assert body(NAME, messages=turns)["input"] == [
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "see"},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
                {"type": "input_file", "filename": "file", "file_data": "data:application/pdf;base64,BBBB"},
            ],
        },
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x":1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "yes"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go on"}]},
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_what_it_thought_goes_back_as_it_came(stream: bool) -> None:
    sample = SAMPLES[NAME]
    made, _ = read_as(NAME, sample.stream if stream else [sample.whole], stream=stream)
    assert isinstance(made, Answer)
    turn = Message("assistant", [TextPart(made.text), StatePart("work", made.state)])
    assert body(NAME, messages=[Message("user", "a"), turn])["input"][1:] == made.state
    assert made.state[0]["encrypted_content"] == "sealed"


def test_the_address_and_no_credentials() -> None:
    call = DIALECTS[NAME].request(ask(), row(base_url="https://api.example/v1/"), None, False)
    assert call.url == "https://api.example/v1/responses"
    assert call.headers == {"content-type": "application/json", "accept": "application/json"}
