"""What is known of a model at a provider: one row of facts, not a class."""

from math import inf
from typing import Literal

from msgspec import Struct


class Price(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """USD per million tokens."""

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None

    def __post_init__(self) -> None:
        if not all(0 <= rate < inf for rate in (self.input, self.output, self.cache_read or 0, self.cache_write or 0)):
            raise ValueError("a price is a number that is not negative")


class ModelRow(Struct, frozen=True, kw_only=True):
    """One model at one provider, with what the provider does its own way.

    provider         the user's name for it: models are "provider/model"
    max_tokens_name  the member that limits the answer, under the name that this endpoint obeys
    stream_usage     whether a stream tells its usage when it is asked for
    overhead_tokens  what a request may cost beyond its own bytes
    """

    provider: str
    model: str
    dialect: str
    base_url: str
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    stream_usage: bool = True
    overhead_tokens: int = 512
    price: Price | None = None
    context_tokens: int | None = None
    max_output_tokens: int | None = None

    @property
    def target(self) -> str:
        return f"{self.provider}/{self.model}"
