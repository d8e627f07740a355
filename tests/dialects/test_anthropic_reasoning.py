"""How much Anthropic's models are told to think, and what of the rest they take then."""

from typing import Any

import pytest

from llmd.chat import NamedTool, Reasoning, ResponseFormat
from llmd.core.rows import ReasoningLimits
from tests.support.calls import body, dropped

SCHEMA = {"type": "object"}
BY_EFFORT = {"reasoning": "effort"}


@pytest.mark.parametrize(
    ("reasoning", "thinking", "effort"),
    [
        (Reasoning(effort="minimal"), {"type": "adaptive"}, "low"),
        (Reasoning(effort="medium"), {"type": "adaptive"}, "medium"),
        (Reasoning(effort="xhigh"), {"type": "adaptive"}, "high"),
        (Reasoning(effort="none"), None, None),
        (Reasoning(tokens=0), None, None),
        (Reasoning(tokens=5000), None, None),
    ],
    ids=repr,
)
def test_a_model_that_thinks_as_it_sees_fit_is_told_an_effort(
    reasoning: Reasoning, thinking: dict[str, Any] | None, effort: str | None
) -> None:
    made = body("anthropic", 500, reasoning=reasoning, facts=BY_EFFORT)
    assert made.get("thinking") == thinking
    assert made.get("output_config") == (None if effort is None else {"effort": effort})
    told = dropped("anthropic", 500, reasoning=reasoning, facts=BY_EFFORT)
    assert told == (["reasoning"] if reasoning.tokens else [])


def test_a_model_that_knows_more_efforts_is_told_those() -> None:
    facts = {**BY_EFFORT, "reasoning_limits": ReasoningLimits(efforts=("low", "medium", "high", "xhigh"))}
    made = body("anthropic", 500, reasoning=Reasoning(effort="xhigh"), facts=facts)
    assert made["output_config"] == {"effort": "xhigh"}


def test_an_effort_stands_beside_a_schema_and_takes_the_place_of_sampling() -> None:
    params = {"reasoning": Reasoning(effort="low"), "response_format": ResponseFormat("form", SCHEMA), "top_p": 0.5}
    made = body("anthropic", 500, facts=BY_EFFORT, **params)
    assert made["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}}
    assert dropped("anthropic", 500, facts=BY_EFFORT, **params) == ["top_p"]


@pytest.mark.parametrize("facts", [{}, BY_EFFORT], ids=["tokens", "effort"])
@pytest.mark.parametrize("choice", ["required", NamedTool("f")], ids=repr)
def test_who_must_call_a_tool_is_not_told_to_think(choice: Any, facts: dict[str, Any]) -> None:
    params = {"reasoning": Reasoning(effort="low"), "tool_choice": choice, "temperature": 0.5, "facts": facts}
    made = body("anthropic", 5000, **params)
    assert not {"thinking", "output_config"} & made.keys()
    assert made["temperature"] == 0.5
    assert dropped("anthropic", 5000, **params) == ["reasoning"]


def test_who_may_call_a_tool_or_is_told_not_to_think_is_told_so() -> None:
    made = body("anthropic", 5000, reasoning=Reasoning(effort="low"), tool_choice="auto")
    assert made["thinking"] == {"type": "enabled", "budget_tokens": 1024}
    params = {"reasoning": Reasoning(effort="none"), "tool_choice": "required"}
    assert body("anthropic", 5000, **params)["thinking"] == {"type": "disabled"}
    assert dropped("anthropic", 5000, **params) == []


@pytest.mark.parametrize(
    ("temperature", "top_p", "names"),
    [(0.5, 0.5, ["temperature", "top_p"]), (1, 0.94, ["top_p"]), (1, 0.95, []), (0, 1, ["temperature"])],
)
def test_who_thinks_takes_little_else_of_sampling(temperature: float, top_p: float, names: list[str]) -> None:
    params = {"reasoning": Reasoning(effort="low"), "temperature": temperature, "top_p": top_p}
    assert dropped("anthropic", 5000, **params) == names
    assert {"temperature", "top_p"} - body("anthropic", 5000, **params).keys() == set(names)
