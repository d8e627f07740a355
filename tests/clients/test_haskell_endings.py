"""When something ends early, a Haskell program leaves no call upstream, no budget open and no thread that waits."""

import re
import signal
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.budgets import ask
from tests.support.daemon import RunningDaemon
from tests.support.haskell import THREADED, Build, both, daemon_before, prompt, running, saying
from tests.support.upstream import Exchange, scripted

pytestmark = [pytest.mark.anyio, pytest.mark.ci]


async def speak_until_gone(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.event({"choices": [{"delta": {"content": "one "}}]})
    await exchange.gone()


async def test_a_callback_that_throws_aborts_the_call_upstream(build: Build, tmp_path: Path) -> None:
    program = build("Checks", THREADED)
    async with both(speak_until_gone, tmp_path) as (upstream, _), running(program, "callback") as haskell:
        assert await haskell.line() == "threw: user error (enough)"
        await upstream.until(lambda up: up.in_flight == 0)
        await haskell.go_on()


async def test_a_budget_closes_when_the_function_that_it_is_for_throws_and_its_calls_are_aborted(
    build: Build, tmp_path: Path
) -> None:
    program = build("Checks", THREADED)
    async with both(Exchange.gone, tmp_path) as (upstream, daemon), running(program, "budget") as haskell:
        shown = re.fullmatch(r'Budget "(b_\w+)"', await haskell.line())
        assert shown, "the handle is not shown"
        await upstream.until(lambda up: up.in_flight == 1)
        await haskell.go_on()
        assert sorted([await haskell.line(), await haskell.line()]) == ["BudgetClosed", "threw: user error (no more)"]
        await upstream.until(lambda up: up.in_flight == 0)
        assert standing(daemon, shown[1])["state"] == "closed"
        await haskell.go_on()


def standing(daemon: RunningDaemon, budget: str) -> dict[str, Any]:
    return ask(daemon, "budget.get", id=budget, owner=True)


async def test_a_thread_that_is_killed_at_any_moment_leaves_no_budget_open(build: Build, tmp_path: Path) -> None:
    program = build("Checks", THREADED)
    async with both(Exchange.gone, tmp_path) as (_, daemon), running(program, "opening") as haskell:
        whole = await haskell.line()
        while standing(daemon, whole)["children"]:
            pass
        entries = ask(daemon, "budget.statement", id=whole, owner=True)["entries"]
        happened = {entry["kind"] for entry in entries if entry["budget"] != whole}
        assert happened >= {"open", "close"}
        await haskell.go_on()


async def until_gone_if_held(exchange: Exchange) -> None:
    if prompt(exchange) == "held":
        await exchange.gone()
    else:
        await exchange.reply(saying(prompt(exchange)))


async def test_a_thread_that_is_killed_aborts_its_call_upstream_and_its_connection_goes_on(
    build: Build, tmp_path: Path
) -> None:
    program = build("Checks", THREADED)
    async with both(until_gone_if_held, tmp_path) as (upstream, _), running(program, "killed") as haskell:
        await upstream.until(lambda up: up.in_flight == 1)
        await haskell.go_on()
        assert await haskell.line() == "killed: thread killed"
        await upstream.until(lambda up: up.in_flight == 0)
        await haskell.go_on()
        assert [await haskell.line(), await haskell.line()] == ["out of time", "free"]
        await upstream.until(lambda up: up.in_flight == 0)
        await haskell.go_on()


async def test_a_program_cancels_its_calls_before_it_leaves(build: Build, tmp_path: Path) -> None:
    program = build("Checks", THREADED)
    async with both(until_gone_if_held, tmp_path) as (upstream, _), running(program, "leaving") as haskell:
        await upstream.until(lambda up: up.in_flight == 1)
        await haskell.go_on()
        await upstream.until(lambda up: up.in_flight == 0)


async def test_a_daemon_that_goes_away_is_told_and_one_that_comes_back_is_used(build: Build, tmp_path: Path) -> None:
    program = build("Checks", THREADED)
    come_back = anyio.Event()

    async def script(exchange: Exchange) -> None:
        if come_back.is_set():
            await exchange.reply(saying("back"))
        else:
            await exchange.gone()

    async with scripted(script) as upstream:
        with daemon_before(upstream.url, tmp_path) as daemon:
            async with running(program, "gone") as haskell:
                await upstream.until(lambda up: up.in_flight == 1)
                daemon.stop(signal.SIGKILL)
                assert await haskell.line() == "ConnectionLost False"
                await haskell.go_on()
                nobody = await haskell.line()
                assert nobody.startswith("NoDaemon [")
                assert str(daemon.socket) in nobody
                assert nobody.endswith(" True")
                come_back.set()
                with daemon_before(upstream.url, tmp_path):
                    await haskell.go_on()
                    assert await haskell.line() == "back"
                    await haskell.go_on()
