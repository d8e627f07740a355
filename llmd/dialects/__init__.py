"""Pure translators: llmd's words to a provider's request, a provider's bytes to an answer. One file a dialect."""

from collections.abc import Mapping
from types import MappingProxyType

from llmd.dialects.anthropic import Anthropic
from llmd.dialects.base import Dialect
from llmd.dialects.gemini import Gemini
from llmd.dialects.ollama import Ollama
from llmd.dialects.openai_chat import OpenAIChat
from llmd.dialects.openai_responses import OpenAIResponses

DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        "anthropic": Anthropic(),
        "gemini": Gemini(),
        "ollama": Ollama(),
        "openai": OpenAIChat(),
        "openai-responses": OpenAIResponses(),
    }
)
"""The dialects that are carried over HTTP, by the name that a configuration gives them."""
