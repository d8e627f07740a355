"""What a model does not take is left out."""

from typing import Any

import pytest

from llmd.chat import Reasoning
from llmd.core.rows import ReasoningLimits
from llmd.dialects.expressing import expressible
from tests.support.calls import ask, row


def test_a_model_that_takes_everything_is_given_the_request_as_it_is() -> None:
    asked = ask(temperature=1, seed=3)
    assert expressible(asked, row()) == (asked, [])
    assert expressible(asked, row())[0] is asked


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 0.0), ("top_p", 0.5), ("stop", "x"), ("seed", 0), ("reasoning", Reasoning(effort="low"))],
)
def test_what_is_refused_is_left_out_and_told(name: str, value: Any) -> None:
    given, plain = ask(**{name: value}), ask()
    assert expressible(given, row(refuses=(name, "tools"))) == (plain, [name])
    assert expressible(plain, row(refuses=(name, "tools"))) == (plain, [])


def test_what_is_no_param_cannot_be_left_out() -> None:
    asked = ask(prompt="x")
    assert expressible(asked, row(refuses=("images", "stream"))) == (asked, [])


@pytest.mark.parametrize("refuses", [("temperature_with_top_p",), ("temperature_with_top_p", "top_p")], ids=repr)
def test_of_a_temperature_and_a_top_p_that_are_not_taken_together_the_temperature_stays(refuses: Any) -> None:
    both = ask(temperature=0.5, top_p=0.5)
    assert expressible(both, row(refuses=refuses)) == (ask(temperature=0.5), ["top_p"])
    for alone in (ask(temperature=0.5), ask(top_p=0.5)):
        assert expressible(alone, row(refuses=refuses[:1])) == (alone, [])


def test_a_top_p_stays_where_the_temperature_is_not_taken_anyway() -> None:
    both = ask(temperature=0.5, top_p=0.5)
    refuses = ("temperature", "temperature_with_top_p")
    assert expressible(both, row(refuses=refuses)) == (ask(top_p=0.5), ["temperature"])


@pytest.mark.parametrize(
    ("effort", "limits", "told"),
    [
        ("none", ReasoningLimits(off=False, efforts=("minimal", "low")), "minimal"),
        ("minimal", ReasoningLimits(efforts=("none", "low")), "low"),
        ("none", ReasoningLimits(efforts=("none", "low")), "none"),
        ("none", ReasoningLimits(efforts=("low", "high")), "none"),
        ("xhigh", ReasoningLimits(efforts=("low", "high")), "high"),
        ("xhigh", ReasoningLimits(), "xhigh"),
    ],
)
def test_an_effort_is_the_nearest_that_the_model_knows(effort: Any, limits: ReasoningLimits, told: Any) -> None:
    asked = ask(reasoning=Reasoning(effort=effort))
    assert expressible(asked, row(reasoning_limits=limits)) == (ask(reasoning=Reasoning(effort=told)), [])


def test_a_number_of_tokens_is_no_effort() -> None:
    asked = ask(reasoning=Reasoning(tokens=9))
    assert expressible(asked, row(reasoning_limits=ReasoningLimits(efforts=("low",)))) == (asked, [])
