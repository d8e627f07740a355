"""Pure translators: llmd's words to a provider's request, a provider's bytes to an answer. One file a dialect."""

from collections.abc import Mapping
from types import MappingProxyType

from llmd.dialects.base import Dialect
from llmd.dialects.openai_chat import OpenAIChat

DIALECTS: Mapping[str, Dialect] = MappingProxyType({"openai": OpenAIChat()})
"""The dialects that are carried over HTTP, by the name that a configuration gives them."""
