"""What `llmd doctor` finds by a configuration: its file, token and store, and what each provider says to its key."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import anyio

from llmd import paths
from llmd.catalog import Health
from llmd.config import Config
from llmd.journal import StoreUnavailable
from llmd.keys import Key
from llmd.known import ECHO
from llmd.settings import KeySettings, LedgerSettings
from llmd.upstreams import Upstreams

CURES: Mapping[str, str] = {
    "no_key": "set it where the daemon can read it",
    "key_refused": "put a valid one there",
    "unreachable": "see that its address is right and this machine can reach it",
}


class Finding(NamedTuple):
    """What was looked at and what is there; `cure` says what to do, None where all is well."""

    subject: str
    told: str
    cure: str | None = None


def config_findings(config: Config, by_daemon: Mapping[str, str]) -> Iterator[Finding]:
    """`by_daemon` is how the running daemon finds its providers."""
    if config.file is None:
        yield Finding("config", "no file: providers come from the environment and from engines on this machine")
    else:
        yield Finding("config", f"{config.file} is valid")
        yield from _private(config.file, "chmod go-w", 0o022)
    for warning in config.warnings:
        yield Finding("config", f"{warning}", "correct it, or leave it if it is meant")
    yield from _private(paths.token_file(os.environ), "chmod 600", 0o077)
    yield from _store(config.settings.ledger)
    yield from _providers(config, by_daemon)


def _private(file: Path, command: str, bits: int) -> Iterator[Finding]:
    try:
        found = file.stat()
    except OSError:
        return
    cure = f"{command} {file}" if found.st_mode & bits else None
    yield Finding("permissions", f"{file} is {stat.filemode(found.st_mode)}", cure)


def _store(ledger: LedgerSettings) -> Iterator[Finding]:
    from llmd.journal.repair import check

    file = ledger.file(paths.ledger_file(os.environ))
    if ledger.store == "memory" or not file.exists():
        yield Finding("store", "budgets are kept in memory" if ledger.store == "memory" else f"nothing at {file} yet")
        return
    try:
        found = check(file)
    except StoreUnavailable as error:
        yield Finding("store", str(error), "llmd ledger check tells more")
        return
    for problem in found.problems:
        yield Finding("store", problem, "llmd ledger check tells more")
    if not found.problems:
        yield Finding("store", f"{file} is sound: {found.rows} rows")


def _providers(config: Config, by_daemon: Mapping[str, str]) -> Iterator[Finding]:
    rows = config.catalog.providers
    own: dict[str, Health] = {}

    async def ask() -> None:
        from llmd.providers import AiohttpTransport

        transport = AiohttpTransport()
        upstreams = Upstreams(config.catalog, os.environ, lambda: transport)
        own.update({name: health for name, (health, _) in (await upstreams.offers()).items()})
        await transport.aclose()

    anyio.run(ask)
    for name, row in rows.items():
        if row.dialect == ECHO:
            continue
        # A key that systemd keeps, or that is in the daemon's environment alone, is the daemon's to show.
        health = by_daemon.get(name, "no_key") if own[name] == "no_key" else own[name]
        if health == "unreachable" and row.local and config.file is None:
            yield Finding(f"provider {name}", "does not run on this machine")
            continue
        missing = Key(row.key, os.environ).missing
        told = f"{health.replace('_', ' ')}{f', {missing}' if health == 'no_key' and missing else ''}"
        cure = None if health == "ready" else CURES.get(health, "it has failed of late: see whether it answers again")
        if cure is not None and "key" in health:
            cure += _where(row.key)
        yield Finding(f"provider {name}", told, cure)


def _where(key: KeySettings | None) -> str:
    """Where the key is looked for: the name of a place, never what is there."""
    if key is None:
        return ""
    place = {"environment variable": key.env, "systemd credential": key.credential, "file": key.file}
    found = next((f"{what} {name}" for what, name in place.items() if name is not None), "its command")
    return f" ({found})"
