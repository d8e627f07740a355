"""`llmd status`: what the daemon is doing, and that none runs, without starting one."""

import json
import os
import socket
import time
from pathlib import Path

import pytest

from llmd import fingerprint, paths
from llmd.cli.status import shown
from tests.support.cli import llmd
from tests.support.daemon import running_daemon

CONFIG = """
[providers.slow]
dialect = "echo"
default_model = "m"
latency_ms = 600000
[providers.work]
base_url = "http://127.0.0.1:9/v1"
api_key = { env = "NO_SUCH_KEY" }
[budgets.daily]
limits = { total_tokens = 5000 }
label = "daily"
"""
CALL = '{"jsonrpc":"2.0","id":1,"method":"execute","params":{"model":"slow/m","prompt":"x"}}'


def test_a_daemon_that_is_up_tells_what_it_is_doing(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=CONFIG) as daemon, daemon.wire() as wire:
        wire.send(CALL)
        wire.send('{"jsonrpc":"2.0","id":2,"method":"ping"}')
        assert wire.receive()["id"] == 2
        done = llmd("status")
        told = json.loads(llmd("status", "--json").out)
        assert (done.status, done.err) == (0, "")
        lines = done.out.splitlines()
        assert lines[0].startswith("llmd 0.1.0 is up since 20")
        assert lines[1:4] == [
            f"  socket     {daemon.socket}",
            f"  process    pid {daemon.process.pid}, a service, or started by hand",
            "  in flight  1",
        ]
        assert "slow ready" in lines[4]
        assert "work no key" in lines[4]
        assert any(line.startswith("  budgets    daily: ") and line.endswith(", open") for line in lines)
    assert (told["up"], told["in_flight"], told["pid"]) == (True, 1, daemon.process.pid)
    assert abs(told["started"] - time.time()) < 120


def test_where_none_runs_none_is_started() -> None:
    done = llmd("status")
    assert (done.status, done.out) == (3, "")
    assert done.err.startswith("llmd: no daemon listens on ")
    assert json.loads(llmd("status", "--json").out) == {"up": False, "socket": None}
    assert not paths.default_socket(os.environ).exists()


@pytest.mark.parametrize("ran_before", [False, True])
def test_a_socket_that_systemd_listens_on_is_left_asleep(ran_before: bool) -> None:
    path = paths.default_socket(os.environ)
    path.parent.mkdir()
    if ran_before:
        ended = fingerprint.Fingerprint(2**22 + 1, False, "00", {})
        fingerprint.lock_file(path).write_text(ended.text())
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.setblocking(False)
        done = llmd("status")
        assert (done.status, done.out) == (
            3,
            f"systemd listens on {path}; the daemon starts with the first call\n",
        )
        try:
            listening.accept()
        except BlockingIOError:
            return
    raise AssertionError("it was woken")


def test_how_long_it_has_been_up_is_told_in_words() -> None:
    found = {"version": "1", "started": 0, "socket": "s", "pid": None, "in_flight": 0, "providers": {}, "budgets": None}
    for seconds, words in [(59, "0 min"), (3_700, "1 h 1 min"), (90_000, "1 d 1 h")]:
        assert shown(found, seconds)[0].endswith(f"for {words}")
