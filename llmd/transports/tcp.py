"""JSON-RPC frames over TCP: on loopback only, the daemon's own user without a token, everyone else with it."""

import ipaddress
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import anyio
from anyio.abc import SocketAttribute, SocketStream

from llmd.errors import ConfigError
from llmd.rpc.hub import Hub
from llmd.rpc.output import CHUNK_BYTES
from llmd.rpc.session import Session
from llmd.transports.peers import tcp_peer

BACKLOG = 1024


def loopback_address(url: str) -> tuple[str, int]:
    """Host and port of "tcp://127.0.0.1:9998". Raises ConfigError for anything but loopback."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if host == "localhost":
        host = "127.0.0.1"
    if port is None or parts.path not in ("", "/"):
        raise ConfigError([f"{url!r} is no address to listen on: write it as tcp://127.0.0.1:9998"])
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(
            [f"{url!r} is not on this machine alone: listen on 127.0.0.1 or [::1] and put ssh or a TLS proxy in front"]
        )
    return host, port


def bound(url: str) -> socket.socket:
    """A listening socket at this loopback URL. Raises ConfigError, or OSError where the port is taken."""
    host, port = loopback_address(url)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


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


async def serve_connection(hub: Hub, stream: SocketStream, require_token: bool) -> None:
    """Serve one accepted connection to its end; without a token only if the kernel says that it is our own user's."""
    peer = tcp_peer(stream.extra(SocketAttribute.raw_socket))
    await Session(hub, TcpByteStream(stream), peer, authorized=peer.own and not require_token).run()
