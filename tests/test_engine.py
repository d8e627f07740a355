"""The engine: work from threads and from both kinds of loop, cancelled with its caller, ended with the interpreter."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.to_thread
import pytest

from llmd import engine
from llmd.engine import Engine
from llmd.errors import LLMError
from tests.support.library import library, run_alone

both_loops = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


@pytest.fixture(autouse=True)
def own_engine() -> Iterator[None]:
    with library():
        yield


async def name_of_thread(on: Engine) -> str:
    await anyio.lowlevel.checkpoint()
    return threading.current_thread().name


async def fail(on: Engine) -> None:
    raise LLMError("busy", "no", retry_after_ms=5)


class Waiting:
    """Work that waits until it is cancelled, and takes its time to end."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.ended = False

    async def run(self, on: Engine) -> None:
        self.began.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.wait_all_tasks_blocked()
            self.ended = True


def test_threads_that_come_together_find_one_engine() -> None:
    with ThreadPoolExecutor(32) as threads:
        found = list(threads.map(lambda _: engine.shared(), range(64)))
    assert len(set(map(id, found))) == 1
    assert found[0].call(name_of_thread) == "llmd"


@pytest.mark.anyio
@both_loops
async def test_tasks_of_any_loop_hand_work_over_at_once() -> None:
    names: list[str] = []

    async def one() -> None:
        names.append(await engine.shared().reach(name_of_thread))

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(one)
    assert names == ["llmd"] * 50


@pytest.mark.anyio
@both_loops
async def test_a_cancelled_task_sees_its_work_end() -> None:
    work = Waiting()

    async def cancel() -> None:
        await anyio.to_thread.run_sync(work.began.wait)
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(cancel)
        with anyio.CancelScope() as scope:
            await engine.shared().reach(work.run)
    assert work.ended


def test_an_interrupted_thread_sees_its_work_end(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Waiting()

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if timeout is None:
                work.began.wait()
                raise KeyboardInterrupt
            return super().wait(timeout)

    shared, event = engine.shared(), threading.Event
    monkeypatch.setattr(threading, "Event", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        shared.call(work.run)
    monkeypatch.setattr(threading, "Event", event)
    assert work.ended


def test_an_error_is_raised_with_all_that_it_tells() -> None:
    with pytest.raises(LLMError) as caught:
        engine.shared().call(fail)
    assert (caught.value.kind, caught.value.retryable, caught.value.data) == ("busy", True, {"retry_after_ms": 5})


def test_work_that_waits_for_its_own_thread_is_told_so() -> None:
    async def again(on: Engine) -> str:
        return on.call(name_of_thread)

    with pytest.raises(RuntimeError, match="from its own thread"):
        engine.shared().call(again)


def test_an_engine_that_is_closed_cancels_what_runs_and_the_next_call_begins_another() -> None:
    work, first = Waiting(), engine.shared()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(first.call, work.run)
        work.began.wait()
        engine.close()
        with pytest.raises(LLMError) as caught:
            waiting.result()
    assert (caught.value.kind, caught.value.data, work.ended) == ("cancelled", {"reason": "shutting_down"}, True)
    with pytest.raises(LLMError, match="ended"):
        first.call(name_of_thread)
    first.post(name_of_thread)
    assert engine.shared() is not first
    assert engine.shared().call(name_of_thread) == "llmd"


def test_the_interpreter_ends_with_calls_in_flight_and_sees_them_settled() -> None:
    code = """
import threading, anyio
from llmd import engine
began = threading.Event()
async def work(on):
    began.set()
    try:
        await anyio.sleep_forever()
    finally:
        print("settled")
threading.Thread(target=lambda: engine.shared().post(work)).start()
began.wait()
print("leaving")
"""
    assert run_alone(code).split() == ["leaving", "settled"]


def test_a_forked_child_has_an_engine_of_its_own() -> None:
    code = """
import os, threading, warnings
warnings.simplefilter("ignore")
from llmd import create_adapter, BudgetTracker, LLMError, RunConfig, engine
adapter, tracker = create_adapter("echo/echo"), BudgetTracker(total=4000)
config = RunConfig(budget_tracker=tracker)
adapter.execute_prompt("x", config)
engine._lock.acquire()  # another thread may be in the middle of anything
engine._shared._lock.acquire()
if (pid := os.fork()) == 0:
    print(adapter.execute_prompt("child").text, flush=True)
    try:
        adapter.execute_prompt("x", config)
    except LLMError as error:
        print(error.kind, "forked" in error.message, flush=True)
    raise SystemExit
engine._lock.release()
engine._shared._lock.release()
assert os.waitpid(pid, 0)[1] == 0
print(adapter.execute_prompt("parent", config).budget.settled.total_tokens)
"""
    assert run_alone(code).split() == ["child", "budget_unknown", "True", "4"]
