"""Which targets a request goes to, in which order, and why the others are out. Pure: handed what is known.

Guards first: `only`, `never` and `deny` of every rule that matches the request. Then the first matching rule with
targets plans, unless the request names its model; then what the request needs, whether there is a key, the price
ceiling, what the budget allows, health, and the order.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from math import inf

from msgspec import Struct
from msgspec.structs import replace

from llmd.chat import Ask
from llmd.core.choices import Choice, FindRow, choice_of, excluded, ruled
from llmd.core.needs import Needs
from llmd.core.plans import REASONS, Facts, Out, Plan
from llmd.core.rows import ModelRow
from llmd.core.rules import TASK_TYPE, Rule
from llmd.errors import LLMError


class Matched(Struct, frozen=True):
    """A request on the terms of the rule that plans, and the rules that are for it: `guards`, the first that denies,
    and `rule`, the one that plans."""

    ask: Ask
    guards: Sequence[int] = ()
    rule: int | None = None
    denied: int | None = None


class Policy:
    """The rules, looked through once."""

    def __init__(self, rules: Sequence[Rule], find: FindRow) -> None:
        self.rules = rules
        self._conditions = [tuple(rule.conditions.items()) for rule in rules]
        self._choices = [[ruled(rule, target, find) for target in rule.targets] for rule in rules]
        self._always = [at for at, conditions in enumerate(self._conditions) if not conditions]
        self._by_label: dict[tuple[str, str], list[int]] = {}  # of the first condition of each
        for at, conditions in enumerate(self._conditions):
            for name, values in conditions[:1]:
                for value in values:
                    self._by_label.setdefault((name, value), []).append(at)
        rows = [choice.row for choices in self._choices for choice in choices if choice.row is not None]
        self._excluded = {
            at: {row.target: reason for row in rows if (reason := excluded(rule, row)) is not None}
            for at, rule in enumerate(rules)
            if rule.is_guard
        }

    def match(self, ask: Ask, fixed: Mapping[str, str]) -> Matched:
        """The rules for this request; `fixed` labels win over its own."""
        labels = ask.labels if ask.task_type is None else {**ask.labels, TASK_TYPE: ask.task_type}
        labels = {**labels, **fixed} if fixed else labels
        found = list(self._always)
        for label in labels.items():
            for at in self._by_label.get(label, ()):
                if all(labels.get(name) in values for name, values in self._conditions[at][1:]):
                    found.append(at)
        found.sort()
        guards = [at for at in found if at in self._excluded]
        planning = next((at for at in found if self._choices[at]), None) if ask.model is None else None
        terms = None if planning is None else self.rules[planning]
        if terms is not None and terms.max_tokens is not None and ask.max_tokens is None:
            ask = replace(ask, max_tokens=terms.max_tokens, fit=ask.fit or "clamp")
        denying = next((at for at in guards if self.rules[at].deny is not None), None)
        return Matched(ask, guards, planning, denying)

    def plan(self, matched: Matched, facts: Facts, stream: bool = False) -> Plan:
        """The targets to try in order, and why the others are out. Raises invalid_params for a `model` that is none."""
        ask, rule = matched.ask, matched.rule
        if (denying := matched.denied) is not None:
            reason = f"rule {denying} denies this: {self.rules[denying].deny}"
            return Plan(guards=matched.guards, problem=LLMError("no_route", reason, rule=denying, targets=[]))
        choices = _unruled(ask, facts) if rule is None else self._choices[rule]
        if isinstance(choices, LLMError):
            return Plan(guards=matched.guards, problem=choices)
        terms = None if rule is None else self.rules[rule]
        named = rule is None
        guards = self._reasons(matched.guards, choices) if named else self._excluded_by(matched.guards)
        needs = Needs(ask, terms, stream)
        steps, out = _sifted(choices, guards, needs, facts)
        if terms is not None and terms.order is not None:
            preferred = {choice.name for choice in choices[: len(terms.prefer)]}
            key = needs.price if terms.order == "cheapest" else lambda row: facts.pace(row) or 0.0
            steps.sort(key=lambda row: key(row) if row.target in preferred else inf)
        return Plan(steps=steps, out=out, guards=matched.guards, rule=rule, terms=terms)

    def _excluded_by(self, guards: Sequence[int]) -> Mapping[str, str]:
        """By the targets of the rules, which of these guards exclude them."""
        found = [self._excluded[at] for at in guards if self._excluded[at]]
        return found[0] if len(found) == 1 else {name: reason for one in found for name, reason in one.items()}

    def _reasons(self, guards: Sequence[int], choices: Sequence[Choice]) -> Mapping[str, str]:
        """Why guards exclude targets that no rule names."""
        rows = [choice.row for choice in choices if choice.row is not None]
        pairs = ((row.target, excluded(self.rules[at], row)) for row in rows for at in guards)
        return {target: reason for target, reason in pairs if reason is not None}


def _sifted(
    choices: Sequence[Choice], guards: Mapping[str, str], needs: Needs, facts: Facts
) -> tuple[list[ModelRow], list[Out]]:
    """The rows of the targets that are left, and the others. `guards` tell which are excluded."""
    steps: list[ModelRow] = []
    out: list[Out] = []
    missing_key = cache(facts.missing_key)
    for choice in choices:
        row = choice.row
        if row is None:
            out.append(Out(choice.name, None, choice.absent or "unknown_provider"))
        elif choice.name in guards:
            out.append(Out(choice.name, row, guards[choice.name]))
        elif not needs.met_by(choice):
            out.append(Out(choice.name, row, needs.unmet(choice)))
        elif (missing := missing_key(row.provider)) is not None:
            out.append(Out(choice.name, row, "no_key", detail=missing))
        elif choice.dear is not None:
            out.append(Out(choice.name, row, choice.dear))
        elif choice.varies and (dear := needs.too_dear(choice, row, facts.most_usd)) is not None:
            out.append(Out(choice.name, row, dear))
        elif facts.refusal is not None and (error := facts.refusal(row)) is not None:
            out.append(Out(choice.name, row, error.kind, error=error))
        elif facts.trouble is not None and (trouble := facts.trouble(row)) is not None:
            detail = f"{REASONS[trouble.reason]} ({trouble.failure})" if trouble.failure else None
            out.append(Out(choice.name, row, trouble.reason, until=trouble.until, detail=detail))
        else:
            steps.append(row)
    return steps, out


def named_target(ask: Ask, default_model: str | None) -> tuple[str, str] | None:
    """Provider and model that the request names, else the configured default, else None. Raises invalid_params."""
    if ask.provider is not None and ask.model is not None:
        return ask.provider, ask.model
    name = ask.model or default_model
    if name is None:
        return None
    provider, slash, model = name.partition("/")
    if not slash or not provider or not model:
        raise LLMError(
            "invalid_params",
            '`model` must be "provider/model", or the model\'s own name beside `provider`',
            path="model",
        )
    return provider, model


def _unruled(ask: Ask, facts: Facts) -> list[Choice] | LLMError:
    """The one target of a request that no rule plans for."""
    named = named_target(ask, facts.default_model)
    if named is None and len(facts.usable) == 1:
        named = next(iter(facts.usable.items()))
    if named is None:
        return _open(facts)
    row = facts.find(*named)
    if row is not None:
        return [choice_of(row)]
    provider, model = named
    return LLMError(
        "no_route",
        facts.absent(provider),
        targets=[{"provider": provider, "model": model, "reason": "unknown_provider"}],
    )


def _open(facts: Facts) -> LLMError:
    """Nothing says which of the providers it should be."""
    targets = [
        {
            "provider": provider,
            "model": facts.usable.get(provider, default),
            "reason": facts.unusable.get(provider, "ambiguous"),
        }
        for provider, default in sorted(facts.providers.items())
    ]
    if facts.usable:
        choices = ", ".join(f"{provider}/{model}" for provider, model in sorted(facts.usable.items()))
        message = f"the request names no model and several could serve it; name one, or a default_model: {choices}"
    else:
        message = (
            "the request names no model and no provider is ready: set a key in the environment that llmd starts in, "
            'such as OPENAI_API_KEY, start a local engine, or name "echo/echo"'
        )
    return LLMError("no_route", message, targets=targets)
