"""Asking a provider how many tokens a request has, before it is sent."""

from collections.abc import Collection
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmd.dialects.base import HttpCall


def asking(call: HttpCall, url: str, body: dict[str, Any]) -> HttpCall:
    headers = {**call.headers, "accept": "application/json"}
    return replace(call, url=url, headers=headers, body=msgspec.json.encode(body), stream=False)


def members(call: HttpCall, names: Collection[str]) -> dict[str, Any]:
    """Those of the request's body that have these names: what the model reads of it."""
    return {name: value for name, value in msgspec.json.decode(call.body).items() if name in names}


class _Count(Struct):
    """Anthropic and OpenAI say `input_tokens`, Gemini `totalTokens`."""

    input_tokens: int | None = None
    totalTokens: int | None = None


def read_count(body: bytes) -> int | None:
    """The tokens of the input; None where it tells none. Raises msgspec.DecodeError."""
    counts = msgspec.json.decode(body, type=_Count)
    tokens = counts.totalTokens if counts.input_tokens is None else counts.input_tokens
    return None if tokens is None or tokens < 0 else tokens
