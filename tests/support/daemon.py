"""A real daemon process for a test, on paths of the test's own, ended by its own handle."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmd import paths
from llmd.client import Wire
from tests.support.processes import Started, start_daemon


@dataclass
class RunningDaemon:
    process: Started
    socket: Path
    log: Path

    def wire(self, timeout_s: float = 20) -> Wire:
        return Wire([self.socket], timeout_s)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(20)

    def rss_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@contextmanager
def running_daemon(
    directory: Path, *arguments: str, config: str | None = None, forked: bool = True
) -> Iterator[RunningDaemon]:
    """`llmd serve` with these arguments; yields once it answers, and kills it behind the test."""
    socket = paths.default_socket(os.environ)
    if config is not None:
        file = directory / "config.toml"
        file.write_text(config)
        file.chmod(0o600)
        arguments = ("--config", str(file), *arguments)
    log = directory / "daemon.stderr"
    process, ready = start_daemon(["--socket", str(socket), *arguments], log, forked=forked)
    try:
        assert os.read(ready.fileno(), 1), f"the daemon did not start: {log.read_text()}"
        yield RunningDaemon(process, socket, log)
    finally:
        ready.close()
        process.kill()
        process.wait()
