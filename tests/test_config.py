"""A configuration that is wrong says every problem with its key's path; one that is right adds up to providers."""

import os
from pathlib import Path

import pytest

from llmd import config
from llmd.errors import ConfigError

GOOD = """
default_model = "work/m1"

[providers.work]
dialect = "openai"
base_url = "http://127.0.0.1:9001/v1"
api_key = { env = "WORK_KEY" }
max_concurrency = 32
overhead_tokens = 64
labels = { region = "eu" }

[providers.work.models."m1"]
price = { input = 1.0, output = 2.0, cache_read = 0.1, cache_write = 1.25 }
context_tokens = 128000
max_output_tokens = 4096

[providers.groq]

[listen]
tcp = "tcp://127.0.0.1:9998"

[limits]
connections = 10

[budgets.daily]
limits = { usd = "5.00", requests = 100 }
window = "day"
timezone = "Europe/Berlin"
default = true

[ledger]
durability = "process"
"""


def write(directory: Path, text: str, mode: int = 0o600) -> Path:
    file = directory / "llmd.toml"
    file.write_text(text)
    file.chmod(mode)
    return file


def problems(directory: Path, text: str, mode: int = 0o600) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.load({}, write(directory, text, mode))
    assert caught.value.file == str(directory / "llmd.toml")
    return caught.value.problems


def test_a_good_configuration_adds_up_to_rows(tmp_path: Path) -> None:
    loaded = config.load({}, write(tmp_path, GOOD))
    assert loaded.catalog.default_model == "work/m1"
    assert list(loaded.catalog.providers) == ["echo", "work", "groq"]
    row = loaded.catalog.providers["work"].model_row("m1")
    assert (row.target, row.context_tokens, row.max_output_tokens, row.overhead_tokens) == ("work/m1", 128000, 4096, 64)
    assert row.price is not None
    assert row.price.cache_write == 1.25
    assert loaded.catalog.providers["work"].max_concurrency == 32
    assert loaded.settings.budgets["daily"].limits.by_unit() == {"nano_usd": 5 * 10**9, "requests": 100}
    # What the table leaves out comes from the catalog.
    assert loaded.catalog.providers["groq"].base_url.startswith("https://api.groq.com/")
    assert loaded.settings.limits.connections == 10


WRONG = [
    ("an unknown key", "colour = 1", ["colour: there is no such member; there are: budgets, default_model, ledger,"]),
    ("a rule of nothing", "[[routing.rules]]", ["routing.rules[0]: a rule has targets (`prefer`) or guards"]),
    ("rules that are none", "[routing]\nrules = 3", ["routing.rules: expected an array of tables"]),
    ("an unknown key of routing", "[routing]\nrule = []", ["routing.rule: there is no such member; there are: rules"]),
    (
        "two problems of one rule, and one of another",
        '[[routing.rules]]\nprefer = [{ provider = "work" }]\ncolour = 1\nretry = -1\n'
        '[[routing.rules]]\nprefer = [{ model = "m" }]',
        [
            "routing.rules[0].colour: there is no such member; there are:",
            "routing.rules[0].retry: expected an integer >= 0",
            "routing.rules[1].prefer[0].provider: missing",
        ],
    ),
    (
        "a target at a provider that is not there",
        '[[routing.rules]]\nprefer = [{ provider = "echo" }]\nfallback = { provider = "nobody", model = "m" }',
        ["routing.rules[0].fallback.provider: there is no provider 'nobody'; there are: echo"],
    ),
    (
        "a rule that is never reached",
        '[[routing.rules]]\nprefer = [{ provider = "echo" }]\n'
        '[[routing.rules]]\ntask_type = "triage"\nprefer = [{ provider = "echo" }]',
        ["routing.rules[1]: can never be reached: rule 0 matches all that it matches, and comes first"],
    ),
    (
        "a budget's limit that is none",
        '[budgets.daily]\nlimits = { usd = "5,00" }',
        ["budgets.daily.limits: `usd` is a decimal number of dollars as a string"],
    ),
    ("an unknown unit of a budget", "[budgets.daily.limits]\ntokens = 1", ["budgets.daily.limits.tokens: there is"]),
    ("a window that there is not", '[budgets.daily]\nwindow = "year"', ['budgets.daily.window: expected "day" or']),
    ("a zone that there is not", '[budgets.daily]\ntimezone = "Mars/X"', ["budgets.daily.timezone: there is no such"]),
    ("a budget's name like a handle", "[budgets.bh_1]", ["budgets.bh_1: expected a name of letters"]),
    (
        "two budgets that are the default",
        "[budgets.a]\ndefault = true\n[budgets.b]\ndefault = true",
        ["budgets: a and b cannot all be the `default`"],
    ),
    ("a store that there is not", '[ledger]\nstore = "redis"', ['ledger.store: expected "memory" or "sqlite"']),
    ("an unknown dialect", '[providers.a]\ndialect = "x"', ['providers.a.dialect: expected "anthropic" or "echo" or']),
    ("a provider without an address", "[providers.a]", ["providers.a: needs a `base_url`, as in"]),
    (
        "an address that is none",
        '[providers.a]\nbase_url = "a.b"',
        ["providers.a: `base_url` must be an address such as"],
    ),
    (
        "a key in the file itself",
        '[providers.openai]\napi_key = "sk-1"',
        ["providers.openai.api_key: a key is never written here: say where it is, as in"],
    ),
    (
        "a key from two places",
        '[providers.openai]\napi_key = { env = "A", file = "b" }',
        ["providers.openai.api_key: give one of `env`, `credential`, `file` and `command`"],
    ),
    (
        "a model's number as text",
        '[providers.openai.models."gpt 5"]\ncontext_tokens = "x"',
        ['providers.openai.models."gpt 5".context_tokens: expected an integer or null, got a string'],
    ),
    ("a limit of nothing", "[limits]\nbatch = 0", ["limits.batch: expected an integer >= 1"]),
    ("a default of nobody", 'default_model = "x/y"', ['default_model: expected "provider/model" with a provider of']),
    ("a name with a space", '[providers."a b"]\ndialect = "echo"', ['providers."a b": expected a name of letters']),
    (
        "an address for all",
        '[listen]\ntcp = "tcp://0.0.0.0:1"',
        ["listen.tcp: 'tcp://0.0.0.0:1' is not on this machine"],
    ),
    ("an address without a port", '[listen]\ntcp = "tcp://127.0.0.1"', ["listen.tcp: 'tcp://127.0.0.1' is no address"]),
    ("no TOML", "a = ", ["is not TOML at end of document"]),
    ("nesting without end", "a = " + "[" * 100_000, ["is nested too deep"]),
    ("a default without a model", 'default_model = "echo/"', ['default_model: expected "provider/model"']),
    (
        "a price that is no number",
        "[providers.openai.models.m]\nprice = { input = nan, output = 1 }",
        ["providers.openai.models.m.price: a price is a number that is not negative"],
    ),
    (
        "a port that cannot be",
        '[providers.a]\nbase_url = "http://a:99999/v1"',
        ["providers.a: `base_url` must be an address"],
    ),
    ("two wrong limits", "[limits]\nbatch = 0\nauth_ms = 0", ["limits.batch: expected", "limits.auth_ms: expected"]),
    (
        "several at once",
        'b = 1\n[providers.a]\ndialect = "x"\nmax_concurrency = -1\n[providers.c]\nfoo = 1',
        [
            "b: there is no such member",
            'providers.a.dialect: expected "anthropic"',
            "providers.a.max_concurrency: expected an integer >= 1",
            "providers.c.foo: there is no such member",
        ],
    ),
]


@pytest.mark.parametrize(("text", "expected"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_every_problem_is_told_with_its_path(tmp_path: Path, text: str, expected: list[str]) -> None:
    found = problems(tmp_path, text)
    assert len(found) == len(expected)
    for problem, start in zip(found, expected, strict=True):
        assert problem.startswith(start)


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        config.load({}, tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="there is no such file"):
        config.load({"LLMD_CONFIG": str(tmp_path / "none.toml")})


def test_a_file_that_is_not_text_or_too_long_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "llmd.toml"
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        config.load({}, file)
    file.write_bytes(b"#" * (config.CONFIG_BYTES_MAX + 1))
    with pytest.raises(ConfigError, match="longer than"):
        config.load({}, file)


def test_a_command_for_a_key_is_refused_in_a_file_that_others_can_write(tmp_path: Path) -> None:
    text = '[providers.openai]\napi_key = { command = ["pass", "openai"] }'
    assert problems(tmp_path, text, 0o620) == ["runs a key's `command` but others can write it: chmod it to 0600"]
    assert config.load({}, write(tmp_path, text, 0o644)).catalog.providers["openai"].key is not None


def test_without_a_file_the_providers_with_a_key_in_the_environment_are_there() -> None:
    loaded = config.load({**os.environ, "OPENAI_API_KEY": "k", "GOOGLE_API_KEY": "k", "GROQ_API_KEY": ""})
    assert loaded.file is None
    assert list(loaded.catalog.providers) == ["echo", "openai", "gemini", "ollama", "llamacpp", "vllm", "lmstudio"]
    key = loaded.catalog.providers["gemini"].key
    assert key is not None
    assert key.env == "GOOGLE_API_KEY"


def test_a_configured_provider_takes_the_first_of_its_usual_variables_that_is_set(tmp_path: Path) -> None:
    loaded = config.load({"GOOGLE_API_KEY": "k"}, write(tmp_path, "[providers.gemini]"))
    key = loaded.catalog.providers["gemini"].key
    assert key is not None
    assert key.env == "GOOGLE_API_KEY"


def test_the_usual_place_is_below_the_configuration_directory() -> None:
    directory = Path(os.environ["XDG_CONFIG_HOME"]) / "llmd"
    directory.mkdir()
    (directory / "config.toml").write_text('[providers.mine]\ndialect = "echo"')
    assert list(config.load(os.environ).catalog.providers) == ["echo", "mine"]
