"""The providers that a configuration or the environment adds up to, each as a row, and what is known of their models.

A provider of a known dialect is one row of `known.py`, or one table in a configuration.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from msgspec import Struct

from llmd.core.rows import Auth, Counts, ModelRow, Price, ReasoningLimits, Refusable
from llmd.dialects import DIALECTS
from llmd.known import ECHO, KNOWN, NOTHING, Family, Known
from llmd.prices import NOTHING as UNLISTED
from llmd.prices import listed
from llmd.settings import KeySettings, ModelSettings, ProviderSettings, Settings

FREE = Price(input=0, output=0)


Health = Literal["ready", "no_key", "key_refused", "unreachable"]
"""Of a provider: whether it can be called."""


class ProviderRow(Struct, frozen=True, kw_only=True):
    """One provider that this daemon can call, under the user's name for it."""

    name: str
    dialect: str
    base_url: str
    key: KeySettings | None
    default_model: str | None
    local: bool
    labels: dict[str, str]
    models: dict[str, ModelSettings]
    max_concurrency: int | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    overhead_tokens: int | None
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"]
    stream_usage: bool
    counts: Counts | None
    auth: Auth
    headers: dict[str, str]
    query: dict[str, str]
    known: Known
    latency_ms: int
    fail: str | None

    def model_row(self, model: str) -> ModelRow:
        """What is known of a model: the configuration's facts before the catalog's, and those before the table's."""
        if model not in self.models:
            model = self.known.aliases.get(model, model)
        facts = self.models.get(model, ModelSettings())
        family = _of_family(self.known.families, self.known.refuses, model)
        table = listed(self.known.prices, model)
        free = FREE if self.local or self.dialect == ECHO else None
        return ModelRow(
            provider=self.name,
            model=model,
            dialect=self.dialect,
            base_url=self.base_url,
            max_tokens_name=self.max_tokens_name,
            stream_usage=self.stream_usage,
            **({} if self.overhead_tokens is None else {"overhead_tokens": self.overhead_tokens}),
            price=facts.price or free or table.price,
            context_tokens=facts.context_tokens or table.context_tokens,
            max_output_tokens=facts.max_output_tokens,
            refuses=family.refuses if facts.refuses is None else tuple(facts.refuses),
            reasoning=facts.reasoning or family.reasoning,
            reasoning_limits=family.reasoning_limits or ReasoningLimits(),
            counts=self.counts,
            agentic=family.agentic if facts.agentic is None else facts.agentic,
            labels=self.labels,
        )

    def knows(self, model: str) -> bool:
        """Whether a model is configured or listed; where nobody lists a provider's models, it may have any."""
        if model in self.models or model == self.default_model or not self.known.prices:
            return True
        return listed(self.known.prices, self.known.aliases.get(model, model)) != UNLISTED


@lru_cache(4096)
def _of_family(families: tuple[Family, ...], refused: tuple[Refusable, ...], model: str) -> Family:
    """What holds of a model by all the families that its name is found in."""
    found = [family for family in families if re.search(family.like, model)]
    return Family(
        like=model,
        refuses=tuple(dict.fromkeys([*refused, *(param for family in found for param in family.refuses)])),
        reasoning=next((family.reasoning for family in found if family.reasoning), None),
        reasoning_limits=next((family.reasoning_limits for family in found if family.reasoning_limits), None),
        agentic=any(family.agentic for family in found),
    )


class Catalog(Struct, frozen=True, kw_only=True):
    """Every provider of this daemon by name, and the target of a request that names none."""

    providers: dict[str, ProviderRow]
    default_model: str | None

    def absent(self, name: str) -> str:
        """Why there is no provider of this name, and what to do."""
        there = f"there are: {', '.join(sorted(self.providers))}"
        known = KNOWN.get(name)
        if known is None:
            return f"no provider is named {name[:64]!r}; {there}"
        table = f"add `[providers.{name}]` to the configuration"
        if not known.key_env:
            return f"{name} is not set up: {table}; {there}"
        return (
            f"{name} is not set up: set {known.key_env[0]}, or where a configuration names providers, {table}; {there}"
        )


def provider_row(name: str, settings: ProviderSettings, env: Mapping[str, str] = NOTHING) -> ProviderRow | str:
    """The row that `[providers.NAME]` makes with the catalog's and the daemon's environment, or what it lacks."""
    known = KNOWN.get(name) or _at(settings.base_url) or Known()
    dialect = settings.dialect or known.dialect
    # With another address or dialect than the catalog's, nothing that it knows of a local engine holds.
    local = known.local and settings.base_url is None and dialect == known.dialect
    base_url = settings.base_url or known.base_url
    if dialect != ECHO and not base_url:
        return 'needs a `base_url`, as in "http://127.0.0.1:8080/v1"'
    only_model = next(iter(settings.models)) if len(settings.models) == 1 else None
    variable = next((name for name in known.key_env if env.get(name)), next(iter(known.key_env), None))
    at_home = settings.base_url is None and dialect != ECHO
    usual_key = KeySettings(env=variable) if variable is not None and at_home else None
    return ProviderRow(
        name=name,
        dialect=dialect,
        base_url=base_url,
        key=settings.api_key or usual_key,
        default_model=settings.default_model or only_model or ("echo" if dialect == ECHO else known.default_model),
        local=local,
        labels=settings.labels,
        models=settings.models,
        max_concurrency=settings.max_concurrency,
        requests_per_minute=settings.requests_per_minute,
        tokens_per_minute=settings.tokens_per_minute,
        overhead_tokens=settings.overhead_tokens,
        max_tokens_name=settings.max_tokens_name or known.max_tokens_name,
        stream_usage=known.stream_usage if settings.stream_usage is None else settings.stream_usage,
        counts=settings.counts or known.counts,
        auth=settings.auth or known.auth or (DIALECTS[dialect].auth if dialect in DIALECTS else "bearer"),
        headers=settings.headers,
        query=settings.query,
        known=known,
        latency_ms=settings.latency_ms,
        fail=settings.fail,
    )


def _at(base_url: str | None) -> Known | None:
    """The catalog's row at this address: another name for it changes nothing that is known of it."""
    return next((known for known in KNOWN.values() if base_url and known.base_url == base_url.rstrip("/")), None)


def detected(env: Mapping[str, str]) -> dict[str, ProviderRow]:
    """The providers that are there without any configuration: those with a key in `env`, and the local engines."""
    rows = {}
    for name, known in KNOWN.items():
        if known.dialect != ECHO and not known.base_url:
            continue
        if not known.key_env or any(env.get(variable) for variable in known.key_env):
            row = provider_row(name, ProviderSettings(), env)
            assert isinstance(row, ProviderRow), f"catalog row {name}: {row}"
            rows[name] = row
    return rows


def configured(settings: Settings, env: Mapping[str, str] = NOTHING) -> tuple[dict[str, ProviderRow], list[str]]:
    """The providers of a configuration, with echo among them, and what is wrong with the others."""
    rows, problems = {}, []
    for name, provider in {ECHO: ProviderSettings(), **settings.providers}.items():
        row = provider_row(name, provider, env)
        if isinstance(row, ProviderRow):
            rows[name] = row
        else:
            problems.append(f"providers.{name}: {row}")
    return rows, problems


def key_variables(rows: Mapping[str, ProviderRow]) -> frozenset[str]:
    """The variables that a provider's key may be in: the usual ones, and those that these name."""
    usual = (name for known in KNOWN.values() for name in known.key_env)
    keys = (row.key for row in rows.values())
    return frozenset((*usual, *(key.env for key in keys if key is not None and key.env is not None)))
