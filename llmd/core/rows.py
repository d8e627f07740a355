"""What is known of a model at a provider: one row of facts, not a class."""

from math import inf
from typing import Literal

from msgspec import Struct

from llmd.scalars import Positive

Auth = Literal["bearer", "api-key", "x-api-key", "x-goog-api-key"]
"""The header that carries the key: `Authorization: Bearer KEY`, or one of this name with nothing else."""

Param = Literal["temperature", "top_p", "stop", "seed", "reasoning", "tools", "response_format"]
"""A param that a model may refuse."""

Refusable = Param | Literal["temperature_with_top_p", "images", "stream"]
"""What a model may refuse: a param, both params of sampling at once, images and files in messages, and to stream."""

ReasoningUnit = Literal["effort", "tokens"]
"""How a model is told how much to think, where its dialect has both."""


EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
"""From the least to the most."""


class ReasoningLimits(Struct, frozen=True):
    """How much a model can be told to think.

    least most  tokens; None is no limit that is known
    off         whether it can be told not to
    efforts     those that it knows, from the least; none are known where this is empty
    """

    least: int = 0
    most: int | None = None
    off: bool = True
    efforts: tuple[str, ...] = ()

    def tokens(self, wanted: int) -> int:
        """As many as are wanted, or the nearest number that it takes."""
        if wanted == 0 and self.off:
            return 0
        wanted = max(wanted, self.least)
        return wanted if self.most is None else min(wanted, self.most)

    def effort(self, wanted: str, usual: tuple[str, ...]) -> str:
        """The least that is as much as is wanted, of those that it knows or else of the dialect's `usual` ones."""
        known = self.efforts or usual
        enough = EFFORTS[EFFORTS.index(wanted) :]
        return next((effort for effort in known if effort in enough), known[-1])


Counts = Literal["exact", "estimate"]
"""What a provider's own count of a request's tokens is, before it is sent."""


class Rates(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """USD per million tokens. A cache rate that is not given is the input rate."""

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None

    def __post_init__(self) -> None:
        if not all(0 <= rate < inf for rate in (self.input, self.output, self.cache_read or 0, self.cache_write or 0)):
            raise ValueError("a price is a number that is not negative")


class Tier(Rates, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The rates of a whole call, its answer too, that has more input tokens than `above`."""

    above: Positive


class Price(Rates, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a model costs: its rates, `request` USD a call, and other rates for long inputs."""

    request: float | None = None
    tiers: tuple[Tier, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= (self.request or 0) < inf:
            raise ValueError("a price is a number that is not negative")
        steps = [tier.above for tier in self.tiers]
        if steps != sorted(set(steps)):
            raise ValueError("each of `tiers` is above more tokens than the one before it")

    def reached(self, input_tokens: int) -> int:
        """How many of the tiers a call with so many input tokens is beyond."""
        return sum(input_tokens > tier.above for tier in self.tiers)

    def at(self, input_tokens: int) -> Rates:
        """The rates of a call with so many input tokens."""
        reached = self.reached(input_tokens)
        return self.tiers[reached - 1] if reached else self


class ModelRow(Struct, frozen=True, kw_only=True):
    """One model at one provider, with what the provider does its own way.

    provider         the user's name for it: models are "provider/model"
    max_tokens_name  the member that limits the answer, under the name that this endpoint obeys
    stream_usage     whether a stream tells its usage when it is asked for
    overhead_tokens  what a request may cost beyond its own bytes
    refuses          what it answers with an error
    reasoning        how it is told how much to think; None is the dialect's usual way
    reasoning_limits how much it can be told
    counts           what its count of a request's tokens is worth; None where it has none
    agentic          whether it reads more than it is sent: it searches, runs tools, calls other models
    labels           the provider's, for rules to select by
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
    refuses: tuple[Refusable, ...] = ()
    reasoning: ReasoningUnit | None = None
    reasoning_limits: ReasoningLimits = ReasoningLimits()
    counts: Counts | None = None
    agentic: bool = False
    labels: dict[str, str] = {}

    @property
    def target(self) -> str:
        return f"{self.provider}/{self.model}"
