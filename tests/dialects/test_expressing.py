"""What a model does not take is left out."""

from typing import Any

import pytest

from llmd.chat import Reasoning
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
