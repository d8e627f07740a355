"""Who is at the other end of a connection, as the kernel tells it."""

import os
import select
import socket
import struct
import sys
from collections.abc import Mapping
from typing import Any, Literal

import anyio

from llmd.context import Peer

# linux/socket.h; Python names SO_PEERCRED but has no struct for it: pid, uid, gid.
_UCRED = struct.Struct("3i")
# linux/sock_diag.h and inet_diag.h: one request for the socket with these addresses, and the head of its answer.
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSGHDR = struct.Struct("=IHHII")
_SOCKID = struct.Struct("!HH16s16s")
_INET_DIAG_REQ = struct.Struct("=BBBBI")
# ESTABLISHED, FIN_WAIT1 and FIN_WAIT2 (that side has shut its writing down) and CLOSE_WAIT.
_TCP_STATES = frozenset({1, 4, 5, 8})
_TCP_STATES_MASK = sum(1 << state for state in _TCP_STATES)
_ANY_COOKIE = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
_UID_OFFSET = _NLMSGHDR.size + 4 + _SOCKID.size + 12 + 12


def unix_peer(connection: socket.socket) -> Peer:
    """Uid and pid of whoever connected."""
    if sys.platform == "linux":
        pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    else:
        # BSD's struct xucred: version, uid, ... ; LOCAL_PEERCRED is 1 on level 0.
        pid, uid = None, struct.unpack("2I", connection.getsockopt(0, 1, 76)[:8])[1]
    return Peer("unix", uid, pid, uid == os.geteuid())


def tcp_peer(transport: Literal["tcp", "http"], here: tuple[Any, ...], there: tuple[Any, ...]) -> Peer:
    """Uid of whoever connected over loopback; None where the kernel does not say, which counts as a stranger.

    here there  the addresses of our end and of theirs, as `getsockname` and `getpeername` give them
    """
    try:
        uid = _loopback_uid(here, there) if sys.platform == "linux" else None
    except OSError:
        uid = None
    return Peer(transport, uid, None, uid is not None and uid == os.geteuid())


def _loopback_uid(here: tuple[Any, ...], there: tuple[Any, ...]) -> int | None:
    """The owner of the connection's other end. After a close the kernel reports uid 0, but no inode then."""
    family = socket.AF_INET6 if ":" in here[0] else socket.AF_INET
    # Seen from the peer: its own address comes first.
    sockid = _SOCKID.pack(there[1], here[1], _packed(family, there[0]), _packed(family, here[0]))
    request = _INET_DIAG_REQ.pack(family, socket.IPPROTO_TCP, 0, 0, _TCP_STATES_MASK) + sockid + _ANY_COOKIE
    header = _NLMSGHDR.pack(_NLMSGHDR.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(1)
        netlink.sendto(header + request, (0, 0))
        answer = netlink.recv(4096)
    kind = _NLMSGHDR.unpack_from(answer)[1]
    if kind != _SOCK_DIAG_BY_FAMILY or len(answer) < _UID_OFFSET + 8:
        return None
    state = answer[_NLMSGHDR.size + 1]
    uid: int
    uid, inode = struct.unpack_from("=II", answer, _UID_OFFSET)
    return uid if state in _TCP_STATES and inode else None


def labelled(peer: Peer, listed: Mapping[int, Mapping[str, str]]) -> Peer:
    """The peer with what the configuration fixes for its uid, if that is listed."""
    return peer if peer.uid is None or peer.uid not in listed else peer._replace(labels=listed[peer.uid])


async def hung_up(descriptor: int) -> None:
    """Return at POLLHUP: the peer has closed or reset, not just shut one side. Never, where none can tell."""
    try:
        epoll = select.epoll(1)
    except (AttributeError, OSError):  # not on this system, or out of descriptors
        await anyio.sleep_forever()
    try:
        # An epoll on no events still reports EPOLLHUP, and is itself readable when it does.
        epoll.register(descriptor, 0)
        await anyio.wait_readable(epoll.fileno())
    finally:
        epoll.close()


def _packed(family: int, host: str) -> bytes:
    return socket.inet_pton(family, host).ljust(16, b"\0")
