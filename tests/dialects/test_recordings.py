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

FINISH = {
    "openai": {
        "stop": {"stop", "refusal", "tool_calls"},
        "tool_calls": {"tool_calls"},
        "length": {"length"},
        "content_filter": {"content_filter"},
        "": {"other"},
        None: {"other"},
    },
    "anthropic": {
        "end_turn": {"stop"},
        "stop_sequence": {"stop"},
        "max_tokens": {"length"},
        "tool_use": {"tool_calls"},
        "refusal": {"refusal"},
        "pause_turn": {"other"},
    },
    "openai-responses": {
        "completed": {"stop", "tool_calls", "refusal"},
        "incomplete:max_output_tokens": {"length"},
        "queued": {"other"},
    },
    "ollama": {"stop": {"stop"}},
    "gemini": {
        "STOP": {"stop", "tool_calls"},
        1: {"stop", "tool_calls"},
        "MAX_TOKENS": {"length"},
        "SAFETY": {"content_filter"},
        "UNEXPECTED_TOOL_CALL": {"other"},
    },
}
"""What an ending is called by llmd: `stop` may stand behind a refusal, and in some words behind tool calls."""

_CUSTOM = "calls a tool of type `custom`, which llmd does not offer"
_EMPTY_CALL = "counts an empty legacy `function_call` member as a tool call"
SKIPPED = {
    "d7209e2ef04273fa": _CUSTOM,
    "6c48f288dbc555a5": _CUSTOM,
    "fefcf46de4256b19": _EMPTY_CALL,
    "00d8343145d66c4a": _EMPTY_CALL,
    "c8a3652b39a1307b": "holds two messages: the second begins behind the `message_stop` of the first",
}


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
    return [pytest.mark.skip(SKIPPED[name])] if name in SKIPPED else []


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


def check_answer(made: Answer, expected: dict[str, Any], finish: set[str]) -> None:
    assert made.text == (expected["text"] or "")
    assert (made.reasoning or "") == (expected["reasoning"] or "")
    assert made.finish_reason in finish
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


def kinds_of(status: int) -> set[str]:
    """What an error behind this status can be."""
    if status == 400:
        return {"upstream_invalid", "context_too_long", "content_filtered", "model_not_found", "upstream_auth"}
    return {
        200: {"upstream_unavailable", "upstream_rate_limited", "upstream_invalid"},
        401: {"upstream_auth"},
        402: {"upstream_auth"},
        403: {"upstream_auth"},
        404: {"model_not_found"},
        422: {"upstream_invalid", "content_filtered", "context_too_long"},
        429: {"upstream_rate_limited"},
    }.get(status, {"upstream_unavailable"})


@pytest.mark.parametrize("recording", recorded())
def test_a_recorded_answer_is_read_as_it_was_meant(recording: dict[str, Any]) -> None:
    data = body_of(recording)
    outcome = parse(recording, [data])
    expected = recording["expected"]
    if expected["error"]:
        assert isinstance(outcome, Failure)
        assert outcome.kind in kinds_of(recording["status"])
    else:
        assert isinstance(outcome, Answer), outcome
        check_answer(outcome, expected, FINISH[API_DIALECTS[recording["api"]]][expected["finish"]])
    assert parse(recording, [data[at : at + 1] for at in range(len(data))]) == outcome
    assert parse(recording, cut(data, recording["id"])) == outcome


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
