"""The library: importing it, from nothing to its first answer, and what a call costs on its way to the engine."""

import asyncio
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter

from llmd import Adapter, create_adapter, engine
from tests.bench.measure import Lane, Row, interleaved

RUNS = 5
CALLS = 1000
AT_ONCE = 100

IN_USE = "from llmd import create_adapter; create_adapter('echo/echo').execute_prompt('x')"


def run(directory: Path, rounds: int) -> list[Row]:
    started = interleaved(
        [
            _lane("nothing", "pass"),
            _lane("llmd", "import llmd"),
            _lane("in use", IN_USE),
            _lane("http", f"{IN_USE}; import llmd.providers"),
        ],
        rounds,
    )
    called = interleaved([_calls], rounds)
    nothing = started["nothing"]
    over = {name: [one - least for one, least in zip(values, nothing, strict=True)] for name, values in started.items()}
    return [
        Row("library: python -c pass", "ms", nothing),
        Row("library: import llmd, over that", "ms", over["llmd"], aim="30 ms"),
        Row("library: in use (one call answered), over that", "ms", over["in use"], aim="250 ms"),
        Row("library: the same with what carries HTTP, over that", "ms", over["http"]),
        Row("library: echo on the engine's own loop", "us", called["engine"]),
        Row("library: echo, from a thread", "us", called["thread"], called["engine"]),
        Row("library: echo, from a loop", "us", called["loop"], called["engine"]),
        Row(f"library: echo, from a loop, {AT_ONCE} at once", "us", called["at once"], called["engine"]),
    ]


def _lane(name: str, code: str) -> Lane:
    def lane() -> Mapping[str, float]:
        began = perf_counter()
        for _ in range(RUNS):
            subprocess.run([sys.executable, "-c", code], check=True)
        return {name: (perf_counter() - began) / RUNS}

    return lane


def _calls() -> Mapping[str, float]:
    """Seconds a call, however it comes to the engine."""
    adapter = create_adapter("echo/echo")
    took = {"engine": engine.shared().call(lambda on: _on_the_engine(adapter, on))}
    began = perf_counter()
    for _ in range(CALLS):
        adapter.execute_prompt("x")
    took["thread"] = (perf_counter() - began) / CALLS
    took["loop"] = asyncio.run(_in_turn([adapter] * CALLS))
    took["at once"] = asyncio.run(_at_once([adapter] * AT_ONCE))
    engine.close()
    return took


async def _on_the_engine(adapter: Adapter, on: engine.Engine) -> float:
    began = perf_counter()
    for _ in range(CALLS):
        await adapter._execute("x", adapter._config, on)
    return (perf_counter() - began) / CALLS


async def _in_turn(adapters: Sequence[Adapter]) -> float:
    began = perf_counter()
    for adapter in adapters:
        await adapter.async_execute_prompt("x")
    return (perf_counter() - began) / len(adapters)


async def _at_once(adapters: Sequence[Adapter]) -> float:
    began = perf_counter()
    for _ in range(CALLS // AT_ONCE):
        await asyncio.gather(*[adapter.async_execute_prompt("x") for adapter in adapters])
    return (perf_counter() - began) / CALLS
