"""Everything that a daemon listens on: what is handed over to it is served by its name, and left where it is."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from llmd.client import Wire
from llmd.listening import handed_path, listening
from llmd.systemd import Handed
from llmd.transports.claims import Claim, SocketTaken, SocketUnavailable
from tests.support.processes import start_daemon

# Hands over a Unix socket, one for TCP and one for HTTP, as systemd does: from descriptor 3 on, and says so.
HANDING = """
import os, socket, sys
unix = socket.socket(socket.AF_UNIX)
unix.bind(sys.argv[1])
handed = [unix, socket.socket(), socket.socket()]
for number, one in enumerate(handed):
    if number:
        one.bind(("127.0.0.1", 0))
    one.listen()
copies = [os.dup(one.fileno()) for one in handed]
ports = " ".join(str(one.getsockname()[1]) for one in handed[1:])
with open(sys.argv[2], "w") as file:
    file.write(ports)
for number, copy in enumerate(copies):
    os.dup2(copy, 3 + number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="3", LISTEN_FDNAMES=sys.argv[3])
os.execv(sys.argv[4], sys.argv[4:])
"""


def claim() -> Claim:
    return Claim({}, frozenset(), spawned=False)


def test_sockets_that_are_handed_over_are_served_by_name_and_left_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "handed.sock"
    launcher = [sys.executable, "-c", HANDING, str(path), str(tmp_path / "ports"), "rpc:tcp:http", sys.executable]
    process, ready = start_daemon([], tmp_path / "log", launcher[:-1])
    with ready:
        assert os.read(ready.fileno(), 1), (tmp_path / "log").read_text()
        tcp, http = map(int, (tmp_path / "ports").read_text().split())
        with Wire([path]) as wire:
            assert "result" in wire.call("ping")
        with socket.create_connection(("127.0.0.1", tcp)) as client:
            client.sendall(b'{"jsonrpc":"2.0","id":7,"method":"ping"}\n')
            assert json.loads(client.makefile().readline())["id"] == 7
        with socket.create_connection(("127.0.0.1", http)) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        inode = path.stat().st_ino
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert path.stat().st_ino == inode


def test_a_descriptor_of_no_use_is_refused_with_what_it_must_be(tmp_path: Path) -> None:
    arguments = [str(tmp_path / "s"), str(tmp_path / "ports"), "rpc:tcp:mail"]
    command = [sys.executable, "-c", HANDING, *arguments, sys.executable, "-m", "llmd", "serve"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("llmd: the descriptor 'mail' that was handed over is of no use: it has to be")


def test_systemds_own_tool_starts_it_on_the_first_call(tmp_path: Path) -> None:
    path = tmp_path / "activated.sock"
    tool = ["systemd-socket-activate", "-l", str(path), "--fdname=rpc"]
    tool += [f"--setenv={name}" for name in ("PYTHONPATH", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "HOME")]
    try:
        process = subprocess.Popen([*tool, sys.executable, "-m", "llmd", "serve"], stderr=subprocess.PIPE)
    except FileNotFoundError:
        pytest.skip("systemd-socket-activate is not installed")
    with process:
        assert process.stderr is not None
        assert b"Listening on" in process.stderr.readline()
        with Wire([path], 20) as wire:
            assert "result" in wire.call("ping")
        process.terminate()


def test_a_path_that_was_handed_over_is_held_against_other_daemons(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    with socket.socket(socket.AF_UNIX) as handed:
        handed.bind(str(path))
        handed.listen()
        given = [Handed("rpc", handed)]
        assert handed_path(given) == path
        with listening(tmp_path / "own.sock", [], given, claim(), None) as bound:
            assert (bound.unix, bound.inode, bound.names) == ([handed], None, [str(path)])
            with pytest.raises(SocketTaken), claim().held(path):
                pass
    assert path.exists()
    assert not (tmp_path / "own.sock").exists()


def test_a_socket_beyond_this_machine_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as handed:
        sockets = listening(tmp_path / "s", [], [Handed("tcp", handed)], claim(), None)
        with pytest.raises(SocketUnavailable, match=r"is on 0\.0\.0\.0, not on this machine alone"), sockets:
            pass


def test_with_an_abstract_socket_there_is_no_path_to_hold(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as handed:
        handed.bind(f"\0llmd-{os.getpid()}")
        handed.listen()
        given = [Handed("rpc", handed)]
        assert handed_path(given) is None
        with listening(tmp_path / "own.sock", [], given, claim(), None) as bound:
            assert bound.unix == [handed]
