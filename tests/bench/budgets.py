"""What budgets add: to a ping a charge, to an execute a budget, to a start what was spent before.

The store is one that outlives the process, not a loss of power: what a disk adds is in `durable`.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from time import perf_counter

import uvloop

from llmd.books import Amounts
from llmd.clock import Clock
from llmd.core.amounts import pack_all
from llmd.core.budget import Budget, Terms
from llmd.core.holds import Call, Hold
from llmd.journal.sqlite import open_journal
from llmd.treasury import Treasury
from tests.bench import ping
from tests.bench.client import Lines
from tests.bench.measure import Lane, Row, cpu_s, difference, interleaved
from tests.bench.servers import daemon as started
from tests.bench.servers import running

IN_TURN = 500
MANY = 2_000
IN_FLIGHT = 32
PAST_CALLS = 100_000
TOGETHER = 500  # past calls that were written at once

_CONFIG = """
[providers.up]
dialect = "openai"
base_url = "http://127.0.0.1:{port}/v1"
models.m.price = {{ input = 1, output = 4 }}

[ledger]
durability = "process"
"""
_REQUEST = '{{"jsonrpc":"2.0","id":{},"method":"{}","params":{}}}\n'
_HELD = pack_all(Amounts(total_tokens=2_000, input_tokens=976, output_tokens=1_024, requests=1, nano_usd=90_000))
_ACTUAL = pack_all(Amounts(total_tokens=700, input_tokens=500, output_tokens=200, requests=1, nano_usd=31_000))


def run(directory: Path, rounds: int) -> list[Row]:
    return [*_operations(directory, rounds), *_starts(directory, rounds)]


# -- operations -----------------------------------------------------------------------------------------------------


def _operations(directory: Path, rounds: int) -> list[Row]:
    with running("upstream", "0") as upstream:
        config = _CONFIG.format(port=upstream.address)
        with started(directory, config=config) as daemon, Lines(daemon.socket) as connection:
            budget = _ask(connection, "budget.open", {"limits": {"total_tokens": 2**52, "usd": "1000000"}})["budget"]
            call = {"provider": "up", "model": "m", "prompt": "Say hello.", "max_tokens": 100}
            charge = {"budget": budget, "amounts": {"total_tokens": 1}}
            pid = daemon.process.pid
            lanes = [
                _in_turn("ping", connection, ping.REQUEST, pid),
                _in_turn("charge", connection, _request(1, "budget.charge", charge), pid),
                _in_turn("free", connection, _request(1, "execute", call), pid),
                _in_turn("paid", connection, _request(1, "execute", {**call, "budget": budget}), pid),
                _many("free", connection, call, pid),
                _many("paid", connection, {**call, "budget": budget}, pid),
            ]
            assert _ask(connection, "execute", {**call, "budget": budget})["text"] == "Hello there."
            samples = interleaved(lanes, rounds)
    free, paid, many = samples["free many CPU"], samples["paid many CPU"], f"{IN_FLIGHT} in flight"
    return [
        Row("budgets: ping, round trip", "us", samples["ping"]),
        Row("budgets: budget.charge, round trip", "us", samples["charge"], samples["ping"]),
        Row("budgets: budget.charge, CPU", "us", samples["charge CPU"], samples["ping CPU"]),
        Row("budgets: execute, 1: without a budget", "us", samples["free"]),
        Row("budgets: execute, 1: with one", "us", samples["paid"], samples["free"]),
        Row(f"budgets: execute, {many}: CPU without a budget", "us", free),
        Row(f"budgets: execute, {many}: CPU with one", "us", paid, free, "1.15 x floor"),
        Row(f"budgets: execute, {many}: CPU that it adds", "us", difference(paid, free)),
    ]


def _request(number: int, method: str, params: object) -> bytes:
    return _REQUEST.format(number, method, json.dumps(params, separators=(",", ":"))).encode()


def _ask(connection: Lines, method: str, params: object) -> dict[str, str]:
    reply = json.loads(connection.one(_request(1, method, params)))
    assert "result" in reply, reply
    result: dict[str, str] = reply["result"]
    return result


def _in_turn(name: str, connection: Lines, request: bytes, pid: int) -> Lane:
    def lane() -> Mapping[str, float]:
        before = cpu_s(pid)
        took = connection.in_turn(request, IN_TURN)
        return {name: took / IN_TURN, f"{name} CPU": (cpu_s(pid) - before) / IN_TURN}

    return lane


def _many(name: str, connection: Lines, call: object, pid: int) -> Lane:
    requests = [_request(number, "execute", call) for number in range(MANY)]

    def lane() -> Mapping[str, float]:
        before = cpu_s(pid)
        connection.pipelined(requests, IN_FLIGHT)
        return {f"{name} many CPU": (cpu_s(pid) - before) / MANY}

    return lane


# -- starts ---------------------------------------------------------------------------------------------------------


def _starts(directory: Path, rounds: int) -> list[Row]:
    past, killed = directory / "past.db", directory / "killed.db"
    for store in (past, killed):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_live_through(store, PAST_CALLS))
    lanes = [partial(_start, directory, store, name) for name, store in (("empty", None), ("past", past))]
    samples = interleaved([*lanes, partial(_start_after_a_kill, directory, killed)], rounds)
    calls = f"{PAST_CALLS:,} past calls"
    return [
        Row("budgets: start with an empty store", "s", samples["empty"]),
        Row(f"budgets: start with {calls}", "s", samples["past"], samples["empty"]),
        Row(f"budgets: what {calls} add", "s", difference(samples["past"], samples["empty"]), aim="0.1 s"),
        Row("budgets: what a kill adds to that", "s", difference(samples["killed"], samples["past"])),
    ]


async def _live_through(store: Path, calls: int) -> None:
    """A store of a budget that so many calls were paid from."""
    treasury = Treasury(Clock(), {}, 1_000)
    now_ms = time.time_ns() // 1_000_000
    treasury.open(open_journal(store, durability="process", holder="the benchmark", now_ms=now_ms))
    budget = Budget("b", None, Terms(limits={"total_tokens": 2**52}), None)
    now = treasury.clock.now()
    treasury.ledger.open(now, budget)
    for number in range(calls):
        call = Call(f"request-{number}", "provider/model", now.mono + 60)
        hold = treasury.ledger.reserve(now, budget, _HELD, call)
        assert isinstance(hold, Hold)
        treasury.ledger.dispatch(hold)
        treasury.ledger.settle(now, hold, _ACTUAL)
        if number % TOGETHER == 0:
            await treasury.journal.write(treasury.ledger.changes.take())
    await treasury.journal.write(treasury.ledger.changes.take())
    await treasury.close()


def _start(directory: Path, store: Path | None, name: str) -> Mapping[str, float]:
    if store is None:
        store = directory / "empty.db"
        store.unlink(missing_ok=True)
    began = perf_counter()
    with started(directory, config=f'[ledger]\npath = "{store}"\n') as daemon, Lines(daemon.socket) as ours:
        ours.one(ping.REQUEST)
        took = perf_counter() - began
        daemon.stop()
    return {name: took}


def _start_after_a_kill(directory: Path, store: Path) -> Mapping[str, float]:
    """The log of the life before is as long as it gets."""
    config = f'[ledger]\npath = "{store}"\ndurability = "process"\n'
    with started(directory, config=config) as daemon, Lines(daemon.socket) as connection:
        budget = _ask(connection, "budget.open", {"total": 2**52})["budget"]
        charge = _request(1, "budget.charge", {"budget": budget, "amounts": {"total_tokens": 1}})
        connection.in_turn(charge, IN_TURN)
        daemon.process.kill()
        daemon.process.wait()
    return {"killed": _start(directory, store, "killed")["killed"]}
