"""Answers, chunks and errors as a server of OpenAI's API gives them; what it has no word for is in `llmd`."""

from typing import Any

import pytest

from llmd.chat import Completion, Cost, Delta, Message, Route, ToolCall, ToolCallDelta, Usage
from llmd.dialects.openai_replies import Chunks, Heading, error_object, whole
from llmd.errors import LLMError

HEADING = Heading("chatcmpl-1", 7, "auto")
CALL = ToolCall("c1", "f", {"x": 1})


def made(**members: Any) -> Completion:
    said: dict[str, Any] = {
        "text": "hello",
        "finish_reason": "stop",
        "provider": "work",
        "model": "m1",
        "tool_calls": [],
        "reasoning": None,
        "message": Message("assistant", members.pop("said", "hello")),
        "usage": Usage(input_tokens=5, output_tokens=2, total_tokens=7, cache_read_tokens=3, reasoning_tokens=1),
        "cost": Cost(9),
        "budget": None,
        "route": Route(None, []),
        "dropped": ["seed"],
        "latency_ms": 4,
        "provider_request_id": "r",
        "clamped_max_tokens": None,
        "replayed": False,
    }
    return Completion(**{**said, **members})


USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 2,
    "total_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
OWN = {
    "cost": Cost(9),
    "budget": None,
    "route": Route(None, []),
    "dropped": ["seed"],
    "latency_ms": 4,
    "clamped_max_tokens": None,
}


def test_a_completion_is_a_chat_completion_of_the_model_that_answered() -> None:
    assert whole(HEADING, made()) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 7,
        "model": "work/m1",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
        "llmd": OWN,
    }


@pytest.mark.parametrize(
    ("members", "message", "finish"),
    [
        ({"text": ""}, {"content": ""}, "stop"),
        ({"finish_reason": "length"}, {"content": "hello"}, "length"),
        ({"finish_reason": "other"}, {"content": "hello"}, "stop"),
        ({"finish_reason": "content_filter", "text": ""}, {"content": ""}, "content_filter"),
        ({"reasoning": "hm"}, {"content": "hello", "reasoning_content": "hm"}, "stop"),
        (
            {"text": "", "said": "", "tool_calls": [CALL], "finish_reason": "tool_calls"},
            {
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}],
            },
            "tool_calls",
        ),
        ({"text": "", "said": "no", "finish_reason": "refusal"}, {"content": None, "refusal": "no"}, "stop"),
        ({"text": "", "said": "", "finish_reason": "refusal"}, {"content": ""}, "content_filter"),
        ({"finish_reason": "refusal"}, {"content": "hello"}, "content_filter"),
    ],
    ids=repr,
)
def test_each_kind_of_answer_has_its_place(members: dict[str, Any], message: dict[str, Any], finish: str) -> None:
    (choice,) = whole(HEADING, made(**members))["choices"]
    assert choice["message"] == {"role": "assistant", "refusal": None, **message}
    assert choice["finish_reason"] == finish


def test_usage_that_nobody_told_is_not_made_up() -> None:
    unknown = made(usage=Usage(exact=False))
    assert whole(HEADING, unknown)["usage"] is None
    assert len(list(Chunks(HEADING, usage=True).end(unknown))) == 1


def test_deltas_are_chunks_and_the_first_tells_the_role() -> None:
    chunks = Chunks(HEADING, usage=False)
    deltas = [
        Delta(reasoning="hm"),
        Delta(text="he"),
        Delta(tool_call=ToolCallDelta(0, "c1", "f")),
        Delta(tool_call=ToolCallDelta(0, arguments='{"x":')),
    ]
    told = [chunks.delta(delta) for delta in deltas]
    assert told[1] == {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "auto",
        "choices": [{"index": 0, "delta": {"content": "he"}, "logprobs": None, "finish_reason": None}],
    }
    assert [chunk["choices"][0]["delta"] for chunk in told] == [
        {"role": "assistant", "content": "", "reasoning_content": "hm"},
        {"content": "he"},
        {
            "tool_calls": [
                {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}},
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":'}}]},
    ]


def test_a_stream_ends_with_its_reason_and_then_the_usage_if_that_is_wanted() -> None:
    chunks = Chunks(HEADING, usage=True)
    assert chunks.delta(Delta(text="hello"))["usage"] is None
    last, usage = chunks.end(made())
    assert last["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]
    assert (last["model"], last["usage"], last["llmd"]) == ("work/m1", None, OWN)
    assert (usage["choices"], usage["usage"]) == ([], USAGE)
    assert len(list(Chunks(HEADING, usage=False).end(made()))) == 1


def test_a_stream_of_nothing_or_of_a_refusal_is_still_a_message() -> None:
    (empty,) = Chunks(HEADING, usage=False).end(made(text="", said=""))
    assert empty["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    (refused,) = Chunks(HEADING, usage=False).end(made(text="", said="no", finish_reason="refusal"))
    assert refused["choices"][0]["delta"]["refusal"] == "no"
    assert refused["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("invalid_params", "invalid_request_error"),
        ("unauthorized", "authentication_error"),
        ("budget_exceeded", "insufficient_quota"),
        ("upstream_rate_limited", "rate_limit_error"),
        ("upstream_unavailable", "api_error"),
    ],
)
def test_an_error_has_openais_four_members_and_what_llmd_tells_beside(kind: str, told: str) -> None:
    error = error_object(LLMError(kind, "no", path="stop"))["error"]
    data = error.pop("data")
    assert error == {"message": "no", "type": told, "param": "stop", "code": kind}
    assert (data["kind"], data["path"]) == (kind, "stop")
