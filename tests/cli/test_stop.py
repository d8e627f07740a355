"""`llmd stop`: the daemon ends, what is in flight finishes first, and without one there is nothing to stop."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmd import fingerprint
from tests.support.cli import llmd
from tests.support.daemon import running_daemon


def test_it_returns_when_the_daemon_has_ended(tmp_path: Path) -> None:
    with running_daemon(tmp_path) as daemon:
        done = llmd("stop")
        assert (done.status, done.out, done.err) == (0, "stopped\n", "")
        assert daemon.process.wait(5) == 0
    done = llmd("stop")
    assert (done.status, done.out) == (3, "")
    assert "no daemon listens" in done.err


def test_a_call_in_flight_is_answered_first(tmp_path: Path) -> None:
    config = '[providers.slow]\ndialect = "echo"\nlatency_ms = 300'
    with running_daemon(tmp_path, config=config) as daemon, daemon.wire() as wire:
        params = {"model": "slow/echo", "prompt": "a"}
        wire.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "execute", "params": params}))
        wire.send('{"jsonrpc": "2.0", "id": 2, "method": "ping"}')
        assert wire.receive()["id"] == 2  # behind the execute, which has begun
        with subprocess.Popen([sys.executable, "-m", "llmd", "stop"], stdout=subprocess.PIPE) as stopping:
            assert wire.receive()["result"]["text"] == "a"
            assert stopping.communicate(timeout=20)[0] == b"stopped\n"


@pytest.mark.parametrize("written", ["", "nobody\n"])
def test_what_tells_of_no_daemon_stops_nothing(tmp_path: Path, written: str) -> None:
    with running_daemon(tmp_path) as daemon:
        Path(fingerprint.lock_file(daemon.socket)).write_text(written)
        done = llmd("stop")
        assert (done.status, done.out) == (1, "")
        assert "nothing tells which process" in done.err
        os.kill(daemon.process.pid, 0)
