"""The table of prices and context sizes that llmd comes with: facts, made by tests/price_table.py.

A configuration's own facts of a model override it, and what a provider says that it bills overrides both.
"""

import re
from functools import cache, lru_cache
from pathlib import Path

import msgspec
from msgspec import Struct

from llmd.core.rows import Price

FILE = Path(__file__).with_name("prices.json")


class Listed(Struct, frozen=True, kw_only=True):
    """What is known of the models whose names these are, as any of the four says. All of it is in lower case.

    price  None where it is not known, or not of a kind that llmd could reckon with
    """

    names: list[str] = []
    starts: list[str] = []
    parts: list[str] = []
    expressions: list[str] = []
    price: Price | None = None
    context_tokens: int | None = None

    def is_of(self, name: str) -> bool:
        return (
            name in self.names
            or name.startswith(tuple(self.starts))
            or any(part in name for part in self.parts)
            or any(re.search(expression, name) for expression in self.expressions)
        )


class Table(Struct, frozen=True):
    """`as_of` is the day that the prices were taken."""

    source: str
    as_of: str
    providers: dict[str, msgspec.Raw]


NOTHING = Listed()


@cache
def table() -> Table:
    return msgspec.json.decode(FILE.read_bytes(), type=Table)


@cache
def models_of(provider: str) -> list[Listed]:
    """The rows of one provider of the table, in the order in which they are asked. Raises KeyError."""
    return msgspec.json.decode(table().providers[provider], type=list[Listed])


@lru_cache(4096)
def listed(providers: tuple[str, ...], model: str) -> Listed:
    """What the first of these providers of the table that knows the model says of it; NOTHING where none does."""
    name = model.lower()
    found = (row for provider in providers for row in models_of(provider) if row.is_of(name))
    return next(found, NOTHING)
