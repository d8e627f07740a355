"""What a model does not take is left out, or the call refused where it cannot do without."""

from typing import Any

import pytest

from llmd.chat import Reasoning, ResponseFormat, Tool
from llmd.dialects.expressing import expressible
from llmd.errors import LLMError
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


@pytest.mark.parametrize(
    ("name", "value"), [("tools", [Tool("f", {})]), ("response_format", ResponseFormat("form", {}))]
)
def test_what_the_answer_depends_on_is_no_route_to_this_model(name: str, value: Any) -> None:
    with pytest.raises(LLMError, match=f"work/m1 takes no `{name}`") as caught:
        expressible(ask(**{name: value}), row(refuses=(name,)))
    assert caught.value.kind == "no_route"
    assert caught.value.data["targets"] == [{"provider": "work", "model": "m1", "reason": f"refuses_{name}"}]
