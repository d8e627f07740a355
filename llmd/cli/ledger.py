"""The file that budgets are kept in: check it, and go on without what it has lost.

  llmd ledger check
  llmd ledger accept-loss

A daemon that finds its ledger damaged only reads from it, since something that was acknowledged is lost. `accept-loss`
drops what comes behind the damage, and keeps all as it was in files beside it. `check` changes nothing, and may run
beside a daemon.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmd import paths
from llmd.cli.call import complain, write_utf8
from llmd.errors import ConfigError

FAILED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["check", "accept-loss"], metavar="ACTION", help="check or accept-loss")
    where = "says where the ledger is; default: $LLMD_CONFIG, else ~/.config/llmd/config.toml"
    parser.add_argument("--config", metavar="FILE", type=Path, help=where)
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(options: argparse.Namespace) -> int:
    from llmd.config import load
    from llmd.journal import StoreUnavailable
    from llmd.journal.store_files import read_log

    if options.json:
        write_utf8()
    try:
        settings = load(os.environ, options.config).settings.ledger
    except ConfigError as error:
        for problem in error.problems:
            print(f"{error.file}: {problem}", file=sys.stderr)
        return FAILED
    path = settings.file(paths.ledger_file(os.environ))
    if settings.store == "memory":
        return _nothing(options, None, "budgets are kept in memory: there is no ledger on the disk")
    try:
        if _is_missing(path):
            read_log(path)  # which tells of a log whose ledger has gone
            return _nothing(options, path, f"there is no ledger at {path}: nothing was ever kept there")
        return _check(path, options) if options.action == "check" else _accept_loss(path, options)
    except StoreUnavailable as error:
        return complain(FAILED, str(error))


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # something is there
        pass
    return False


def _nothing(options: argparse.Namespace, path: Path | None, why: str) -> int:
    problems: list[str] = []
    print(json.dumps({"path": path and str(path), "problems": problems, "notes": [why]}) if options.json else why)
    return 0


def _check(path: Path, options: argparse.Namespace) -> int:
    from msgspec.structs import asdict

    from llmd.journal.repair import check

    found = check(path, _contradiction())
    if options.json:
        print(json.dumps({"path": str(path), **asdict(found)}, ensure_ascii=False))
        return FAILED if found.problems else 0
    for note in found.notes:
        print(note)
    for problem in found.problems:
        print(problem, file=sys.stderr)
    if found.problems:
        return FAILED
    print(f"{path} is sound: {found.rows} rows, {found.entries} entries of history, {found.bytes} bytes")
    return 0


def _contradiction() -> Callable[[Any], str | None]:
    """Tells what would keep a daemon from going on with what the rows of a ledger say."""
    from llmd.clock import Now
    from llmd.core.recovery import contradiction
    from llmd.zones import zone

    now = Now(time.monotonic(), time.time_ns() // 1_000_000)
    return lambda rows: contradiction(now, rows, zone)


def _accept_loss(path: Path, options: argparse.Namespace) -> int:
    from llmd.journal.repair import accept_loss, check
    from llmd.journal.store_files import read_log

    damaged = read_log(path).state == "damaged"
    told = accept_loss(path, now_ms=time.time_ns() // 1_000_000)
    problems = check(path, _contradiction()).problems
    if options.json:
        done = {"path": str(path), "changed": damaged, "told": told, "problems": problems}
        print(json.dumps(done, ensure_ascii=False))
        return FAILED if problems else 0
    print(told)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        return FAILED
    if damaged:
        print("start the daemon again: it goes on with what is left")
    return 0
