"""RoutingPolicy: the same from Python, JSON and TOML, with every problem at its rule and path."""

import json
import tomllib
from typing import Any

import msgspec
import pytest

from llmd.catalog import ProviderRow, provider_row
from llmd.core.rules import Rule
from llmd.errors import ConfigError
from llmd.policy import RoutingPolicy
from llmd.settings import ModelSettings, ProviderSettings, Settings

EXAMPLE: list[dict[str, Any]] = [
    {
        "task_type": "triage",
        "prefer": [{"provider": "openrouter", "model": "claude-haiku-4-5"}],
        "max_cost_per_1k": 0.5,
        "fallback": {"provider": "gemini", "model": "gemini-flash-1.5"},
    }
]
AS_TOML = """
[[routing.rules]]
task_type = "triage"
prefer = [{ provider = "openrouter", model = "claude-haiku-4-5" }]
max_cost_per_1k = 0.5
fallback = { provider = "gemini", model = "gemini-flash-1.5" }
"""


def problems(*rules: Any, **more: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        RoutingPolicy(rules, **more)
    return caught.value.problems


def test_a_policy_is_the_same_in_python_json_and_toml() -> None:
    made = RoutingPolicy(rules=EXAMPLE)
    assert RoutingPolicy.from_json(json.dumps(EXAMPLE)).rules == made.rules
    assert RoutingPolicy.from_json(json.dumps({"rules": EXAMPLE}).encode()).rules == made.rules
    assert msgspec.convert(tomllib.loads(AS_TOML), Settings).routing.rules == made.rules
    assert RoutingPolicy(made.rules).rules == made.rules


def test_every_problem_is_told_with_its_rule_and_path() -> None:
    assert problems(
        {"prefer": [{"provider": "openai"}], "colour": 1, "retry": "2"},
        {"never": {"modell": "x"}},
        {"prefer": [{"provider": "openai", "model": 3}]},
        "deny",
    ) == [
        "rules[0].colour: there is no such member; there are: deny, fallback, hedge_ms, match, max_cost_per_1k, "
        "max_cost_usd, max_tokens, never, only, order, prefer, require, retry, task_type, timeout_ms",
        "rules[0].retry: expected an integer or null, got a string",
        "rules[1].never.modell: there is no such member; there are: labels, model, provider",
        "rules[2].prefer[0].model: expected a string or null, got an integer",
        "rules[3]: expected an object, got a string",
    ]


def test_a_provider_that_nobody_knows_is_a_problem_at_its_path() -> None:
    rules = [{"prefer": [{"provider": "openai"}], "fallback": [{"provider": "echo"}, {"provider": "nobody"}]}]
    (problem,) = problems(*rules)
    assert problem.startswith("rules[0].fallback[1].provider: there is no provider 'nobody'; there are: anthropic, ")
    assert problems(*rules, providers=["openai", "nobody"]) == [
        "rules[0].fallback[0].provider: there is no provider 'echo'; there are: nobody, openai"
    ]


def test_a_rule_that_is_never_reached_is_a_problem() -> None:
    assert problems({"prefer": [{"provider": "openai"}]}, *EXAMPLE) == [
        "rules[1]: can never be reached: rule 0 matches all that it matches, and comes first"
    ]


@pytest.mark.parametrize("text", ["{", "3", '{"rules": {}}', '{"rules": [], "more": 1}', b"\xff", "[" * 100_000])
def test_what_is_no_policy_is_refused(text: str | bytes) -> None:
    with pytest.raises(ConfigError):
        RoutingPolicy.from_json(text)


def rows(**named: ProviderSettings) -> dict[str, ProviderRow]:
    made = {name: provider_row(name, settings) for name, settings in named.items()}
    return {name: row for name, row in made.items() if isinstance(row, ProviderRow)}


def test_what_may_be_a_mistake_is_a_warning() -> None:
    models = {"m1": ModelSettings()}
    known = rows(
        openai=ProviderSettings(),
        work=ProviderSettings(base_url="http://127.0.0.1:9/v1", models=models),
        llamacpp=ProviderSettings(),
    )
    made = RoutingPolicy(
        [
            {"task_type": "a", "prefer": [{"provider": "openai", "model": "gpt-5-mini"}], "max_cost_per_1k": 1},
            {"task_type": "b", "prefer": [{"provider": "work", "model": "m1"}, {"provider": "openai", "model": "g"}]},
            {"task_type": "c", "prefer": [{"provider": "work", "model": "m1"}], "max_cost_per_1k": 1},
            {"task_type": "d", "prefer": [{"provider": "llamacpp", "model": "any"}], "max_cost_per_1k": 1},
        ],
        known,
    )
    assert made.warnings(known) == [
        "rules[0].max_cost_per_1k: none of its targets costs more",
        "rules[1].prefer[1].model: the catalog knows no openai/g",
        "rules[3].max_cost_per_1k: none of its targets costs more",
    ]


def test_what_nobody_lists_is_no_mistake() -> None:
    known = rows(
        openai=ProviderSettings(default_model="mine"), work=ProviderSettings(base_url="http://127.0.0.1:8080/v1")
    )
    targets = [{"provider": "openai", "model": "mine"}, {"provider": "work", "model": "slow"}]
    assert RoutingPolicy([{"prefer": targets}], known).warnings(known) == []


def test_the_names_that_models_have_elsewhere_are_theirs() -> None:
    known = rows(openrouter=ProviderSettings(), gemini=ProviderSettings(), anthropic=ProviderSettings())
    assert known["openrouter"].model_row("claude-haiku-4-5").model == "anthropic/claude-haiku-4.5"
    assert known["gemini"].model_row("gemini-flash-1.5").model == "gemini-1.5-flash"
    assert known["anthropic"].model_row("claude-haiku-4.5").model == "claude-haiku-4-5"
    assert RoutingPolicy(EXAMPLE, known).warnings(known) == ["rules[0].max_cost_per_1k: none of its targets costs more"]
    own = rows(gemini=ProviderSettings(models={"gemini-flash-1.5": ModelSettings()}))
    assert own["gemini"].model_row("gemini-flash-1.5").model == "gemini-flash-1.5"


def test_a_rule_that_is_made_already_is_taken_as_it_is() -> None:
    rule = Rule(deny="no")
    assert RoutingPolicy([rule]).rules[0] is rule
