"""A request as a client of OpenAI's API makes it, in llmd's words; what does not fit is told with its path."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.chat import (
    FilePart,
    ImagePart,
    Message,
    NamedTool,
    Reasoning,
    Relayed,
    ResponseFormat,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from llmd.dialects.expressing import expressible
from llmd.dialects.openai_server import Request, read_request
from llmd.errors import LLMError
from tests.support.calls import DIALECT, row

HELLO = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "object"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA, "strict": True}}
FORM = {"name": "s", "schema": SCHEMA}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}


def read(**params: Any) -> Request:
    return read_request(json.dumps({"model": "work/m1", "messages": HELLO, **params}).encode())


def test_a_request_is_an_ask() -> None:
    assert read() == Request(Relayed(model="work/m1", messages=[Message("user", "hello")]), stream=False, usage=False)


@pytest.mark.parametrize("model", ["auto", "", None])
def test_a_model_that_is_not_named_is_left_to_the_rules(model: str | None) -> None:
    assert read(model=model).ask.model is None


@pytest.mark.parametrize(
    ("params", "asked"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 6, "max_tokens": 5}, {"max_tokens": 6}),
        ({"temperature": 0.5, "top_p": 1, "seed": 7}, {"temperature": 0.5, "top_p": 1, "seed": 7}),
        ({"stop": ["a"]}, {"stop": ["a"]}),
        ({"reasoning_effort": "low"}, {"reasoning": Reasoning(effort="low")}),
        ({"reasoning_effort": "max"}, {"more": {"reasoning_effort": "max"}}),
        ({"reasoning_effort": ["low"]}, {"more": {"reasoning_effort": ["low"]}}),
        ({"reasoning_effort": {}}, {"more": {"reasoning_effort": {}}}),
        ({"tools": [TOOL]}, {"tools": [Tool("f", SCHEMA)], "more": {"tools[0].function.strict": True}}),
        ({"tools": [TOOL, {"type": "custom"}]}, {"more": {"tools": [TOOL, {"type": "custom"}]}}),
        ({"tool_choice": "any"}, {"tool_choice": "required"}),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, {"tool_choice": NamedTool("f")}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {**FORM, "strict": True, "description": "d"}}},
            {
                "response_format": ResponseFormat("s", SCHEMA),
                "more": {"response_format.json_schema.description": "d"},
            },
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": FORM}},
            {
                "response_format": ResponseFormat("s", SCHEMA),
                "more": {"response_format.json_schema.strict": False},
            },
        ),
        ({"response_format": {"type": "json_object"}}, {"more": {"response_format": {"type": "json_object"}}}),
        ({"n": 1, "user": None, "presence_penalty": 0}, {"more": {"presence_penalty": 0}}),
        ({"logprobs": False, "modalities": ["text"]}, {"more": {"logprobs": False, "modalities": ["text"]}}),
    ],
    ids=repr,
)
def test_a_member_is_said_in_llmds_words_or_passed_on(params: dict[str, Any], asked: dict[str, Any]) -> None:
    assert read(**params).ask == Relayed(model="work/m1", messages=[Message("user", "hello")], **asked)


@pytest.mark.parametrize(
    ("message", "turn"),
    [
        ({"role": "developer", "content": "x"}, Message("system", "x")),
        ({"role": "assistant", "content": None, "tool_calls": [CALL]}, [ToolCallPart("c1", "f", {"x": 1})]),
        (
            {"role": "assistant", "content": "x", "tool_calls": [CALL]},
            [TextPart("x"), ToolCallPart("c1", "f", {"x": 1})],
        ),
        ({"role": "assistant", "content": [{"type": "refusal", "text": "no"}]}, [TextPart("no")]),
        ({"role": "tool", "tool_call_id": "c1", "content": "4"}, Message("tool", [ToolResultPart("c1", "4")])),
        (
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "4"}]},
            Message("tool", [ToolResultPart("c1", "4")]),
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
            Message("user", [ImagePart("image/png", "AAAA")]),
        ),
        (
            {"role": "user", "content": [{"type": "file", "file": {"file_data": "data:text/csv;base64,AAAA"}}]},
            Message("user", [FilePart("text/csv", "AAAA")]),
        ),
    ],
    ids=repr,
)
def test_a_message_is_a_turn(message: dict[str, Any], turn: Any) -> None:
    assert read(messages=[message]).ask.messages == [turn if isinstance(turn, Message) else Message("assistant", turn)]


def test_what_a_message_says_besides_goes_to_who_speaks_the_same_words_and_is_told_elsewhere() -> None:
    said = [
        {"role": "system", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]},
        {"role": "user", "name": "ann", "content": "hello", "tool_calls": None},
        {"role": "assistant", "content": None},  # which is no message at all
        {
            "role": "assistant",
            "reasoning_details": ["s"],
            "tool_calls": [{**CALL, "extra_content": {"a": 1}}],
        },
        {"role": "tool", "tool_call_id": "c1", "name": "f", "content": [{"type": "text", "text": "4", "x": 1}]},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}],
        },
    ]
    ask = read(messages=said).ask
    kept = [
        "messages[0].content[0].cache_control",
        "messages[1].name",
        "messages[3].reasoning_details",
        "messages[3].tool_calls[0].extra_content",
        "messages[4].name",
        "messages[5].content[0].image_url.detail",
    ]
    lost = ["messages[4].content[0].x"]  # a result is one text
    assert sorted(ask.more) == sorted(kept + lost)
    made = DIALECT.request(ask, row(), None, False)
    assert made.dropped == lost
    (*_, tool, _) = built = json.loads(made.body)["messages"]
    assert tool == {"role": "tool", "tool_call_id": "c1", "name": "f", "content": "4"}
    assert (built[0], built[1], built[4]) == (said[0], {"role": "user", "name": "ann", "content": "hello"}, said[5])
    assert built[2]["reasoning_details"] == ["s"]
    assert built[2]["tool_calls"][0]["extra_content"] == {"a": 1}
    assert expressible(ask, row(dialect="anthropic"))[1] == list(ask.more)


def test_a_refusal_of_an_earlier_turn_is_what_was_said() -> None:
    said = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}
    assert read(messages=[said]).ask.messages == [Message("assistant", [TextPart("no")])]


def test_a_place_that_is_not_there_is_told_as_dropped() -> None:
    lost = {
        "messages[9].x": 1,
        "tools[0].function.strict": True,
        "messages[0].content.x": 1,
        "messages[0].content[0].x": 1,
    }
    odd = {
        "messages[": 1,
        "tools[0]": 1,
        "response_format.": 1,
        f"messages[{'9' * 5000}].content[0].x": 1,
    }  # names, and no paths
    made = DIALECT.request(Relayed(messages=[Message("user", "hello")], more={**lost, **odd}), row(), None, False)
    assert made.dropped == list(lost)
    assert json.loads(made.body) == {"model": "m1", "messages": HELLO, **odd}


def test_a_stream_may_tell_its_usage() -> None:
    assert (read(stream=True).stream, read(stream=True).usage) == (True, False)
    assert read(stream=True, stream_options={"include_usage": True}).usage


IMAGE_BY_URL = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]}


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"modalities": ["text", "audio"], "audio": {"voice": "a", "format": "wav"}}, "audio"),
        ({"functions": [{"name": "f", "parameters": SCHEMA}]}, "functions"),
        ({"messages": []}, "messages"),
        ({"messages": "x"}, "messages"),
        ({"messages": [{"role": "nobody"}]}, "messages[0].role"),
        ({"messages": [IMAGE_BY_URL]}, "messages[0].content[0].image_url.url"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0].type"),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "["}}]}
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": "high"}, "top_p"),
    ],
    ids=repr,
)
def test_what_does_not_fit_is_told_with_its_path(params: dict[str, Any], path: str) -> None:
    with pytest.raises(LLMError) as caught:
        read(**params)
    assert (caught.value.kind, caught.value.data["path"]) == ("invalid_params", path)


@given(
    st.binary(max_size=60)
    | st.recursive(st.none() | st.text(), lambda x: st.dictionaries(st.text(), x)).map(
        lambda value: json.dumps({"messages": HELLO, "x": value, "tools": value}).encode()
    )
)
def test_any_bytes_are_a_request_or_told_as_none(body: bytes) -> None:
    with suppress(LLMError):
        assert read_request(body).ask.messages


def test_members_of_openais_own_reach_only_who_speaks_its_words() -> None:
    ask = read(logit_bias={"1": 2}).ask
    assert expressible(ask, row()) == (ask, [])
    assert expressible(ask, row(dialect="anthropic")) == (ask, ["logit_bias"])
