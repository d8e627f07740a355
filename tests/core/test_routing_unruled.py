"""Requests that no rule plans for: they name their model, or the configuration does, or there is but one."""

from typing import Any

import pytest

from llmd.core.routing import named_target
from llmd.errors import LLMError
from tests.support.calls import ask
from tests.support.routing import facts, planned, reasons, steps


@pytest.mark.parametrize(
    ("params", "target"),
    [
        ({"model": "work/m9"}, ("work", "m9")),
        ({"model": "work/openai/gpt"}, ("work", "openai/gpt")),
        ({"model": "m9", "provider": "work"}, ("work", "m9")),
        ({"model": "openai/gpt", "provider": "work"}, ("work", "openai/gpt")),
        ({}, None),
    ],
    ids=str,
)
def test_a_request_names_its_target_in_one_word_or_two(params: dict[str, Any], target: tuple[str, str] | None) -> None:
    assert named_target(ask(**params), None) == target


def test_what_the_request_names_goes_before_the_default_and_the_default_before_the_only_one() -> None:
    known = facts(default_model="home/free", usable={"work": "cheap"})
    assert steps(planned([], known, model="work/m9")) == ["work/m9"]
    assert steps(planned([], known)) == ["home/free"]
    assert steps(planned([], facts(usable={"work": "cheap"}))) == ["work/cheap"]


def test_guards_hold_for_a_default_too() -> None:
    rules = [{"never": {"provider": "home"}}]
    assert reasons(planned(rules, facts(default_model="home/free"))) == {"home/free": "never"}


@pytest.mark.parametrize("name", ["m1", "/m1", "work/", "/"])
def test_a_model_that_names_no_provider_is_a_mistake_in_the_params(name: str) -> None:
    with pytest.raises(LLMError) as caught:
        planned([], model=name)
    assert (caught.value.kind, caught.value.data["path"]) == ("invalid_params", "model")


def test_a_provider_that_is_not_there_is_told_of_as_the_catalog_does() -> None:
    error = planned([], facts(absent=lambda name: f"no {name}"), model="nobody/m1").error(0)
    assert (error.kind, error.message) == ("no_route", "no nobody")
    assert error.data["targets"] == [{"provider": "nobody", "model": "m1", "reason": "unknown_provider"}]


def test_of_several_none_is_guessed_and_all_are_named() -> None:
    known = facts(usable={"work": "cheap", "home": "free"}, unusable={"bare": "no_default_model"})
    error = planned([], known).error(0)
    assert error.kind == "no_route"
    assert "home/free, work/cheap" in error.message
    assert {(target["provider"], target["model"]): target["reason"] for target in error.data["targets"]} == {
        ("work", "cheap"): "ambiguous",
        ("home", "free"): "ambiguous",
        ("bare", None): "no_default_model",
    }


def test_where_nothing_is_ready_it_says_what_would_help() -> None:
    error = planned([], facts(unusable={"work": "no_key", "home": "unreachable", "bare": "no_default_model"})).error(0)
    assert "OPENAI_API_KEY" in error.message
    assert "echo/echo" in error.message
    assert {target["reason"] for target in error.data["targets"]} == {"no_key", "unreachable", "no_default_model"}
    assert not error.retryable
