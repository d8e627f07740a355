"""The kernel says who connected, and a connection that has ended says nothing."""

import os
import socket

import pytest

from llmd.context import Peer
from llmd.transports.peers import labelled, tcp_peer, unix_peer
from tests.support.stranger import NOBODY, as_stranger, needs_root


def peer_of(connection: socket.socket) -> Peer:
    return tcp_peer("tcp", connection.getsockname(), connection.getpeername())


def test_a_unix_peer_is_known_by_uid_and_pid() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = unix_peer(ours)
    assert (peer.transport, peer.uid, peer.pid, peer.own) == ("unix", os.geteuid(), os.getpid(), True)


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_loopback_peer_is_known_by_uid(family: socket.AddressFamily, host: str) -> None:
    with socket.create_server((host, 0), family=family) as server, socket.socket(family) as client:
        client.connect(server.getsockname())
        with server.accept()[0] as connection:
            assert peer_of(connection) == ("tcp", os.geteuid(), None, True, None)


def test_a_peer_that_has_closed_is_a_stranger() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        with server.accept()[0] as connection:
            here, there = connection.getsockname(), connection.getpeername()
            client.close()
            assert connection.recv(1) == b""
            peer = tcp_peer("tcp", here, there)
    assert (peer.uid, peer.own) == (None, False)


@needs_root
def test_another_user_over_loopback_is_not_our_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        held: list[socket.socket] = []

        def connect() -> bytes:
            client = socket.create_connection(address)
            with server.accept()[0] as connection:
                held.append(client)
                peer = peer_of(connection)
                return f"{peer.uid} {peer.own}".encode()

        # The judge is the stranger here: what counts is whose socket the other end is.
        assert as_stranger(connect) == f"{NOBODY} True".encode()
        client = socket.create_connection(address)
        with client, server.accept()[0] as connection:
            assert peer_of(connection).uid == 0


def test_a_listed_uid_has_its_labels_on_every_transport() -> None:
    listed = {1001: {"trust": "review"}}
    for peer in (Peer("unix", 1001, 1, own=False), Peer("tcp", 1001, None, own=False)):
        assert labelled(peer, listed).labels == {"trust": "review"}
    for peer in (Peer("unix", 1002, 1, own=False), Peer("http", None, None, own=False)):
        assert labelled(peer, listed).labels is None
