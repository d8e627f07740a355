"""Holds that are durable before their bytes would leave, against the bare commits of the same disk.

What every call under a budget does, without the call: reserve, dispatch, wait until that is on the disk, settle. The
floor is one SQLite connection in a loop of its own, that commits a row and an entry a transaction with the pragmas of
the store; nobody waits for it and nothing shares its interpreter.
"""

import asyncio
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from itertools import count, repeat
from pathlib import Path
from statistics import median
from time import perf_counter

import anyio
import uvloop

from llmd.books import Amounts
from llmd.clock import Clock
from llmd.core.amounts import pack_all
from llmd.core.budget import Budget, Terms
from llmd.core.holds import Call, Hold
from llmd.journal.database import Durability
from llmd.journal.sqlite import open_journal
from llmd.journal.statements import PRAGMAS
from llmd.journal.store_files import MOUNTS, mount_of
from llmd.treasury import Treasury
from tests.bench.measure import Lane, Row, interleaved

CONCURRENT = (1, 16, 64, 128)
PACED, PACE = 64, 4_000  # so many callers, and how many holds a second they ask for together
SECONDS = 1.0
COMMITS = 1_000
DURABILITIES: tuple[Durability, ...] = ("full", "process")

_HELD = pack_all(Amounts(total_tokens=2_000, input_tokens=976, output_tokens=1_024, requests=1, nano_usd=90_000))
_ACTUAL = pack_all(Amounts(total_tokens=700, input_tokens=500, output_tokens=200, requests=1, nano_usd=31_000))
_VALUE = b"x" * 300  # as long as the row of a hold


def run(directory: Path, rounds: int) -> list[Row]:
    lanes: list[Lane] = []
    for durability in DURABILITIES:
        lanes.append(partial(_floor, directory, durability))
        lanes += [partial(_holds, directory, durability, concurrent) for concurrent in CONCURRENT]
        lanes.append(partial(_holds, directory, durability, PACED, PACE))
    samples = interleaved(lanes, rounds)
    return [row for durability in DURABILITIES for row in _rows(samples, durability, _file_system(directory))]


def _rows(samples: Mapping[str, list[float]], durability: str, disk: str) -> list[Row]:
    floor, floor_p99 = samples[f"{durability} commit"], samples[f"{durability} commit p99"]
    rows = [
        Row(f"durable, {durability}: a bare commit, {disk}", "us", floor),
        Row(f"durable, {durability}: a bare commit, p99", "us", floor_p99),
    ]
    for concurrent in CONCURRENT:
        name, what = f"{durability} {concurrent}", f"durable, {durability}, {concurrent} at once"
        rows += [
            Row(f"{what}: holds a second", "", samples[name], aim="4,000" if concurrent == PACED else ""),
            Row(f"{what}: until durable, median", "us", samples[f"{name} median"], floor),
            Row(f"{what}: until durable, p99", "us", samples[f"{name} p99"], floor_p99),
        ]
    name, what = f"{durability} {PACED} paced", f"durable, {durability}, {PACED} at {PACE:,} a second"
    rows += [
        Row(f"{what}: holds a second", "", samples[name]),
        Row(f"{what}: until durable, median", "us", samples[f"{name} median"], floor),
        Row(
            f"{what}: until durable, p99",
            "us",
            samples[f"{name} p99"],
            floor_p99,
            "3 x floor" if durability == "full" else "",
        ),
    ]
    return rows


def _file_system(directory: Path) -> str:
    return mount_of(directory.resolve(), MOUNTS.read_text())[1] if MOUNTS.exists() else "unknown file system"


def _floor(directory: Path, durability: Durability) -> Mapping[str, float]:
    file = directory / f"floor-{durability}.db"
    file.unlink(missing_ok=True)
    took = []
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for pragma in (*PRAGMAS, f"synchronous = {'FULL' if durability == 'full' else 'NORMAL'}"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute("CREATE TABLE rows (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
        connection.execute("CREATE TABLE entries (seq INTEGER PRIMARY KEY, data BLOB NOT NULL)")
        for number in range(COMMITS):
            began = perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT OR REPLACE INTO rows VALUES (?, ?)", (b"h/%d" % number, _VALUE))
            connection.execute("INSERT INTO entries (data) VALUES (?)", (_VALUE,))
            connection.execute("COMMIT")
            took.append(perf_counter() - began)
    return {f"{durability} commit": median(took), f"{durability} commit p99": _p99(took)}


def _holds(directory: Path, durability: Durability, concurrent: int, pace: int = 0) -> Mapping[str, float]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        done, took = runner.run(_spend(directory / f"ledger-{durability}.db", durability, concurrent, pace))
    name = f"{durability} {concurrent}" + " paced" * bool(pace)
    return {name: done, f"{name} median": median(took), f"{name} p99": _p99(took)}


async def _spend(file: Path, durability: Durability, concurrent: int, pace: int = 0) -> tuple[float, list[float]]:
    """Holds a second, and how long each took to be durable, in seconds; `pace` a second, or as many as can be."""
    treasury = Treasury(Clock(asyncio.get_running_loop().time), {}, 1_000)
    now_ms = time.time_ns() // 1_000_000
    treasury.open(open_journal(file, durability=durability, holder="the benchmark", now_ms=now_ms))
    budget = _tree(treasury)
    running = asyncio.create_task(treasury.run())
    await treasury.flusher.flushed()
    took: list[float] = []
    began = perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(concurrent):
            turns = count(began + number / pace, concurrent / pace) if pace else repeat(began)
            group.create_task(_one_caller(treasury, budget, turns, took))
    wall = perf_counter() - began
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await treasury.close()
    return len(took) / wall, took


def _tree(treasury: Treasury) -> Budget:
    """A budget with two above it; a round before this one may have made them."""
    parent: Budget | None = None
    for name in ("root", "agent", "task"):
        budget = treasury.ledger.budgets.get(name)
        if budget is None:
            budget = Budget(name, parent, Terms(limits={"total_tokens": 2**52}), None)
            treasury.ledger.open(treasury.clock.now(), budget)
        parent = budget
    assert parent is not None
    return parent


async def _one_caller(treasury: Treasury, budget: Budget, turns: Iterator[float], took: list[float]) -> None:
    until = perf_counter() + SECONDS
    for turn in turns:
        if (ahead := turn - perf_counter()) > 0:
            await anyio.sleep_until(anyio.current_time() + ahead)
        if (began := perf_counter()) >= until:
            return
        now = treasury.clock.now()
        hold = treasury.ledger.reserve(now, budget, _HELD, Call("request-1", "provider/model", now.mono + 60))
        assert isinstance(hold, Hold)
        treasury.ledger.dispatch(hold)
        await treasury.flusher.flushed()
        took.append(perf_counter() - began)
        now = treasury.clock.now()
        treasury.ledger.settle(now, hold, _ACTUAL)
        treasury.after(now, hold.path)


def _p99(took: list[float]) -> float:
    return sorted(took)[len(took) * 99 // 100]
