"""The words of OpenAI's Responses: what a request becomes in them, and what of an answer only they have."""

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
    StatePart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from llmd.core.outcomes import Answer, Failure
from llmd.dialects import DIALECTS
from tests.dialects.samples import SAMPLES, read_as, sse
from tests.support.calls import ask, body, dropped, row

NAME = "openai-responses"
SCHEMA = {"type": "object"}
BARE = {
    "model": "m1",
    "input": [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}],
    "store": False,
    "include": ["reasoning.encrypted_content"],
}


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, {}),
        ({"system": "be kind"}, {"instructions": "be kind"}),
        ({"temperature": 0.0, "top_p": 0.5}, {"temperature": 0.0, "top_p": 0.5}),
        ({"reasoning": Reasoning(effort="low")}, {"reasoning": {"effort": "low", "summary": "auto"}}),
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
            "role": "user",
            "content": [
                {"type": "input_text", "text": "see"},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
                {"type": "input_file", "filename": "file", "file_data": "data:application/pdf;base64,BBBB"},
            ],
        },
        {"role": "assistant", "content": [{"type": "output_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x":1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "yes"},
        {"role": "user", "content": [{"type": "input_text", "text": "go on"}]},
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


# -- what comes back ------------------------------------------------------------------------------------------------


def read(**response: Any) -> Any:
    message = {"type": "message", "content": [{"type": "output_text", "text": "a"}]}
    whole = {"status": "completed", "output": [message], **response}
    return read_as(NAME, [json.dumps(whole).encode()], stream=False)[0]


@pytest.mark.parametrize(
    ("status", "reason", "finish"),
    [
        ("completed", None, "stop"),
        ("incomplete", "max_output_tokens", "length"),
        ("incomplete", "content_filter", "content_filter"),
        ("queued", None, "other"),
        (None, None, "other"),
    ],
)
def test_why_it_ended(status: str | None, reason: str | None, finish: str) -> None:
    details = None if reason is None else {"reason": reason}
    assert read(status=status, incomplete_details=details).finish_reason == finish


def test_a_refusal_is_no_text_and_a_finish_reason() -> None:
    message = {"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}
    made = read(output=[message])
    assert (made.text, made.refusal, made.finish_reason) == ("", "no", "refusal")
    pieces = sse(
        {"type": "response.refusal.delta", "delta": "n"},
        {"type": "response.refusal.delta", "delta": "o"},
        {"type": "response.completed", "response": {"status": "completed", "output": [message]}},
    )
    assert read_as(NAME, pieces)[0] == made


def test_a_stream_that_tells_only_its_end_is_whole() -> None:
    whole = {"status": "completed", "output": [{"type": "message", "content": [{"type": "output_text", "text": "a"}]}]}
    outcome, deltas = read_as(NAME, sse({"type": "response.completed", "response": whole}))
    assert isinstance(outcome, Answer)
    assert (outcome.text, [delta.text for delta in deltas]) == ("a", ["a"])


def test_what_the_provider_bills_is_the_cost_rounded_up() -> None:
    usage = {"input_tokens": 1, "output_tokens": 1, "cost_in_usd_ticks": 11}
    assert read(usage=usage).cost_nano_usd == 2
    assert read(usage={**usage, "cost_in_usd_ticks": None}).cost_nano_usd is None


def test_half_a_usage_is_none() -> None:
    assert read(usage={"input_tokens": 1}).usage is None


@pytest.mark.parametrize(
    "last",
    [
        {"type": "error", "code": "server_error", "message": "broken"},
        {"type": "error", "error": {"code": "server_error", "message": "broken"}},
        {
            "type": "response.failed",
            "response": {"status": "failed", "error": {"code": "server_error", "message": "broken"}},
        },
    ],
    ids=["flat", "nested", "failed"],
)
def test_an_error_within_a_stream_ends_it_with_that_error(last: dict[str, Any]) -> None:
    outcome, _ = read_as(NAME, [*SAMPLES[NAME].stream[:3], *sse(last)])
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.provider_text) == ("upstream_unavailable", "broken")
