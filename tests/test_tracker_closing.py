"""A tracker that is closed or copied in the middle of something: cut short, while it is opened, in a forked child."""

import copy
import gc
import pickle
from collections.abc import Iterator
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from llmd import BudgetTracker, LLMError, RunConfig, create_adapter, engine
from llmd import tracker as tracking
from llmd.books import OpenParams
from llmd.chat import Ask, Completion
from llmd.engine import GOODBYE_S, Engine
from llmd.flushing import Flusher
from llmd.policy import RoutingPolicy
from tests.support.library import M1, library, run_alone
from tests.support.upstream import Exchange, scripted


@pytest.fixture(autouse=True)
def own_library() -> Iterator[None]:
    with library():
        yield


@pytest.mark.anyio
async def test_a_close_that_was_cut_short_is_finished_by_the_next_one() -> None:
    ends: list[str] = []
    calling = anyio.Event()

    async def script(exchange: Exchange) -> None:
        calling.set()
        await exchange.gone()

    async def one() -> None:
        with pytest.raises(LLMError) as caught:
            await create_adapter("work/m1").async_execute_prompt("x", RunConfig(budget_tracker=tracker))
        ends.append(caught.value.kind)

    async with scripted(script) as upstream:
        with library(M1.format(url=upstream.url)):
            tracker = BudgetTracker(total=4000)
            async with anyio.create_task_group() as group:
                group.start_soon(one)
                await calling.wait()
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await tracker.async_close()
                async with anyio.create_task_group() as closing:
                    closing.start_soon(tracker.async_close)
                    while (await tracker.async_snapshot()).state == "open":
                        await anyio.lowlevel.checkpoint()
                    closing.cancel_scope.cancel()
                await tracker.async_close(cancel=True)
                assert (await tracker.async_snapshot()).state == "closed"
    assert ends == ["budget_closed"]


class Slow:
    """A place where a budget is opened when the test says so."""

    home = "slow"

    def __init__(self) -> None:
        self.opening, self.goes_on = anyio.Event(), anyio.Event()
        self.open_budgets: set[str] = set()

    async def open(self, params: OpenParams) -> Any:
        self.opening.set()
        await self.goes_on.wait()
        self.open_budgets.add("b")
        return SimpleNamespace(budget="b")

    async def close(self, budget: str, cancel: bool) -> Any:
        self.open_budgets.remove(budget)

    async def get(self, budget: str) -> Any:
        raise NotImplementedError

    async def execute(self, ask: Ask, policy: RoutingPolicy | None = None) -> Completion:
        raise NotImplementedError


def test_one_that_is_closed_while_its_first_call_opens_it_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[str] = []

    async def race(on: Engine) -> set[str]:
        place = Slow()

        async def here(on: Engine) -> Slow:
            return place

        async def use() -> None:
            try:
                ends.append(await tracker.opened(place, on))
            except LLMError as error:
                ends.append(error.kind)

        monkeypatch.setattr(tracking, "local", here)
        async with anyio.create_task_group() as group:
            group.start_soon(use)
            await place.opening.wait()
            group.start_soon(tracker._close, False, on)
            group.start_soon(use)
            await anyio.wait_all_tasks_blocked()
            place.goes_on.set()
        return place.open_budgets

    tracker = BudgetTracker(total=1)
    assert engine.shared().call(race) == set()
    assert ends[-1] == "budget_closed"


def test_a_copy_has_no_limit_of_its_own() -> None:
    tracker = BudgetTracker(total=4000)
    config = RunConfig(budget_tracker=tracker)
    assert copy.copy(tracker) is tracker
    assert copy.deepcopy(config).budget_tracker is tracker
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(config)


def test_a_forked_child_does_not_wait_for_who_was_opening_it_in_the_parent() -> None:
    code = """
import os, warnings
warnings.simplefilter("ignore")
from llmd import BudgetTracker, RunConfig, create_adapter, engine
adapter, tracker = create_adapter("echo/echo"), BudgetTracker(total=4000)
async def begin(on):
    await tracker._unopened().acquire()
engine.shared().call(begin)
if (pid := os.fork()) == 0:
    print(adapter.execute_prompt("child", RunConfig(budget_tracker=tracker)).text, flush=True)
    tracker.close()
    raise SystemExit
assert os.waitpid(pid, 0)[1] == 0
"""
    assert run_alone(code) == "child\n"


def test_what_is_collected_on_the_engine_and_closes_a_tracker_hangs_nothing() -> None:
    code = """
import gc, sys
from llmd import BudgetTracker, RunConfig, create_adapter, engine
class Owner:
    def __init__(self):
        self.tracker, self.itself = BudgetTracker(total=4000), self
    def __del__(self):
        self.tracker.close()
sys.unraisablehook = lambda told: print(told.exc_type.__name__, flush=True)
owner, adapter = Owner(), create_adapter("echo/echo")
adapter.execute_prompt("x", RunConfig(budget_tracker=owner.tracker))
async def collect(on):
    gc.collect()
gc.disable()
del owner
engine.shared().call(collect)
print(adapter.execute_prompt("y").text)
"""
    assert run_alone(code).split() == ["RuntimeError", "y"]


def test_one_that_is_closed_while_the_engine_ends_is_written_and_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def until_the_end(flusher: Flusher) -> None:
        while not running.group.cancel_scope.cancel_called:
            await anyio.lowlevel.checkpoint()

    async def tell_at_the_end(on: Engine) -> None:
        on.stack.callback(lambda: left.append(on.places["local"]._treasury.flusher._changed.is_set()))

    left: list[bool] = []
    tracker = BudgetTracker(total=4000)
    create_adapter("echo/echo").execute_prompt("x", RunConfig(budget_tracker=tracker))
    running = engine.shared()
    running.call(tell_at_the_end)
    monkeypatch.setattr(Flusher, "_gather", until_the_end)
    del tracker
    gc.collect()
    began = perf_counter()
    engine.close()
    assert perf_counter() - began < GOODBYE_S
    assert left == [False]
