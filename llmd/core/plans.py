"""What a plan is made of and comes to: the facts that it rests on, the targets in order, and why the others are out."""

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from llmd.core.choices import FindRow
from llmd.core.health import Trouble
from llmd.core.rows import ModelRow
from llmd.core.rules import Rule
from llmd.errors import LLMError

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "unknown_provider": "there is no such provider here",
        "no_default_model": "its provider has no default model: name one",
        "only": "a rule allows only others",
        "never": "a rule forbids it",
        "lacks_tools": "it takes no tools",
        "lacks_json_schema": "it takes no schema for its answer",
        "lacks_vision": "it takes no images or files",
        "lacks_reasoning": "it does not reason",
        "lacks_streaming": "it does not stream",
        "context_too_small": "the request is longer than its context",
        "no_key": "its key is missing",
        "unpriced": "its price is not known, and the rule has a ceiling",
        "too_expensive": "it costs more than the rule's ceiling",
        "breaker_open": "it has failed too often of late",
        "rate_limited": "it asked to be left alone for a while",
        "rate_window_full": "its minute is used up",
    }
)
"""Why a target may be out, in words; of budgets, their errors say it."""


class Out(Struct, frozen=True):
    """Why a target is out: a key of REASONS, or the kind of the budget's error.

    detail  why in words, where there is more to say
    until   when it may be had again, in seconds of the clock, where its health stands in the way
    error   the budget's, where that does
    """

    target: str
    row: ModelRow | None
    reason: str
    until: float | None = None
    error: LLMError | None = None
    detail: str | None = None

    @property
    def words(self) -> str:
        return self.detail or (REASONS[self.reason] if self.error is None else self.error.message)

    def told(self) -> dict[str, Any]:
        provider, _, model = self.target.partition("/")
        return {"provider": provider, "model": model or None, "reason": self.reason}


class Facts(Struct, frozen=True, kw_only=True):
    """What planning may know, beside the rules.

    find           rows, as FindRow
    providers      the default model of each, None where it has none
    default_model  of the configuration, as "provider/model"
    usable         the providers that could serve a request which names none, with the model that they would use
    unusable       the others, with the reason; both are only found out when nothing else decides
    absent         why there is no provider of this name
    missing_key    why there is no key to try
    most_usd       what the call can cost at most at this target, None where nobody knows
    refusal        the budget's answer to this target, None where it may be tried
    trouble        what stands in the way at a target
    pace           seconds that an answer takes there on average, None where it has given none
    """

    find: FindRow
    providers: Mapping[str, str | None]
    default_model: str | None = None
    usable: Mapping[str, str] = {}
    unusable: Mapping[str, str] = {}
    absent: Callable[[str], str] = lambda provider: "there is no such provider"
    missing_key: Callable[[str], str | None] = lambda provider: None
    most_usd: Callable[[ModelRow], float | None] = lambda row: None
    refusal: Callable[[ModelRow], LLMError | None] | None = None
    trouble: Callable[[ModelRow], Trouble | None] | None = None
    pace: Callable[[ModelRow], float | None] = lambda row: None


class Plan(Struct, frozen=True, kw_only=True):
    """`steps` are tried in order, `out` are the others.

    guards   the indexes of the rules that have guards for this request
    rule     the index of the rule that planned, `terms` that rule; None if none did
    problem  why there are no targets at all
    """

    steps: Sequence[ModelRow] = ()
    out: Sequence[Out] = ()
    guards: Sequence[int] = ()
    rule: int | None = None
    terms: Rule | None = None
    problem: LLMError | None = None

    def error(self, now: float) -> LLMError:
        """Why there is nothing to try."""
        if self.problem is not None:
            return self.problem
        returns = [out.until for out in self.out if out.until is not None]
        refusals = [out.error for out in self.out if out.error is not None]
        if refusals and not returns:
            return refusals[0]
        return LLMError(
            "no_route",
            "; ".join(f"{out.target[:128]}: {out.words}" for out in self.out[:8]),
            retryable=bool(returns),
            retry_after_ms=max(0, ceil((min(returns) - now) * 1000)) if returns else None,
            rule=self.rule,
            targets=[out.told() for out in self.out],
        )
