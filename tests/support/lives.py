"""A daemon that lives more than once on the same store, and ends in ways that it does not choose.

Every process that is started here is killed and collected behind its test.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import anyio

from llmd import paths
from llmd.client import Wire
from tests.support.processes import Started, ended, start_daemon

START_S = 30.0


class Life:
    """One daemon process, from its start on; ready or not."""

    def __init__(self, process: Started, socket: Path, config: Path, log: Path, ready: int) -> None:
        self.process = process
        self.socket = socket
        self.config = config
        self.log = log
        self._ready = ready

    def wait_ready(self) -> "Life":
        """Return once it answers. Fails the test if it ends instead."""
        assert os.read(self._ready, 1), f"the daemon did not start: {self.log.read_text()}"
        return self

    async def ready(self) -> "Life":
        """As `wait_ready`, and others run meanwhile."""
        with anyio.fail_after(START_S):
            await anyio.wait_readable(self._ready)
        return self.wait_ready()

    def kill(self) -> None:
        """No part of it gets to do anything any more."""
        self.process.kill()
        self.process.wait(START_S)

    async def ended(self) -> int:
        """The exit status, once it has ended by itself."""
        with anyio.fail_after(START_S):
            await ended(self.process.pid)
        return self.process.wait(START_S)

    def wire(self) -> Wire:
        return Wire([self.socket], START_S)

    def said(self) -> str:
        return self.log.read_text()


@contextmanager
def living(directory: Path, config: str, *, name: str = "rpc", launcher: Sequence[str] = ()) -> Iterator[Life]:
    """`llmd serve` on the socket and the log of this name; `launcher` is a command that ends in starting it."""
    socket = paths.default_socket(os.environ).with_name(f"{name}.sock")
    file = directory / f"{name}.toml"
    file.write_text(config)
    file.chmod(0o600)
    log = directory / f"{name}.stderr"
    process, ready = start_daemon(["--socket", str(socket), "--config", str(file)], log, launcher)
    try:
        yield Life(process, socket, file, log, ready.fileno())
    finally:
        ready.close()
        process.kill()
        process.wait()
