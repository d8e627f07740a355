"""The wire that the command line uses: connecting, replies among notifications, and a connection that breaks."""

import json
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from llmd.client.wire import ConnectionLost, NoDaemon, Wire


def serve(path: Path, answer: Callable[[socket.socket], None]) -> threading.Thread:
    """A server of one connection."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def run() -> None:
        with listener, listener.accept()[0] as connection:
            answer(connection)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_the_first_socket_where_somebody_listens_is_taken(tmp_path: Path) -> None:
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    thread = serve(tmp_path / "live", lambda connection: connection.sendall(b'{"id":1}\n'))
    with Wire([tmp_path / "none", stale, tmp_path / "live"], 10) as wire:
        assert wire.receive() == {"id": 1}
    thread.join()


def test_nobody_anywhere_names_every_socket_that_was_tried(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon, match=r"no daemon listens on \S*/a or \S*/b"):
        Wire([tmp_path / "a", tmp_path / "b"])


def test_where_somebody_listens_and_accepts_nobody_a_timeout_holds(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as waiting:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        with suppress(BlockingIOError):
            while True:
                one = waiting.enter_context(socket.socket(socket.AF_UNIX))
                one.setblocking(False)
                one.connect(str(tmp_path / "s"))
        with pytest.raises(TimeoutError):
            Wire([tmp_path / "s"], 0.05)


def test_notifications_come_before_the_reply_however_the_bytes_are_cut(tmp_path: Path) -> None:
    messages = [
        {"method": "llmd.delta", "params": {"stream": "s", "seq": 0, "text": "a"}},
        {"method": "llmd.budget", "params": {}},
        {"id": 1, "result": {"text": "a"}},
    ]
    data = b"".join(json.dumps(message).encode() + b"\n" for message in messages)

    def answer(connection: socket.socket) -> None:
        connection.recv(1000)
        for byte in data:
            connection.send(bytes([byte]))

    thread = serve(tmp_path / "s", answer)
    heard: list[object] = []
    with Wire([tmp_path / "s"], 10) as wire:
        assert wire.call("execute", "{}", lambda method, params: heard.append((method, params))) == messages[2]
    assert heard == [("llmd.delta", messages[0]["params"]), ("llmd.budget", {})]
    thread.join()


def test_a_close_before_the_reply_is_a_lost_connection(tmp_path: Path) -> None:
    thread = serve(tmp_path / "s", lambda connection: None)
    with Wire([tmp_path / "s"], 10) as wire, pytest.raises(ConnectionLost):
        wire.call("execute")
    thread.join()


@pytest.mark.parametrize("line", [b"{", b"\xff", b"3", b"[" * 100_000])
def test_a_line_that_makes_no_sense_is_a_lost_connection(tmp_path: Path, line: bytes) -> None:
    thread = serve(tmp_path / "s", lambda connection: connection.sendall(line + b"\n"))
    with Wire([tmp_path / "s"], 10) as wire, pytest.raises(ConnectionLost):
        wire.receive()
    thread.join()


def test_a_wire_tells_that_the_other_end_has_gone_and_waits_for_nothing(tmp_path: Path) -> None:
    def read(connection: socket.socket) -> None:
        connection.recv(100)

    thread = serve(tmp_path / "s", read)
    with Wire([tmp_path / "s"]) as wire:
        assert not wire.ended()
        wire.send("{}")
        thread.join()
        assert wire.ended()
    assert wire.ended()


def test_an_interrupt_sends_a_cancel_and_goes_on(tmp_path: Path) -> None:
    received: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        reader = connection.makefile("rb")
        received.append(reader.readline())
        connection.sendall(b'{"method":"llmd.delta","params":{}}\n')
        received.append(reader.readline())
        connection.sendall(b'{"id":1,"error":{}}\n')

    def interrupt(method: str, params: object) -> None:
        raise KeyboardInterrupt

    thread = serve(tmp_path / "s", answer)
    with Wire([tmp_path / "s"], 10) as wire, pytest.raises(KeyboardInterrupt):
        wire.call("execute", "{}", interrupt)
    thread.join()
    assert json.loads(received[1]) == {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 1}}
