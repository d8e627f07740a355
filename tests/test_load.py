"""A daemon under load: many connections, many calls in flight, peers that misbehave, and nobody else is harmed."""

import json
import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.daemon import RunningDaemon, running_daemon
from tests.support.treasuries import pass_time
from tests.support.upstream import DELTA, LAST, Exchange, scripted
from tests.support.wish_http import Peer, connected

CONFIG = """
[providers.held]
dialect = "echo"
latency_ms = 600000
[ledger]
store = "memory"
"""
MIB = 2**20
PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'


@contextmanager
def raw(daemon: RunningDaemon, timeout_s: float = 20) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_s)
        connection.connect(str(daemon.socket))
        yield connection


def lines(connection: socket.socket, count: int) -> list[bytes]:
    buffer = bytearray()
    while buffer.count(b"\n") < count:
        data = connection.recv(2**20)
        assert data, f"closed behind {bytes(buffer[-200:])!r}"
        buffer += data
    return buffer.splitlines()


def answers(daemon: RunningDaemon) -> bool:
    with raw(daemon) as connection:
        connection.sendall(PING)
        return b'"result"' in lines(connection, 1)[0]


def descriptors_at_rest(daemon: RunningDaemon) -> int:
    """Behind an answer that comes when what the daemon loads by itself is there; less the connection that asks."""
    with daemon.wire() as wire:
        assert "result" in wire.call("models.list")
        return daemon.descriptors() - 1


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_connections_are_served_at_once_and_leave_nothing(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=CONFIG) as daemon:
        before = descriptors_at_rest(daemon)
        with ExitStack() as stack:
            connections = [stack.enter_context(raw(daemon)) for _ in range(1000)]
            for number, connection in enumerate(connections):
                params = {"model": "echo/echo", "prompt": f"p{number}"}
                request = {"jsonrpc": "2.0", "id": number, "method": "execute", "params": params}
                connection.sendall(json.dumps(request).encode() + b"\n")
            for number, connection in enumerate(connections):
                reply = json.loads(lines(connection, 1)[0])
                assert (reply["id"], reply["result"]["text"]) == (number, f"p{number}")
        assert answers(daemon)
        while daemon.descriptors() > before:  # they close one after the other
            assert answers(daemon)


@pytest.mark.deadline(120)
def test_ten_thousand_calls_are_in_flight_at_once_and_each_is_answered(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=CONFIG) as daemon, ExitStack() as stack:
        connections = [stack.enter_context(raw(daemon, 60)) for _ in range(40)]
        request = '{"jsonrpc":"2.0","id":%d,"method":"execute","params":{"model":"held/m","prompt":"p"}}\n'
        cancel = '{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":%d}}\n'
        for connection in connections:
            connection.sendall(
                "".join(request % number for number in range(250)).encode() + PING.replace(b"1,", b"-1,")
            )
        for connection in connections:
            assert json.loads(lines(connection, 1)[0])["id"] == -1  # all of them have begun
        # One more than a connection may have is busy; a ping and a cancel get in all the same.
        connections[0].sendall("".join(request % number for number in range(250, 260)).encode())
        busy = [json.loads(line)["error"]["data"]["kind"] for line in lines(connections[0], 4)]
        assert busy == ["busy"] * 4
        assert answers(daemon)
        for connection in connections:
            connection.sendall("".join(cancel % number for number in range(256)).encode())
        for number, connection in enumerate(connections):
            replies = [json.loads(line) for line in lines(connection, 256 if number == 0 else 250)]
            assert {reply["error"]["code"] for reply in replies} == {-32800}
            assert len({reply["id"] for reply in replies}) == len(replies)


def test_a_reader_that_never_reads_takes_no_more_memory_than_its_queue_may_have(tmp_path: Path) -> None:
    limit = 4 * MIB
    config = f"{CONFIG}\n[limits]\noutput_bytes = {limit}\nstalled_write_ms = 600000\n"
    with running_daemon(tmp_path, config=config) as daemon:
        with raw(daemon) as warm:
            warm.sendall(b'{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}\n')
            (document,) = lines(warm, 1)
        before = daemon.rss_bytes()
        with raw(daemon) as greedy:
            greedy.setblocking(False)
            request = b'{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}\n' * 1000
            asked = 0
            for _ in range(100):  # until the daemon reads no more from it
                try:
                    asked += greedy.send(request)
                except BlockingIOError:
                    break
            assert asked // 49 * len(document) > 20 * limit, "it asked for far more than the limit"
            assert answers(daemon)
            assert daemon.rss_bytes() - before < 2 * limit


def test_a_writer_of_single_bytes_keeps_nobody_waiting_and_is_answered(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=CONFIG) as daemon, raw(daemon) as slow:
        request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "execute", "params": {"prompt": "x" * 3000}})
        for number, byte in enumerate(request.encode()):
            slow.sendall(bytes([byte]))
            if number % 1000 == 0:
                assert answers(daemon)
        assert json.loads(lines(slow, 1)[0])["error"]["data"]["kind"] == "no_route"


@pytest.mark.deadline(120)
def test_two_hundred_mib_without_a_newline_are_refused_at_the_limit_and_not_kept(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=CONFIG) as daemon:
        assert answers(daemon)
        before, sent = daemon.rss_bytes(), 0
        with raw(daemon) as connection:
            connection.sendall(b'{"x": "')
            try:
                while sent < 200 * MIB:
                    sent += connection.send(b"x" * MIB)
            except (BrokenPipeError, ConnectionResetError):
                pass
            reply = json.loads(lines(connection, 1)[0])
        assert (reply["id"], reply["error"]["data"]["kind"]) == (None, "too_large")
        assert answers(daemon)
        assert daemon.rss_bytes() - before < 3 * 16 * MIB


def test_a_flood_of_connections_is_told_busy_and_harms_nobody(tmp_path: Path) -> None:
    config = f"{CONFIG}\n[limits]\nconnections = 20\n"
    with running_daemon(tmp_path, config=config) as daemon, raw(daemon) as mine:
        before = descriptors_at_rest(daemon)
        for _ in range(10):
            with ExitStack() as stack:
                flood = [stack.enter_context(raw(daemon)) for _ in range(100)]
                mine.sendall(PING)
                assert b'"result"' in lines(mine, 1)[0]
                told = json.loads(lines(flood[-1], 1)[0])
                assert (told["error"]["data"]["kind"], told["error"]["data"]["retryable"]) == ("busy", True)
        while daemon.descriptors() > before:
            mine.sendall(PING)
            assert lines(mine, 1)


async def streaming(exchange: Exchange, go: anyio.Event) -> None:
    await exchange.begin_stream()
    await exchange.event(DELTA)
    await go.wait()
    await exchange.event(LAST)
    await exchange.end_stream()


@pytest.mark.anyio
async def test_a_stop_in_the_middle_of_a_stream_finishes_it_and_refuses_what_comes(tmp_path: Path) -> None:
    go = anyio.Event()
    async with scripted(lambda exchange: streaming(exchange, go)) as upstream, anyio.create_task_group() as group:
        config = f'[providers.up]\nbase_url = "{upstream.url}"\n'
        with running_daemon(tmp_path, config=config) as daemon:
            async with connected(daemon.socket, group) as peer:
                budget = (await peer.call("budget.open", total=4000))["budget"]
                told: list[object] = []

                async def call() -> None:
                    params = {"model": "up/m", "prompt": "p", "stream": "s", "budget": budget, "max_tokens": 50}
                    told.append(await peer.call("execute", **params))

                group.start_soon(call)
                await upstream.until(lambda up: up.in_flight == 1)
                daemon.process.send_signal(signal.SIGTERM)
                while (await peer.call("execute", model="echo/echo", prompt="p")).get("data", {}).get(
                    "kind"
                ) != "shutting_down":
                    pass
                assert told == []
                go.set()
                while not told:
                    await pass_time(0.01)
                (done,) = told
                assert isinstance(done, dict)
                assert (done["text"], done["budget"]["settled"]["total_tokens"]) == ("one two", 7)
            assert await anyio.to_thread.run_sync(daemon.process.wait, 20) == 0
        with running_daemon(tmp_path, config=config) as again:
            async with connected(again.socket, group) as peer:
                kept = await peer.call("budget.get", budget=budget)
                assert (kept["settled"]["total_tokens"], kept["held"]["total_tokens"]) == (7, 0)
                await peer.close()
        group.cancel_scope.cancel()


async def retried(peer: Peer, params: dict[str, Any]) -> None:
    done = await peer.call("execute", **params)
    assert (done["text"], done["replayed"]) == ("hello", True)
    told = await peer.call("budget.get", budget=params["budget"])
    assert (told["settled"]["requests"], told["settled"]["total_tokens"]) == (1, 7)
    await peer.close()


@pytest.mark.anyio
@pytest.mark.parametrize("key", ["k", None])
async def test_a_call_whose_connection_is_killed_is_billed_once_with_a_key_and_aborted_without(
    tmp_path: Path, key: str | None
) -> None:
    go = anyio.Event()

    async def answer(exchange: Exchange) -> None:
        if key is None:
            await exchange.gone()
        else:
            await go.wait()
            await exchange.reply()

    async with scripted(answer) as upstream, anyio.create_task_group() as group:
        with running_daemon(tmp_path, config=f'[providers.up]\nbase_url = "{upstream.url}"\n') as daemon:
            params = {
                "model": "up/m",
                "prompt": "p",
                "max_tokens": 20,
                **({} if key is None else {"idempotency_key": key}),
            }
            lost: Peer
            async with connected(daemon.socket, group) as lost, anyio.create_task_group() as calling:
                params["budget"] = (await lost.call("budget.open", total=4000))["budget"]
                calling.start_soon(lambda: lost.call("execute", **params))
                await upstream.until(lambda up: up.in_flight == 1)
                await lost.close()
            if key is None:
                await upstream.until(lambda up: up.open == 0)
            else:
                async with connected(daemon.socket, group) as peer, anyio.create_task_group() as calling:
                    calling.start_soon(retried, peer, params)
                    await pass_time(0.01)
                    go.set()
            assert len(upstream.requests) == 1
        group.cancel_scope.cancel()


def test_descriptors_that_run_out_refuse_nobody_for_good(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=CONFIG) as daemon:
        soft, hard = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (daemon.descriptors() + 10, hard))
        with ExitStack() as stack:
            for _ in range(50):
                stack.enter_context(raw(daemon)).sendall(PING)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert answers(daemon)
        assert os.path.exists(daemon.socket)
