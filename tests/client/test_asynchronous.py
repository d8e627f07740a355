"""AsyncClient, on asyncio and trio: many calls at once on one connection, streams, budgets, cancels, a lost daemon."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.abc import SocketStream

from llmd import AsyncClient, Completion, LLMBudgetExceededError, LLMError, NoDaemon
from llmd.client import asynchronous
from llmd.client.connection import connect
from tests.support.daemon import running_daemon
from tests.support.library import M1
from tests.support.upstream import Exchange, scripted

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])]

SLOW = """
[providers.slow]
dialect = "echo"
latency_ms = 60000
"""


async def test_calls_on_one_connection_are_in_flight_together(tmp_path: Path) -> None:
    together = anyio.Event()

    async def script(exchange: Exchange) -> None:
        if upstream.in_flight == 20:
            together.set()
        await together.wait()
        await exchange.reply()

    async with scripted(script) as upstream:
        with running_daemon(tmp_path, config=M1.format(url=upstream.url)):
            made: list[Completion] = []

            async def call() -> None:
                made.append(await client.execute(model="work/m1", prompt="x"))

            async with AsyncClient() as client, anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(call)
    assert [completion.text for completion in made] == ["hello"] * 20
    assert upstream.peak == 20


async def test_a_stream_is_deltas_and_then_the_completion(tmp_path: Path) -> None:
    with running_daemon(tmp_path):
        async with AsyncClient() as client:
            async with (
                client.stream(model="echo/echo", prompt="one two three") as stream,
                client.stream(model="echo/echo", prompt="four five") as other,
            ):
                assert [delta.text async for delta in stream] == ["one", " two", " three"]
                assert [delta.text async for delta in other] == ["four", " five"]
                assert (await stream.completion()).text == "one two three"
            with pytest.raises(LLMError, match="nobody"):
                async with client.stream(model="nobody/m", prompt="x") as stream:
                    await anext(stream)


async def test_a_cancelled_call_is_aborted_upstream_and_the_connection_goes_on(tmp_path: Path) -> None:
    aborted = anyio.Event()

    async def script(exchange: Exchange) -> None:
        if exchange.number:
            await exchange.reply()
            return
        scope.cancel()
        await exchange.gone()
        aborted.set()

    async with scripted(script) as upstream:
        with running_daemon(tmp_path, config=M1.format(url=upstream.url)):
            async with AsyncClient() as client:
                with anyio.CancelScope() as scope:
                    await client.execute(model="work/m1", prompt="x")
                await aborted.wait()
                assert (await client.execute(model="work/m1", prompt="x")).text == "hello"


async def test_leaving_a_stream_aborts_it_upstream(tmp_path: Path) -> None:
    aborted = anyio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.event({"choices": [{"delta": {"content": "one "}}]})
        await exchange.gone()
        aborted.set()

    async with scripted(script) as upstream:
        with running_daemon(tmp_path, config=M1.format(url=upstream.url)):
            async with AsyncClient() as client:
                async with client.stream(model="work/m1", prompt="x") as stream:
                    assert (await anext(stream)).text == "one "
                await aborted.wait()


async def test_a_budget_is_open_as_long_as_its_block(tmp_path: Path) -> None:
    with running_daemon(tmp_path):
        async with AsyncClient() as client:
            async with client.budget(total=4000) as outer, outer.budget(total=1000) as inner:
                await client.execute_many([{"model": "echo/echo", "prompt": "x"}], budget=inner.handle)
                with pytest.raises(LLMBudgetExceededError):
                    await client.execute(model="echo/echo", prompt="x", max_tokens=2000, budget=inner.handle)
                assert (await inner.charge(total_tokens=8)).settled.total_tokens == 10
                assert (await inner.resize(limits={"total_tokens": 500})).limits == {"total_tokens": 500}
                assert (await outer.snapshot()).settled.total_tokens == 10
            with pytest.raises(LLMError) as closed:
                await outer.snapshot()
            assert closed.value.kind == "budget_closed"
            assert await outer.close() is None


async def test_an_error_leaves_the_block_as_it_is(tmp_path: Path) -> None:
    with running_daemon(tmp_path):
        with pytest.raises(ZeroDivisionError):
            async with AsyncClient() as client, client.budget(total=1):
                _ = 1 / 0
        with pytest.raises(LLMError, match="nobody"):
            async with AsyncClient() as client:
                await client.execute(model="nobody/m", prompt="x")


async def test_without_a_daemon_there_is_no_client(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon, match="no daemon listens on"):
        async with AsyncClient(tmp_path / "nobody.sock"):
            pass


async def killed(directory: Path, *, reconnect: bool) -> tuple[Any, int]:
    """What a call ends with whose daemon is killed and replaced by another; how many were sent, with the next one."""
    ends: list[Any] = []

    async def call() -> None:
        try:
            ends.append(await client.execute(model="work/m1", prompt="x"))
        except LLMError as error:
            ends.append(error)
        ended.set()

    async def script(exchange: Exchange) -> None:
        if exchange.number:
            await exchange.reply()
            return
        calling.set()
        await exchange.gone()

    calling, ended = anyio.Event(), anyio.Event()
    async with scripted(script) as upstream:
        config = M1.format(url=upstream.url)
        with running_daemon(directory, config=config) as first:
            async with AsyncClient(reconnect=reconnect) as client, anyio.create_task_group() as group:
                group.start_soon(call)
                await calling.wait()
                first.process.kill()
                first.process.wait(10)
                with running_daemon(directory, config=config):
                    await ended.wait()
                    assert (await client.execute(model="work/m1", prompt="y")).text == "hello"
    return ends[0], len(upstream.requests)


async def test_a_lost_daemon_leaves_the_outcome_unknown_and_the_next_call_finds_the_new_one(tmp_path: Path) -> None:
    end, sent = await killed(tmp_path, reconnect=False)
    assert (end.kind, end.retryable, sent) == ("outcome_unknown", False, 2)


async def test_asked_to_reconnect_a_call_is_asked_for_again_and_not_paid_twice(tmp_path: Path) -> None:
    end, sent = await killed(tmp_path, reconnect=True)
    # The new daemon knows that it had begun, and does not make it again.
    assert (end.kind, sent) == ("outcome_unknown", 2)
    assert "posted" in end.data


@asynccontextmanager
async def answering(path: Path, *answers: bytes) -> AsyncIterator[list[bytes]]:
    """A server that closes each connection behind one request, answered with the next of these; the requests."""
    requests: list[bytes] = []

    async def answer(stream: SocketStream) -> None:
        async with stream:
            requests.append(await stream.receive())
            await stream.send(b"".join(answers[len(requests) - 1 : len(requests)]))

    async with await anyio.create_unix_listener(path) as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, answer)
        yield requests
        group.cancel_scope.cancel()


async def test_a_daemon_that_every_request_kills_is_not_asked_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asynchronous, "RECONNECT_S", 0.2)
    most = 2 + round(0.2 / asynchronous.PAUSE_S)
    async with answering(tmp_path / "s") as requests, AsyncClient(tmp_path / "s", reconnect=True) as client:
        with pytest.raises(LLMError) as caught:
            await client.execute(prompt="x")
    assert caught.value.kind == "outcome_unknown"
    assert 2 <= len(requests) <= most


async def test_a_stream_that_was_lost_waits_for_a_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(sockets: Sequence[Path]) -> Any:
        monkeypatch.setattr(asynchronous, "connect", connect)
        raise NoDaemon(sockets)

    done = b'{"id":1,"error":{"code":1,"message":"done","data":{"kind":"no_route"}}}\n'
    async with (
        answering(tmp_path / "s", b"", done),
        AsyncClient(tmp_path / "s", reconnect=True) as client,
        client.stream(prompt="x") as stream,
    ):
        monkeypatch.setattr(asynchronous, "connect", gone)
        with pytest.raises(LLMError, match="done"):
            await stream.completion()


@pytest.mark.parametrize("reconnect", [False, True])
async def test_a_prompt_that_is_too_long_is_refused_at_once_and_fails_no_other_call(
    tmp_path: Path, *, reconnect: bool
) -> None:
    called, go = anyio.Event(), anyio.Event()

    async def script(exchange: Exchange) -> None:
        called.set()
        await go.wait()
        await exchange.reply()

    async def slow() -> None:
        assert (await client.execute(model="work/m1", prompt="x")).text == "hello"

    async def small() -> None:
        assert (await client.execute(model="echo/echo", prompt="small")).text == "small"

    async def large() -> None:
        with pytest.raises(LLMError) as caught:
            await client.execute(model="echo/echo", prompt="x" * 10_000)
        assert caught.value.kind == "too_large"

    async with scripted(script) as upstream:
        with running_daemon(tmp_path, config="[limits]\nframe_bytes = 10000\n" + M1.format(url=upstream.url)):
            async with AsyncClient(reconnect=reconnect) as client, anyio.create_task_group() as slowly:
                slowly.start_soon(slow)
                await called.wait()
                async with anyio.create_task_group() as group:
                    group.start_soon(large)
                    group.start_soon(small)
                await small()
                go.set()


@pytest.mark.parametrize("reconnect", [False, True])
async def test_a_daemon_that_has_no_room_for_a_connection_says_so(tmp_path: Path, *, reconnect: bool) -> None:
    with running_daemon(tmp_path, config="[limits]\nconnections = 1\n") as daemon, daemon.wire() as first:
        first.call("daemon.info")
        with pytest.raises(LLMError) as caught:
            async with AsyncClient(reconnect=reconnect) as client:
                await client.execute(model="echo/echo", prompt="x")
    assert (caught.value.kind, caught.value.retryable) == ("busy", True)


async def test_outside_its_block_a_client_says_so(tmp_path: Path) -> None:
    client = AsyncClient()
    with pytest.raises(RuntimeError, match="in its block"):
        await client.execute(prompt="x")
    with running_daemon(tmp_path):
        async with client:
            assert (await client.execute(model="echo/echo", prompt="x")).text == "x"
        with pytest.raises(RuntimeError, match="in its block"):
            await client.execute(prompt="x")


async def test_what_leaves_the_block_of_a_budget_is_raised_though_the_daemon_has_gone(tmp_path: Path) -> None:
    async def broken() -> None:
        async with client.budget(total=4000):
            await anyio.to_thread.run_sync(daemon.stop)
            raise ZeroDivisionError

    with running_daemon(tmp_path) as daemon:
        async with AsyncClient() as client:
            with pytest.raises(ZeroDivisionError):
                await broken()
