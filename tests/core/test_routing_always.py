"""What holds of every plan, whatever the rules, the request and the budget."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from llmd.chat import Tool
from llmd.core.rows import ModelRow
from llmd.core.rules import Rule, Selector
from llmd.errors import LLMError
from tests.support.routing import ROWS, facts, planned, steps, targets

NAMES = [f"{provider}/{model}" for provider, model in ROWS]
TARGET = st.sampled_from(NAMES).map(lambda name: targets(name)[0])
SELECTOR = st.one_of(
    st.sampled_from(["work", "home"]).map(lambda provider: {"provider": provider}),
    st.sampled_from(NAMES).map(lambda model: {"model": model}),
    st.just({"labels": {"region": "eu"}}),
)
LABELS = st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["1", "2"]), max_size=2)
GUARD = st.fixed_dictionaries(
    {"match": LABELS}, optional={"only": st.lists(SELECTOR, min_size=1, max_size=2), "never": SELECTOR}
).filter(lambda rule: len(rule) > 1)
PLANNER = st.fixed_dictionaries(
    {"match": LABELS, "prefer": st.lists(TARGET, min_size=1, max_size=4)},
    optional={
        "fallback": st.lists(TARGET, min_size=1, max_size=2),
        "max_cost_per_1k": st.sampled_from([0, 0.0004, 0.5, 1]),
        "order": st.sampled_from(["cheapest", "fastest", "given"]),
        "require": st.lists(st.sampled_from(["tools", "vision"]), max_size=1),
        "never": SELECTOR,
    },
)


DENIED = LLMError("budget_denied", "no")


@given(
    st.lists(st.one_of(GUARD, PLANNER), max_size=6),
    LABELS,
    st.sampled_from([None, *NAMES]),
    st.booleans(),
    st.sets(st.sampled_from(NAMES)),
)
def test_a_plan_holds_nothing_that_is_excluded_is_the_same_every_time_and_says_why_it_is_empty(
    rules: list[dict[str, Any]], labels: dict[str, str], model: str | None, tools: bool, denied: set[str]
) -> None:
    def refusal(row: ModelRow) -> LLMError | None:
        return DENIED if row.target in denied else None

    params: dict[str, Any] = {"labels": labels, **({"model": model} if model else {})}
    if tools:
        params["tools"] = [Tool("f", {})]
    known = facts(usable={"work": "cheap"}, refusal=refusal)
    plan = planned(rules, known, **params)
    assert plan == planned(rules, known, **params)
    made = [msgspec.convert(rule, Rule) for rule in rules]
    matching = [rule for rule in made if all(labels.get(name) == value for name, value in rule.match.items())]
    for row in plan.steps:
        assert row.target not in denied
        assert not (tools and "tools" in row.refuses)
        for guard in matching:
            only = [guard.only] if isinstance(guard.only, Selector) else guard.only or []
            assert not only or any(selector.fits(row) for selector in only)
            assert guard.never is None or not guard.never.fits(row)  # type: ignore[union-attr] # one selector
        if plan.terms is not None:
            ceiling = plan.terms.max_cost_per_1k
            assert ceiling is None or (
                row.price is not None and max(row.price.input, row.price.output) <= ceiling * 1000
            )
            assert not ("vision" in plan.terms.require and "images" in row.refuses)
    if not plan.steps:
        assert plan.error(0).kind in ("no_route", "budget_denied")
    if plan.rule is not None:
        rule = rules[plan.rule]
        wanted = ["/".join(target.values()) for target in [*rule["prefer"], *rule.get("fallback", [])]]
        assert sorted([*steps(plan), *(out.target for out in plan.out)]) == sorted(wanted)
