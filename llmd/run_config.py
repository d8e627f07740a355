"""RunConfig: what a call of the library says beside its prompt, checked when it is made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

import msgspec

from llmd.chat import Ask, Reasoning, ResponseFormat, Tool
from llmd.errors import LLMError
from llmd.tracker import BudgetTracker
from llmd.validation import explain

_NAMES = {"model": "model_name"}
"""What `execute` calls otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """The params of `execute` that a call of the library takes, as they are there. None leaves one out.

    model_name       "provider/model", split at the first slash; with `provider`, or on an adapter that has one, also
                     the model's own name
    max_tokens       of the answer, at most; `fit` "clamp" cuts it to what the budget has, "refuse" does not
    temperature      from 0; top_p from 0 to 1
    reasoning        {"effort": ...} or {"tokens": ...}
    tools            {"name", "description"?, "parameters": a JSON Schema} each
    response_format  {"type": "json_schema", "name", "schema"}
    timeout_ms       of the whole call; 600,000 where it is None
    labels           what rules read, with `task_type`
    budget_tracker   whose budget pays
    wait_ms          how long a call may wait for budget that only the holds of others take; 30,000 where it is None

    Raises LLMError (invalid_params, `path` in its data) for values that contradict one another or are none, and
    TypeError for names that are not there.
    """

    model_name: str | None = None
    provider: str | None = None
    system: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | Sequence[str] | None = None
    seed: int | None = None
    reasoning: Reasoning | Mapping[str, Any] | None = None
    tools: Sequence[Tool | Mapping[str, Any]] | None = None
    response_format: ResponseFormat | Mapping[str, Any] | None = None
    timeout_ms: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    task_type: str | None = None
    budget_tracker: BudgetTracker | None = None
    fit: Literal["refuse", "clamp"] | None = None
    wait_ms: int | None = None

    def __new__(cls, **given: Any) -> Self:
        names = [one.name for one in fields(cls)]
        for name in given:
            if name not in names:
                raise TypeError(f"{name}: there is no such member; there are: {', '.join(sorted(names))}")
        return object.__new__(cls)

    def __post_init__(self) -> None:
        ask_of({**self.params(), "prompt": ""})
        if self.budget_tracker is not None and not isinstance(self.budget_tracker, BudgetTracker):
            raise LLMError("invalid_params", "budget_tracker: expected a BudgetTracker", path="budget_tracker")

    def replace(self, **changes: Any) -> "RunConfig":
        """The same with these changes."""
        return replace(self, **changes)

    def params(self) -> dict[str, Any]:
        """As `execute` takes them; the budget is not among them."""
        given = {one.name: value for one in fields(self) if (value := getattr(self, one.name)) is not None}
        given.pop("budget_tracker", None)
        if "model_name" in given:
            given["model"] = given.pop("model_name")
        return given


def ask_of(params: Mapping[str, Any]) -> Ask:
    """The params of an execute, checked. Raises invalid_params, in the words of RunConfig."""
    try:
        made = msgspec.convert(params, Ask)
        msgspec.json.encode(made)
        return made
    except UnicodeEncodeError:
        raise LLMError("invalid_params", "the text holds half a surrogate pair, which is no character") from None
    except (TypeError, RecursionError):
        raise LLMError("invalid_params", "the params hold something that JSON has no words for") from None
    except msgspec.ValidationError as error:
        problem = explain(error, Ask)
        first, dot, rest = problem.path.partition(".")
        path = f"{_NAMES.get(first, first)}{dot}{rest}"
        message = problem.message.replace("with `model`", "with `model_name`")
        raise LLMError("invalid_params", str(problem._replace(path=path, message=message)), path=path) from None
