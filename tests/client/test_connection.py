"""One connection for many calls: replies find who waits for them however they come, and a cancel leaves it whole."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from llmd.chat import ErrorObject
from llmd.client.connection import Connection, Lost, Unread, connect
from llmd.client.wire import NoDaemon

pytestmark = pytest.mark.anyio


class Peer:
    """The other end, read and written by the test."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        end.setblocking(False)
        self._read = b""

    async def line(self) -> str:
        while b"\n" not in self._read:
            await anyio.wait_readable(self.end)
            self._read += self.end.recv(65536)
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    def say(self, text: str) -> None:
        self.end.sendall(text.encode())


@asynccontextmanager
async def pair(directory: Path) -> AsyncIterator[tuple[Connection, Peer]]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "s"))
        listener.listen()
        made = await connect([directory / "s"])
        peer = Peer(listener.accept()[0])
        with peer.end:
            async with anyio.create_task_group() as group:
                group.start_soon(made.run)
                yield made, peer
                group.cancel_scope.cancel()


async def test_replies_in_any_order_and_in_pieces_find_their_calls(tmp_path: Path) -> None:
    async with pair(tmp_path) as (made, peer), made.exchange("a", {}) as first, made.exchange("b", {}) as second:
        assert ['"id":1' in await peer.line(), '"id":2' in await peer.line()] == [True, True]
        for byte in '{"id":2,"result":"two"}\n{"method":"llmd.news","params":{}}\n{"id":1,"result":"one"}\n':
            peer.say(byte)
        assert [bytes((await one.reply()).result) for one in (first, second)] == [b'"one"', b'"two"']


async def test_a_cancelled_call_says_so_behind_its_request_and_waits_for_the_reply(tmp_path: Path) -> None:
    said: list[str] = []

    async def answer() -> None:
        said.append(await peer.line())
        scope.cancel()
        said.append(await peer.line())
        peer.say('{"id":1,"error":{"code":-32800,"message":"m","data":{}}}\n')

    async with pair(tmp_path) as (made, peer), anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            async with made.exchange("a", {}) as exchange:
                group.start_soon(answer)
                await exchange.reply()
        assert exchange.over
    assert said[1] == '{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":1}}'


async def test_whoever_waits_when_the_connection_ends_gets_to_know(tmp_path: Path) -> None:
    async with pair(tmp_path) as (made, peer):
        async with made.exchange("a", {}) as one:
            peer.end.close()
            with pytest.raises(Lost):
                await one.reply()
        with pytest.raises(Lost):
            await made.call("a", {})


@pytest.mark.parametrize(
    "line", [b"{", b'{"id":"x"}', b'{"id":1,"method":"\xff"}', b'{"id":1,"result":' + b"[" * 100_000]
)
async def test_a_line_that_makes_no_sense_ends_the_connection_and_nothing_else(tmp_path: Path, line: bytes) -> None:
    async with pair(tmp_path) as (made, peer):
        async with made.exchange("a", {}) as one:
            await peer.line()
            for begin in range(0, len(line), 1000):
                await anyio.wait_writable(peer.end)
                peer.end.sendall(line[begin : begin + 1000])
            peer.say("\n")
            with pytest.raises(Lost):
                await one.reply()
        await anyio.wait_all_tasks_blocked()  # it has ended by now, and raised nothing
        assert made.lost


async def test_a_request_that_is_too_long_is_refused_at_once_and_what_came_behind_it_was_not_read(
    tmp_path: Path,
) -> None:
    async with (
        pair(tmp_path) as (made, peer),
        made.exchange("a", {}) as before,
        made.exchange("b", "x" * 1000) as long,
        made.exchange("c", {}) as behind,
    ):
        peer.say('{"id":null,"error":{"code":1,"message":"m","data":{"kind":"too_large","limit":1000}}}\n')
        assert (await long.reply()).error == ErrorObject(1, "m", {"kind": "too_large", "limit": 1000})
        with pytest.raises(Unread):
            await behind.reply()
        with pytest.raises(Unread):
            await made.call("d", {})
        assert not before.over
        peer.say('{"id":1,"result":1}\n')
        assert bytes((await before.reply()).result) == b"1"


async def test_where_a_connection_is_refused_what_is_left_at_its_end_is_refused(tmp_path: Path) -> None:
    async with pair(tmp_path) as (made, peer), made.exchange("a", {}) as one, made.exchange("b", {}) as other:
        peer.say('{"id":null,"error":{"code":1,"message":"m","data":{"kind":"busy"}}}\n{"id":1,"result":1}\n')
        assert bytes((await one.reply()).result) == b"1"
        with pytest.raises(Unread):
            await made.call("d", {})
        assert not other.over
        peer.end.close()
        assert (await other.reply()).error == ErrorObject(1, "m", {"kind": "busy"})


async def test_nobody_anywhere_names_every_socket_that_was_tried(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon, match=r"no daemon listens on \S*/a or \S*/bbb"):
        await connect([tmp_path / "a", tmp_path / ("b" * 200)])
