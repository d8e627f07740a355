"""The lists of models that providers give. What reads one raises msgspec.DecodeError where it is none."""

import msgspec
from msgspec import Struct

from llmd.dialects.base import Offered


class _Provider(Struct):
    max_completion_tokens: int | None = None


class _Model(Struct):
    """`context_length` is OpenRouter's and Together's, `context_window` Groq's, `max_model_len` vLLM's."""

    id: str
    context_length: int | None = None
    context_window: int | None = None
    max_context_length: int | None = None  # Mistral
    max_model_len: int | None = None
    max_completion_tokens: int | None = None  # Groq
    top_provider: _Provider | None = None  # OpenRouter, of the one that it asks first

    def offered(self) -> Offered:
        lengths = (self.context_length, self.context_window, self.max_context_length, self.max_model_len)
        known = next((length for length in lengths if length and length > 0), None)
        longest = self.max_completion_tokens or (self.top_provider and self.top_provider.max_completion_tokens)
        return Offered(self.id, known, longest or None)


class _List(Struct):
    data: list[_Model]


_decode = msgspec.json.Decoder(_List | list[_Model]).decode


def read_models(body: bytes) -> list[Offered]:
    """As OpenAI gives them and everyone who copies it; Together's list is bare."""
    found = _decode(body)
    return [model.offered() for model in (found if isinstance(found, list) else found.data)]


class _GeminiModel(Struct, rename="camel"):
    name: str
    input_token_limit: int | None = None
    output_token_limit: int | None = None
    supported_generation_methods: list[str] = []


class _GeminiList(Struct):
    models: list[_GeminiModel]


def read_gemini_models(body: bytes) -> list[Offered]:
    return [
        Offered(model.name.removeprefix("models/"), model.input_token_limit, model.output_token_limit)
        for model in msgspec.json.decode(body, type=_GeminiList).models
        if "generateContent" in model.supported_generation_methods
    ]


class _Tag(Struct):
    name: str


class _Tags(Struct):
    models: list[_Tag]


def read_ollama_models(body: bytes) -> list[Offered]:
    return [Offered(model.name) for model in msgspec.json.decode(body, type=_Tags).models]
