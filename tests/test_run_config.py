"""RunConfig: frozen, as `execute` takes it, and clear about what is wrong as soon as it is made."""

from dataclasses import fields
from typing import Any

import pytest

from llmd import BudgetTracker, LLMError, RunConfig, Tool
from llmd.chat import Ask
from llmd.run_config import ask_of

TOOL = {"name": "look", "parameters": {"type": "object"}}

WISH = (
    "model_name provider system max_tokens temperature top_p stop seed reasoning tools response_format timeout_ms "
    "labels task_type budget_tracker fit wait_ms"
)


def test_it_carries_what_execute_takes() -> None:
    names = [field.name for field in fields(RunConfig)]
    assert names == WISH.split()
    beside = {"prompt", "messages", "tool_choice", "budget", "stream", "idempotency_key", "metadata", "model"}
    assert {*names} - {"model_name", "budget_tracker"} == {*Ask.__struct_fields__} - beside


def test_it_becomes_the_params_of_execute() -> None:
    made = RunConfig(
        model_name="m",
        provider="p",
        stop=("a", "b"),
        reasoning={"effort": "low"},
        tools=[TOOL, Tool("find", {})],
        labels={"trust": "review"},
        budget_tracker=BudgetTracker(total=1),
    )
    ask = ask_of({**made.params(), "prompt": "x"})
    assert (ask.model, ask.provider, ask.stop, ask.timeout_ms) == ("m", "p", ["a", "b"], 600_000)
    assert ask.tools
    assert [tool.name for tool in ask.tools] == ["look", "find"]
    assert ask.labels == {"trust": "review"}


def test_it_is_frozen_and_replaced() -> None:
    made = RunConfig(max_tokens=5)
    with pytest.raises(AttributeError):
        made.max_tokens = 6  # type: ignore[misc] - that is the point
    assert made.replace(temperature=1) == RunConfig(max_tokens=5, temperature=1)
    with pytest.raises(LLMError):
        made.replace(max_tokens=0)


@pytest.mark.parametrize(
    ("given", "path", "told"),
    [
        ({"max_tokens": "5"}, "max_tokens", "max_tokens: expected an integer"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens: expected an integer >= 1"),
        ({"temperature": -1}, "temperature", "temperature: "),
        ({"provider": "p"}, "", "`provider` goes with `model_name`"),
        ({"model_name": 5}, "model_name", "model_name: expected a string"),
        ({"fit": "shrink"}, "fit", "fit: expected"),
        ({"reasoning": {"effort": "low", "tokens": 5}}, "reasoning", "give one of `effort` and `tokens`"),
        ({"tools": [{"name": "x", "parameter": {}}]}, "tools[0].parameter", "there is no such member"),
        ({"labels": {"a": 1}}, "labels", "expected a string"),
        ({"budget_tracker": 4000}, "budget_tracker", "expected a BudgetTracker"),
    ],
)
def test_what_is_wrong_is_told_when_it_is_made(given: dict[str, Any], path: str, told: str) -> None:
    with pytest.raises(LLMError) as caught:
        RunConfig(**given)
    assert caught.value.kind == "invalid_params"
    assert caught.value.data["path"].startswith(path)
    assert told in caught.value.message


def test_a_name_that_is_not_there_is_a_type_error() -> None:
    known = ", ".join(sorted(WISH.split()))
    with pytest.raises(TypeError, match=f"modle: there is no such member; there are: {known}"):
        RunConfig(modle="p/m")  # type: ignore[call-arg] - that is the point
    with pytest.raises(TypeError, match=f"max_token: there is no such member; there are: {known}"):
        RunConfig(max_tokens=5).replace(max_token=1)


@pytest.mark.parametrize("given", [{"system": "\udc00"}, {"tools": [{"name": "t", "parameters": {"x": object()}}]}])
def test_what_cannot_be_sent_is_told_when_it_is_made(given: dict[str, Any]) -> None:
    with pytest.raises(LLMError) as caught:
        RunConfig(**given)
    assert caught.value.kind == "invalid_params"
