"""The types that a configuration decodes to. Unknown keys are refused; nothing here reads a file or the environment."""

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from llmd.books import Allow, Enforcement, GivenAmounts, Window
from llmd.core.rows import Auth, Counts, Price, ReasoningUnit, Refusable
from llmd.core.rules import RoutingSettings
from llmd.scalars import Amount, Name, Positive

_HTTP_URL = re.compile(r"https?://[^/?#@\s]+(/[^?#\s]*)?")


class KeySettings(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a provider's key is, never the key itself. Exactly one of:

    env         the name of an environment variable of the daemon
    credential  the name of a systemd credential
    file        the path of a file that holds nothing else
    command     a program and its arguments, run without a shell; what it prints is the key
    """

    env: Name | None = None
    credential: Name | None = None
    file: Name | None = None
    command: Annotated[list[str], Meta(min_length=1)] | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.env, self.credential, self.file, self.command)) != 1:
            raise ValueError("give one of `env`, `credential`, `file` and `command`")


class ModelSettings(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Facts of a model that the catalog does not know, or that you know better.

    refuses    what it answers with an error: left out and told as dropped, or the model is no target for the request
    reasoning  whether it is told how much to think as an effort or in tokens
    agentic    whether it reads more than it is sent, as one that searches the web: what bounds its input is its context
    """

    price: Price | None = None
    context_tokens: Positive | None = None
    max_output_tokens: Positive | None = None
    refuses: list[Refusable] | None = None
    reasoning: ReasoningUnit | None = None
    agentic: bool | None = None


HeaderName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")]
HeaderValue = Annotated[str, Meta(pattern=r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$", max_length=1024)]

FailureKind = Literal[
    "upstream_rate_limited",
    "upstream_auth",
    "upstream_unavailable",
    "content_filtered",
    "context_too_long",
    "upstream_invalid",
    "model_not_found",
]


class ProviderSettings(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One `[providers.NAME]`. What is left out comes from the catalog where it knows NAME.

    max_concurrency  calls in flight at once; more wait their turn, as do those beyond what a minute may have
    overhead_tokens  what a request may cost beyond its own bytes
    counts           what its own count of a request's tokens is worth: only an exact one holds under `strict`
    auth             the header that carries the key
    headers query    sent with every request, as they are
    latency_ms fail  of the echo dialect: how long it takes, and the error that it answers with
    """

    dialect: Literal["anthropic", "echo", "gemini", "ollama", "openai", "openai-responses"] | None = None
    base_url: str | None = None
    api_key: KeySettings | None = None
    default_model: Name | None = None
    max_concurrency: Positive | None = None
    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    overhead_tokens: Amount | None = None
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] | None = None
    stream_usage: bool | None = None
    counts: Counts | None = None
    auth: Auth | None = None
    headers: dict[HeaderName, HeaderValue] = {}
    query: dict[str, str] = {}
    labels: dict[str, str] = {}
    models: dict[str, ModelSettings] = {}
    latency_ms: Amount = 0
    fail: FailureKind | None = None

    def __post_init__(self) -> None:
        if self.base_url is not None and not _is_http(self.base_url):
            raise ValueError('`base_url` must be an address such as "http://127.0.0.1:8080/v1"')


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return _HTTP_URL.fullmatch(url) is not None and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port beyond 65535, brackets without an address
        return False


class BudgetSettings(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One `[budgets.NAME]`: a root that is always there, addressed by its name.

    timezone  whose hours and days its windows are, as in "Europe/Berlin"
    default   the parent of every call and every open that names no budget; one at most
    require   calls that name no budget are refused
    """

    limits: GivenAmounts = GivenAmounts()
    window: Window | None = None
    timezone: Name = "UTC"
    label: Name | None = None
    enforcement: Enforcement = "strict"
    allow: Allow | None = None
    default: bool = False
    require: bool = False


class LedgerSettings(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Where budgets are kept.

    path                unset: ledger.db in the state directory
    durability          "full" survives a power cut, "process" only the daemon's own end
    default_max_tokens  of a call under a budget that names none
    """

    store: Literal["sqlite", "memory"] = "sqlite"
    path: Name | None = None
    durability: Literal["full", "process"] = "full"
    default_max_tokens: Positive = 1024

    def file(self, default: Path) -> Path:
        return default if self.path is None else Path(self.path).expanduser()


class ListenSettings(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Listeners besides the Unix socket, as `--listen` takes them."""

    tcp: str | None = None
    http: str | None = None


class PeerSettings(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One `[peers.NAME]`: another user of this machine who is served on the Unix socket.

    labels  fixed: a caller cannot claim others
    """

    uid: Annotated[int, Meta(ge=0, le=2**32 - 2)]
    labels: dict[str, str] = {}


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What one daemon takes on. Reaching a limit is an error with a name, never a crash."""

    frame_bytes: Positive = 16 * 2**20
    batch: Annotated[int, Meta(ge=1, le=10_000)] = 100
    calls: Positive = 1000  # of an execute_many
    in_flight: Positive = 256  # calls a connection
    connections: Positive = 1024
    input_bytes: Positive = 256 * 2**20  # unfinished messages and calls in flight, all connections together
    output_bytes: Positive = 2**20  # a connection's replies waiting to be written, above which reading from it stops
    auth_bytes: Positive = 4096  # a message before auth; over HTTP the head of a request
    auth_ms: Positive = 5000
    stalled_write_ms: Positive = 10_000
    drain_ms: Positive = 30_000
    budgets: Positive = 100_000
    watches: Positive = 256  # budgets that one connection watches


class Settings(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A whole configuration file.

    default_model  "provider/model", for requests that name none
    peers          of a daemon for several users: each by a name, and `socket_group`, whose members reach the socket
    """

    default_model: Name | None = None
    providers: dict[str, ProviderSettings] = {}
    budgets: dict[str, BudgetSettings] = {}
    routing: RoutingSettings = RoutingSettings()
    ledger: LedgerSettings = LedgerSettings()
    listen: ListenSettings = ListenSettings()
    peers: dict[str, PeerSettings | str] = {}
    limits: Limits = Limits()
