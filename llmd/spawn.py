"""Starts a daemon for this user when a call finds none: detached, with a log of its own. Standard library only."""

import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from llmd import fingerprint, paths

START_TIMEOUT_S = 20.0
LOG_TAIL_BYTES = 4096


class SpawnFailed(Exception):
    """No daemon came up; the message says why, as far as its log tells."""


def spawn(socket: Path, env: Mapping[str, str]) -> None:
    """Start `llmd serve` on `socket` and return once it answers. Of two at once, the loser waits for the winner.

    A daemon that was spawned there before gives way where `env` has news for it, and finishes its calls.

    The daemon has a session of its own, so that it outlives the terminal, and inherits no descriptor but the one that
    it reports on, so that `$(llmd call ...)` returns.
    """
    log = paths.log_file(env)
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SpawnFailed(f"cannot write the daemon's log {log}: {error.strerror}") from None
    ready, report = os.pipe()
    try:
        # -P: the directory of the call is no place to import from.
        command = [sys.executable, "-P", "-m", "llmd", "serve", "--spawned", "--ready-fd", str(report)]
        subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
            [*command, "--socket", str(socket)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[report],
            start_new_session=True,
            cwd="/",
            env=_environment(env, socket),
        )
        os.close(report)
        report = -1
        readable, _, _ = select.select([ready], [], [], START_TIMEOUT_S)
        if not readable:
            raise SpawnFailed(f"the daemon did not start within {START_TIMEOUT_S:.0f} s; its log is {log}")
        if not os.read(ready, 1):
            raise SpawnFailed(f"the daemon did not start: {_last_line(log)}")
    finally:
        os.close(ready)
        os.close(output)
        if report >= 0:
            os.close(report)


def _environment(env: Mapping[str, str], socket: Path) -> dict[str, str]:
    """The caller's, with what only the daemon that gives way has, and its one path made absolute: it works in /."""
    running = fingerprint.read(fingerprint.lock_file(socket))
    merged = fingerprint.inherited(running, env) if running is not None and running.spawned else dict(env)
    config = merged.get("LLMD_CONFIG")
    return {**merged, "LLMD_CONFIG": os.path.abspath(config)} if config else merged


def _last_line(log: Path) -> str:
    with log.open("rb") as opened:
        opened.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        lines = opened.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"its log {log} is empty"
