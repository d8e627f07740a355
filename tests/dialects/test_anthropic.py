"""Anthropic's words: what a request becomes in them, and what of an answer only they have."""

from typing import Any

import pytest

from llmd.chat import NamedTool, Reasoning, ResponseFormat, Tool, Usage
from llmd.core.outcomes import Answer, Failure
from llmd.dialects import DIALECTS
from llmd.dialects.anthropic import MAX_TOKENS, VERSION
from tests.dialects.samples import SAMPLES, read_as, sse
from tests.support.calls import ask, body, dropped, row

SCHEMA = {"type": "object"}
HELLO = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, {}),
        ({"system": "be kind"}, {"system": "be kind"}),
        ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["A", "B"]}, {"stop_sequences": ["A", "B"]}),
        ({"reasoning": Reasoning(effort="none")}, {"thinking": {"type": "disabled"}}),
        ({"reasoning": Reasoning(tokens=2000)}, {"thinking": {"type": "enabled", "budget_tokens": 2000}}),
        ({"reasoning": Reasoning(tokens=7)}, {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
        ({"reasoning": Reasoning(effort="xhigh")}, {"thinking": {"type": "enabled", "budget_tokens": 4999}}),
        ({"tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
        ({"tool_choice": NamedTool("f")}, {"tool_choice": {"type": "tool", "name": "f"}}),
        (
            {"tools": [Tool("f", SCHEMA), Tool("g", SCHEMA, "does g")]},
            {
                "tools": [
                    {"name": "f", "input_schema": SCHEMA},
                    {"name": "g", "input_schema": SCHEMA, "description": "does g"},
                ]
            },
        ),
        (
            {"response_format": ResponseFormat("form", SCHEMA)},
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        ),
    ],
    ids=repr,
)
def test_a_param_is_said_as_anthropic_says_it(params: dict[str, Any], said: dict[str, Any]) -> None:
    assert body("anthropic", 5000, **params) == {"model": "m1", "max_tokens": 5000, "messages": HELLO, **said}
    assert dropped("anthropic", 5000, **params) == []


def test_an_answer_has_a_limit_whether_one_was_asked_for_or_not() -> None:
    assert body("anthropic")["max_tokens"] == MAX_TOKENS


@pytest.mark.parametrize(
    ("max_tokens", "params", "names"),
    [
        (5000, {"seed": 7}, ["seed"]),
        (1024, {"reasoning": Reasoning(effort="low")}, ["reasoning"]),
    ],
    ids=repr,
)
def test_what_cannot_be_said_is_told_as_dropped(max_tokens: int, params: dict[str, Any], names: list[str]) -> None:
    assert dropped("anthropic", max_tokens, **params) == names
    assert "seed" not in body("anthropic", max_tokens, **params)


def test_the_address_the_version_and_no_credentials() -> None:
    call = DIALECTS["anthropic"].request(ask(), row(base_url="https://api.example/v1/"), None, True)
    assert call.url == "https://api.example/v1/messages"
    assert call.headers == {
        "content-type": "application/json",
        "accept": "text/event-stream",
        "anthropic-version": VERSION,
    }


# -- what comes back ------------------------------------------------------------------------------------------------


def ended(reason: str | None, usage: Any = None, **message: Any) -> Answer:
    outcome, _ = read_as(
        "anthropic",
        sse(
            {"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 4, "output_tokens": 1}}},
            {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage},
            {"type": "message_stop"},
        ),
    )
    assert isinstance(outcome, Answer), outcome
    return outcome


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "refusal"),
        ("pause_turn", "other"),
        (None, "other"),
    ],
)
def test_why_it_ended(reason: str | None, finish: str) -> None:
    assert ended(reason).finish_reason == finish


def test_counts_are_cumulative_and_those_that_are_not_told_again_stay() -> None:
    made = ended("end_turn", {"output_tokens": 9, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 7})
    assert made.usage is not None
    assert (made.usage.input_tokens, made.usage.output_tokens, made.usage.total_tokens) == (16, 9, 25)
    assert (made.usage.cache_read_tokens, made.usage.cache_write_tokens) == (5, 7)


@pytest.mark.parametrize("more", [[], [{"type": "error", "error": {"type": "overloaded_error"}}], [[]]], ids=str)
def test_what_a_stream_had_told_when_it_broke_off_was_seen(more: list[Any]) -> None:
    start = {"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 90, "output_tokens": 1}}}
    outcome, _ = read_as("anthropic", sse(start, *more), cut=not more)
    assert isinstance(outcome, Failure)
    assert (outcome.usage, outcome.seen) == (None, Usage(input_tokens=90, output_tokens=1, total_tokens=91))


def test_an_error_within_a_stream_ends_it_with_that_error() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    outcome, _ = read_as("anthropic", [*SAMPLES["anthropic"].stream[:5], *sse(error)])
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.provider_text) == ("upstream_unavailable", "Overloaded")


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (400, "context_too_long", {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8"}),
        (401, "upstream_auth", {"type": "authentication_error", "message": "invalid x-api-key"}),
        (404, "model_not_found", {"type": "not_found_error", "message": "model: x"}),
        (429, "upstream_rate_limited", {"type": "rate_limit_error", "message": "slow down"}),
        (529, "upstream_unavailable", {"type": "overloaded_error", "message": "Overloaded"}),
    ],
)
def test_an_error_is_told_by_its_status_and_body(status: int, kind: str, told: dict[str, str]) -> None:
    error = sse({"type": "error", "error": told})[0].partition(b"data: ")[2]
    outcome, _ = read_as("anthropic", [error], stream=False, status=status)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.http_status) == (kind, status)
