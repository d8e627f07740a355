"""`llmd serve`: what keeps it from starting is one line, and exit status 1."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from llmd import paths
from tests.support.cli import llmd
from tests.support.daemon import running_daemon


def test_a_second_daemon_says_who_has_the_socket(tmp_path: Path) -> None:
    with running_daemon(tmp_path) as daemon:
        done = llmd("serve")
        assert (done.status, done.out) == (1, "")
        assert done.err == f"llmd: another llmd has {daemon.socket} (pid {daemon.process.pid})\n"
        with daemon.wire() as wire:
            assert "result" in wire.call("ping")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--socket", "/tmp/" + "x" * 120], "the socket path is 125 bytes long and the kernel takes 107"),
        (["--socket", "/proc/llmd/rpc.sock"], "cannot make the directory /proc/llmd"),
        (["--listen", "tcp://0.0.0.0:1"], "configuration: 'tcp://0.0.0.0:1' is not on this machine alone"),
        (["--config", "/none.toml"], "/none.toml: there is no such file"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], complaint: str) -> None:
    done = llmd("serve", *arguments)
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert done.err.startswith(f"llmd: {complaint}")


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        done = llmd("serve", "--listen", url)
    assert (done.status, done.err) == (1, f"llmd: configuration: cannot listen on {url}: Address already in use\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_and_frees_the_path(tmp_path: Path, number: signal.Signals) -> None:
    with running_daemon(tmp_path) as daemon:
        assert daemon.stop(number) == 0
        assert not daemon.socket.exists()
        assert "Traceback" not in daemon.log.read_text()


# A daemon that is asked when its pid stands in the lock file, and it heeds no signals yet.
ASKED_EARLY = """
import os, signal
from llmd.cli import main
from llmd.stores import Store
Store.open = lambda store: os.kill(os.getpid(), signal.SIGUSR1)
main(["serve", "--spawned"])
"""


def test_asked_to_give_way_in_its_start_it_starts_and_then_stops() -> None:
    paths.log_file(os.environ).parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([sys.executable, "-c", ASKED_EARLY], capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    log = paths.log_file(os.environ).read_text()
    assert 0 < log.index("ready on") < log.index("stopping: SIGUSR1")
