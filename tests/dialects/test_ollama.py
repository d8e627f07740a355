"""Ollama's words: what a request becomes in them, and what of an answer only they have."""

import json
from typing import Any

import pytest

from llmd.chat import (
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
from llmd.core.outcomes import Answer, Failure
from llmd.dialects import DIALECTS
from tests.dialects.samples import SAMPLES, read_as
from tests.support.calls import ask, body, dropped, row

SCHEMA = {"type": "object"}
BY_EFFORT = {"reasoning": "effort"}
HELLO = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, {}),
        (
            {"temperature": 0.0, "top_p": 0.5, "stop": "END", "seed": 7},
            {"options": {"temperature": 0.0, "top_p": 0.5, "stop": ["END"], "seed": 7}},
        ),
        ({"stop": ["A", "B"]}, {"options": {"stop": ["A", "B"]}}),
        ({"reasoning": Reasoning(effort="none")}, {"think": False}),
        ({"reasoning": Reasoning(tokens=0)}, {"think": False}),
        ({"reasoning": Reasoning(effort="low")}, {"think": True}),
        ({"reasoning": Reasoning(effort="none"), "facts": BY_EFFORT}, {"think": "low"}),
        ({"reasoning": Reasoning(effort="medium"), "facts": BY_EFFORT}, {"think": "medium"}),
        ({"reasoning": Reasoning(effort="xhigh"), "facts": BY_EFFORT}, {"think": "high"}),
        ({"facts": {"context_tokens": 8192}}, {"options": {"num_ctx": 8192}}),
        ({"tool_choice": "auto"}, {}),
        ({"response_format": ResponseFormat("form", SCHEMA)}, {"format": SCHEMA}),
        (
            {"tools": [Tool("f", SCHEMA, "does f")]},
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA, "description": "does f"}}]},
        ),
    ],
    ids=repr,
)
def test_a_param_is_said_as_ollama_says_it(params: dict[str, Any], said: dict[str, Any]) -> None:
    assert body("ollama", **params) == {"model": "m1", "messages": HELLO, "stream": False, **said}
    assert dropped("ollama", **params) == []


def test_the_limit_is_the_one_that_was_decided_and_a_stream_is_asked_for() -> None:
    made = body("ollama", 10, stream=True)
    assert (made["options"], made["stream"]) == ({"num_predict": 10}, True)


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"reasoning": Reasoning(tokens=9)}, ["reasoning"]),
        ({"tool_choice": NamedTool("f")}, ["tool_choice"]),
        ({"messages": [Message("user", [TextPart("see"), FilePart("application/pdf", "BBBB")])]}, ["file"]),
    ],
    ids=repr,
)
def test_what_cannot_be_said_is_told_as_dropped(params: dict[str, Any], names: list[str]) -> None:
    assert dropped("ollama", **params) == names


def test_files_are_told_once_and_a_turn_of_nothing_else_is_still_one() -> None:
    turns = [Message("user", [FilePart("application/pdf", "BBBB")]) for _ in range(2)]
    assert body("ollama", messages=turns)["messages"] == [{"role": "user", "content": ""}] * 2
    assert dropped("ollama", messages=turns) == ["file"]


def test_a_turn_of_results_alone_is_no_more_than_they_are() -> None:
    turns = [Message("assistant", [ToolCallPart("c1", "f", {})]), Message("user", [ToolResultPart("c1", "yes")])]
    assert [message["role"] for message in body("ollama", messages=turns)["messages"]] == ["assistant", "tool"]


def test_turns_become_messages_and_each_result_one_of_its_own() -> None:
    turns = [
        Message("system", "be kind"),
        Message("user", [TextPart("see"), ImagePart("image/png", "AAAA")]),
        Message("assistant", [TextPart("hm"), ToolCallPart("c1", "f", {"x": 1})]),
        Message("tool", [ToolResultPart("c1", "yes")]),
        Message("user", "go on"),
    ]
    assert body("ollama", messages=turns)["messages"] == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "see", "images": ["AAAA"]},
        {"role": "assistant", "content": "hm", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]},
        {"role": "tool", "content": "yes", "tool_name": "f"},
        {"role": "user", "content": "go on"},
    ]


def test_the_address() -> None:
    call = DIALECTS["ollama"].request(ask(), row(base_url="http://127.0.0.1:11434/"), None, True)
    assert call.url == "http://127.0.0.1:11434/api/chat"
    assert call.headers == {"content-type": "application/json", "accept": "application/x-ndjson"}


# -- what comes back ------------------------------------------------------------------------------------------------


def read(**reply: Any) -> Any:
    return read_as("ollama", [json.dumps({"message": {"content": "a"}, "done": True, **reply}).encode()], stream=False)[
        0
    ]


@pytest.mark.parametrize(
    ("reason", "finish"), [("stop", "stop"), (None, "stop"), ("length", "length"), ("load", "other")]
)
def test_why_it_ended(reason: str | None, finish: str) -> None:
    assert read(done_reason=reason).finish_reason == finish


def test_half_a_usage_is_none() -> None:
    assert read(eval_count=3).usage is None


def test_an_error_is_a_line_as_well() -> None:
    outcome, _ = read_as("ollama", [*SAMPLES["ollama"].stream[:2], b'{"error": "out of memory"}\n'])
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.provider_text) == ("upstream_unavailable", "out of memory")


def test_a_line_without_an_end_is_the_last_one() -> None:
    outcome, _ = read_as("ollama", [b"".join(SAMPLES["ollama"].stream).rstrip(b"\n")])
    assert isinstance(outcome, Answer)


def test_an_error_is_told_by_its_status_and_body() -> None:
    outcome, _ = read_as("ollama", [b'{"error": "model \'x\' not found"}'], stream=False, status=404)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.provider_text) == ("model_not_found", "model 'x' not found")
