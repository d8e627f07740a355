"""`llmd serve`: what keeps it from starting is one line, and exit status 1."""

import signal
import socket
from pathlib import Path

import pytest

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
