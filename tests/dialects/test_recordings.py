"""Real exchanges with providers, where LLMD_RECORDINGS names the directory that holds dev.jsonl.gz."""

import base64
import gzip
import json
import os
import random
import re
from collections.abc import Callable
from decimal import Decimal
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from llmd.core.outcomes import Answer, Failure, Outcome
from llmd.core.pricing import cost_nano_usd
from llmd.dialects import DIALECTS
from llmd.known import KNOWN
from llmd.prices import listed
from tests.dialects.replies import joined
from tests.support.calls import ask, row

API_DIALECTS = {
    "openai.chat": "openai",
    "anthropic.messages": "anthropic",
    "gemini.generate": "gemini",
    "gemini.stream": "gemini",
    "openai.responses": "openai-responses",
    "ollama.chat": "ollama",
}

FINISH: dict[str, dict[Any, str]] = {
    "openai": {
        "stop": "stop",
        "tool_calls": "tool_calls",
        "length": "length",
        "content_filter": "content_filter",
        "": "other",
        None: "other",
    },
    "anthropic": {
        "end_turn": "stop",
        "stop_sequence": "stop",
        "max_tokens": "length",
        "tool_use": "tool_calls",
        "refusal": "refusal",
        "pause_turn": "other",
    },
    "openai-responses": {"completed": "stop", "incomplete:max_output_tokens": "length", "queued": "other"},
    "ollama": {"stop": "stop"},
    "gemini": {
        "STOP": "stop",
        1: "stop",
        "MAX_TOKENS": "length",
        "SAFETY": "content_filter",
        "UNEXPECTED_TOOL_CALL": "other",
    },
}
"""What an ending is called by llmd."""

BEHIND_CALLS: dict[str, tuple[Any, ...]] = {
    "openai": ("stop", "", None),
    "openai-responses": ("completed",),
    "ollama": ("stop",),
    "gemini": ("STOP", 1),
    "anthropic": (),
}
"""The endings that stand behind tool calls too, and then are called `tool_calls`."""

ERRORS = {
    # the request
    "39896bcd13c93c4c": "context_too_long",  # "exceeds the context window"
    "b640b367973c4431": "upstream_invalid",  # tool_use_failed: the model called a tool with the wrong arguments
    "0d9d0d1d94fc301f": "upstream_invalid",  # invalid_value: audio
    "7c1dafbc2c777b22": "upstream_invalid",
    "da48775f80dcbe57": "upstream_invalid",  # unsupported_value: a role
    "01f280897dff5483": "upstream_invalid",  # decimal_below_min_value
    "46288006805e8821": "upstream_invalid",  # invalid_image_url
    "bb9bc6a603861372": "upstream_invalid",  # missing_required_parameter
    "9dda24755c469321": "upstream_invalid",  # unsupported_parameter: stop
    "7d2864af64ead371": "upstream_invalid",  # unsupported_parameter: max_tokens
    "a88acf3ff7f32dd6": "upstream_invalid",  # an empty message
    "a0b2975c9b7591ac": "upstream_invalid",  # within a stream: code 400, "Token limit reached"
    # the model
    "b15392ba5a734115": "model_not_found",
    "e196b901eabd1f2f": "model_not_found",
    "fa7414ffc819d023": "model_not_found",
    "0f4e6965d0cc68b2": "model_not_found",
    "32c1b4ad561a8797": "model_not_found",
    "e18083bcb2e1cc90": "model_not_found",
    "1c32c3fda56e8e9d": "model_not_found",  # "Resource not found": no such deployment
    "e62010bbe2c617ad": "model_not_found",
    "fc771c36dae1acf1": "model_not_found",
    # the key
    "00e3130b91bf20cd": "upstream_auth",
    "1151b34e870957f7": "upstream_auth",
    "d9c51660bf9edf6f": "upstream_auth",
    "23a68d01ab5ab415": "upstream_auth",
    "1a273a71080069c4": "upstream_auth",
    "86bf5c5de09d3936": "upstream_auth",
    "efc21ef1ad709223": "upstream_auth",
    "16935ba72ef9f5b2": "upstream_auth",
    # too much at once
    "b3bcb602729764b7": "upstream_rate_limited",
    "2118632ea844f9d2": "upstream_rate_limited",
}
"""Every recorded error, read through by hand."""

_CUSTOM = "calls a tool of type `custom`, which llmd does not offer"
_EMPTY_CALL = "counts an empty legacy `function_call` member as a tool call"
SKIPPED = {
    "d7209e2ef04273fa": (_CUSTOM, b'"type": "custom",\n            "custom": {\n              "name": "math_exp"'),
    "6c48f288dbc555a5": (_CUSTOM, b'"output":[{"type":"custom_tool_call","id":"ct_abc123def456"'),
    "fefcf46de4256b19": (_EMPTY_CALL, b'"function_call": {"arguments": "", "name": ""}'),
    "00d8343145d66c4a": (_EMPTY_CALL, b'"function_call": {"arguments": "", "name": ""}'),
    "c8a3652b39a1307b": (
        "holds two messages: the second begins behind the `message_stop` of the first",
        b'data: {"type":"message_stop"}\n\nevent: message_start\n',
    ),
}
"""Disputed rows: why, and the bytes that prove it."""


def rows_of(wanted: Callable[[dict[str, Any]], Any]) -> list[Any]:
    """The recorded rows of this kind as parameters; one that skips where there are no recordings."""
    directory = os.environ.get("LLMD_RECORDINGS")
    if not directory:
        return [pytest.param(None, marks=pytest.mark.skip(reason="LLMD_RECORDINGS is not set"), id="recordings")]
    with gzip.open(Path(directory) / "dev.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    return [pytest.param(row, id=row["id"]) for row in rows if wanted(row)]


def recorded() -> list[Any]:
    rows = rows_of(lambda row: row["api"] in API_DIALECTS)
    return [pytest.param(*row.values, id=row.id, marks=[*row.marks, *skipped(row.id)]) for row in rows]


def skipped(name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.skip(SKIPPED[name][0])] if name in SKIPPED else []


def body_of(recording: dict[str, Any]) -> bytes:
    body = recording["response_body"]
    if recording["response_body_encoding"] == "base64":
        return base64.b64decode(body)
    return (body if isinstance(body, str) else json.dumps(body)).encode()


def parse(recording: dict[str, Any], pieces: list[bytes]) -> Outcome:
    stream = recording["framing"] == "sse"
    headers = {name.lower(): str(value) for name, value in (recording["response_headers"] or {}).items()}
    # Recorders drop and change it; what was sent is known from how the body is framed.
    headers["content-type"] = "text/event-stream" if stream else "application/json"
    dialect = DIALECTS[API_DIALECTS[recording["api"]]]
    reader = dialect.reader(dialect.request(ask(), row(), None, stream), recording["status"], headers)
    deltas = [delta for piece in pieces for delta in reader.feed(piece)]
    outcome = reader.end(cut=False)
    if stream and isinstance(outcome, Answer):
        assert joined(deltas) == outcome.text
    return outcome


def cut(data: bytes, seed: str) -> list[bytes]:
    chance = random.Random(seed)
    at = sorted(chance.sample(range(1, len(data)), min(20, len(data) - 1)))
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


def finish_of(dialect: str, expected: dict[str, Any]) -> str:
    said = expected["finish"]
    if expected.get("refusal"):
        return "refusal"
    return "tool_calls" if expected["tool_calls"] and said in BEHIND_CALLS[dialect] else FINISH[dialect][said]


def check_answer(made: Answer, expected: dict[str, Any], finish: str) -> None:
    assert made.text == (expected["text"] or "")
    assert (made.reasoning or "") == (expected["reasoning"] or "")
    assert (made.refusal or "") == (expected.get("refusal") or "")
    assert made.finish_reason == finish
    calls = [(call["name"], call["arguments"]) for call in expected["tool_calls"] or []]
    decoded = [(name, json.loads(text or "{}") if isinstance(text, str) else text) for name, text in calls]
    assert [(call.name, call.arguments) for call in made.tool_calls] == decoded
    usage = {name: count or 0 for name, count in (expected["norm_usage"] or {}).items()}
    if made.usage is None:
        assert not any(usage.values())
        return
    assert usage == {
        "input": made.usage.input_tokens,
        "output": made.usage.output_tokens,
        "cache_read": made.usage.cache_read_tokens,
        "cache_write": made.usage.cache_write_tokens,
        "reasoning": made.usage.reasoning_tokens,
    }


@pytest.mark.parametrize("recording", recorded())
def test_a_recorded_answer_is_read_as_it_was_meant(recording: dict[str, Any]) -> None:
    data = body_of(recording)
    outcome = parse(recording, [data])
    expected = recording["expected"]
    if expected["error"]:
        assert isinstance(outcome, Failure)
        assert outcome.kind == ERRORS[recording["id"]]
    else:
        assert isinstance(outcome, Answer), outcome
        check_answer(outcome, expected, finish_of(API_DIALECTS[recording["api"]], expected))
    assert parse(recording, [data[at : at + 1] for at in range(len(data))]) == outcome
    assert parse(recording, cut(data, recording["id"])) == outcome


def test_a_row_that_is_disputed_holds_the_bytes_that_prove_it() -> None:
    found = {row.id: row.values[0] for row in recorded() if row.id in SKIPPED}
    assert all(proof in body_of(found[name]) for name, (_, proof) in SKIPPED.items() if found)


STREAMS = [row for row in recorded() if row.values[0] and row.values[0]["framing"] == "sse"]


@pytest.mark.parametrize("recording", STREAMS or recorded()[:1])
def test_a_recorded_stream_that_ends_early_is_no_answer_or_was_whole_by_then(recording: dict[str, Any]) -> None:
    data = body_of(recording)
    whole = parse(recording, [data])
    ends = [found.end() for found in re.finditer(rb"\r\n\r\n|\n\n|\r\r", data)][:-1]
    for end in [0, *ends]:
        outcome = parse(recording, [data[:end]])
        if outcome != whole:
            assert isinstance(outcome, Failure), (end, outcome)
            assert outcome.kind == "upstream_invalid"


def reported(data: bytes) -> Decimal | None:
    """What the provider says the call has cost, in USD: the last time it says so."""
    billed = None
    for line in data.replace(b"data: ", b"").splitlines() if data.startswith((b"data:", b"event:", b":")) else [data]:
        try:
            said = json.loads(line, parse_float=Decimal)
        except ValueError:
            continue
        usage = (said.get("usage") or (said.get("response") or {}).get("usage") or {}) if isinstance(said, dict) else {}
        cost = usage.get("cost")
        if usage.get("cost_in_usd_ticks") is not None:
            billed = Decimal(usage["cost_in_usd_ticks"]) / 10**10
        elif cost is not None:
            billed = Decimal(cost["total_cost"] if isinstance(cost, dict) else cost)
    return billed


BILLED = [row for row in recorded() if row.values[0] and reported(body_of(row.values[0])) is not None]


@pytest.mark.parametrize("recording", BILLED or recorded()[:1])
def test_what_a_provider_says_it_bills_is_the_cost_to_the_nano_dollar(recording: dict[str, Any]) -> None:
    billed = reported(body_of(recording))
    outcome = parse(recording, [body_of(recording)])
    assert billed is not None
    assert outcome.cost_nano_usd == ceil(billed * 10**9)


UNLISTED = {
    "perplexity/sonar": "its fee depends on how much it searches, which the table does not tell",
    "perplexity/sonar-pro": "the same",
    "openrouter/perplexity/sonar": "the same, resold",
    "openrouter/openai/gpt-4.1-mini": "searched the web, which OpenRouter bills apart",
    "openrouter/openai/gpt-oss-120b": "OpenRouter chose a cheaper endpoint than the listed one",
    "openrouter/minimax/minimax-m2:free": "the table has no price for what is free",
    "openrouter/anthropic/claude-sonnet-4-5": "is not its name there: claude-sonnet-4.5 is",
}


def target(recording: dict[str, Any]) -> str:
    said = re.search(rb'"model": ?"([^"]+)"', body_of(recording))
    return f"{recording['provider']}/{recording['model'] or (said and said[1].decode())}"


LISTED = [row for row in BILLED if target(row.values[0]) not in UNLISTED]


@pytest.mark.parametrize("recording", LISTED or recorded()[:1])
def test_the_tables_price_makes_the_cost_that_the_provider_says_it_bills(recording: dict[str, Any]) -> None:
    provider, _, model = target(recording).partition("/")
    price = listed(KNOWN[provider].prices, model).price
    outcome = parse(recording, [body_of(recording)])
    assert price is not None
    assert outcome.usage is not None
    assert cost_nano_usd(outcome.usage, price) == outcome.cost_nano_usd


def test_what_is_not_compared_is_there() -> None:
    assert {target(row.values[0]) for row in BILLED} >= UNLISTED.keys() or not BILLED
