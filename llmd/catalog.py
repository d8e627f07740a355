"""The providers that llmd knows, as rows, and the ones that a configuration or the environment adds up to.

Data, not classes: a provider of a known dialect is one row here, or one table in a configuration. Sources of the base
URLs, variables and flags: the providers' API references, November 2026.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

from msgspec import Struct

from llmd.core.rows import Auth, Counts, ModelRow, Param, Price, ReasoningUnit
from llmd.dialects import DIALECTS
from llmd.prices import listed
from llmd.settings import KeySettings, ModelSettings, ProviderSettings, Settings

ECHO = "echo"
FREE = Price(input=0, output=0)
NOTHING: Mapping[str, str] = MappingProxyType({})


Health = Literal["ready", "no_key", "key_refused", "unreachable"]
"""Of a provider: whether it can be called."""


class Family(Struct, frozen=True, kw_only=True):
    """What models have in common whose names this expression is found in. Of several that are, all hold."""

    like: str
    refuses: tuple[Param, ...] = ()
    reasoning: ReasoningUnit | None = None


class Known(Struct, frozen=True, kw_only=True):
    """A provider of the catalog.

    key_env   its key's usual variables: the first that is set wins
    prices    its names in the table of prices, in the order in which they are asked
    refuses   what none of its models takes
    counts    what its own count of a request's tokens is worth, in the dialects that have one
    local     an engine on this machine: no key, no price, asked for its models
    """

    dialect: str = "openai"
    base_url: str = ""
    key_env: tuple[str, ...] = ()
    default_model: str | None = None
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    stream_usage: bool = True
    auth: Auth | None = None
    prices: tuple[str, ...] = ()
    refuses: tuple[Param, ...] = ()
    families: tuple[Family, ...] = ()
    counts: Counts | None = None
    local: bool = False


# Sources: OpenAI's reference of `stop`, and its answers to these params from models that reason.
_OPENAI = (Family(like=r"^(o\d|gpt-[5-9])(?!.*-chat)", refuses=("temperature", "top_p", "stop")),)
# Sources: Anthropic's pages on adaptive thinking and on migrating to Opus 4.7.
_CLAUDE = (
    Family(like=r"(opus|sonnet)-4[-.][6-9]|(opus|sonnet|haiku|fable|mythos)-([5-9]|preview)", reasoning="effort"),
    Family(
        like=r"opus-4[-.][7-9]|(opus|sonnet|haiku|fable|mythos)-([5-9]|preview)",
        refuses=("temperature", "top_p"),
    ),
)


KNOWN: Mapping[str, Known] = MappingProxyType(
    {
        ECHO: Known(dialect=ECHO, default_model="echo"),
        "openai": Known(
            base_url="https://api.openai.com/v1",
            key_env=("OPENAI_API_KEY",),
            default_model="gpt-5-mini",
            max_tokens_name="max_completion_tokens",
            prices=("openai",),
            families=_OPENAI,
            counts="exact",
        ),
        "azure": Known(  # the address is each user's own: https://NAME.openai.azure.com/openai/v1
            key_env=("AZURE_OPENAI_API_KEY",),
            max_tokens_name="max_completion_tokens",
            auth="api-key",
            prices=("azure", "openai"),
            families=_OPENAI,
        ),
        "anthropic": Known(
            dialect="anthropic",
            base_url="https://api.anthropic.com/v1",
            key_env=("ANTHROPIC_API_KEY",),
            default_model="claude-haiku-4-5",
            prices=("anthropic",),
            counts="estimate",
            families=_CLAUDE,
        ),
        "gemini": Known(
            dialect="gemini",
            base_url="https://generativelanguage.googleapis.com/v1beta",
            key_env=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
            default_model="gemini-2.5-flash",
            prices=("google",),
            counts="estimate",
            families=(Family(like="^gemini-2", reasoning="tokens"),),
        ),
        "openrouter": Known(
            base_url="https://openrouter.ai/api/v1",
            key_env=("OPENROUTER_API_KEY",),
            default_model="openrouter/auto",
            prices=("openrouter",),
        ),
        "groq": Known(
            base_url="https://api.groq.com/openai/v1",
            key_env=("GROQ_API_KEY",),
            default_model="openai/gpt-oss-20b",
            prices=("groq",),
        ),
        "mistral": Known(
            base_url="https://api.mistral.ai/v1",
            key_env=("MISTRAL_API_KEY",),
            default_model="mistral-small-latest",
            prices=("mistral",),
            stream_usage=False,  # sends it unasked, on the finish chunk
        ),
        "deepseek": Known(
            base_url="https://api.deepseek.com",
            key_env=("DEEPSEEK_API_KEY",),
            default_model="deepseek-chat",
            prices=("deepseek",),
        ),
        "xai": Known(
            base_url="https://api.x.ai/v1", key_env=("XAI_API_KEY",), default_model="grok-4.3", prices=("x-ai",)
        ),
        "together": Known(
            base_url="https://api.together.xyz/v1",
            key_env=("TOGETHER_API_KEY",),
            default_model="openai/gpt-oss-120b",
            prices=("together",),
        ),
        "fireworks": Known(
            base_url="https://api.fireworks.ai/inference/v1",
            key_env=("FIREWORKS_API_KEY",),
            default_model="accounts/fireworks/models/gpt-oss-120b",
            prices=("fireworks",),
        ),
        "cerebras": Known(
            base_url="https://api.cerebras.ai/v1",
            key_env=("CEREBRAS_API_KEY",),
            default_model="gpt-oss-120b",
            prices=("cerebras",),
        ),
        "perplexity": Known(
            base_url="https://api.perplexity.ai",
            key_env=("PERPLEXITY_API_KEY",),
            default_model="sonar",
            prices=("perplexity",),
            stream_usage=False,  # sends it unasked, on every chunk
            refuses=("tools",),
        ),
        "ollama": Known(dialect="ollama", base_url="http://127.0.0.1:11434", local=True),
        "llamacpp": Known(base_url="http://127.0.0.1:8080/v1", counts="exact", local=True),
        "vllm": Known(base_url="http://127.0.0.1:8000/v1", local=True),
        "lmstudio": Known(base_url="http://127.0.0.1:1234/v1", local=True),
    }
)


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
        facts = self.models.get(model, ModelSettings())
        refuses, reasoning = _of_family(self.known, model)
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
            refuses=refuses if facts.refuses is None else tuple(facts.refuses),
            reasoning=facts.reasoning or reasoning,
            counts=self.counts,
        )


@lru_cache(4096)
def _of_family(known: Known, model: str) -> tuple[tuple[Param, ...], ReasoningUnit | None]:
    families = [family for family in known.families if re.search(family.like, model)]
    refuses = dict.fromkeys([*known.refuses, *(param for family in families for param in family.refuses)])
    return tuple(refuses), next((family.reasoning for family in families if family.reasoning), None)


class Catalog(Struct, frozen=True, kw_only=True):
    """Every provider of this daemon by name, and the target of a request that names none."""

    providers: dict[str, ProviderRow]
    default_model: str | None


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
    usual_key = KeySettings(env=variable) if variable is not None and settings.base_url is None else None
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
