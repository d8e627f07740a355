"""The Unix socket: its modes, its guarded path, stale and live sockets, strangers, half-close and close."""

import json
import os
import socket
import stat
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from llmd.transports import unix
from llmd.transports.claims import Claim, SocketTaken, SocketUnavailable
from llmd.transports.unix import PATH_BYTES_MAX
from tests.support.daemon import running_daemon
from tests.support.stranger import as_stranger, needs_root

SLOW = '[providers.slow]\ndialect = "echo"\nlatency_ms = 300\n[providers.stuck]\ndialect = "echo"\nlatency_ms = 600000'


def bound(path: Path) -> AbstractContextManager[tuple[socket.socket, int]]:
    return unix.bound(path, Claim({}, frozenset(), spawned=False))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_directory_and_socket_are_the_users_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with bound(tmp_path / "new" / "rpc.sock"):
            assert mode(tmp_path / "new") == 0o700
            assert mode(tmp_path / "new" / "rpc.sock") == 0o600
            assert os.umask(0) == 0  # binding has put back what it found
    finally:
        os.umask(before)


def test_the_path_is_free_again_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with bound(tmp_path / "rpc.sock"):
            pass
        assert not (tmp_path / "rpc.sock").exists()


def test_the_longest_path_works_and_one_byte_more_is_refused_with_the_reason(tmp_path: Path) -> None:
    directory = Path("/tmp") / f"llmd-{os.getpid()}"
    longest = directory / ("x" * (PATH_BYTES_MAX - len(str(directory)) - 1))
    try:
        with bound(longest):
            assert longest.exists()
        with (
            pytest.raises(SocketUnavailable, match="108 bytes long and the kernel takes 107"),
            bound(longest.with_name(longest.name + "x")),
        ):
            pass
    finally:
        longest.with_name(longest.name + ".lock").unlink()
        directory.rmdir()


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with bound(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_live_socket_is_not_stolen(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        live.listen()
        with pytest.raises(SocketTaken, match="another program listens on"), bound(path):
            pass
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_the_lock_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    with bound(path):
        path.unlink()  # even without the socket, the path is taken
        with pytest.raises(SocketTaken, match=rf"another llmd has \S+ \(pid {os.getpid()}\)"), bound(path):
            pass


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    path.write_text("precious")
    with pytest.raises(SocketUnavailable, match="is there and is no socket"), bound(path):
        pass
    assert path.read_text() == "precious"


def test_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "open"
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(SocketUnavailable, match="others may write in"), bound(directory / "rpc.sock"):
        pass


def test_a_socket_that_somebody_else_put_there_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    with socket.socket(socket.AF_UNIX) as other:
        with bound(path):
            path.unlink()
            other.bind(str(path))
        assert path.exists()


def call(name: str, number: int = 1) -> bytes:
    params = {"model": f"{name}/x", "prompt": "late"}
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": "execute", "params": params}).encode() + b"\n"


def test_a_half_close_finishes_the_work(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=SLOW) as daemon, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.socket))
        client.sendall(call("slow"))
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as reader:
            assert json.loads(reader.readline())["result"]["text"] == "late"
            assert reader.read() == b""


@pytest.mark.parametrize("half_first", [False, True], ids=["at once", "behind a half-close"])
def test_a_close_cancels_what_is_in_flight(tmp_path: Path, half_first: bool) -> None:
    with running_daemon(tmp_path, config=SLOW) as daemon:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(daemon.socket))
            client.sendall(call("stuck") + b'{"jsonrpc":"2.0","id":2,"method":"ping"}\n')
            assert client.recv(1000)
            if half_first:
                client.shutdown(socket.SHUT_WR)
        # Were the call still in flight, the drain would wait for it longer than `stop` does for the process.
        assert daemon.stop() == 0


@needs_root
def test_another_user_is_told_that_it_may_not(tmp_path: Path) -> None:
    with running_daemon(tmp_path) as daemon, socket.socket(socket.AF_UNIX) as client:
        for path in (daemon.socket, daemon.socket.parent):
            path.chmod(0o777)
        here = os.open(daemon.socket.parent, os.O_PATH)

        def ping() -> bytes:
            os.fchdir(here)  # the directories above are closed to it
            client.connect(daemon.socket.name)
            client.sendall(b'{"jsonrpc":"2.0","id":7,"method":"ping"}\n')
            return client.makefile("rb").read()

        reply = json.loads(as_stranger(ping))
        os.close(here)
        assert (reply["id"], reply["error"]["data"]["kind"]) == (7, "unauthorized")
