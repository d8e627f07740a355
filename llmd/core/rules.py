"""What a routing rule says, as it is written in TOML, JSON or Python, and whether it can ever be reached."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from math import inf
from typing import Annotated, Literal, TypeVar

from msgspec import Meta, Struct

from llmd.core.rows import ModelRow
from llmd.scalars import Millis, Name, Positive

Ceiling = Annotated[float, Meta(ge=0)]
Capability = Literal["tools", "json_schema", "vision", "reasoning", "streaming"]
Order = Literal["given", "cheapest", "fastest"]
Text = Annotated[str, Meta(min_length=1, max_length=1024)]

T = TypeVar("T")

TASK_TYPE = "task_type"
"""The label that `task_type` is."""


class _Written(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    pass


class _Ceilings(_Written, frozen=True, kw_only=True):
    max_cost_per_1k: Ceiling | None = None
    max_cost_usd: Ceiling | None = None

    def __post_init__(self) -> None:
        if inf in (self.max_cost_per_1k, self.max_cost_usd):
            raise ValueError("a ceiling is a number of USD")

    @property
    def has_ceiling(self) -> bool:
        return self.max_cost_per_1k is not None or self.max_cost_usd is not None


class RuleTarget(_Ceilings, frozen=True, kw_only=True):
    """A model at a provider; without `model`, the provider's default. A ceiling of its own replaces the rule's."""

    provider: Name
    model: Name | None = None


class Selector(_Written, frozen=True, kw_only=True):
    """Targets: all that is given must fit. A `*` in a name stands for anything.

    model  the model's own name, or "provider/model"
    """

    provider: Name | list[Name] | None = None
    model: Name | list[Name] | None = None
    labels: dict[Name, Name | list[Name]] = {}

    def __post_init__(self) -> None:
        if not (self.provider or self.model or self.labels):
            raise ValueError("a selector gives a `provider`, a `model` or `labels`")

    def fits(self, row: ModelRow) -> bool:
        return (
            (self.provider is None or _is_one(self.provider, row.provider))
            and (self.model is None or _is_one(self.model, row.model, row.target))
            and all(name in row.labels and _is_one(value, row.labels[name]) for name, value in self.labels.items())
        )


class Rule(_Ceilings, frozen=True, kw_only=True):
    """One routing rule.

    task_type match  the requests that it is for, by their labels; neither: every one
    only never deny  guards: they hold with whichever rule plans, and for a model that the request names
    prefer fallback  targets, in the order in which they are tried; or `order` those of `prefer`
    max_cost_per_1k  USD for 1,000 tokens, the dearer of input and output
    max_cost_usd     USD that the call can cost at most
    require          capabilities beside those that the request shows it needs
    retry            how often a target is tried again
    timeout_ms       what one attempt may take before the next target is tried
    max_tokens       of requests that name none
    hedge_ms         when the next target starts beside one that has sent nothing
    """

    task_type: Name | list[Name] | None = None
    match: dict[Name, Name | list[Name]] = {}
    only: Selector | list[Selector] | None = None
    never: Selector | list[Selector] | None = None
    deny: Text | None = None
    prefer: list[RuleTarget] = []
    order: Order | None = None
    fallback: RuleTarget | list[RuleTarget] | None = None
    require: list[Capability] = []
    retry: Annotated[int, Meta(ge=0, le=10)] | None = None
    timeout_ms: Positive | None = None
    max_tokens: Positive | None = None
    hedge_ms: Millis | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if TASK_TYPE in self.match:
            raise ValueError("`task_type` stands beside `match`, not in it")
        if any(values in ([], "") for values in (self.task_type, *self.match.values())):
            raise ValueError("an empty list matches nothing")
        if not (self.prefer or self.is_guard):
            raise ValueError("a rule has targets (`prefer`) or guards (`only`, `never`, `deny`)")
        if self.deny is not None and self.prefer:
            raise ValueError("what a rule denies cannot have targets: leave out `deny` or `prefer`")
        if not self.prefer and (idle := self._of_targets()):
            raise ValueError(f"`{idle[0]}` goes with `prefer`")

    @property
    def is_guard(self) -> bool:
        return self.deny is not None or bool(listed(self.only) or listed(self.never))

    @property
    def conditions(self) -> dict[str, frozenset[str]]:
        """By label, the values with which it matches."""
        given = self.match if self.task_type is None else {TASK_TYPE: self.task_type, **self.match}
        return {name: frozenset(listed(values)) for name, values in given.items()}

    @property
    def targets(self) -> list[RuleTarget]:
        return [*self.prefer, *listed(self.fallback)]

    def ceilings(self, target: RuleTarget) -> _Ceilings:
        return target if target.has_ceiling else self

    def _of_targets(self) -> list[str]:
        names = ("order", "fallback", "max_cost_per_1k", "max_cost_usd", "retry", "timeout_ms", "max_tokens")
        return [name for name in (*names, "hedge_ms", "require") if getattr(self, name) not in (None, [])]


class RoutingSettings(_Written, frozen=True, kw_only=True):
    """The rules: those of every matching one that are guards hold, the first matching one with targets plans."""

    rules: list[Rule] = []


def unreachable(rules: Sequence[Rule]) -> dict[int, str]:
    """The rules that nothing can ever reach, with the reason."""
    found = {}
    conditions = [rule.conditions for rule in rules]
    for at, rule in enumerate(rules):
        for other, earlier in enumerate(rules):
            if other == at or not _covers(conditions[other], conditions[at]):
                continue
            if earlier.deny is not None and (rule.prefer or other < at):
                found[at] = f"can never be reached: rule {other} denies all that it matches"
            elif earlier.prefer and rule.prefer and other < at:
                found[at] = f"can never be reached: rule {other} matches all that it matches, and comes first"
            if at in found:
                break
    return found


def listed(given: T | list[T] | None) -> list[T]:
    """What may be left out, given alone or in a list, as a list."""
    if given is None:
        return []
    return given if isinstance(given, list) else [given]


def _covers(wide: Mapping[str, frozenset[str]], narrow: Mapping[str, frozenset[str]]) -> bool:
    """Whether labels that meet `narrow` always meet `wide`."""
    return all(name in narrow and narrow[name] <= values for name, values in wide.items())


def _is_one(patterns: str | list[str], *names: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in listed(patterns) for name in names)
