"""Lists of models, as each provider gives them."""

import json
from typing import Any

import msgspec
import pytest

from llmd.dialects.base import Offered
from llmd.dialects.listing import read_gemini_models, read_models, read_ollama_models


@pytest.mark.parametrize(
    ("model", "offered"),
    [
        ({"object": "model", "owned_by": "x"}, Offered("m")),
        ({"context_length": 8000}, Offered("m", 8000)),
        ({"context_window": 8000, "max_completion_tokens": 100}, Offered("m", 8000, 100)),
        ({"context_length": 8000, "top_provider": {"max_completion_tokens": 100, "x": 1}}, Offered("m", 8000, 100)),
        ({"top_provider": {"max_completion_tokens": None}}, Offered("m")),
        ({"top_provider": None}, Offered("m")),
        ({"max_context_length": 8000}, Offered("m", 8000)),
        ({"max_model_len": 8000}, Offered("m", 8000)),
        ({"context_length": None, "context_window": 0}, Offered("m")),
    ],
)
def test_a_list_like_openais_tells_a_context_under_several_names(model: dict[str, Any], offered: Offered) -> None:
    listed = [{"id": "m", **model}]
    assert read_models(json.dumps({"object": "list", "data": listed}).encode()) == [offered]
    assert read_models(json.dumps(listed).encode()) == [offered]


def test_geminis_list_has_names_of_its_own_and_models_that_do_not_generate() -> None:
    chats = {"name": "models/g", "inputTokenLimit": 1000, "outputTokenLimit": 50}
    said = [{**chats, "supportedGenerationMethods": ["generateContent", "x"]}, {"name": "models/embed"}]
    assert read_gemini_models(json.dumps({"models": said}).encode()) == [Offered("g", 1000, 50)]


def test_ollamas_list_has_tags() -> None:
    assert read_ollama_models(b'{"models": [{"name": "llama3.2:1b", "size": 1}]}') == [Offered("llama3.2:1b")]


@pytest.mark.parametrize("read", [read_models, read_gemini_models, read_ollama_models])
@pytest.mark.parametrize("said", [b"", b"{}", b'{"data": [1]}', b'{"models": 1}', b"[1]"])
def test_what_is_no_list_is_told(read: Any, said: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        read(said)
