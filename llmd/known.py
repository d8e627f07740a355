"""The providers that llmd knows, as rows: data, not classes.

Sources of the base URLs, variables and flags: the providers' API references, November 2026.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from msgspec import Struct

from llmd.core.rows import Auth, Counts, ReasoningLimits, ReasoningUnit, Refusable

ECHO = "echo"
NOTHING: Mapping[str, str] = MappingProxyType({})


class Family(Struct, frozen=True, kw_only=True):
    """What models have in common whose names this expression is found in. Of several that are, all hold.

    agentic  they read more than they are sent
    """

    like: str
    refuses: tuple[Refusable, ...] = ()
    reasoning: ReasoningUnit | None = None
    reasoning_limits: ReasoningLimits | None = None
    agentic: bool = False


class Known(Struct, frozen=True, kw_only=True):
    """A provider of the catalog.

    key_env   its key's usual variables: the first that is set wins
    prices    its names in the table of prices, in the order in which they are asked
    refuses   what none of its models takes
    aliases   names that its models have elsewhere
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
    refuses: tuple[Refusable, ...] = ()
    families: tuple[Family, ...] = ()
    aliases: Mapping[str, str] = NOTHING
    counts: Counts | None = None
    local: bool = False


# Sources: OpenAI's reference of `stop`, its answers to these params from models that reason, and from those that do not
# "Unsupported parameter: 'reasoning.effort' is not supported with this model"; its pages on efforts and on
# searching the web.
_SEARCHES = r"-search-(preview|api)|deep-research"
_OPENAI = (
    Family(like=r"^(o\d|gpt-[5-9])(?!.*-chat)", refuses=("temperature", "top_p", "stop")),
    Family(like=r"^(ft:)?(chatgpt-4o|gpt-[34]|gpt-5-chat)", refuses=("reasoning",)),
    *(
        Family(like=like, reasoning_limits=ReasoningLimits(off=efforts[0] == "none", efforts=efforts))
        for like, efforts in {
            r"^o\d": ("low", "medium", "high"),
            r"^gpt-5-pro": ("high",),
            r"^gpt-5(-mini|-nano)?(-\d|$)": ("minimal", "low", "medium", "high"),
            r"^gpt-5\.1(-\d|$)": ("none", "low", "medium", "high"),
        }.items()
    ),
    Family(like=_SEARCHES, agentic=True),
)
# Sources: Anthropic's pages on adaptive thinking and on migrating to Opus 4.7, and its answer "`temperature` and
# `top_p` cannot both be specified for this model" from Opus 4.1 and all since (BerriAI/litellm#15097).
_CLAUDE = (
    Family(like=r"opus-4[-.]1(?!\d)|(opus|sonnet|haiku)-4[-.][5-9]", refuses=("temperature_with_top_p",)),
    Family(like=r"(opus|sonnet)-4[-.][6-9]|(opus|sonnet|haiku|fable|mythos)-([5-9]|preview)", reasoning="effort"),
    Family(
        like=r"opus-4[-.][7-9]|(opus|sonnet|haiku|fable|mythos)-([5-9]|preview)",
        refuses=("temperature", "top_p"),
    ),
    Family(like=r"opus-4[-.][7-9]", reasoning_limits=ReasoningLimits(efforts=("low", "medium", "high", "xhigh"))),
)
# Sources: Google's pages on thinking (budgets of the 2.5 models, levels of the later ones), and "thinking is not
# supported by this model" from the others (googleapis/js-genai#681).
_GEMINI = (
    Family(like=r"^gemini-(1|2\.0)|^gemini-2\.5-flash-image", refuses=("reasoning",)),
    Family(like="^gemini-2", reasoning="tokens"),
    Family(like=r"^gemini-2\.5-pro", reasoning_limits=ReasoningLimits(least=128, most=32_768, off=False)),
    Family(like=r"^gemini-2\.5-flash-lite", reasoning_limits=ReasoningLimits(least=512, most=24_576)),
    Family(like=r"^gemini-2\.5-flash", reasoning_limits=ReasoningLimits(most=24_576)),
    Family(
        like=r"^gemini-3-pro",
        reasoning_limits=ReasoningLimits(least=128, most=32_768, off=False, efforts=("low", "high")),
    ),
    Family(
        like=r"^gemini-(pro-latest|[3-9]\.\d+-pro)",
        reasoning_limits=ReasoningLimits(least=128, most=32_768, off=False, efforts=("low", "medium", "high")),
    ),
)
# Sources: xAI's page on reasoning (models that reason refuse `stop`; grok-3 too, by langchain-ai/langchain#38335), and
# "does not support parameter reasoningEffort" from those that cannot be told (BerriAI/litellm#16265).
_GROK = (
    Family(like=r"^grok-(?!2|beta)(?!.*non-reasoning)", refuses=("stop",)),
    Family(like=r"^grok-(2|3(?!-mini)|4(?!\.[3-9](?!\d))|code|beta)", refuses=("reasoning",)),
)


def _as(name: str, *versions: str) -> dict[str, str]:
    """Claude's models by Anthropic's names for them, where another provider has them as `name`."""
    return {f"claude-{version.replace('.', '-')}": name.format(version) for version in versions}


_CLAUDES = ("haiku-4.5", "sonnet-4", "sonnet-4.5", "sonnet-4.6", "opus-4", "opus-4.1", "opus-4.5", "opus-4.6")


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
            aliases={name: ours for ours, name in _as("claude-{}", *_CLAUDES).items() if ours != name},
        ),
        "gemini": Known(
            dialect="gemini",
            base_url="https://generativelanguage.googleapis.com/v1beta",
            key_env=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
            default_model="gemini-2.5-flash",
            prices=("google",),
            counts="estimate",
            families=(*_GEMINI, Family(like="deep-research", agentic=True)),
            aliases={  # OpenRouter's
                f"gemini-{kind}-{version}": f"gemini-{version}-{kind}"
                for version in ("1.5", "2.0", "2.5")
                for kind in ("flash", "flash-lite", "pro")
            },
        ),
        "openrouter": Known(
            base_url="https://openrouter.ai/api/v1",
            key_env=("OPENROUTER_API_KEY",),
            default_model="openrouter/auto",
            prices=("openrouter",),
            # With the suffix, OpenRouter searches for any model.
            families=(Family(like=rf":online|^perplexity/(?!r1-1776)|{_SEARCHES}", agentic=True),),
            aliases=_as("anthropic/claude-{}", *_CLAUDES),
        ),
        "groq": Known(
            base_url="https://api.groq.com/openai/v1",
            key_env=("GROQ_API_KEY",),
            default_model="openai/gpt-oss-20b",
            prices=("groq",),
            families=(Family(like="(^|/)compound", agentic=True),),
        ),
        "mistral": Known(
            base_url="https://api.mistral.ai/v1",
            key_env=("MISTRAL_API_KEY",),
            default_model="mistral-small-latest",
            prices=("mistral",),
            stream_usage=False,  # sends it unasked, on the finish chunk
            refuses=("seed",),  # which it has as `random_seed`, and forbids what it does not know
        ),
        "deepseek": Known(
            base_url="https://api.deepseek.com",
            key_env=("DEEPSEEK_API_KEY",),
            default_model="deepseek-chat",
            prices=("deepseek",),
            refuses=("response_format",),  # "This response_format type is unavailable now": it knows but `json_object`
        ),
        "xai": Known(
            base_url="https://api.x.ai/v1",
            key_env=("XAI_API_KEY",),
            default_model="grok-4.3",
            prices=("x-ai",),
            families=(*_GROK, Family(like="multi-agent", agentic=True)),
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
            families=(Family(like="^(?!r1-1776)", agentic=True),),
        ),
        "ollama": Known(
            dialect="ollama",
            base_url="http://127.0.0.1:11434",
            families=(Family(like="gpt-oss", reasoning="effort"),),
            local=True,
        ),
        "llamacpp": Known(base_url="http://127.0.0.1:8080/v1", counts="exact", local=True),
        "vllm": Known(base_url="http://127.0.0.1:8000/v1", local=True),
        "lmstudio": Known(base_url="http://127.0.0.1:1234/v1", local=True),
    }
)
