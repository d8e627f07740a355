"""Calls that are cut short: the attempt is aborted upstream, and its hold posts the bound, once."""

import anyio
import msgspec
import pytest

from llmd.budgets import Posting
from llmd.catalog import Catalog
from llmd.chat import Delta
from llmd.errors import LLMError
from llmd.executor import Executor
from llmd.providers import AiohttpTransport
from llmd.upstreams import Upstreams
from tests.support.calls import ask
from tests.support.executing import Recorder, answering, context, executing, provider
from tests.support.upstream import OK, Exchange, scripted

pytestmark = pytest.mark.anyio


class Silent:
    """A script that says nothing, and knows when the client has gone."""

    def __init__(self) -> None:
        self.reached = anyio.Event()
        self.gone = anyio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        self.reached.set()
        await exchange.gone()
        self.gone.set()


async def test_a_cancelled_call_aborts_upstream_and_posts_its_bound_once() -> None:
    budgets, silent = Recorder(), Silent()
    async with executing(silent, budgets) as made:
        async with anyio.create_task_group() as group:
            group.start_soon(made.execute, ask(model="work/m1"), context())
            await silent.reached.wait()
            group.cancel_scope.cancel()
        assert budgets.posted_its_bound()
        await silent.gone.wait()


async def test_a_deadline_aborts_upstream_posts_the_bound_and_says_how_long_it_took() -> None:
    budgets, silent = Recorder(), Silent()
    async with executing(silent, budgets) as made:
        with pytest.raises(LLMError) as caught:
            await made.execute(ask(model="work/m1", timeout_ms=50), context())
        assert caught.value.kind == "deadline_exceeded"
        assert caught.value.data["elapsed_ms"] >= 50
        assert budgets.posted_its_bound()
        await silent.gone.wait()


async def test_a_deadline_that_passed_in_a_queue_sends_nothing() -> None:
    budgets = Recorder()
    async with executing(Silent(), budgets) as made:
        ctx = msgspec.structs.replace(context(), received=anyio.current_time() - 10)
        with pytest.raises(LLMError) as caught:
            await made.execute(ask(model="work/m1", timeout_ms=50), ctx)
    assert caught.value.kind == "deadline_exceeded"
    assert budgets.postings == []


async def test_a_call_that_is_cancelled_while_it_waits_for_its_place_has_cost_nothing() -> None:
    budgets, silent = Recorder(), Silent()
    async with executing(silent, budgets, max_concurrency=1) as made, anyio.create_task_group() as group:
        group.start_soon(made.execute, ask(model="work/m1"), context())
        await silent.reached.wait()
        with anyio.CancelScope() as waiting:
            async with anyio.create_task_group() as inner:
                inner.start_soon(made.execute, ask(model="work/m1"), context())
                await anyio.wait_all_tasks_blocked()
                assert len(budgets.holds) == 2
                waiting.cancel()
        assert budgets.postings == [Posting(None)]
        group.cancel_scope.cancel()
    assert budgets.postings[1].uncertain


async def test_bytes_leave_only_when_the_hold_is_durable() -> None:
    async def never(exchange: Exchange) -> None:
        raise AssertionError("a request has left")

    budgets = Recorder(undispatched=LLMError("ledger_unavailable", "no"))
    async with executing(never, budgets) as made:
        with pytest.raises(LLMError) as caught:
            await made.execute(ask(model="work/m1"), context())
    assert caught.value.kind == "ledger_unavailable"
    assert budgets.only() == Posting(None)


async def test_an_emit_that_raises_posts_the_bound_and_lets_its_error_through() -> None:
    async def emit(delta: Delta) -> None:
        raise ConnectionResetError

    budgets = Recorder()
    async with executing(answering(OK), budgets) as made:
        with pytest.raises(ConnectionResetError):
            await made.execute(ask(model="work/m1"), context(), emit)
    assert budgets.posted_its_bound()


async def test_calls_in_flight_keep_the_upstreams_that_they_began_with() -> None:
    go = anyio.Event()

    async def slow(exchange: Exchange) -> None:
        await go.wait()
        await exchange.reply()

    async with scripted(slow) as upstream, AiohttpTransport() as transport:
        rows = [{"work": provider(base_url=upstream.url)}, {"echo": provider("echo")}]
        found = [Upstreams(Catalog(providers=row, default_model=None), {}, lambda: transport) for row in rows]
        current: list[Upstreams] = found[:1]
        made = Executor(lambda: current[0], Recorder())
        done = []

        async def call() -> None:
            done.append(await made.execute(ask(model="work/m1"), context()))

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await upstream.until(lambda up: up.in_flight == 1)
            current[:] = found[1:]
            assert (await made.execute(ask(model="echo/echo"), context())).text == "hello"
            go.set()
    assert done[0].text == "hello"
