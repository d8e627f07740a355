"""What a routing rule may say, what it matches, and which rules nothing can reach."""

from typing import Any

import msgspec
import pytest

from llmd.core.rules import Rule, Selector, unreachable
from tests.support.calls import row

WORK = [{"provider": "work", "model": "m1"}]


def rule(**members: Any) -> Rule:
    return msgspec.convert(members, Rule)


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({}, "a rule has targets"),
        ({"task_type": "triage"}, "a rule has targets"),
        ({"only": []}, "a rule has targets"),
        ({"deny": "no", "prefer": WORK}, "what a rule denies cannot have targets"),
        ({"deny": "no", "fallback": WORK[0]}, "`fallback` goes with `prefer`"),
        ({"never": {"model": "m"}, "max_cost_per_1k": 1}, "`max_cost_per_1k` goes with `prefer`"),
        ({"never": {"model": "m"}, "require": ["tools"]}, "`require` goes with `prefer`"),
        ({"never": {}}, "a selector gives"),
        ({"match": {"task_type": "x"}, "deny": "no"}, "`task_type` stands beside `match`"),
        ({"match": {"a": []}, "deny": "no"}, "an empty list matches nothing"),
        ({"task_type": [], "deny": "no"}, "an empty list matches nothing"),
        ({"prefer": WORK, "max_cost_usd": float("inf")}, "a ceiling is a number of USD"),
        ({"prefer": WORK, "max_cost_per_1k": -1}, ">= 0"),
        ({"prefer": WORK, "order": "best"}, "Invalid enum value"),
        ({"prefer": WORK, "retry": 11}, "<= 10"),
        ({"prefer": [{"model": "m1"}]}, "missing required field `provider`"),
        ({"prefer": WORK, "colour": 1}, "unknown field `colour`"),
    ],
    ids=str,
)
def test_a_rule_that_makes_no_sense_is_refused(members: dict[str, Any], problem: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=problem.replace("(", "[(]")):
        rule(**members)


@pytest.mark.parametrize(
    "members",
    [
        {"prefer": WORK},
        {"prefer": WORK, "fallback": [*WORK, {"provider": "home"}], "order": "fastest", "hedge_ms": 0},
        {"deny": "no", "never": [{"labels": {"region": ["us", "cn"]}}]},
        {"task_type": ["a", "b"], "match": {"x": "1"}, "only": {"provider": "work"}},
    ],
    ids=str,
)
def test_a_rule_is_the_same_from_json_and_back(members: dict[str, Any]) -> None:
    made = rule(**members)
    assert msgspec.json.decode(msgspec.json.encode(made), type=Rule) == made


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        ({"provider": "work"}, True),
        ({"provider": "w*"}, True),
        ({"provider": ["home", "work"]}, True),
        ({"provider": "home"}, False),
        ({"model": "m1"}, True),
        ({"model": "work/m1"}, True),
        ({"model": "*1"}, True),
        ({"model": "M1"}, False),
        ({"labels": {"region": "eu"}}, True),
        ({"labels": {"region": ["us", "e*"]}}, True),
        ({"labels": {"region": "us"}}, False),
        ({"labels": {"tier": "*"}}, False),
        ({"provider": "work", "model": "m2"}, False),
        ({"provider": "work", "model": "m1", "labels": {"region": "eu"}}, True),
    ],
    ids=str,
)
def test_a_selector_fits_where_all_that_it_gives_does(selector: dict[str, Any], fits: bool) -> None:
    assert msgspec.convert(selector, Selector).fits(row(labels={"region": "eu"})) is fits


A, B, AB = {"match": {"a": "1"}}, {"match": {"b": "1"}}, {"match": {"a": "1", "b": "1"}}


@pytest.mark.parametrize(
    ("rules", "lost"),
    [
        ([{"prefer": WORK}, {**A, "prefer": WORK}], [1]),
        ([{**A, "prefer": WORK}, {"prefer": WORK}], []),
        ([{**A, "prefer": WORK}, {**AB, "prefer": WORK}], [1]),
        ([{**AB, "prefer": WORK}, {**A, "prefer": WORK}], []),
        ([{**A, "prefer": WORK}, {**B, "prefer": WORK}], []),
        ([{"task_type": ["x", "y"], "prefer": WORK}, {"task_type": "y", "prefer": WORK}], [1]),
        ([{"task_type": "y", "prefer": WORK}, {"task_type": ["x", "y"], "prefer": WORK}], []),
        ([{"task_type": "x", "prefer": WORK}, {"match": {"x": "x"}, "prefer": WORK}], []),
        ([{"never": {"model": "m"}}, {"prefer": WORK}], []),
        ([{"prefer": WORK}, {"never": {"model": "m"}}], []),
        ([{"prefer": WORK}, {"deny": "no"}], [0]),
        ([{**A, "prefer": WORK}, {**A, "deny": "no"}], [0]),
        ([{**A, "deny": "no"}, {**AB, "deny": "no"}], [1]),
        ([{**AB, "deny": "no"}, {**A, "deny": "no"}], []),
        ([{"prefer": WORK}] * 3, [1, 2]),
    ],
    ids=str,
)
def test_a_rule_is_unreachable_where_another_takes_all_that_it_matches(
    rules: list[dict[str, Any]], lost: list[int]
) -> None:
    assert list(unreachable([rule(**members) for members in rules])) == lost
