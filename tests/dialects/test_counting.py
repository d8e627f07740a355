"""How a provider is asked for the tokens of a request, and what it answers."""

from typing import Any

import msgspec
import pytest

from llmd.chat import Tool
from llmd.dialects import DIALECTS
from llmd.dialects.base import HttpCall
from llmd.dialects.counting import read_count
from tests.support.calls import request

PARAMS: dict[str, Any] = {"system": "be kind", "temperature": 0.5, "tools": [Tool("f", {"type": "object"})]}


def counting(dialect: str) -> tuple[HttpCall, HttpCall]:
    call = request(dialect, 100, stream=True, **PARAMS)
    asked = DIALECTS[dialect].count(call)
    assert asked is not None
    return call, asked


@pytest.mark.parametrize(
    ("dialect", "path", "read"),
    [
        ("anthropic", "/messages/count_tokens", {"model", "messages", "system", "tools"}),
        ("openai-responses", "/responses/input_tokens", {"model", "input", "instructions", "tools"}),
    ],
)
def test_a_count_is_asked_for_all_that_the_model_reads(dialect: str, path: str, read: set[str]) -> None:
    call, asked = counting(dialect)
    sent, counted = msgspec.json.decode(call.body), msgspec.json.decode(asked.body)
    assert asked.url == f"{call.row.base_url}{path}"
    assert counted == {name: sent[name] for name in read}
    assert (asked.stream, asked.headers["accept"]) == (False, "application/json")
    assert asked.headers.get("anthropic-version") == call.headers.get("anthropic-version")


def test_gemini_counts_the_whole_request() -> None:
    call, asked = counting("gemini")
    assert asked.url == f"{call.row.base_url}/models/m1:countTokens"
    sent = msgspec.json.decode(call.body)
    assert msgspec.json.decode(asked.body) == {"generateContentRequest": {"model": "models/m1", **sent}}


@pytest.mark.parametrize("dialect", ["openai", "ollama"])
def test_where_nobody_counts_nobody_is_asked(dialect: str) -> None:
    assert DIALECTS[dialect].count(request(dialect)) is None


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        (b'{"input_tokens": 12}', 12),
        (b'{"object": "response.input_tokens", "input_tokens": 0}', 0),
        (b'{"totalTokens": 12, "promptTokensDetails": []}', 12),
        (b"{}", None),
        (b'{"input_tokens": -1}', None),
    ],
)
def test_a_count_is_read(said: bytes, tokens: int | None) -> None:
    assert read_count(said) == tokens


@pytest.mark.parametrize("said", [b"", b"12", b'{"input_tokens": "many"}', b'{"input_tokens": 1.5}'])
def test_what_is_no_count_is_told(said: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        read_count(said)
