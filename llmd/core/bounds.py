"""The most that a request can cost, told before it is sent.

A byte-level tokenizer never makes more tokens than it is given bytes, so the serialised request bounds its own input;
`overhead_tokens` of the row covers what the provider adds. It holds where `sound` is true; media of a model without a
known context and an answer without a limit leave it false.
"""

import unicodedata

from msgspec import Struct

from llmd.chat import Chat, FilePart, ImagePart, Usage
from llmd.core.amounts import Amounts, spent
from llmd.core.pricing import cost_nano_usd
from llmd.core.rows import ModelRow, Price


class Bound(Struct, frozen=True):
    """`amounts` at most, for an answer of at most `max_tokens` (None: as long as the model pleases)."""

    amounts: Amounts
    max_tokens: int | None
    sound: bool


def bound(chat: Chat, body: str, row: ModelRow, max_tokens: int | None) -> Bound:
    """What sending `body`, the serialised request, can cost at most at `row`. Its escapes only make it longer."""
    raw = len(body.encode())
    folded = raw if body.isascii() else len(unicodedata.normalize("NFKC", body).encode())
    tokens = max(raw, folded) + row.overhead_tokens
    media = any(isinstance(part, ImagePart | FilePart) for turn in chat.turns for part in turn.parts)
    if media:
        tokens = max(tokens, row.context_tokens or 0)
    longest = max_tokens if max_tokens is not None else row.max_output_tokens
    usage = Usage(input_tokens=tokens, output_tokens=longest or 0, total_tokens=tokens + (longest or 0), exact=False)
    cost = None if row.price is None else cost_nano_usd(usage, _dearest(row.price))
    return Bound(
        spent(usage, cost), max_tokens, sound=longest is not None and not (media and row.context_tokens is None)
    )


def _dearest(price: Price) -> Price:
    """Every input token at the dearest rate that input can have."""
    return Price(input=max(price.input, price.cache_read or 0, price.cache_write or 0), output=price.output)
