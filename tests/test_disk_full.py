"""A store that cannot grow: budgets are refused, calls without one go on, and room ends it without a restart.

The room is taken in two ways: by a limit on the size of the daemon's files, where SQLite says that writing failed, and
by a small file system, where it says that the disk is full.
"""

import os
import resource
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from llmd import paths
from llmd.journal.store_files import log_of
from tests.support.lives import Life, living
from tests.support.spending import Caller, calling
from tests.support.upstream import OK, Exchange, Upstream, scripted

pytestmark = pytest.mark.anyio

CHARGES_MAX = 500
TOKENS: int = OK["usage"]["total_tokens"]
CONFIG = """
[providers.up]
dialect = "openai"
base_url = "{url}"
models.m = {{}}

[ledger]
path = "{path}"
"""


def _may_mount() -> bool:
    return shutil.which("unshare") is not None and not subprocess.run(["unshare", "-m", "true"], check=False).returncode


needs_mounts = pytest.mark.skipif(not _may_mount(), reason="only root may mount a small file system, or may not here")


class Held:
    """A provider that answers "later" when it is let go, and everything else at once."""

    def __init__(self) -> None:
        self.released = anyio.Event()

    async def script(self, exchange: Exchange) -> None:
        if exchange.request.json()["messages"][0]["content"] == "later":
            await self.released.wait()
        await exchange.reply()


class Trial:
    """One daemon whose disk fills: what was acknowledged, and how it is asked."""

    def __init__(self, life: Life, upstream: Upstream, caller: Caller, budget: str) -> None:
        self.life = life
        self.upstream = upstream
        self.caller = caller
        self.budget = budget
        self.acknowledged: list[str] = []
        self.called = 0

    async def charge(self, note: str) -> str | None:
        """Why it was refused, or None."""
        params = {"budget": self.budget, "amounts": {"total_tokens": 1}, "note": note, "idempotency_key": note}
        if (kind := _kind(await self.caller.call("budget.charge", **params))) is None:
            self.acknowledged.append(note)
        return kind

    async def call(self) -> str | None:
        """Why it was refused, or None; what was refused has not reached the provider."""
        before = len(self.upstream.requests)
        params = {"model": "up/m", "prompt": "now", "max_tokens": 5, "budget": self.budget}
        kind = _kind(await self.caller.call("execute", **params))
        assert len(self.upstream.requests) == before + (kind is None)
        self.called += kind is None
        return kind

    async def fill(self) -> None:
        """Charge and call until one is refused."""
        for number in range(CHARGES_MAX):
            if (kind := await self.charge(f"charge {number}") or await self.call()) is not None:
                assert kind == "ledger_unavailable"
                return
        raise AssertionError("the disk did not fill")

    async def check_refusals(self) -> None:
        """What needs the ledger is refused and can be tried again, and nothing of it reaches the provider."""
        before = len(self.upstream.requests)
        budget = {"budget": self.budget}
        for method, params in (
            ("budget.open", {"total": 100}),
            ("budget.open", {"total": 100, "parent": self.budget}),
            ("budget.charge", {**budget, "amounts": {"total_tokens": 1}}),
            ("budget.resize", {**budget, "limits": {"total_tokens": 50_000}}),
            ("budget.close", budget),
        ):
            reply = await self.caller.call(method, **params)
            assert (method, _kind(reply)) == (method, "ledger_unavailable")
            assert reply["error"]["data"]["retryable"]
        assert await self.call() == "ledger_unavailable"
        assert _kind(await self.caller.call("execute", model="up/m", prompt="now")) is None
        assert len(self.upstream.requests) == before + 1
        assert await self.settled() >= len(self.acknowledged)

    async def until_writable(self) -> None:
        with anyio.fail_after(10):
            while (kind := await self.charge("first with room")) is not None:
                assert kind == "ledger_unavailable"

    async def settled(self) -> int:
        snapshot = (await self.caller.call("budget.get", budget=self.budget))["result"]
        tokens: int = snapshot["settled"]["total_tokens"]
        return tokens

    async def check_history(self, *, killed: bool = False) -> None:
        """Every charge that was acknowledged, once and in order, and every call; what was refused is gone.

        What the last calls have cost a daemon that was `killed` may not have written: they are posted at their bounds.
        """
        entries = (await self.caller.call("budget.statement", budget=self.budget))["result"]["entries"]
        undone = sum(entry["kind"] == "undo" for entry in entries)
        charged = [entry["note"] for entry in entries if entry["kind"] == "charge"]
        refused = [note for note in charged if note not in self.acknowledged]
        assert [note for note in charged if note in self.acknowledged] == self.acknowledged
        assert len(refused) == undone <= 1
        settled = [entry for entry in entries if entry["kind"] == "settle"]
        assert len(settled) == self.called
        assert killed or not any(entry.get("uncertain") for entry in settled)
        tokens = [entry["amounts"]["total_tokens"] for entry in settled]
        assert all(amount == TOKENS or entry.get("uncertain") for amount, entry in zip(tokens, settled, strict=True))
        assert await self.settled() == len(self.acknowledged) + sum(tokens)


def _kind(reply: dict[str, Any]) -> str | None:
    kind: str | None = reply["error"]["data"]["kind"] if "error" in reply else None
    return kind


@asynccontextmanager
async def trial(
    life: Life, upstream: Upstream, held: Held, take_room: Callable[[], None], make_room: Callable[[], None]
) -> AsyncIterator[Trial]:
    """From the first write to the one after the disk had room again; a call is in flight all the while."""
    async with AsyncExitStack() as stack, anyio.create_task_group() as group:
        caller, other = await calling(stack, life.socket), await calling(stack, life.socket)
        opened = await caller.call("budget.open", total=100_000)
        tried = Trial(life, upstream, caller, opened["result"]["budget"])
        answered = anyio.Event()

        async def call() -> None:
            params = {"model": "up/m", "prompt": "later", "max_tokens": 5, "budget": tried.budget}
            assert _kind(await other.call("execute", **params)) is None
            tried.called += 1
            answered.set()

        group.start_soon(call)
        await upstream.until(lambda up: bool(up.requests))
        take_room()
        await tried.fill()
        await tried.check_refusals()
        # What was granted before is answered and settled as always.
        held.released.set()
        await answered.wait()
        assert await tried.settled() == len(tried.acknowledged) + tried.called * TOKENS
        await tried.check_refusals()
        make_room()
        await tried.until_writable()
        for number in range(20):
            assert await tried.charge(f"with room {number}") is None
            assert await tried.call() is None
        await tried.check_history()
        yield tried


def _limit_files(life: Life, size: int) -> None:
    _, most = resource.prlimit(life.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(life.process.pid, resource.RLIMIT_FSIZE, (size, most))


@pytest.mark.parametrize("room", [0, 1_000, 20_000, 100_000])
async def test_a_store_that_may_not_grow_refuses_budgets_until_it_may(room: int, tmp_path: Path) -> None:
    held, store = Held(), paths.ledger_file(os.environ)
    async with scripted(held.script) as upstream:
        config = CONFIG.format(url=upstream.url, path=store)
        with living(tmp_path, config) as life:
            await life.ready()

            def take_room() -> None:
                _limit_files(life, log_of(store).stat().st_size + room)

            def make_room() -> None:
                _limit_files(life, resource.RLIM_INFINITY)

            async with trial(life, upstream, held, take_room, make_room) as tried:
                said = life.said()
                assert said.count("the ledger cannot be written") == said.count("the ledger is written again") == 1
            life.kill()
        with living(tmp_path, config) as life:
            async with AsyncExitStack() as stack:
                tried.caller = await calling(stack, (await life.ready()).socket)
                await tried.check_history()
                # Refused then, and with the same key charged now.
                refused = next(number for number in range(CHARGES_MAX) if f"charge {number}" not in tried.acknowledged)
                assert await tried.charge(f"charge {refused}") is None


@pytest.mark.parametrize("room", [0, 10_000, 50_000])
async def test_a_kill_while_the_store_may_not_grow_loses_nothing_that_was_acknowledged(
    room: int, tmp_path: Path
) -> None:
    held, store = Held(), paths.ledger_file(os.environ)
    async with scripted(held.script) as upstream, AsyncExitStack() as stack:
        config = CONFIG.format(url=upstream.url, path=store)
        life = await stack.enter_context(living(tmp_path, config)).ready()
        caller = await calling(stack, life.socket)
        tried = Trial(life, upstream, caller, (await caller.call("budget.open", total=100_000))["result"]["budget"])
        _limit_files(life, log_of(store).stat().st_size + room)
        await tried.fill()
        life.kill()
        life = await stack.enter_context(living(tmp_path, config)).ready()
        tried.caller = await calling(stack, life.socket)
        await tried.check_history(killed=True)


@needs_mounts
async def test_a_full_disk_refuses_budgets_until_it_has_room(tmp_path: Path) -> None:
    held, disk = Held(), tmp_path / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=4m llmd "$0" && head -c 3700k /dev/zero > "$0/ballast" && exec "$@"'
    launcher = ["unshare", "-m", "sh", "-c", script, str(disk)]
    async with scripted(held.script) as upstream:
        config = CONFIG.format(url=upstream.url, path=disk / "ledger.db")
        with living(tmp_path, config, launcher=launcher) as life:
            await life.ready()

            def make_room() -> None:
                # The file system is only in the daemon's own view of the files.
                Path(f"/proc/{life.process.pid}/root{disk}/ballast").unlink()

            async with trial(life, upstream, held, lambda: None, make_room):
                assert "FULL" in life.said()
