"""The most that a request can cost, told before it is sent.

A byte-level tokenizer never makes more tokens than it is given bytes, so the serialised request bounds its own input;
`overhead_tokens` of the row covers what the provider adds. Where the request does not say all that will be read (media,
what a provider keeps or fetches, agentic models), the model's whole context does. It holds where `sound` is true; such
a request to a model without a known context and an answer without a limit leave it false.
"""

import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor
from typing import Any

from msgspec import Struct

from llmd.books import Amounts
from llmd.chat import Chat, FilePart, ImagePart, Relayed, StatePart, Usage
from llmd.core.amounts import spent
from llmd.core.pricing import NANO_USD_A_TOKEN, cost_nano_usd, exact_nano_usd
from llmd.core.rows import ModelRow, Price

BYTES_A_TOKEN = 4  # of an estimate
COUNT_MARGIN = 16  # tokens that a count may leave out, of what begins the answer

# In the words of every dialect: parts whose bytes are elsewhere, or are no text.
_ELSEWHERE = re.compile(
    r"file|ur[il]$|source|inline_?data|reference|container|mcp|server_|image|audio|video|document", re.I
)
_ARGUMENTS = frozenset({"input", "args", "arguments"})  # of tool calls: the model's own JSON

PLAIN_MEMBERS = frozenset(
    {
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "metadata",
        "min_p",
        "parallel_tool_calls",
        "presence_penalty",
        "prompt_cache_key",
        "reasoning_effort",
        "repetition_penalty",
        "response_format",
        "safety_identifier",
        "store",
        "tool_choice",
        "top_k",
        "top_logprobs",
        "user",
        "verbosity",
    }
)
"""OpenAI's members that have a provider read nothing but the request; what others do, nobody knows here."""


class Bound(Struct, frozen=True):
    """`amounts` at most, for an answer of at most `max_tokens` (None: as long as the model pleases).

    estimate  what it will rather cost: a token for four bytes
    """

    amounts: Amounts
    estimate: Amounts
    max_tokens: int | None
    sound: bool


def bound(chat: Chat, body: str, row: ModelRow, max_tokens: int | None, counted: int | None = None) -> Bound:
    """What sending `body`, the serialised request, can cost at most at `row`. Its escapes only make it longer.

    counted  the tokens of its input by the provider's own count, which is sound where `row.counts` is exact
    """
    longest = max_tokens if max_tokens is not None else row.max_output_tokens
    sound = longest is not None
    whole = row.agentic or _says_not_all(chat, row)
    if counted is not None:
        tokens, guess = counted + COUNT_MARGIN, counted
        sound = sound and row.counts == "exact"
    else:
        raw = len(body.encode())
        folded = raw if body.isascii() else len(unicodedata.normalize("NFKC", body).encode())
        tokens = max(raw, folded) + row.overhead_tokens
        guess = ceil(raw / BYTES_A_TOKEN)
        whole = whole or any(isinstance(part, ImagePart | FilePart) for turn in chat.turns for part in turn.parts)
    if whole:
        tokens = max(tokens, row.context_tokens or 0)
        sound = sound and row.context_tokens is not None
    return Bound(_amounts(row, tokens, longest or 0), _amounts(row, guess, longest or 0), max_tokens, sound)


def _says_not_all(chat: Chat, row: ModelRow) -> bool:
    """Whether more may be read than the request says, which no count of it tells either."""
    if isinstance(chat, Relayed) and row.dialect == "openai" and not chat.more.keys() <= PLAIN_MEMBERS:
        return True
    parts = (part for turn in chat.messages or () for part in turn.parts)
    return any(
        isinstance(part, StatePart) and part.provider == row.provider and _names_more(part.data) for part in parts
    )


def _names_more(state: Any) -> bool:
    """Whether a provider's own words name a file, an address or something that it keeps, or carry media."""
    waiting = [state]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            kind = value.get("type")
            if isinstance(kind, str) and _ELSEWHERE.search(kind):
                return True
            if kind == "reasoning" and value.get("encrypted_content") is None:
                return True  # by its id alone: it is kept there
            for name, inner in value.items():
                if _ELSEWHERE.search(name):
                    return True
                if name not in _ARGUMENTS:
                    waiting.append(inner)
    return False


def largest_answer(amounts: Amounts, row: ModelRow, room: Sequence[int]) -> int:
    """The most `max_tokens` with which a request like that of `amounts` would fit into `room`, a number for each unit.

    Not positive where none would.
    """
    total, inputs, outputs, requests, nano_usd = room
    tokens = amounts.input_tokens
    if inputs < tokens or requests < amounts.requests:
        return 0
    longest = min(total - tokens, outputs)
    price = None if row.price is None else _dearest(row.price, row.price.reached(tokens))
    if price is not None and price.output:
        # A cost is rounded up once, and the room is an integer: what fits exactly, fits.
        left = nano_usd - exact_nano_usd(_usage(tokens, 0), price)
        longest = min(longest, floor(left / (Fraction(str(price.output)) * NANO_USD_A_TOKEN)))
    return longest


def _amounts(row: ModelRow, inputs: int, outputs: int) -> Amounts:
    usage = _usage(inputs, outputs)
    return spent(
        usage, None if row.price is None else cost_nano_usd(usage, _dearest(row.price, row.price.reached(inputs)))
    )


def _usage(inputs: int, outputs: int) -> Usage:
    return Usage(input_tokens=inputs, output_tokens=outputs, total_tokens=inputs + outputs, exact=False)


@lru_cache(1024)
def _dearest(price: Price, tiers: int) -> Price:
    """Every token at the dearest rate of the base and the first so many tiers."""
    reached = [price, *price.tiers[:tiers]]
    return Price(
        input=max(max(rates.input, rates.cache_read or 0, rates.cache_write or 0) for rates in reached),
        output=max(rates.output for rates in reached),
        request=price.request,
    )
