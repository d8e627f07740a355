"""RoutingPolicy: rules as they are written in TOML, JSON or Python, checked whole when it is built."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Self

import msgspec

from llmd.catalog import ProviderRow
from llmd.core.rules import Rule, RuleTarget, unreachable
from llmd.errors import ConfigError
from llmd.known import KNOWN
from llmd.validation import explain


class RoutingPolicy:
    """Which requests go to which models: `rules` are those of `[[routing.rules]]`, as tables or as Rules.

    `providers` are the names that targets may have; unset, those of the catalog. Raises ConfigError with every problem:
    the index of its rule, the path of the member, what was expected.
    """

    def __init__(self, rules: Sequence[Rule | Mapping[str, Any]], providers: Collection[str] | None = None) -> None:
        self.rules: list[Rule] = []
        problems: list[str] = []
        for at, written in enumerate(rules):
            rule, wrong = _read(written)
            problems += [f"rules[{at}]{'.' if problem.path else ': '}{problem}" for problem in wrong]
            self.rules += [] if rule is None else [rule]
        if not problems:
            problems = [*self._unknown_providers(KNOWN if providers is None else providers)]
            problems += [f"rules[{at}]: {reason}" for at, reason in unreachable(self.rules).items()]
        if problems:
            raise ConfigError(problems)

    @classmethod
    def from_json(cls, text: str | bytes, providers: Collection[str] | None = None) -> Self:
        """The policy that this JSON is: `{"rules": [...]}`, or the rules alone. Raises ConfigError."""
        try:
            read = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise ConfigError(["this is not JSON"]) from None
        rules = read.get("rules") if isinstance(read, dict) and read.keys() == {"rules"} else read
        if not isinstance(rules, list):
            raise ConfigError(['expected {"rules": [...]}'])
        return cls(rules, providers)

    def warnings(self, providers: Mapping[str, ProviderRow]) -> list[str]:
        """What may be a mistake: models that the catalog does not know, and ceilings that exclude nothing."""
        found = []
        for at, rule in enumerate(self.rules):
            for path, target in _paths(at, rule):
                provider = providers.get(target.provider)
                if provider is not None and target.model is not None and not provider.knows(target.model):
                    found.append(f"{path}.model: the catalog knows no {target.provider}/{target.model}")
            held = [target for target in rule.targets if not target.has_ceiling]
            ceiling = rule.max_cost_per_1k
            if ceiling is not None and not any(_may_exceed(providers, target, ceiling) for target in held):
                found.append(f"rules[{at}].max_cost_per_1k: none of its targets costs more")
        return found

    def _unknown_providers(self, known: Collection[str]) -> list[str]:
        return [
            f"{path}.provider: there is no provider {target.provider!r}; there are: {', '.join(sorted(known))}"
            for at, rule in enumerate(self.rules)
            for path, target in _paths(at, rule)
            if target.provider not in known
        ]


def _read(written: Any) -> tuple[Rule | None, list[Any]]:
    """The rule, or each of its problems: msgspec stops at the first, so it is asked again without that member."""
    if isinstance(written, Rule):
        return written, []
    problems = []
    left = written
    while True:
        try:
            rule = msgspec.convert(left, Rule)
        except msgspec.ValidationError as error:
            problem = explain(error, Rule)
            problems.append(problem)
            member = problem.path.partition(".")[0].partition("[")[0]
            if not isinstance(left, Mapping) or member not in left:
                return None, problems
            left = {name: value for name, value in left.items() if name != member}
            if not left:
                return None, problems
        else:
            return (None, problems) if problems else (rule, [])


def _paths(at: int, rule: Rule) -> list[tuple[str, RuleTarget]]:
    fallback = rule.fallback
    prefixed = [(f"rules[{at}].prefer[{number}]", target) for number, target in enumerate(rule.prefer)]
    if isinstance(fallback, RuleTarget):
        return [*prefixed, (f"rules[{at}].fallback", fallback)]
    return [*prefixed, *((f"rules[{at}].fallback[{number}]", target) for number, target in enumerate(fallback or []))]


def _may_exceed(providers: Mapping[str, ProviderRow], target: RuleTarget, per_1k: float) -> bool:
    provider = providers.get(target.provider)
    model = target.model or (provider.default_model if provider is not None else None)
    if provider is None or model is None or (price := provider.model_row(model).price) is None:
        return True  # an unpriced one is beyond every ceiling
    return any(max(rates.input, rates.output) / 1000 > per_1k for rates in (price, *price.tiers))
