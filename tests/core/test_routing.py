"""Which target a request goes to, and what is said where there is none."""

from typing import Any

import pytest

from llmd.core.routing import Facts, Target, named_target, plan
from llmd.errors import LLMError
from tests.support.calls import ask


def facts(default_model: str | None = None, **usable: str) -> Facts:
    defaults = {"work": "m1", "home": "m2", "echo": "echo", "bare": None}
    unusable = {"work": "no_key", "home": "unreachable", "echo": "only_when_named", "bare": "no_default_model"}
    return Facts(defaults, default_model, usable, {name: why for name, why in unusable.items() if name not in usable})


def refused(params: dict[str, Any], known: Facts) -> LLMError:
    with pytest.raises(LLMError) as caught:
        plan(ask(**params), known)
    return caught.value


@pytest.mark.parametrize(
    ("params", "target"),
    [
        ({"model": "work/m9"}, Target("work", "m9")),
        ({"model": "work/openai/gpt"}, Target("work", "openai/gpt")),
        ({"model": "m9", "provider": "work"}, Target("work", "m9")),
        ({"model": "openai/gpt", "provider": "work"}, Target("work", "openai/gpt")),
        ({}, None),
    ],
    ids=str,
)
def test_a_request_names_its_target_in_one_word_or_two(params: dict[str, Any], target: Target | None) -> None:
    assert named_target(ask(**params), None) == target


def test_what_the_request_names_goes_before_the_default_and_the_default_before_the_only_one() -> None:
    known = facts("home/m2", work="m1")
    assert plan(ask(model="work/m9"), known) == [Target("work", "m9")]
    assert plan(ask(), known) == [Target("home", "m2")]
    assert plan(ask(), facts(work="m1")) == [Target("work", "m1")]


@pytest.mark.parametrize("name", ["m1", "/m1", "work/", "/"])
def test_a_model_that_names_no_provider_is_a_mistake_in_the_params(name: str) -> None:
    error = refused({"model": name}, facts())
    assert (error.kind, error.data["path"]) == ("invalid_params", "model")


def test_a_provider_that_is_not_there_is_named_among_those_that_are() -> None:
    error = refused({"model": "nobody/m1"}, facts())
    assert error.kind == "no_route"
    assert error.message == "no provider is named 'nobody'; there are: bare, echo, home, work"
    assert error.data["targets"] == [{"provider": "nobody", "model": "m1", "reason": "unknown_provider"}]


def test_a_provider_name_is_not_repeated_at_any_length() -> None:
    assert len(refused({"model": "n" * 200 + "/m"}, facts()).message) < 200


def test_of_several_none_is_guessed_and_all_are_named() -> None:
    error = refused({}, facts(work="m1", home="m2"))
    assert error.kind == "no_route"
    assert "home/m2, work/m1" in error.message
    reasons = {(target["provider"], target["model"]): target["reason"] for target in error.data["targets"]}
    assert reasons == {
        ("work", "m1"): "ambiguous",
        ("home", "m2"): "ambiguous",
        ("echo", "echo"): "only_when_named",
        ("bare", None): "no_default_model",
    }


def test_where_nothing_is_ready_it_says_what_would_help() -> None:
    error = refused({}, facts())
    assert "OPENAI_API_KEY" in error.message
    assert "echo/echo" in error.message
    assert {target["reason"] for target in error.data["targets"]} == {
        "no_key",
        "unreachable",
        "only_when_named",
        "no_default_model",
    }
    assert not error.retryable
