"""Which target a request goes to, and why not the others. Pure: handed what is known, answers with ordered targets."""

from collections.abc import Mapping

from msgspec import Struct

from llmd.chat import Ask
from llmd.errors import LLMError


class Target(Struct, frozen=True):
    provider: str
    model: str


class Facts(Struct, frozen=True):
    """What planning may know.

    default_models  of each provider; None where it has none
    default_model   of the configuration, as "provider/model"
    usable          the providers that could serve a request which names none, with the model that they would use
    unusable        the others, with the reason; both are only found out when nothing else decides
    """

    default_models: Mapping[str, str | None]
    default_model: str | None
    usable: Mapping[str, str]
    unusable: Mapping[str, str]


def named_target(ask: Ask, default_model: str | None) -> Target | None:
    """The target that the request names, else the configured default, else None."""
    if ask.provider is not None and ask.model is not None:
        return Target(ask.provider, ask.model)
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
    return Target(provider, model)


def plan(ask: Ask, facts: Facts) -> list[Target]:
    """The targets to try, in order, never none. Raises LLMError no_route with every candidate and its reason."""
    target = named_target(ask, facts.default_model)
    if target is None:
        if len(facts.usable) == 1:
            return [Target(*next(iter(facts.usable.items())))]
        raise _no_route(facts)
    if target.provider not in facts.default_models:
        known = ", ".join(sorted(facts.default_models))
        raise LLMError(
            "no_route",
            f"no provider is named {target.provider[:64]!r}; there are: {known}",
            targets=[{"provider": target.provider, "model": target.model, "reason": "unknown_provider"}],
        )
    return [target]


def _no_route(facts: Facts) -> LLMError:
    targets = [
        {
            "provider": provider,
            "model": facts.usable.get(provider, model),
            "reason": facts.unusable.get(provider, "ambiguous"),
        }
        for provider, model in sorted(facts.default_models.items())
    ]
    if facts.usable:
        choices = ", ".join(f"{provider}/{model}" for provider, model in sorted(facts.usable.items()))
        message = f"the request names no model and several could serve it; name one, or a default_model: {choices}"
    else:
        message = (
            "the request names no model and no provider is ready: start the daemon with a key in its environment, "
            'such as OPENAI_API_KEY, start a local engine, or name "echo/echo"'
        )
    return LLMError("no_route", message, targets=targets)
