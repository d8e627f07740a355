"""JSON-RPC frames over TCP: on loopback only, the daemon's own user without a token, everyone else with it."""

import socket
from collections.abc import Callable

import anyio
from anyio.abc import SocketAttribute, SocketListener, SocketStream, TaskGroup

from llmd.rpc.hub import Hub
from llmd.rpc.output import CHUNK_BYTES
from llmd.rpc.session import Session
from llmd.transports.accepting import accept_all
from llmd.transports.peers import tcp_peer


class TcpByteStream:
    """A connection as a session reads it. TCP cannot tell a half-close from a close: an EOF is taken for the former."""

    def __init__(self, stream: SocketStream) -> None:
        self._receive = stream.receive
        self.send = stream.send
        self.send_eof = stream.send_eof

    async def read(self, take: Callable[[bytes], bool]) -> None:
        data = b""
        while take(data):
            data = await self._receive(CHUNK_BYTES)

    def send_now(self, data: bytes | memoryview) -> int:
        return 0

    async def hung_up(self) -> None:
        await anyio.sleep_forever()


async def serve(listener: socket.socket, hub: Hub, group: TaskGroup, require_token: bool) -> None:
    """Accept until cancelled; connections are tasks of `group`. By the kernel's word, our own user needs no token."""

    async def serve_connection(stream: SocketStream) -> None:
        raw = stream.extra(SocketAttribute.raw_socket)
        peer = tcp_peer("tcp", raw.getsockname(), raw.getpeername())
        await Session(hub, TcpByteStream(stream), peer, authorized=peer.own and not require_token).run()

    await accept_all(await SocketListener.from_socket(listener), group, serve_connection)
