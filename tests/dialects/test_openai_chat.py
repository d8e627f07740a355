"""What a request becomes in OpenAI's words: every param, every kind of message."""

from typing import Any

import msgspec
import pytest

from llmd.chat import (
    AnyPart,
    FilePart,
    ImagePart,
    Message,
    NamedTool,
    Reasoning,
    ResponseFormat,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from llmd.dialects.base import HttpCall
from tests.support.calls import DIALECT, ask, row


def call(
    max_tokens: int | None = None, stream: bool = False, facts: dict[str, Any] | None = None, **params: Any
) -> HttpCall:
    return DIALECT.request(ask(**params), row(**(facts or {})), max_tokens, stream)


def body(*args: Any, **params: Any) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.json.decode(call(*args, **params).body)
    return made


def messages(*parts: AnyPart, role: Any = "user") -> Any:
    return body(messages=[Message(role, list(parts))])["messages"]


def test_a_prompt_is_one_user_message_and_nothing_is_said_that_was_not_asked() -> None:
    assert body(prompt="hi") == {"model": "m1", "messages": [{"role": "user", "content": "hi"}]}


def test_system_comes_first() -> None:
    turns = body(system="be kind", messages=[Message("user", "a"), Message("assistant", "b"), Message("user", "c")])
    assert turns["messages"] == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"temperature": 0.0}, {"temperature": 0.0}),
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"stop": "END"}, {"stop": "END"}),
        ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"seed": 0}, {"seed": 0}),
        ({"seed": -(2**63)}, {"seed": -(2**63)}),
        ({"reasoning": Reasoning(effort="high")}, {"reasoning_effort": "high"}),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        ({"tool_choice": NamedTool("f")}, {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_param_is_said_as_openai_says_it(params: dict[str, Any], said: dict[str, Any]) -> None:
    made = body(**params)
    assert {name: value for name, value in made.items() if name not in ("model", "messages")} == said


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_limit_goes_under_the_name_that_the_endpoint_obeys(name: str) -> None:
    assert body(7, facts={"max_tokens_name": name})[name] == 7
    assert name not in body(None, facts={"max_tokens_name": name})


def test_the_limit_is_the_one_that_was_decided_not_the_one_that_was_asked_for() -> None:
    made = DIALECT.request(ask(max_tokens=100), row(), 7, False)
    assert msgspec.json.decode(made.body)["max_tokens"] == 7


def test_an_amount_of_reasoning_cannot_be_said_and_is_told_as_dropped() -> None:
    made = call(reasoning=Reasoning(tokens=100))
    assert made.dropped == ["reasoning"]
    assert b"reasoning" not in made.body
    assert call(reasoning=Reasoning(effort="low")).dropped == []


def test_a_tool_is_a_function_with_its_schema_as_it_was_given() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "number", "maximum": 1e30}}}
    assert body(tools=[Tool("f", schema, "does f"), Tool("g", {})])["tools"] == [
        {"type": "function", "function": {"name": "f", "parameters": schema, "description": "does f"}},
        {"type": "function", "function": {"name": "g", "parameters": {}}},
    ]


def test_a_response_format_is_a_strict_schema() -> None:
    schema = {"type": "object"}
    assert body(response_format=ResponseFormat("r", schema))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "r", "schema": schema, "strict": True},
    }


def test_a_stream_asks_for_its_usage_where_the_endpoint_knows_how() -> None:
    made = body(stream=True)
    assert (made["stream"], made["stream_options"]) == (True, {"include_usage": True})
    assert "stream_options" not in body(stream=True, facts={"stream_usage": False})
    assert "stream" not in body()


def test_what_is_said_for_routing_and_billing_stays_here() -> None:
    made = call(
        task_type="secret-task",
        labels={"a": "secret-label"},
        metadata={"m": "secret-metadata"},
        budget="secret-budget",
        idempotency_key="secret-key",
        timeout_ms=12345,
    )
    assert b"secret" not in made.body
    assert b"12345" not in made.body


def test_the_address_and_the_headers_hold_no_credentials() -> None:
    made = call(facts={"base_url": "http://127.0.0.1:9/v1/"})
    assert made.url == "http://127.0.0.1:9/v1/chat/completions"
    assert made.headers == {"content-type": "application/json", "accept": "application/json"}
    assert call(stream=True).headers["accept"] == "text/event-stream"


# -- messages --------------------------------------------------------------------------------------------------------


def test_parts_that_are_all_text_are_one_text() -> None:
    assert messages(TextPart("a"), TextPart("b")) == [{"role": "user", "content": "a\nb"}]


def test_an_image_and_a_file_go_inside_the_message_in_their_place() -> None:
    (made,) = messages(TextPart("what is"), ImagePart("image/png", "QUJD"), FilePart("application/pdf", "REVG"))
    assert made["content"] == [
        {"type": "text", "text": "what is"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        {"type": "file", "file": {"filename": "file", "file_data": "data:application/pdf;base64,REVG"}},
    ]


def test_an_assistants_tool_calls_go_back_with_their_arguments_as_text() -> None:
    (made,) = messages(TextPart("let me see"), ToolCallPart("c1", "f", {"x": [1, "é"]}), role="assistant")
    assert made == {
        "role": "assistant",
        "content": "let me see",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x":[1,"é"]}'}}],
    }


def test_tool_calls_without_a_word_have_no_content() -> None:
    (made,) = messages(ToolCallPart("c1", "f", {}), role="assistant")
    assert made["content"] is None


@pytest.mark.parametrize("role", ["tool", "user"])
def test_each_tool_result_is_a_message_of_its_own_before_what_is_said_with_it(role: str) -> None:
    made = messages(ToolResultPart("c1", "4"), ToolResultPart("c2", "boom", error=True), TextPart("and?"), role=role)
    assert made == [
        {"role": "tool", "tool_call_id": "c1", "content": "4"},
        {"role": "tool", "tool_call_id": "c2", "content": "boom"},
        {"role": "user", "content": "and?"},  # who knows of no result cannot be a tool
    ]
    assert len(messages(ToolResultPart("c1", "4"), role=role)) == 1
