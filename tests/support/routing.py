"""Plans over rows of a test's own: two providers with models of every kind, and one that has no default."""

from collections.abc import Mapping
from typing import Any

import msgspec

from llmd.core.plans import Facts, Plan
from llmd.core.routing import Policy
from llmd.core.rows import ModelRow, Price, Tier
from llmd.core.rules import Rule
from tests.support.calls import ask

CHEAP, DEAR = Price(input=0.1, output=0.4), Price(input=100, output=600)
TIERED = Price(input=1, output=2, tiers=(Tier(input=600, output=700, above=100),))

ROWS: dict[tuple[str, str], dict[str, Any]] = {
    ("work", "cheap"): {"price": CHEAP},
    ("work", "dear"): {"price": DEAR},
    ("work", "tiered"): {"price": TIERED},
    ("work", "small"): {"price": CHEAP, "context_tokens": 100},
    ("work", "plain"): {"price": CHEAP, "refuses": ("tools", "response_format", "reasoning", "images", "stream")},
    ("home", "free"): {"price": Price(input=0, output=0), "labels": {"region": "eu"}},
    ("home", "unknown"): {"labels": {"region": "eu"}},
}
DEFAULTS: dict[str, str | None] = {"work": "cheap", "home": "free", "bare": None}


def find(provider: str, model: str | None) -> ModelRow | None:
    model = model or DEFAULTS.get(provider)
    if provider not in DEFAULTS or model is None:
        return None
    known = ROWS.get((provider, model), {})
    return ModelRow(provider=provider, model=model, dialect="openai", base_url="http://127.0.0.1:9/v1", **known)


def facts(**known: Any) -> Facts:
    return Facts(**{"find": find, "providers": DEFAULTS, **known})


def targets(*names: str) -> list[dict[str, str]]:
    return [dict(zip(("provider", "model"), name.split("/"), strict=False)) for name in names]


def planned(
    rules: list[dict[str, Any]], known: Facts | None = None, fixed: Mapping[str, str] | None = None, **params: Any
) -> Plan:
    policy = Policy([msgspec.convert(rule, Rule) for rule in rules], find)
    stream = params.pop("streams", False)
    return policy.plan(policy.match(ask(**params), fixed or {}), known or facts(), stream)


def steps(plan: Plan) -> list[str]:
    return [row.target for row in plan.steps]


def reasons(plan: Plan) -> dict[str, str]:
    return {out.target: out.reason for out in plan.out}
