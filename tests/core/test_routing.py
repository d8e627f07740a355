"""Which targets a request goes to and why the others are out: each step of the decision, each reason."""

from typing import Any

import msgspec
import pytest

from llmd.chat import Message, Reasoning, ResponseFormat, Tool
from llmd.core.health import Trouble
from llmd.core.rows import ModelRow
from llmd.errors import LLMError
from tests.support.routing import facts, planned, reasons, steps, targets

# -- which rule ------------------------------------------------------------------------------------------------------

RULES = [
    {"task_type": "triage", "match": {"trust": ["review", "auto"]}, "prefer": targets("work/dear")},
    {"task_type": ["triage", "chat"], "prefer": targets("work/small")},
    {"match": {"tier": "x"}, "prefer": targets("home/free")},
    {"prefer": targets("work/cheap")},
]


@pytest.mark.parametrize(
    ("params", "rule"),
    [
        ({"task_type": "triage", "labels": {"trust": "auto"}}, 0),
        ({"labels": {"task_type": "triage", "trust": "review"}}, 0),
        ({"task_type": "triage", "labels": {"trust": "none"}}, 1),
        ({"task_type": "chat"}, 1),
        ({"task_type": "chat", "labels": {"tier": "x"}}, 1),
        ({"labels": {"tier": "x", "more": "y"}}, 2),
        ({"labels": {"tier": "y"}}, 3),
        ({}, 3),
    ],
    ids=str,
)
def test_the_first_rule_that_matches_plans(params: dict[str, Any], rule: int) -> None:
    plan = planned(RULES, **params)
    assert plan.rule == rule
    assert steps(plan) == ["/".join(target.values()) for target in RULES[rule]["prefer"]]  # type: ignore[attr-defined] # a list of dicts


def test_task_type_is_the_label_whatever_the_labels_say() -> None:
    assert planned(RULES, task_type="chat", labels={"task_type": "triage", "trust": "auto"}).rule == 1


def test_fixed_labels_win_over_the_requests_own() -> None:
    assert planned(RULES, fixed={"task_type": "chat"}, task_type="other").rule == 1
    denied = planned([{"match": {"trust": "auto"}, "deny": "no"}], fixed={"trust": "auto"}, labels={"trust": "review"})
    assert denied.problem is not None


def test_an_explicit_model_overrides_the_rules_choice_but_no_guard() -> None:
    rules = [{"prefer": targets("work/dear"), "max_cost_per_1k": 0.001}, {"never": {"provider": "home"}}]
    plan = planned(rules, model="work/cheap")
    assert (plan.rule, steps(plan)) == (None, ["work/cheap"])
    assert reasons(planned(rules, model="home/free")) == {"home/free": "never"}


# -- guards ----------------------------------------------------------------------------------------------------------

ALL = targets("work/cheap", "home/free", "home/unknown")


def test_guards_of_every_matching_rule_hold_with_whichever_rule_plans() -> None:
    rules = [
        {"task_type": "triage", "prefer": ALL},
        {"only": [{"provider": "home"}, {"model": "work/*"}]},
        {"task_type": "triage", "never": {"labels": {"region": "eu"}, "model": "unknown"}},
        {"task_type": "other", "never": {"provider": "work"}},
    ]
    plan = planned(rules, task_type="triage")
    assert steps(plan) == ["work/cheap", "home/free"]
    assert reasons(plan) == {"home/unknown": "never"}
    assert plan.guards == [1, 2]


def test_only_leaves_what_fits_one_of_its_selectors() -> None:
    plan = planned([{"prefer": ALL, "only": {"labels": {"region": "eu"}}}])
    assert steps(plan) == ["home/free", "home/unknown"]
    assert reasons(plan) == {"work/cheap": "only"}


def test_a_denied_request_is_refused_whatever_else_matches_and_the_reason_is_told() -> None:
    rules = [
        {"task_type": "triage", "prefer": targets("work/cheap")},
        {"match": {"action": "autonomous", "trust": "auto_apply"}, "deny": "auto_apply agents take no action"},
    ]
    labels = {"action": "autonomous", "trust": "auto_apply"}
    for params in ({"task_type": "triage"}, {}, {"model": "work/cheap"}):
        plan = planned(rules, labels=labels, **params)
        error = plan.error(0)
        assert (plan.steps, error.kind, error.data["rule"]) == ((), "no_route", 1)
        assert error.message == "rule 1 denies this: auto_apply agents take no action"
    assert steps(planned(rules, task_type="triage", labels={"action": "autonomous", "trust": "review"})) == [
        "work/cheap"
    ]


# -- what the request needs ------------------------------------------------------------------------------------------

IMAGE = {"role": "user", "content": [{"type": "image", "media_type": "image/png", "data": "AA=="}]}


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"tools": [Tool("f", {})]}, "lacks_tools"),
        ({"response_format": ResponseFormat("form", {})}, "lacks_json_schema"),
        ({"reasoning": {"effort": "low"}}, "lacks_reasoning"),
        ({"reasoning": {"tokens": 5}}, "lacks_reasoning"),
        ({"reasoning": {"effort": "none"}}, None),
        ({"reasoning": {"tokens": 0}}, None),
        ({"tools": []}, None),
        ({"messages": [IMAGE]}, "lacks_vision"),
        ({"messages": [{"role": "user", "content": "x"}]}, None),
        ({"streams": True}, "lacks_streaming"),
    ],
    ids=str,
)
def test_a_target_that_lacks_what_the_request_shows_it_needs_is_out(params: dict[str, Any], reason: str | None) -> None:
    kinds = {"reasoning": Reasoning, "messages": list[Message]}
    params = {name: msgspec.convert(value, kinds.get(name, Any)) for name, value in params.items()}
    plan = planned([{"prefer": targets("work/plain", "work/cheap")}], **params)
    assert reasons(plan) == ({} if reason is None else {"work/plain": reason})
    assert steps(plan)[-1] == "work/cheap"


def test_a_rule_may_require_more() -> None:
    plan = planned([{"prefer": targets("work/plain", "work/cheap"), "require": ["vision"]}])
    assert reasons(plan) == {"work/plain": "lacks_vision"}


def test_what_cannot_fit_the_context_is_out() -> None:
    rules = [{"prefer": targets("work/small", "work/cheap")}]
    assert reasons(planned(rules, prompt="x" * 808)) == {"work/small": "context_too_small"}
    assert reasons(planned(rules, max_tokens=101)) == {"work/small": "context_too_small"}
    assert reasons(planned(rules, prompt="x" * 700, max_tokens=10)) == {}


# -- keys, prices, budgets, health -----------------------------------------------------------------------------------


def test_a_target_without_a_key_is_out_and_says_what_is_missing() -> None:
    known = facts(missing_key=lambda provider: "no WORK_KEY" if provider == "work" else None)
    plan = planned([{"prefer": ALL}], known)
    assert (steps(plan), reasons(plan)) == (["home/free", "home/unknown"], {"work/cheap": "no_key"})
    assert plan.out[0].words == "no WORK_KEY"


def test_a_ceiling_a_thousand_tokens_is_of_the_dearer_rate_and_an_unknown_price_is_beyond_it() -> None:
    wanted = targets("work/cheap", "work/dear", "home/unknown", "home/free")
    plan = planned([{"prefer": wanted, "max_cost_per_1k": 0.5}])
    assert steps(plan) == ["work/cheap", "home/free"]
    assert reasons(plan) == {"work/dear": "too_expensive", "home/unknown": "unpriced"}
    assert steps(planned([{"prefer": wanted, "max_cost_per_1k": 0.6}])) == ["work/cheap", "work/dear", "home/free"]


def test_a_ceiling_looks_at_the_tier_that_the_request_reaches() -> None:
    rules = [{"prefer": targets("work/tiered"), "max_cost_per_1k": 0.5}]
    assert steps(planned(rules, prompt="x" * 400)) == ["work/tiered"]
    assert reasons(planned(rules, prompt="x" * 404)) == {"work/tiered": "too_expensive"}


def test_a_ceiling_for_the_call_is_of_what_it_can_cost_at_most() -> None:
    most = {"work/cheap": 0.01, "work/dear": 2.0}
    known = facts(most_usd=lambda row: most.get(row.target))
    plan = planned([{"prefer": targets("work/cheap", "work/dear", "home/unknown"), "max_cost_usd": 1}], known)
    assert steps(plan) == ["work/cheap"]
    assert reasons(plan) == {"work/dear": "too_expensive", "home/unknown": "unpriced"}


def test_fallbacks_are_held_to_the_rules_ceiling_unless_they_have_their_own() -> None:
    rule = {"prefer": targets("work/cheap"), "max_cost_per_1k": 0.5, "fallback": targets("work/dear", "work/dear")}
    rule["fallback"] = [*targets("work/dear"), {**targets("home/unknown")[0], "max_cost_usd": 5}]
    plan = planned([rule], facts(most_usd=lambda row: 4.0))
    assert (steps(plan), reasons(plan)) == (["work/cheap", "home/unknown"], {"work/dear": "too_expensive"})


def test_what_the_budget_does_not_pay_for_is_out_and_its_error_is_told_where_nothing_else_is_left() -> None:
    error = LLMError("budget_denied", "not with this budget")
    known = facts(refusal=lambda row: error if row.provider == "work" else None)
    plan = planned([{"prefer": ALL}], known)
    assert reasons(plan) == {"work/cheap": "budget_denied"}
    alone = planned([{"prefer": targets("work/cheap")}], known)
    assert alone.error(0) is error


def test_what_is_in_trouble_is_out_until_it_is_not_and_then_the_caller_is_told_when() -> None:
    def trouble(row: ModelRow) -> Trouble | None:
        return {
            "work": Trouble("breaker_open", 105.0, "upstream_auth"),
            "home": Trouble("rate_limited", 102.5),
        }.get(row.provider)

    plan = planned([{"prefer": targets("work/cheap", "home/free")}], facts(trouble=trouble))
    assert reasons(plan) == {"work/cheap": "breaker_open", "home/free": "rate_limited"}
    assert plan.out[0].words == "it has failed too often of late (upstream_auth)"
    error = plan.error(100.0)
    assert (error.kind, error.retryable, error.data["retry_after_ms"]) == ("no_route", True, 2500)


def test_what_does_not_pass_is_final() -> None:
    error = planned([{"prefer": ALL, "max_cost_per_1k": 0, "never": {"provider": "home"}}]).error(0)
    assert (error.kind, error.retryable) == ("no_route", False)
    assert error.message.startswith("work/cheap: it costs more than the rule's ceiling; home/free: a rule forbids it")
    assert error.data["targets"][0] == {"provider": "work", "model": "cheap", "reason": "too_expensive"}


def test_targets_that_are_not_there_are_out() -> None:
    plan = planned([{"prefer": targets("nobody/m", "bare", "work")}])
    assert (steps(plan), reasons(plan)) == (
        ["work/cheap"],
        {"nobody/m": "unknown_provider", "bare": "no_default_model"},
    )


# -- order -----------------------------------------------------------------------------------------------------------


def test_the_cheapest_of_the_preferred_goes_first_and_an_unknown_price_is_the_dearest() -> None:
    rule = {
        "prefer": targets("home/unknown", "work/dear", "work/cheap"),
        "order": "cheapest",
        "fallback": targets("home/free"),
    }
    assert steps(planned([rule])) == ["work/cheap", "work/dear", "home/unknown", "home/free"]


def test_the_fastest_goes_first_but_one_that_has_never_been_measured_before_it() -> None:
    pace = {"work/cheap": 2.0, "home/free": 1.0}
    rule = {"prefer": targets("work/cheap", "home/free", "home/unknown"), "order": "fastest"}
    assert steps(planned([rule], facts(pace=lambda row: pace.get(row.target)))) == [
        "home/unknown",
        "home/free",
        "work/cheap",
    ]
