"""Tell whether the daemon is up: since when, on which socket, what it is doing, its providers and budgets.

llmd status
llmd status --json

Starts no daemon. The exit status is 3 where none runs.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmd import fingerprint, paths
from llmd.cli.budget_calls import Refused, ask, whole_tree
from llmd.cli.call import NO_DAEMON, RESULT, RPC_ERROR, add_socket, complain, guarded, write_utf8
from llmd.cli.printable import tame
from llmd.client import NoDaemon, Wire

TIMEOUT_S = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    add_socket(parser)


def run(options: argparse.Namespace) -> int:
    write_utf8()
    return guarded(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    sockets = paths.client_sockets(os.environ, options.socket)
    try:
        found = None if is_asleep(sockets[0]) else asked(sockets)
        if found is None:
            told = f"systemd listens on {sockets[0]}; the daemon starts with the first call"
            print(json.dumps({"up": False, "socket": str(sockets[0])}) if options.json else told)
            return NO_DAEMON
    except NoDaemon as error:
        if options.json:
            print(json.dumps({"up": False, "socket": None}))
        return complain(NO_DAEMON, str(error))
    except TimeoutError:
        return complain(RPC_ERROR, f"the daemon has not answered within {TIMEOUT_S:.0f} s")
    except Refused as refused:
        return complain(RPC_ERROR, str(refused))
    print(json.dumps(found, ensure_ascii=False) if options.json else "\n".join(shown(found, time.time())))
    sys.stdout.flush()
    return RESULT


def is_asleep(socket: Path) -> bool:
    """Whether somebody else listens here for a daemon that is not there yet: to connect would start it."""
    lock = fingerprint.lock_file(socket)
    if not os.path.exists(socket) or not os.path.exists(lock):
        return os.path.exists(socket)  # each daemon has its lock beside it
    held = fingerprint.read(lock)
    return held is not None and not held.spawned and not _is_alive(held.pid)


def asked(sockets: list[Path]) -> dict[str, Any]:
    """What the daemon tells of itself. Raises NoDaemon, Refused, ConnectionLost and TimeoutError."""
    with Wire(sockets, TIMEOUT_S) as wire:
        info = ask(wire, "daemon.info", {})
        listed = ask(wire, "models.list", {})
        health: dict[str, list[str]] = {}
        for model in listed["models"]:
            states = health.setdefault(model["provider"], [])
            states += [model["health"]] if model["health"] not in states else []
        for provider, state in listed.get("providers", {}).items():  # a daemon may be older
            health.setdefault(provider, [state])
        held = fingerprint.read(fingerprint.lock_file(wire.path))
        try:
            budgets = whole_tree(wire, None)["budgets"]
        except Refused:  # they are the operator's to see
            budgets = None
        return {
            "up": True,
            "socket": str(wire.path),
            "pid": None if held is None else held.pid,
            "spawned": None if held is None else held.spawned,
            **{name: info[name] for name in ("version", "started", "in_flight")},
            "providers": health,
            "budgets": budgets,
        }


def shown(found: Mapping[str, Any], now: float) -> list[str]:
    """Lines for a person; `found` is what `asked` returns, `now` is in seconds since the epoch."""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["started"]))
    lines = [f"llmd {found['version']} is up since {since}, for {_duration(now - found['started'])}"]
    lines.append(f"  socket     {found['socket']}")
    if found["pid"] is not None:
        started = "started by a call" if found["spawned"] else "a service, or started by hand"
        lines.append(f"  process    pid {found['pid']}, {started}")
    lines.append(f"  in flight  {found['in_flight']}")
    health = (f"{tame(name)} {', '.join(states).replace('_', ' ')}" for name, states in found["providers"].items())
    lines.append(f"  providers  {'; '.join(health) or 'none'}")
    if found["budgets"] is not None:
        lines += [f"  {head} {told}" for head, told in _budgets(found["budgets"])]
    return lines


def _budgets(budgets: list[dict[str, Any]]) -> list[tuple[str, str]]:
    from llmd.cli.budget_drawing import amounts  # rich, which draws the others, takes a while to load

    told = []
    for budget in budgets:
        name = tame(budget["label"] or budget["id"])
        spent, limits = amounts(budget["settled"]) or "nothing", amounts(budget["limits"])
        told.append(f"{name}: {spent} spent{f' of {limits}' if limits else ''}, {budget['state']}")
    return [("budgets   " if at == 0 else "          ", line) for at, line in enumerate(told or ["none"])]


def _duration(seconds: float) -> str:
    minutes = max(0, int(seconds)) // 60
    days, hours = minutes // 1440, minutes // 60 % 24
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
