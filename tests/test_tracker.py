"""BudgetTracker: one budget that adapters, threads and tasks share, whose limit no crowd passes."""

import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest

from llmd import BudgetTracker, LLMBudgetExceededError, LLMError, RunConfig, create_adapter, engine
from llmd.engine import Engine
from tests.support.library import M1, configure, library
from tests.support.upstream import Exchange, scripted

both_loops = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


TIGHT = """
[providers.tight]
dialect = "echo"
overhead_tokens = 0
"""


@pytest.fixture(autouse=True)
def own_library() -> Iterator[None]:
    with library():
        yield


def call(tracker: BudgetTracker, prompt: str = "x", **config: Any) -> int:
    """The tokens that it has cost."""
    made = create_adapter("echo/echo").execute_prompt(prompt, RunConfig(budget_tracker=tracker, **config))
    return made.usage.total_tokens


def test_calls_on_any_adapter_are_paid_by_the_tracker_that_they_share() -> None:
    tracker = BudgetTracker(total=4000, label="A")
    assert call(tracker, "a b") + call(tracker, "c") == 6
    told = tracker.snapshot()
    assert (told.settled.total_tokens, told.label, told.available["total_tokens"]) == (6, "A", 3994)


def test_a_call_that_would_pass_the_limit_is_refused_with_an_error_of_its_own() -> None:
    tracker = BudgetTracker(total=4000)
    with pytest.raises(LLMBudgetExceededError) as caught:
        call(tracker, max_tokens=4000)
    error = caught.value
    assert isinstance(error, LLMError)
    assert (error.kind, error.retryable, error.data["available"]) == ("budget_exceeded", False, 4000)
    assert tracker.snapshot().settled.requests == 0


@pytest.mark.anyio
async def test_a_child_under_64_threads_never_passes_its_parent() -> None:
    """Looked at all the time, and until nobody gets any more."""
    configure(TIGHT)
    tracker, adapter, ends = BudgetTracker(total=4000), create_adapter("tight/echo"), []

    def spend(child: BudgetTracker) -> None:
        config = RunConfig(budget_tracker=child, max_tokens=40)
        while True:
            try:
                adapter.execute_prompt("word " * 20, config)
            except LLMBudgetExceededError as error:
                ends.append(error.kind)
                return
            for told in (child.snapshot(), tracker.snapshot()):
                assert told.settled.total_tokens + told.held.total_tokens <= told.limits["total_tokens"]
                assert told.overrun.total_tokens == 0

    with ThreadPoolExecutor(64) as threads:
        children = [tracker.child(total=1000) for _ in range(8)]
        running = [threads.submit(spend, children[number % 8]) for number in range(64)]
        for one in running:
            await anyio.to_thread.run_sync(one.result)
    told = tracker.snapshot()
    assert ends == ["budget_exceeded"] * 64
    assert (told.held.total_tokens, told.children) == (0, 8)
    assert sum(child.snapshot().settled.total_tokens for child in children) == told.settled.total_tokens
    assert 3500 < told.settled.total_tokens <= 4000


@pytest.mark.anyio
@both_loops
async def test_one_that_only_holds_stand_in_the_way_of_waits_first() -> None:
    first = anyio.Event()

    async def script(exchange: Exchange) -> None:
        if not exchange.number:
            first.set()
            await answer.wait()
        await exchange.reply()

    answer = anyio.Event()
    async with scripted(script) as upstream:
        with library(M1.format(url=upstream.url)):
            adapter, tracker = create_adapter("work/m1"), BudgetTracker(total=1500)
            config = RunConfig(budget_tracker=tracker, max_tokens=800, fit="refuse")
            with tracker:
                async with anyio.create_task_group() as group:
                    group.start_soon(adapter.async_execute_prompt, "x", config)
                    await first.wait()
                    with pytest.raises(LLMBudgetExceededError) as caught:
                        await adapter.async_execute_prompt("x", config.replace(wait_ms=0))
                    assert (caught.value.kind, caught.value.retryable) == ("budget_contended", True)
                    group.start_soon(adapter.async_execute_prompt, "x", config)
                    assert len(upstream.requests) == 1
                    answer.set()
            assert len(upstream.requests) == 2


def test_threads_that_come_together_open_it_once() -> None:
    tracker = BudgetTracker(total=4000)
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda _: call(tracker), range(32)))
    assert (tracker.snapshot().settled.requests, tracker.snapshot().held.requests) == (32, 0)


def test_it_is_limited_in_any_unit() -> None:
    tracker = BudgetTracker(limits={"requests": 2, "usd": "0.50"}, guarantee={"requests": 1})
    call(tracker)
    call(tracker)
    with pytest.raises(LLMBudgetExceededError) as caught:
        call(tracker)
    assert caught.value.data["limiting"].unit == "requests"
    assert tracker.snapshot().limits == {"requests": 2, "nano_usd": 500_000_000}


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({}, ""),
        ({"total": 1, "limits": {"requests": 1}}, ""),
        ({"total": -1}, "total"),
        ({"limits": {"x": 1}}, "limits"),
    ],
)
def test_terms_that_are_none_are_refused_at_once(given: dict[str, Any], path: str) -> None:
    with pytest.raises(LLMError) as caught:
        BudgetTracker(**given)
    assert caught.value.kind == "invalid_params"
    assert caught.value.data["path"].startswith(path)


def test_a_block_closes_it_and_what_is_below() -> None:
    with BudgetTracker(total=4000) as tracker, tracker.child(total=1000) as child:
        call(child)
    assert [one.snapshot().state for one in (tracker, child)] == ["closed", "closed"]
    assert tracker.snapshot().settled.total_tokens == 2
    for one in (tracker, child, tracker.child(total=1)):
        with pytest.raises(LLMError) as caught:
            call(one)
        assert caught.value.kind == "budget_closed"
    tracker.close()


def test_one_that_nothing_has_used_closes_as_well() -> None:
    with BudgetTracker(total=4000) as tracker:
        pass
    with pytest.raises(LLMError, match="closed"):
        call(tracker)


@pytest.mark.anyio
@both_loops
async def test_an_exception_that_leaves_its_block_aborts_what_runs() -> None:
    ends: list[str] = []
    calling, gone = anyio.Event(), anyio.Event()

    async def script(exchange: Exchange) -> None:
        calling.set()
        await exchange.gone()
        gone.set()

    async def one() -> None:
        try:
            await adapter.async_execute_prompt("x", config)
        except LLMError as error:
            ends.append(error.kind)

    async def broken() -> None:
        async with tracker:
            await calling.wait()
            raise ZeroDivisionError

    async with scripted(script) as upstream:
        with library(M1.format(url=upstream.url)):
            adapter, tracker = create_adapter("work/m1"), BudgetTracker(total=4000)
            config = RunConfig(budget_tracker=tracker)
            async with anyio.create_task_group() as group:
                group.start_soon(one)
                with pytest.raises(ZeroDivisionError):
                    await broken()
                assert (await tracker.async_snapshot()).state == "closed"
            await gone.wait()
    assert ends == ["budget_closed"]


def test_an_exception_that_leaves_the_block_of_a_thread_aborts_what_runs() -> None:
    configure('[providers.slow]\ndialect = "echo"\nlatency_ms = 60000')
    adapter, tracker = create_adapter("slow/echo"), BudgetTracker(total=4000)

    async def written(on: Engine) -> None:
        await on.places["local"]._treasury.flusher.flushed()

    def broken() -> None:
        with tracker:
            while not tracker.snapshot().held.requests:
                pass
            engine.shared().call(written)  # the hold, so that the call is out
            raise ZeroDivisionError

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(adapter.execute_prompt, "x", RunConfig(budget_tracker=tracker))
        with pytest.raises(ZeroDivisionError):
            broken()
        with pytest.raises(LLMError) as caught:
            running.result()
    assert (caught.value.kind, tracker.snapshot().uncertain.requests) == ("budget_closed", 1)


def test_one_that_nobody_has_any_more_is_closed() -> None:
    async def budgets(on: Engine) -> int:
        return len(on.places["local"]._treasury.ledger.budgets)

    tracker = BudgetTracker(total=4000)
    call(tracker.child(total=1000))
    gc.collect()
    assert engine.shared().call(budgets) == 1
    call(tracker)
    del tracker
    gc.collect()
    assert engine.shared().call(budgets) == 0


def test_a_tracker_of_an_engine_that_has_ended_is_told_from_one_that_is_open() -> None:
    tracker = BudgetTracker(total=4000)
    call(tracker)
    engine.close()
    with pytest.raises(LLMError) as caught:
        call(tracker)
    assert caught.value.kind == "budget_unknown"


def test_a_name_that_is_no_daemons_handle_is_used_with_daemon_adapters_only() -> None:
    attached = BudgetTracker.attach("daily")
    assert attached.handle == "daily"
    with pytest.raises(LLMError, match="adapters made with daemon=True"):
        call(attached)


@pytest.mark.anyio
async def test_a_block_of_a_thread_waits_for_the_calls_of_others() -> None:
    calling, answer = anyio.Event(), anyio.Event()

    async def script(exchange: Exchange) -> None:
        calling.set()
        await answer.wait()
        await exchange.reply()

    async with scripted(script) as upstream:
        with library(M1.format(url=upstream.url)):
            tracker = BudgetTracker(total=4000)
            config = RunConfig(budget_tracker=tracker)
            async with anyio.create_task_group() as group:
                group.start_soon(create_adapter("work/m1").async_execute_prompt, "x", config)
                await calling.wait()
                group.start_soon(anyio.to_thread.run_sync, partial(tracker.close))
                while (await tracker.async_snapshot()).state == "open":
                    await anyio.lowlevel.checkpoint()
                assert (await tracker.async_snapshot()).state == "draining"
                answer.set()
    assert tracker.snapshot().settled.total_tokens == 7
