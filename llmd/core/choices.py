"""A target that a rule or a request names, and what holds of it for every request."""

from collections.abc import Callable, Mapping
from math import inf

from msgspec import Struct

from llmd.core.rows import ModelRow
from llmd.core.rules import Capability, Rule, RuleTarget, listed

_LACKS: Mapping[str, Capability] = {
    "tools": "tools",
    "response_format": "json_schema",
    "reasoning": "reasoning",
    "images": "vision",
    "stream": "streaming",
}
"""By the param that a model refuses, what it cannot do."""

FindRow = Callable[[str, str | None], ModelRow | None]
"""What is known of a model at a provider, or of the provider's default one; None where there is no such provider or it
has no default."""


class Choice(Struct, frozen=True):
    """A target that a rule or a request names.

    absent  why there is no such target; then it has no row
    dear    why it is beyond its rule's price of 1,000 tokens, whatever the request
    varies  whether it depends on the request if it is beyond a ceiling
    """

    name: str
    row: ModelRow | None
    absent: str | None = None
    lacks: frozenset[Capability] = frozenset()
    context_tokens: float = inf
    max_cost_per_1k: float | None = None
    max_cost_usd: float | None = None
    dear: str | None = None
    varies: bool = False


def ruled(rule: Rule, target: RuleTarget, find: FindRow) -> Choice:
    """The target of a rule."""
    row, ceilings = find(target.provider, target.model), rule.ceilings(target)
    if row is not None:
        return choice_of(row, ceilings.max_cost_per_1k, ceilings.max_cost_usd)
    if target.model is None:
        return Choice(target.provider, None, "no_default_model")
    return Choice(f"{target.provider}/{target.model}", None, "unknown_provider")


def choice_of(row: ModelRow, max_cost_per_1k: float | None = None, max_cost_usd: float | None = None) -> Choice:
    tiers = row.price is not None and bool(row.price.tiers)
    return Choice(
        row.target,
        row,
        lacks=frozenset(_LACKS[param] for param in row.refuses if param in _LACKS),
        context_tokens=row.context_tokens or inf,
        max_cost_per_1k=max_cost_per_1k,
        max_cost_usd=max_cost_usd,
        dear=too_dear(row, max_cost_per_1k, 0),
        varies=max_cost_usd is not None or (max_cost_per_1k is not None and tiers),
    )


def too_dear(row: ModelRow, per_1k: float | None, input_tokens: int) -> str | None:
    """Why it is beyond this price of 1,000 tokens, for a request of so many."""
    if per_1k is None:
        return None
    if row.price is None:
        return "unpriced"
    rates = row.price.at(input_tokens)
    return "too_expensive" if max(rates.input, rates.output) / 1000 > per_1k else None


def excluded(rule: Rule, row: ModelRow) -> str | None:
    """Which of the rule's guards this target is out by."""
    only = listed(rule.only)
    if only and not any(selector.fits(row) for selector in only):
        return "only"
    return "never" if any(selector.fits(row) for selector in listed(rule.never)) else None
