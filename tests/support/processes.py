"""Starting daemons, and the end of processes that are not ours.

A daemon begins as a fork of a process that has imported llmd: from nothing it takes 0.4 s of CPU, nearly all of it
imports, and that is for the tests of starting.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

import anyio

_CONTEXT = multiprocessing.get_context("forkserver")
# What every daemon has loaded a moment after it is ready, and no more.
_CONTEXT.set_forkserver_preload(["llmd.cli.serve", "llmd.daemon", "llmd.providers"])


class Started(Protocol):
    """What tests need of a process: a part of subprocess.Popen."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def send_signal(self, number: int, /) -> None: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


class ForkedDaemon:
    """`llmd serve` with these arguments, in this process's environment, what it prints in the file `log`."""

    def __init__(self, arguments: list[str], log: Path, ready: Connection) -> None:
        self._process = _CONTEXT.Process(target=_serve, args=(arguments, str(log), dict(os.environ), ready))
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise TimeoutError(f"the daemon has not ended within {timeout} s")
        return self.returncode


def _serve(arguments: list[str], log: str, environment: dict[str, str], ready: Connection) -> None:
    """In the fork."""
    from llmd.cli import main

    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    report = os.dup(ready.fileno())
    ready.close()
    sys.exit(main(["serve", *arguments, "--ready-fd", str(report)]))


def start_daemon(
    arguments: list[str], log: Path, launcher: Sequence[str] = (), *, forked: bool = True
) -> tuple[Started, Connection]:
    """`llmd serve` with these arguments and its output in `log`; and where it writes a byte once it is ready.

    `launcher` is a command that ends in running another: below it the daemon starts from nothing, as it does where it
    is not to be `forked`.
    """
    ready, report = _CONTEXT.Pipe(duplex=False)
    with report:
        if forked and not launcher:
            return ForkedDaemon(arguments, log, report), ready
        command = [*launcher, sys.executable, "-m", "llmd", "serve", *arguments, "--ready-fd", str(report.fileno())]
        with log.open("wb") as output:
            null = subprocess.DEVNULL
            process = subprocess.Popen(command, stdin=null, stdout=output, stderr=output, pass_fds=[report.fileno()])
        return process, ready


async def ended(pid: int) -> None:
    """Return once the process is over, even if nobody has collected it yet."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)
