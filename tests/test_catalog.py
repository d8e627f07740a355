"""The providers that are known, and what a configuration or the environment makes of them."""

from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from llmd.catalog import FREE, Catalog, ProviderRow, configured, detected, provider_row
from llmd.core.rows import Price, ReasoningLimits
from llmd.dialects import DIALECTS
from llmd.known import KNOWN
from llmd.settings import KeySettings, ModelSettings, ProviderSettings, Settings

LOCAL = {"echo", "ollama", "llamacpp", "vllm", "lmstudio"}


def made(name: str, **settings: Any) -> ProviderRow:
    row = provider_row(name, ProviderSettings(**settings))
    assert isinstance(row, ProviderRow)
    return row


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_every_known_provider_can_be_called_with_nothing_but_its_key(name: str) -> None:
    if name == "azure":
        return  # whose address is each user's own
    known, row = KNOWN[name], made(name)
    assert row.dialect in {*DIALECTS, "echo"}
    if name == "echo":
        return
    url = urlsplit(row.base_url)
    assert not row.base_url.endswith("/")
    if known.local:
        assert (url.scheme, url.hostname, row.key, row.default_model) == ("http", "127.0.0.1", None, None)
        assert row.model_row("m").price == FREE
    else:
        assert url.scheme == "https"
        assert row.key == KeySettings(env=known.key_env[0])
        assert row.default_model
        assert row.model_row("m").price is None


def test_no_variable_is_two_providers() -> None:
    variables = [variable for known in KNOWN.values() for variable in known.key_env]
    assert len(set(variables)) == len(variables)


def test_without_a_configuration_there_are_those_with_a_key_the_local_engines_and_echo() -> None:
    assert set(detected({})) == LOCAL
    rows = detected({"GROQ_API_KEY": "k", "GOOGLE_API_KEY": "g", "OPENAI_API_KEY": "", "OTHER_API_KEY": "x"})
    assert set(rows) == LOCAL | {"groq", "gemini"}
    assert rows["gemini"].key == KeySettings(env="GOOGLE_API_KEY")
    both = detected({"GEMINI_API_KEY": "a", "GOOGLE_API_KEY": "b"})["gemini"]
    assert both.key == KeySettings(env="GEMINI_API_KEY")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("openai", "openai is not set up: set OPENAI_API_KEY, or where a configuration names providers, add "),
        ("openai", "add `[providers.openai]` to the configuration; there are: echo, work"),
        ("ollama", "ollama is not set up: add `[providers.ollama]` to the configuration; there are: echo, work"),
        ("nobody", "no provider is named 'nobody'; there are: echo, work"),
    ],
)
def test_a_provider_that_is_not_there_is_told_of_with_what_would_bring_it(name: str, told: str) -> None:
    there = Catalog(providers={"work": made("openai"), "echo": made("echo")}, default_model=None)
    assert told in there.absent(name)


def test_a_providers_name_is_not_repeated_at_any_length() -> None:
    assert len(Catalog(providers={}, default_model=None).absent("n" * 200)) < 150


def test_a_configuration_has_its_own_providers_and_echo_and_no_others() -> None:
    rows, problems = configured(Settings(providers={"groq": ProviderSettings()}))
    assert (set(rows), problems) == ({"echo", "groq"}, [])


def test_every_provider_that_lacks_an_address_is_a_problem_of_its_own() -> None:
    rows, problems = configured(Settings(providers={"a": ProviderSettings(), "b": ProviderSettings()}))
    assert set(rows) == {"echo"}
    assert [problem.split(":")[0] for problem in problems] == ["providers.a", "providers.b"]
    assert all("base_url" in problem for problem in problems)


def test_what_a_configuration_leaves_out_comes_from_the_catalog() -> None:
    row = made("openai", max_concurrency=3)
    assert row.base_url == "https://api.openai.com/v1"
    assert (row.max_tokens_name, row.max_concurrency, row.overhead_tokens) == (
        "max_completion_tokens",
        3,
        None,
    )
    assert made("openai", max_tokens_name="max_tokens").max_tokens_name == "max_tokens"
    assert made("mistral").stream_usage is False
    assert made("mistral", stream_usage=True).stream_usage is True


def test_at_another_address_a_providers_usual_key_is_not_sent() -> None:
    assert made("openai", base_url="http://127.0.0.1:9/v1").key is None
    own = KeySettings(env="OWN")
    assert made("openai", base_url="http://127.0.0.1:9/v1", api_key=own).key == own


def test_at_another_address_a_local_engine_is_neither_local_nor_free() -> None:
    row = made("ollama", base_url="http://10.0.0.1/v1")
    assert not row.local
    assert row.model_row("m").price is None


def test_the_default_model_is_the_one_named_else_the_only_one_else_the_catalogs() -> None:
    one, two = {"m1": ModelSettings()}, {"m1": ModelSettings(), "m2": ModelSettings()}
    assert made("groq", default_model="x", models=one).default_model == "x"
    assert made("groq", models=one).default_model == "m1"
    assert made("groq", models=two).default_model == KNOWN["groq"].default_model
    assert made("work", base_url="http://127.0.0.1:9/v1", models=two).default_model is None
    assert made("loud", dialect="echo").default_model == "echo"


def test_a_models_row_has_the_facts_of_its_provider_and_its_own() -> None:
    facts = ModelSettings(price=Price(input=1, output=2), context_tokens=10, max_output_tokens=5)
    row = made("work", base_url="http://127.0.0.1:9/v1", overhead_tokens=0, models={"m1": facts})
    known = row.model_row("m1")
    assert (known.target, known.price, known.context_tokens, known.max_output_tokens) == (
        "work/m1",
        Price(input=1, output=2),
        10,
        5,
    )
    assert known.overhead_tokens == 0
    other = row.model_row("m2")
    assert (other.price, other.context_tokens, other.max_output_tokens) == (None, None, None)


def test_echo_is_free_unless_a_price_is_configured() -> None:
    assert made("echo").model_row("echo").price == FREE
    priced = made("echo", models={"echo": ModelSettings(price=Price(input=1, output=1))})
    assert priced.model_row("echo").price == Price(input=1, output=1)


# -- what the catalog knows of models ----------------------------------------------------------------------------------


def test_a_model_of_the_table_has_its_price_and_its_context() -> None:
    known = made("openai").model_row("gpt-5-mini")
    assert known.price == Price(input=0.25, output=2.0, cache_read=0.025)
    assert known.context_tokens == 400_000
    assert (
        made("anthropic").model_row("claude-haiku-4-5").price
        == made("openrouter").model_row("anthropic/claude-haiku-4.5").price
    )


def test_what_a_configuration_says_of_a_model_is_more_than_the_table_does() -> None:
    own = {"gpt-5-mini": ModelSettings(price=Price(input=9, output=9), refuses=[], reasoning="tokens")}
    known = made("openai", models=own).model_row("gpt-5-mini")
    assert (known.price, known.context_tokens) == (Price(input=9, output=9), 400_000)
    assert (known.refuses, known.reasoning) == ((), "tokens")


def test_under_another_name_at_the_same_address_the_same_is_known() -> None:
    row = made("work", base_url="https://api.openai.com/v1/", api_key=KeySettings(env="WORK_KEY"))
    assert row.model_row("gpt-5-mini") == msgspec.structs.replace(
        made("openai").model_row("gpt-5-mini"), provider="work", base_url="https://api.openai.com/v1/"
    )
    assert made("work", base_url="http://127.0.0.1:9/v1").model_row("gpt-5-mini").price is None


def test_a_model_nobody_knows_has_no_price() -> None:
    assert made("openai").model_row("no-such-model").price is None


def test_azure_takes_its_key_its_own_way_and_needs_an_address() -> None:
    assert "base_url" in str(provider_row("azure", ProviderSettings()))
    row = made("azure", base_url="https://x.openai.azure.com/openai/v1")
    assert (row.auth, row.max_tokens_name) == ("api-key", "max_completion_tokens")
    assert row.model_row("gpt-4o").price is not None
    assert made("work", base_url="http://127.0.0.1:9/v1", auth="x-api-key").auth == "x-api-key"


@pytest.mark.parametrize(
    ("provider", "model", "refuses", "reasoning"),
    [
        ("openai", "gpt-4o", ("reasoning",), None),
        ("openai", "gpt-4.1-mini", ("reasoning",), None),
        ("openai", "ft:gpt-4o-mini:us:1", ("reasoning",), None),
        ("openai", "gpt-5-mini", ("temperature", "top_p", "stop"), None),
        ("openai", "o4-mini", ("temperature", "top_p", "stop"), None),
        ("openai", "gpt-5-chat-latest", ("reasoning",), None),
        ("openai", "gpt-oss-20b", (), None),
        ("anthropic", "claude-haiku-4-5", ("temperature_with_top_p",), None),
        ("anthropic", "claude-sonnet-4-6", ("temperature_with_top_p",), "effort"),
        ("anthropic", "claude-opus-4-7", ("temperature_with_top_p", "temperature", "top_p"), "effort"),
        ("anthropic", "claude-opus-4-1-20250805", ("temperature_with_top_p",), None),
        ("anthropic", "claude-opus-4-20250514", (), None),
        ("anthropic", "claude-sonnet-5-5", ("temperature", "top_p"), "effort"),
        ("gemini", "gemini-2.5-flash", (), "tokens"),
        ("gemini", "gemini-2.0-flash", ("reasoning",), "tokens"),
        ("gemini", "gemini-2.5-flash-image", ("reasoning",), "tokens"),
        ("gemini", "gemini-3-pro", (), None),
        ("gemini", "gemini-flash-latest", (), None),
        ("deepseek", "deepseek-chat", ("response_format",), None),
        ("mistral", "mistral-small-latest", ("seed",), None),
        ("xai", "grok-4.3", ("stop",), None),
        ("xai", "grok-4.5", ("stop",), None),
        ("xai", "grok-3-mini", ("stop",), None),
        ("xai", "grok-3", ("stop", "reasoning"), None),
        ("xai", "grok-4-0709", ("stop", "reasoning"), None),
        ("xai", "grok-4-fast-non-reasoning", ("reasoning",), None),
        ("xai", "grok-4.20-reasoning", ("stop", "reasoning"), None),
        ("xai", "grok-code-fast-1", ("stop", "reasoning"), None),
        ("xai", "grok-2", ("reasoning",), None),
        ("perplexity", "sonar", ("tools",), None),
        ("groq", "gpt-5", (), None),
        ("ollama", "gpt-oss:20b", (), "effort"),
        ("ollama", "qwen3:4b", (), None),
    ],
)
def test_what_models_refuse_and_how_they_are_told_to_think(
    provider: str, model: str, refuses: tuple[str, ...], reasoning: str | None
) -> None:
    known = made(provider).model_row(model)
    assert (known.refuses, known.reasoning) == (refuses, reasoning)


@pytest.mark.parametrize(
    ("target", "limits"),
    [
        ("openai/gpt-5-mini", ReasoningLimits(off=False, efforts=("minimal", "low", "medium", "high"))),
        ("openai/gpt-5-2025-08-07", ReasoningLimits(off=False, efforts=("minimal", "low", "medium", "high"))),
        ("openai/gpt-5-pro", ReasoningLimits(off=False, efforts=("high",))),
        ("openai/gpt-5.1", ReasoningLimits(efforts=("none", "low", "medium", "high"))),
        ("openai/gpt-5.1-codex-max", ReasoningLimits()),
        ("openai/gpt-5.2", ReasoningLimits()),
        ("openai/o4-mini", ReasoningLimits(off=False, efforts=("low", "medium", "high"))),
        ("gemini/gemini-2.5-pro", ReasoningLimits(least=128, most=32_768, off=False)),
        ("gemini/gemini-2.5-flash-lite", ReasoningLimits(least=512, most=24_576)),
        ("gemini/gemini-2.5-flash-preview-09-2025", ReasoningLimits(most=24_576)),
        ("gemini/gemini-3-pro-preview", ReasoningLimits(least=128, most=32_768, off=False, efforts=("low", "high"))),
        (
            "gemini/gemini-3.1-pro",
            ReasoningLimits(least=128, most=32_768, off=False, efforts=("low", "medium", "high")),
        ),
        ("gemini/gemini-3-flash-preview", ReasoningLimits()),
        ("anthropic/claude-opus-4-7", ReasoningLimits(efforts=("low", "medium", "high", "xhigh"))),
        ("anthropic/claude-opus-4-6", ReasoningLimits()),
    ],
)
def test_how_much_models_can_be_told_to_think(target: str, limits: ReasoningLimits) -> None:
    provider, _, model = target.partition("/")
    assert made(provider).model_row(model).reasoning_limits == limits


@pytest.mark.parametrize(
    ("provider", "searching", "plain"),
    [
        ("groq", ["compound-beta", "compound-beta-mini", "groq/compound"], ["openai/gpt-oss-20b"]),
        ("perplexity", ["sonar", "sonar-pro", "sonar-deep-research"], ["r1-1776"]),
        ("openai", ["gpt-4o-search-preview", "gpt-5-search-api", "o3-deep-research"], ["gpt-4o", "o3"]),
        ("openrouter", ["openai/gpt-4.1-mini:online", "perplexity/sonar"], ["openai/gpt-4.1-mini", "x/m:free"]),
        ("xai", ["grok-4.20-multi-agent"], ["grok-4.3"]),
        ("work", [], ["groq/compound"]),
    ],
)
def test_what_models_read_more_than_they_are_sent(provider: str, searching: list[str], plain: list[str]) -> None:
    row = made(provider, base_url="http://127.0.0.1:9/v1") if provider == "work" else made(provider)
    assert [row.model_row(model).agentic for model in searching + plain] == [True] * len(searching) + [False] * len(
        plain
    )
    own = {"sonar": ModelSettings(agentic=False), "m": ModelSettings(agentic=True)}
    told = made("perplexity", models=own)
    assert (told.model_row("sonar").agentic, told.model_row("m").agentic) == (False, True)
