"""Reads and checks a configuration: TOML in, providers and limits out, or every problem with its key path."""

import os
import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from llmd import paths, users
from llmd.catalog import Catalog, configured, detected
from llmd.core.rules import RoutingSettings
from llmd.errors import ConfigError
from llmd.known import ECHO
from llmd.policy import RoutingPolicy
from llmd.settings import (
    BudgetSettings,
    LedgerSettings,
    Limits,
    ListenSettings,
    ModelSettings,
    PeerSettings,
    ProviderSettings,
    Settings,
)
from llmd.transports import loopback
from llmd.validation import explain
from llmd.zones import zone

CONFIG_BYTES_MAX = 2**20
HANDLE_PREFIXES = ("b_", "bh_")

_SECTIONS: dict[str, type[Struct]] = {"limits": Limits, "listen": ListenSettings, "ledger": LedgerSettings}
_AT_START = {"ledger": ("store", "path", "durability"), "listen": ("tcp", "http"), "limits": ("budgets",)}
_NESTED = {Settings: ("providers", "budgets", "routing", "peers", *_SECTIONS), ProviderSettings: ("models",)}
_REQUIRED: dict[type[Struct], tuple[str, ...]] = {PeerSettings: ("uid",)}

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Config(Struct, frozen=True):
    """A configuration in force. `file` is None where there is none and the environment decides.

    warnings  what may be a mistake
    """

    file: Path | None
    settings: Settings
    catalog: Catalog
    warnings: list[str] = []

    @property
    def peers(self) -> Mapping[int, Mapping[str, str]]:
        """The fixed labels of each user who is served besides our own, by uid."""
        return users.labels(self.settings.peers)


def load(env: Mapping[str, str], named: Path | None = None) -> Config:
    """The configuration at `named`, else at its usual place, else what the environment adds up to.

    Raises ConfigError with every problem found.
    """
    file = named or paths.config_file(env)
    try:
        text, others_write = _read(file)
    except FileNotFoundError:
        if named is None and not env.get("LLMD_CONFIG"):
            return Config(None, Settings(), Catalog(providers=detected(env), default_model=None))
        raise ConfigError(["there is no such file"], str(file)) from None
    except OSError as error:
        raise ConfigError([f"cannot be read: {error.strerror}"], str(file)) from None
    try:
        return _check(file, tomllib.loads(text.decode()), env, others_write)
    except UnicodeDecodeError:
        raise ConfigError(["is not UTF-8"], str(file)) from None
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"at line \d+, column \d+|at end of document", str(error))
        raise ConfigError([f"is not TOML {place[0] if place else ''}".rstrip()], str(file)) from None
    except RecursionError:
        raise ConfigError(["is nested too deep"], str(file)) from None
    except ConfigError as error:
        raise ConfigError(error.problems, str(file)) from None


def listeners(settings: ListenSettings) -> dict[str, str]:
    """The URLs to listen on by their scheme."""
    given: dict[str, str | None] = msgspec.structs.asdict(settings)
    return {scheme: url for scheme, url in given.items() if url is not None}


def after_restart(began: Settings, now: Settings) -> list[str]:
    """In what `now` differs from the settings that a daemon began with, of what no reload brings into force."""
    return [
        f"{table}.{name}"
        for table, names in _AT_START.items()
        for name in names
        if getattr(getattr(began, table), name) != getattr(getattr(now, table), name)
    ]


def _read(file: Path) -> tuple[bytes, bool]:
    """What stands in the file, and whether others can write it."""
    with file.open("rb") as opened:
        text = opened.read(CONFIG_BYTES_MAX + 1)
        found = os.fstat(opened.fileno())
    if len(text) > CONFIG_BYTES_MAX:
        raise ConfigError([f"is longer than {CONFIG_BYTES_MAX} bytes"], str(file))
    others_write = bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)) or found.st_uid not in (os.geteuid(), 0)
    return text, others_write


def _check(file: Path, data: dict[str, Any], env: Mapping[str, str], others_write: bool) -> Config:
    problems = _type_problems(data)
    if problems:
        raise ConfigError(problems)
    settings = msgspec.convert(data, Settings)
    rows, problems = configured(settings, env)
    provider, _, model = (settings.default_model or "").partition("/")
    if settings.default_model is not None and not (provider in rows and model):
        named = ", ".join(sorted(rows))
        problems.append(f'default_model: expected "provider/model" with a provider of this file; there are: {named}')
    for scheme, url in listeners(settings.listen).items():
        try:
            loopback.address(url, scheme)
        except ConfigError as error:
            problems += [f"listen.{scheme}: {problem}" for problem in error.problems]
    problems += _budget_problems(settings.budgets)
    problems += users.problems(settings.peers, users.read_uid_map())
    if any(row.key and row.key.command for row in rows.values()) and others_write:
        problems.append("runs a key's `command` but others can write it: chmod it to 0600")
    if problems:
        raise ConfigError(problems)
    warnings = [f"routing.{warning}" for warning in RoutingPolicy(settings.routing.rules, rows).warnings(rows)]
    return Config(file, settings, Catalog(providers=rows, default_model=settings.default_model), warnings)


def _budget_problems(budgets: Mapping[str, BudgetSettings]) -> list[str]:
    problems = []
    for name, budget in budgets.items():
        if not _NAME.fullmatch(name) or name.startswith(HANDLE_PREFIXES):
            problems.append(
                f"budgets.{_quoted(name)}: expected a name of letters, digits, `.`, `_` and `-`, at most 64, "
                "that does not begin with b_ or bh_"
            )
        try:
            zone(budget.timezone)
        except ValueError:
            problems.append(f"budgets.{_quoted(name)}.timezone: there is no such time zone")
    defaults = [name for name, budget in budgets.items() if budget.default]
    if len(defaults) > 1:
        problems.append(f"budgets: {' and '.join(defaults)} cannot all be the `default`")
    return problems


def _type_problems(data: dict[str, Any]) -> list[str]:
    """What does not fit its type, table by table, so that each problem has its whole path and none hides another."""
    tables: list[tuple[str, Any, type[Struct]]] = [("", data, Settings)]
    if isinstance(routing := data.get("routing"), dict):
        tables.append(("routing", {name: value for name, value in routing.items() if name != "rules"}, RoutingSettings))
    tables += [(name, data[name], kind) for name, kind in _SECTIONS.items() if name in data]
    providers = data.get("providers")
    for name, provider in providers.items() if isinstance(providers, dict) else ():
        path = f"providers.{_quoted(name)}"
        tables.append((path, provider, ProviderSettings))
        models = provider.get("models") if isinstance(provider, dict) else None
        for model, facts in models.items() if isinstance(models, dict) else ():
            tables.append((f"{path}.models.{_quoted(model)}", facts, ModelSettings))
    problems = [
        f"providers.{_quoted(name)}: expected a name of letters, digits, `.`, `_` and `-`, at most 64"
        for name in (providers if isinstance(providers, dict) else ())
        if not _NAME.fullmatch(name)
    ]
    budgets = data.get("budgets")
    for name, budget in budgets.items() if isinstance(budgets, dict) else ():
        tables.append((f"budgets.{_quoted(name)}", budget, BudgetSettings))
    peers = data.get("peers")
    for name, peer in peers.items() if isinstance(peers, dict) else ():
        if isinstance(peer, dict):
            tables.append((f"peers.{_quoted(name)}", peer, PeerSettings))
    problems += _rule_problems(data.get("routing"), providers)
    for path, table, kind in tables:
        nested = _NESTED.get(kind, ())
        own = _without_tables(table, nested)
        while (problem := _problem(own, kind)) is not None:
            problems.append(str(problem._replace(path=_under(path, problem.path))))
            # msgspec stops at the first problem: look again without the member that has it.
            member = problem.path.partition(".")[0].partition("[")[0]
            if not isinstance(own, dict) or member not in own:
                break
            if member in _REQUIRED.get(kind, ()):
                break  # that it is missing would be the next
            own = {key: value for key, value in own.items() if key != member}
    return problems


def _rule_problems(routing: Any, providers: Any) -> list[str]:
    rules = routing.get("rules", []) if isinstance(routing, dict) else []
    if not isinstance(rules, list):
        return ["routing.rules: expected an array of tables, as `[[routing.rules]]` makes it"]
    try:
        RoutingPolicy(rules, {ECHO, *(providers if isinstance(providers, dict) else ())})
    except ConfigError as error:
        return [f"routing.{problem}" for problem in error.problems]
    return []


def _without_tables(table: Any, names: Sequence[str]) -> Any:
    """`table` without those of its members that are tables and looked at by themselves."""
    if not isinstance(table, dict):
        return table
    return {name: value for name, value in table.items() if name not in names or not isinstance(value, dict)}


def _problem(table: Any, kind: type[Struct]) -> Any:
    try:
        msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        problem = explain(error, kind)
        if problem.path == "api_key" and problem.message.endswith("got a string"):
            return problem._replace(message='a key is never written here: say where it is, as in { env = "NAME" }')
        return problem
    return None


def _under(path: str, member: str) -> str:
    return f"{path}.{member}" if path and member else path or member


def _quoted(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() else f'"{name}"'
