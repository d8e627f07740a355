"""JSON-RPC frames over TCP: on loopback only, the daemon's own user without a token, everyone else with it."""

import logging
import socket
from collections.abc import Callable

from anyio.abc import SocketAttribute, SocketListener, SocketStream, TaskGroup

from llmd.rpc.hub import Hub
from llmd.rpc.output import CHUNK_BYTES
from llmd.rpc.session import Session
from llmd.transports.accepting import accept_all
from llmd.transports.peers import hung_up, labelled, tcp_peer

log = logging.getLogger("llmd.transports")


class TcpByteStream:
    """A connection as a session reads it. An EOF is a half-close: TCP tells a close only by a reset."""

    def __init__(self, stream: SocketStream, raw: socket.socket) -> None:
        self._receive = stream.receive
        self.send = stream.send
        self.send_eof = stream.send_eof
        self._descriptor = raw.fileno()

    async def read(self, take: Callable[[bytes], bool]) -> None:
        data = b""
        while take(data):
            data = await self._receive(CHUNK_BYTES)

    def send_now(self, data: bytes | memoryview) -> int:
        return 0

    async def hung_up(self) -> None:
        await hung_up(self._descriptor)


async def serve(listener: socket.socket, hub: Hub, group: TaskGroup, require_token: bool) -> None:
    """Accept until the daemon stops. Connections are tasks of `group`; our own user's need no token."""

    async def serve_connection(stream: SocketStream) -> None:
        try:
            raw = stream.extra(SocketAttribute.raw_socket)
            here, there = raw.getsockname(), raw.getpeername()
        except (AttributeError, OSError):  # uvloop has no socket any more, which anyio does not expect
            log.debug("a connection over TCP: gone before it was served")
            return
        peer = labelled(tcp_peer("tcp", here, there), hub.listed())
        await Session(hub, TcpByteStream(stream, raw), peer, authorized=peer.own and not require_token).run()

    await accept_all(await SocketListener.from_socket(listener), hub, group, serve_connection)
