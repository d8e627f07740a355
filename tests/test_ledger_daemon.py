"""A ledger between daemons: who gets it, how it is handed over, and what a daemon does with one that is damaged."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from llmd import paths
from llmd.journal.store_files import Holder, holder_of, log_of, take_lock
from tests.support.cli import Done, llmd
from tests.support.lives import Life, living
from tests.support.spending import Caller, calling
from tests.support.upstream import OK, Exchange, Upstream, scripted

pytestmark = pytest.mark.anyio

TOKENS: int = OK["usage"]["total_tokens"]
CONFIG = """
[providers.up]
dialect = "openai"
base_url = "{url}"
models.m = {{}}
"""
DAMAGED = "is damaged"
CHARGES = 20
TAKEN = 10_000  # locks
LOOKER = """
import sys
from pathlib import Path
from llmd.journal.store_files import holder_of
print("looking", flush=True)
while True:
    holder_of(Path(sys.argv[1]))
"""

Reply = dict[str, Any]


@asynccontextmanager
async def asking(life: Life) -> AsyncIterator[Caller]:
    async with AsyncExitStack() as stack:
        yield await calling(stack, life.socket)


def _kind(reply: Reply) -> str | None:
    kind: str | None = reply["error"]["data"]["kind"] if "error" in reply else None
    return kind


async def _charge(caller: Caller, budget: str, note: str) -> Reply:
    return await caller.call("budget.charge", budget=budget, amounts={"total_tokens": 1}, note=note)


async def _command(*arguments: str) -> Done:
    return await anyio.to_thread.run_sync(llmd, *arguments)


# -- one store, several daemons -----------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", range(3))
async def test_of_two_daemons_that_want_one_ledger_one_gets_it_and_the_other_names_it(
    turn: int, tmp_path: Path
) -> None:
    with living(tmp_path, "", name="one") as one, living(tmp_path, "", name="two") as two:
        winner, loser = (one, two) if await _first_to_end(one, two) is two else (two, one)
        assert loser.process.returncode == 1
        await winner.ready()
        assert f"another llmd (pid {winner.process.pid}, {winner.socket}) has the ledger" in loser.said()
        assert not loser.socket.exists()
        async with asking(winner) as caller:
            assert _kind(await caller.call("budget.open", total=10)) is None


def test_who_only_looks_at_a_ledger_keeps_no_daemon_from_it(tmp_path: Path) -> None:
    store = tmp_path / "ledger.db"
    take_lock(store, "before").release()
    command = [sys.executable, "-c", LOOKER, str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as looker:
        try:
            assert looker.stdout is not None
            assert looker.stdout.readline() == b"looking\n"
            for _ in range(TAKEN):
                take_lock(store, "us").release()
            lock = take_lock(store, "us")
            assert holder_of(store) == Holder(os.getpid(), "us")
            lock.release()
        finally:
            looker.kill()


async def _first_to_end(*lives: Life) -> Life:
    ended: list[Life] = []

    async def wait(life: Life) -> None:
        await life.ended()
        ended.append(life)
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for life in lives:
            group.start_soon(wait, life)
    return ended[0]


async def test_a_daemon_that_drains_hands_its_ledger_over(tmp_path: Path) -> None:
    finish = anyio.Event()

    async def script(exchange: Exchange) -> None:
        if exchange.request.json()["messages"][0]["content"] == "late":
            await finish.wait()
        await exchange.reply()

    async with scripted(script) as upstream, AsyncExitStack() as stack:
        config = CONFIG.format(url=upstream.url)
        old = stack.enter_context(living(tmp_path, config, name="old"))
        await old.ready()
        caller = await calling(stack, old.socket)
        budget = (await caller.call("budget.open", total=10_000))["result"]["budget"]
        assert _kind(await _charge(caller, budget, "of the old one")) is None
        replies: list[Reply] = []

        async def call(through: Caller, **params: Any) -> None:
            replies.append(await through.call(**params))

        async with anyio.create_task_group() as group:
            late = {"model": "up/m", "prompt": "late", "max_tokens": 5, "budget": budget}
            group.start_soon(lambda: call(caller, method="execute", **late))
            await upstream.until(lambda up: bool(up.requests))
            old.process.send_signal(signal.SIGTERM)
            while old.socket.exists():
                await anyio.lowlevel.checkpoint()
            new = stack.enter_context(living(tmp_path, config, name="new"))
            await new.ready()
            async with asking(new) as other, asking(new) as third:
                # What needs no budget goes at once; what needs one waits, or is told to come again.
                assert _kind(await other.call("execute", model="up/m", prompt="now")) is None
                assert _kind(await other.call("budget.get", budget=budget)) == "ledger_unavailable"
                group.start_soon(lambda: call(third, method="execute", **{**late, "prompt": "now"}))
                assert _kind(await other.call("ping")) is None
                assert (replies, len(upstream.requests)) == ([], 2)
                finish.set()
                assert _kind(await _charge(other, budget, "of the new one")) is None
                assert await old.ended() == 0
                await upstream.until(lambda up: len(up.requests) == 3)
                await _check_handed_over(other, third, budget)
        assert [_kind(reply) for reply in replies] == [None, None]


async def _check_handed_over(caller: Caller, spender: Caller, budget: str) -> None:
    """What the old daemon's call has cost is there, and nothing is uncertain."""
    while (told := (await caller.call("budget.get", budget=budget))["result"])["held"]["requests"]:
        pass
    assert told["settled"]["total_tokens"] == 2 * TOKENS + 2
    assert not any(told["uncertain"].values())
    entries = (await caller.call("budget.statement", budget=budget))["result"]["entries"]
    notes = [entry["note"] for entry in entries if entry["kind"] == "charge"]
    assert notes == ["of the old one", "of the new one"]


# -- damage -------------------------------------------------------------------------------------------------------


async def _leave_a_log(directory: Path, config: str) -> str:
    """A daemon that made some transactions, each of which was acknowledged, and was killed. Returns their budget."""
    with living(directory, config) as life:
        await life.ready()
        async with asking(life) as caller:
            budget: str = (await caller.call("budget.open", total=10_000))["result"]["budget"]
            for number in range(CHARGES):
                assert _kind(await _charge(caller, budget, f"charge {number}")) is None
        life.kill()
    return budget


def _flip(file: Path, at: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(at)
        byte = opened.read(1)[0]
        opened.seek(at)
        opened.write(bytes([byte ^ 0xFF]))


async def _charged(caller: Caller, budget: str) -> list[str]:
    statement = (await caller.call("budget.statement", budget=budget))["result"]
    return [entry["note"] for entry in statement["entries"] if entry["kind"] == "charge"]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
async def test_a_damaged_ledger_is_only_read_until_the_loss_is_accepted(share: float, tmp_path: Path) -> None:
    async with scripted(_answering) as upstream:
        config = CONFIG.format(url=upstream.url)
        budget = await _leave_a_log(tmp_path, config)
        file = log_of(paths.ledger_file(os.environ))
        _flip(file, int(file.stat().st_size * share))
        with living(tmp_path, config) as life:
            await life.ready()
            assert DAMAGED in life.said()
            left = await _check_read_only(life, upstream, budget)
            life.process.send_signal(signal.SIGTERM)
            assert await life.ended() == 0
        checked = await _command("ledger", "check", "--config", str(life.config))
        assert checked.status == 1
        assert DAMAGED in checked.err
        accepted = await _command("ledger", "accept-loss", "--config", str(life.config))
        assert (accepted.status, accepted.err) == (0, "")
        with living(tmp_path, config) as life:
            await life.ready()
            async with asking(life) as caller:
                assert await _charged(caller, budget) == left
                assert _kind(await _charge(caller, budget, "afterwards")) is None
                call = {"model": "up/m", "prompt": "now", "max_tokens": 5, "budget": budget}
                assert _kind(await caller.call("execute", **call)) is None
                assert await _charged(caller, budget) == [*left, "afterwards"]
            life.kill()
        checked = await _command("ledger", "check", "--config", str(life.config))
        assert (checked.status, checked.err) == (0, "")


async def _answering(exchange: Exchange) -> None:
    await exchange.reply()


async def _check_read_only(life: Life, upstream: Upstream, budget: str) -> list[str]:
    """What can be asked is answered, what would write is refused. Returns the charges that are left."""
    async with asking(life) as caller:
        left = await _charged(caller, budget)
        assert left == [f"charge {number}" for number in range(len(left))]
        assert 0 < len(left) < CHARGES
        told = (await caller.call("budget.get", budget=budget))["result"]
        assert told["settled"]["total_tokens"] == len(left)
        assert _kind(await caller.call("budget.tree", budget=budget)) is None
        call = {"model": "up/m", "prompt": "now", "max_tokens": 5}
        for method, params in (
            ("budget.open", {"total": 10}),
            ("budget.charge", {"budget": budget, "amounts": {"total_tokens": 1}}),
            ("budget.resize", {"budget": budget, "limits": {"total_tokens": 100}}),
            ("budget.close", {"budget": budget}),
            ("execute", {**call, "budget": budget}),
        ):
            assert (method, _kind(await caller.call(method, **params))) == (method, "ledger_unavailable")
        assert upstream.requests == []
        assert _kind(await caller.call("execute", **call)) is None
    return left


async def test_a_torn_tail_is_cut_and_told(tmp_path: Path) -> None:
    budget = await _leave_a_log(tmp_path, "")
    file = log_of(paths.ledger_file(os.environ))
    os.truncate(file, file.stat().st_size - 100)
    with living(tmp_path, "") as life:
        await life.ready()
        assert "a torn tail of" in life.said()
        async with asking(life) as caller:
            assert await _charged(caller, budget) == [f"charge {number}" for number in range(CHARGES - 1)]
            assert _kind(await _charge(caller, budget, "afterwards")) is None


async def test_a_ledger_of_a_newer_llmd_is_refused_and_left_alone(tmp_path: Path) -> None:
    await _leave_a_log(tmp_path, "")
    store = paths.ledger_file(os.environ)
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.commit()
    before = store.read_bytes()
    with living(tmp_path, "") as life:
        assert await life.ended() == 1
        assert "was written by a newer llmd" in life.said()
        assert not life.socket.exists()
    assert store.read_bytes() == before
