"""Requests made by hand in the words of `execute`, and what they are in each dialect: what was recorded.

Each stands beside the id of the recording that it was made from. The facts of the models are the catalog's.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from llmd.catalog import ProviderRow, provider_row
from llmd.chat import Ask
from llmd.dialects import DIALECTS
from llmd.dialects.base import HttpCall
from llmd.dialects.expressing import expressible
from llmd.settings import ProviderSettings
from tests.dialects import handmade_anthropic, handmade_gemini, handmade_ollama, handmade_responses
from tests.dialects.handmade import filled
from tests.dialects.test_recordings import rows_of

WORDS = {
    "anthropic.messages": ("anthropic", handmade_anthropic),
    "gemini.generate": ("gemini", handmade_gemini),
    "gemini.stream": ("gemini", handmade_gemini),
    "ollama.chat": ("ollama", handmade_ollama),
    "openai.responses": ("openai-responses", handmade_responses),
}
MADE: dict[str, Any] = {name: asked for _, words in WORDS.values() for name, asked in words.REQUESTS.items()}


def made(dialect: str, provider: str, model: str, asked: Any, stream: bool) -> HttpCall:
    """The request for this, to a provider of the catalog, as it is made for the one that carries it."""
    row = provider_row(provider, ProviderSettings(dialect=dialect))  # type: ignore[arg-type]  # one of its literals
    assert isinstance(row, ProviderRow)
    ask = msgspec.convert(asked, Ask)
    said, dropped = expressible(ask, row.model_row(model))
    assert dropped == []
    return DIALECTS[dialect].request(said, row.model_row(model), ask.max_tokens, stream)


@pytest.mark.parametrize("recording", rows_of(lambda recording: recording["id"] in MADE))
def test_a_request_made_by_hand_is_the_one_that_was_recorded(recording: dict[str, Any]) -> None:
    dialect, words = WORDS[recording["api"]]
    same: Callable[[dict[str, Any]], dict[str, Any]] = words.same
    request = recording["request_json"]
    asked = filled(MADE[recording["id"]], request)
    call = made(dialect, recording["provider"], recording["model"], asked, recording["streaming"])
    assert same(msgspec.json.decode(call.body)) == same(request)
    assert call.dropped == []


def test_each_of_these_dialects_has_ten() -> None:
    for _, words in WORDS.values():
        assert len({**words.REQUESTS, **getattr(words, "DOCUMENTED", {})}) >= 10


@pytest.mark.parametrize("name", handmade_ollama.DOCUMENTED)
def test_a_request_made_by_hand_is_as_ollama_documents_it(name: str) -> None:
    asked, said, model, stream = handmade_ollama.DOCUMENTED[name]
    call = made("ollama", "ollama", model, asked, stream)
    assert msgspec.json.decode(call.body) == {"model": model, "stream": stream, **said}
    assert call.dropped == []
