"""TCP: loopback only, our own user by the kernel's word, everyone else with the token, and that first."""

import json
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from llmd import paths
from tests.support.cli import llmd
from tests.support.daemon import RunningDaemon, running_daemon
from tests.support.stranger import as_stranger, needs_root

PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


class Peer:
    """A connection that speaks lines."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.lines = self.socket.makefile("rb")

    def ask(self, line: bytes) -> dict[str, object]:
        self.socket.sendall(line)
        answer: dict[str, object] = json.loads(self.lines.readline())
        return answer

    def is_closed(self) -> bool:
        return self.lines.read() == b""

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


Connect = Callable[[], Peer]


@pytest.fixture
def connect(port: int) -> Iterator[Connect]:
    """Makes connections, and closes them behind the test."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(Peer(port)))


def kind(reply: dict[str, object]) -> object:
    error = reply["error"]
    assert isinstance(error, dict)
    return error["data"]["kind"]


def auth(token: str) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 0, "method": "daemon.auth", "params": {"token": token}}).encode() + b"\n"


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def guarded(tmp_path: Path, port: int) -> Iterator[RunningDaemon]:
    limits = "[limits]\nauth_ms = 400"
    with running_daemon(tmp_path, "--listen", f"tcp://127.0.0.1:{port}", "--require-token", config=limits) as daemon:
        yield daemon


def token() -> str:
    return paths.token_file(os.environ).read_text().strip()


def test_our_own_user_needs_no_token(tmp_path: Path, port: int, connect: Connect) -> None:
    with running_daemon(tmp_path, config=f'[listen]\ntcp = "tcp://127.0.0.1:{port}"'):
        assert connect().ask(PING)["result"] == {}


def test_our_own_user_may_shut_its_side_at_once(tmp_path: Path, port: int, connect: Connect) -> None:
    with running_daemon(tmp_path, config=f'[listen]\ntcp = "tcp://127.0.0.1:{port}"'):
        for _ in range(20):
            peer = connect()
            peer.socket.sendall(PING)
            peer.socket.shutdown(socket.SHUT_WR)
            assert json.loads(peer.lines.readline())["result"] == {}


STUCK = """
[listen]
tcp = "tcp://127.0.0.1:{port}"

[providers.stuck]
dialect = "echo"
latency_ms = 600000
"""


def test_a_reset_behind_a_half_close_cancels(tmp_path: Path, port: int, connect: Connect) -> None:
    with running_daemon(tmp_path, config=STUCK.format(port=port)) as daemon:
        peer = connect()
        params = {"model": "stuck/x", "prompt": "x"}
        call = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "execute", "params": params}).encode() + b"\n"
        assert peer.ask(call + PING)["id"] == 1  # behind the call, which has begun
        peer.socket.shutdown(socket.SHUT_WR)
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        # Were the call still in flight, the drain would wait for it longer than `stop` does for the process.
        assert daemon.stop() == 0


def test_a_reset_at_once_is_no_error(tmp_path: Path, port: int, connect: Connect) -> None:
    with running_daemon(tmp_path, config=STUCK.format(port=port)) as daemon:
        for _ in range(50):
            peer = connect()
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
        assert connect().ask(PING)["result"] == {}  # behind all of them
        assert daemon.stop() == 0
        assert "ERROR" not in daemon.log.read_text()


def test_the_token_is_made_for_the_user_alone(guarded: RunningDaemon) -> None:
    assert stat.S_IMODE(paths.token_file(os.environ).stat().st_mode) == 0o600
    assert len(token()) >= 32


def test_with_the_token_first_everything_is_answered(guarded: RunningDaemon, connect: Connect) -> None:
    # In one write: what comes behind the token is read with the right that it gives.
    peer = connect()
    large = json.dumps({"jsonrpc": "2.0", "id": 2, "method": "ping", "params": {"x": "y" * 9000}}).encode() + b"\n"
    assert peer.ask(auth(token()) + PING + large)["result"] == {}
    assert json.loads(peer.lines.readline())["id"] == 1
    assert kind(json.loads(peer.lines.readline())) == "invalid_params"


@pytest.mark.parametrize(
    "first",
    [
        PING,
        auth("x" * 43),
        b'{"jsonrpc":"2.0","id":0,"method":"daemon.auth"}\n',
        b'[{"jsonrpc":"2.0","id":0,"method":"daemon.auth","params":{"token":"TOKEN"}}]\n',
        b"{}\n",
    ],
    ids=["another method", "a wrong token", "no token", "a batch", "no request"],
)
def test_anything_else_first_ends_the_connection(guarded: RunningDaemon, connect: Connect, first: bytes) -> None:
    peer = connect()
    assert kind(peer.ask(first.replace(b"TOKEN", token().encode()))) == "unauthorized"
    assert peer.is_closed()


def test_a_long_message_before_the_token_ends_the_connection(guarded: RunningDaemon, connect: Connect) -> None:
    peer = connect()
    assert kind(peer.ask(auth("x" * 5000))) == "too_large"
    assert peer.is_closed()


def test_silence_before_the_token_ends_the_connection(guarded: RunningDaemon, connect: Connect) -> None:
    peer = connect()
    assert kind(json.loads(peer.lines.readline())) == "unauthorized"
    assert peer.is_closed()


def test_time_for_the_token_does_not_run_on_behind_it(guarded: RunningDaemon, connect: Connect) -> None:
    peer = connect()
    assert peer.ask(auth(token()))["result"] == {}
    other = connect()  # which waits in vain, longer than the first one's time for its token
    assert kind(json.loads(other.lines.readline())) == "unauthorized"
    assert peer.ask(PING)["result"] == {}


def test_a_wrong_token_is_refused_later_too(guarded: RunningDaemon, connect: Connect) -> None:
    peer = connect()
    assert peer.ask(auth(token()))["result"] == {}
    assert kind(peer.ask(auth("x" * 43))) == "unauthorized"
    assert peer.ask(PING)["result"] == {}


def test_the_configuration_is_not_reloaded_over_tcp(guarded: RunningDaemon, connect: Connect) -> None:
    peer = connect()
    peer.ask(auth(token()))
    assert kind(peer.ask(b'{"jsonrpc":"2.0","id":1,"method":"daemon.reload"}\n')) == "unauthorized"


@needs_root
def test_another_user_needs_the_token(tmp_path: Path, port: int) -> None:
    with running_daemon(tmp_path, "--listen", f"tcp://127.0.0.1:{port}"):
        stranger = as_stranger(lambda: json.dumps(Peer(port).ask(PING)).encode())
        assert kind(json.loads(stranger)) == "unauthorized"
        secret = token()
        stranger = as_stranger(lambda: json.dumps(Peer(port).ask(auth(secret))).encode())
        assert json.loads(stranger)["result"] == {}


@pytest.mark.parametrize(
    ("content", "mode", "complaint"),
    [
        ("x" * 40, 0o644, "others can read the token file"),
        ("short", 0o600, "must have 16 to 128 characters"),
    ],
)
def test_a_token_that_is_no_secret_is_refused(
    tmp_path: Path, port: int, content: str, mode: int, complaint: str
) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    file.chmod(mode)
    done = llmd("serve", "--listen", f"tcp://127.0.0.1:{port}", "--token-file", str(file))
    assert done.status == 1
    assert complaint in done.err


def test_the_token_never_reaches_the_log(guarded: RunningDaemon, connect: Connect) -> None:
    connect().ask(auth(token()))
    assert token() not in guarded.log.read_text()
