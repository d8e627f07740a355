"""Gemini's words: what a request becomes in them, and what of an answer only they have."""

import json
from typing import Any

import pytest

from llmd.chat import NamedTool, Reasoning, ResponseFormat, Tool, Usage
from llmd.core.outcomes import Answer, Failure
from llmd.core.rows import ReasoningLimits
from llmd.dialects import DIALECTS
from tests.dialects.samples import read_as, sse
from tests.support.calls import ask, body, dropped, row

SCHEMA = {"type": "object"}
HELLO = [{"role": "user", "parts": [{"text": "hello"}]}]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, {}),
        ({"system": "be kind"}, {"systemInstruction": {"parts": [{"text": "be kind"}]}}),
        (
            {"temperature": 0.0, "top_p": 0.5, "stop": "END", "seed": 7},
            {"generationConfig": {"temperature": 0.0, "topP": 0.5, "stopSequences": ["END"], "seed": 7}},
        ),
        ({"tool_choice": "auto"}, {"toolConfig": {"functionCallingConfig": {"mode": "AUTO"}}}),
        (
            {"tool_choice": NamedTool("f")},
            {"toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}}},
        ),
        (
            {"tools": [Tool("f", SCHEMA), Tool("g", SCHEMA, "does g")]},
            {
                "tools": [
                    {
                        "functionDeclarations": [
                            {"name": "f", "parametersJsonSchema": SCHEMA},
                            {"name": "g", "parametersJsonSchema": SCHEMA, "description": "does g"},
                        ]
                    }
                ]
            },
        ),
        (
            {"response_format": ResponseFormat("form", SCHEMA)},
            {"generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}},
        ),
        (
            {"reasoning": Reasoning(tokens=99)},
            {"generationConfig": {"thinkingConfig": {"thinkingBudget": 99, "includeThoughts": True}}},
        ),
        (
            {"reasoning": Reasoning(effort="xhigh")},
            {"generationConfig": {"thinkingConfig": {"thinkingLevel": "high", "includeThoughts": True}}},
        ),
        (
            {"reasoning": Reasoning(effort="none"), "facts": {"reasoning": "tokens"}},
            {"generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}},
        ),
    ],
    ids=repr,
)
def test_a_param_is_said_as_gemini_says_it(params: dict[str, Any], said: dict[str, Any]) -> None:
    assert body("gemini", **params) == {"contents": HELLO, **said}
    assert dropped("gemini", **params) == []


PRO = {"reasoning": "tokens", "reasoning_limits": ReasoningLimits(least=128, most=32_768, off=False)}
LITE = {"reasoning": "tokens", "reasoning_limits": ReasoningLimits(least=512, most=24_576)}
PRO_3 = {"reasoning_limits": ReasoningLimits(efforts=("low", "high"))}


@pytest.mark.parametrize(
    ("facts", "reasoning", "told"),
    [
        (PRO, Reasoning(effort="none"), {"thinkingBudget": 128}),
        (PRO, Reasoning(tokens=50_000), {"thinkingBudget": 32_768}),
        (LITE, Reasoning(tokens=0), {"thinkingBudget": 0}),
        (LITE, Reasoning(tokens=1), {"thinkingBudget": 512}),
        (PRO_3, Reasoning(effort="none"), {"thinkingLevel": "low"}),
        (PRO_3, Reasoning(effort="minimal"), {"thinkingLevel": "low"}),
        (PRO_3, Reasoning(effort="medium"), {"thinkingLevel": "high"}),
        (PRO_3, Reasoning(effort="xhigh"), {"thinkingLevel": "high"}),
        ({}, Reasoning(effort="none"), {"thinkingLevel": "minimal"}),
        ({}, Reasoning(effort="medium"), {"thinkingLevel": "medium"}),
    ],
    ids=repr,
)
def test_a_model_is_told_to_think_as_much_as_it_can_be_told(
    facts: dict[str, Any], reasoning: Reasoning, told: dict[str, Any]
) -> None:
    made = body("gemini", reasoning=reasoning, facts=facts)["generationConfig"]["thinkingConfig"]
    assert {name: value for name, value in made.items() if name != "includeThoughts"} == told
    assert dropped("gemini", reasoning=reasoning, facts=facts) == []


def test_the_limit_is_the_one_that_was_decided() -> None:
    assert body("gemini", 10)["generationConfig"] == {"maxOutputTokens": 10}


def test_a_seed_that_is_too_long_is_told_as_dropped() -> None:
    assert dropped("gemini", seed=2**31) == ["seed"]
    assert "generationConfig" not in body("gemini", seed=2**31)


@pytest.mark.parametrize(
    ("stream", "method"), [(False, "generateContent"), (True, "streamGenerateContent?alt=sse")], ids=["whole", "stream"]
)
def test_the_address_names_the_model_and_the_headers_hold_no_credentials(stream: bool, method: str) -> None:
    call = DIALECTS["gemini"].request(ask(), row(base_url="https://api.example/v1beta", model="a b/c"), None, stream)
    assert call.url == f"https://api.example/v1beta/models/a%20b%2Fc:{method}"
    assert call.headers.keys() == {"content-type", "accept"}


# -- what comes back ------------------------------------------------------------------------------------------------


def read(*replies: dict[str, Any]) -> Any:
    return read_as("gemini", sse(*replies))[0]


def reply(finish: str | int | None, *parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": list(parts)}, "finishReason": finish}], **more}


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", "stop"),
        (1, "stop"),
        ("MAX_TOKENS", "length"),
        (2, "length"),
        ("SAFETY", "content_filter"),
        (4, "content_filter"),
        (5, "other"),
        (6, "other"),
        (7, "content_filter"),
        (8, "content_filter"),
        (9, "other"),
        (10, "other"),
        (-1, "other"),
        ("LANGUAGE", "other"),
        (99, "other"),
    ],
)
def test_why_it_ended(reason: str | int, finish: str) -> None:
    assert read(reply(reason, {"text": "a"})).finish_reason == finish


def test_a_prompt_that_was_blocked_is_an_answer_without_a_word() -> None:
    made = read({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}})
    assert (made.text, made.finish_reason, made.usage.input_tokens) == ("", "content_filter", 4)


def test_a_call_that_cannot_be_read_is_the_providers_fault_and_what_it_cost_is_kept() -> None:
    made = read(reply("MALFORMED_FUNCTION_CALL", usageMetadata={"promptTokenCount": 4, "candidatesTokenCount": 2}))
    assert isinstance(made, Failure)
    assert (made.kind, made.usage) == (
        "upstream_invalid",
        Usage(input_tokens=4, output_tokens=2, total_tokens=6),
    )


def test_calls_without_ids_get_some() -> None:
    call = {"functionCall": {"name": "f", "args": {}}}
    made = read(reply("STOP", call, call))
    assert ([one.id for one in made.tool_calls], made.state) == (["call_0", "call_1"], None)


def test_one_array_of_everything_is_read_as_well() -> None:
    array = json.dumps([reply(None, {"text": "a"}), reply("STOP", {"text": "b"})]).encode()
    made, _ = read_as("gemini", [array], stream=False)
    assert isinstance(made, Answer)
    assert (made.text, made.finish_reason) == ("ab", "stop")


def test_an_error_within_a_stream_ends_it_with_that_error() -> None:
    made = read(reply(None, {"text": "a"}), {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}})
    assert isinstance(made, Failure)
    assert (made.kind, made.provider_text) == ("upstream_unavailable", "overloaded")


def test_an_error_tells_when_to_come_back() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "48.5s"}]
    error = {"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": details}}
    made, _ = read_as("gemini", [json.dumps(error).encode()], stream=False, status=429)
    assert isinstance(made, Failure)
    assert (made.kind, made.retry_after_s) == ("upstream_rate_limited", 48.5)
