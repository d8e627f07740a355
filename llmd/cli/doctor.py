"""Look for what keeps llmd from working: each line is ok, or says what to do.

llmd doctor
llmd doctor --config ./config.toml

Checks the configuration, keys, socket, permissions, units, clock and store, and asks every provider for its models with
its key, by the running daemon where that has the key. No key is printed, and no key's command is run by more than that.
"""

import argparse
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmd import fingerprint, paths
from llmd.cli.budget_calls import Refused
from llmd.cli.call import add_socket, write_utf8
from llmd.cli.doctor_config import Finding, config_findings
from llmd.cli.printable import tame
from llmd.cli.status import asked, is_asleep
from llmd.client import ConnectionLost, NoDaemon
from llmd.config import load
from llmd.errors import ConfigError
from llmd.transports.unix import PATH_BYTES_MAX
from llmd.units import units

FAILED = 1
BUILT = 1_750_000_000  # no clock that is right shows a time before this, in seconds since the epoch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", type=Path, help="default: $LLMD_CONFIG, else this user's")
    add_socket(parser)


def run(options: argparse.Namespace) -> int:
    write_utf8()
    wrong = 0
    for finding in _findings(options):
        wrong += finding.cure is not None
        print(f"{'ok ' if finding.cure is None else 'FIX'}  {finding.subject}: {tame(finding.told)}", flush=True)
        if finding.cure is not None:
            print(f"     {finding.cure}", flush=True)
    print(f"{wrong} to fix" if wrong else "all is well", file=sys.stderr)
    return FAILED if wrong else 0


def _findings(options: argparse.Namespace) -> Iterator[Finding]:
    sockets = paths.client_sockets(os.environ, options.socket)
    yield from _clock(time.time())
    yield from _directory(sockets[0].parent)
    daemon, found = _daemon(sockets)
    yield found
    if daemon is not None:
        yield from _environment(Path(daemon["socket"]))
    yield from _units()
    try:
        config = load(os.environ, options.config)
    except ConfigError as error:
        for problem in error.problems:
            yield Finding("config", f"{error.file}: {problem}", "correct it")
        return
    states = {} if daemon is None else daemon["providers"]
    yield from config_findings(config, {name: "ready" if "ready" in of else of[0] for name, of in states.items()})


def _clock(now: float) -> Iterator[Finding]:
    told = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    cure = None if now > BUILT else "set the clock: windows of budgets and certificates depend on it"
    yield Finding("clock", told, cure)


def _daemon(sockets: list[Path]) -> tuple[dict[str, Any] | None, Finding]:
    """What the daemon tells of itself, if one runs, and what there is to say of its socket."""
    first = sockets[0]
    if len(os.fsencode(first)) > PATH_BYTES_MAX:
        cure = f"name one of at most {PATH_BYTES_MAX} bytes with --socket or LLMD_SOCKET"
        return None, Finding("socket", str(first), cure)
    if is_asleep(first):
        return None, Finding("socket", f"systemd listens on {first}")
    try:
        daemon = asked(sockets)
    except NoDaemon as error:
        refused = None if error.forbidden is None else "have your uid listed under [peers], or name another socket"
        return None, Finding("socket", str(error) if refused else f"{error}; a call starts one", refused)
    except (ConnectionLost, TimeoutError, Refused):
        return None, Finding("socket", f"{first} does not answer", "look into its log, and restart the daemon")
    return daemon, Finding("socket", f"{daemon['socket']} is answered by llmd {daemon['version']}")


def _environment(socket: Path) -> Iterator[Finding]:
    held = fingerprint.read(fingerprint.lock_file(socket))
    if held is not None and (news := held.news_of_keys(os.environ)):
        cure = "give it the key: `systemctl --user edit llmd` for a service, else start it from this shell"
        yield Finding("environment", f"the daemon has not this shell's {', '.join(news)}", cure)


def _directory(directory: Path) -> Iterator[Finding]:
    try:
        found = directory.stat()
    except OSError:
        return  # it is made when it is needed
    others = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
    cure = f"chmod 700 {directory}" if others or found.st_uid not in (os.geteuid(), 0) else None
    yield Finding("permissions", f"{directory} is {stat.filemode(found.st_mode)}", cure)


def _units() -> Iterator[Finding]:
    for system in (False, True):
        for unit in units(os.environ, system=system):
            state = unit.state
            if state == "older":
                yield Finding("units", f"{unit.path} is of another llmd", "llmd systemd install writes it anew")
            elif state == "changed":
                yield Finding("units", f"{unit.path} was changed by hand: `llmd systemd install` leaves it alone")
            elif state == "current":
                yield Finding("units", f"{unit.path} is as it should be")
