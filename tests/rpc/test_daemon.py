"""`ping` and `daemon.*` over a real socket."""

import time
from pathlib import Path

import llmd
from tests.support.daemon import running_daemon


def test_ping_answers_with_nothing(tmp_path: Path) -> None:
    with running_daemon(tmp_path) as daemon, daemon.wire() as wire:
        assert wire.call("ping") == {"jsonrpc": "2.0", "id": 1, "result": {}}


def test_info_tells_version_protocol_and_the_limits_in_force(tmp_path: Path) -> None:
    before = int(time.time())
    with running_daemon(tmp_path, config="[limits]\nbatch = 7") as daemon, daemon.wire() as wire:
        info = wire.call("daemon.info")["result"]
    assert (info["version"], info["protocol"]) == (llmd.__version__, 1)
    assert (info["limits"]["batch"], info["limits"]["frame_bytes"]) == (7, 16 * 2**20)
    assert before <= info["started"] <= time.time()


def test_on_the_unix_socket_the_kernel_is_believed_whatever_the_token(tmp_path: Path) -> None:
    with running_daemon(tmp_path) as daemon, daemon.wire() as wire:
        assert wire.call("daemon.auth", '{"token": "whatever"}')["result"] == {}
