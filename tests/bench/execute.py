"""`execute` over calling the same upstream directly, one call at a time and 32 in flight.

Directly means an httpx.AsyncClient as it comes, and the transport that the daemon itself uses, both on uvloop in this
process. Wall time and CPU of a call count everything that the caller's side does: request, response, its JSON.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter, process_time
from typing import TypeVar

import httpx
import uvloop

from llmd.providers import AiohttpTransport
from tests.bench.client import Lines
from tests.bench.measure import Lane, Row, cpu_s, difference, interleaved
from tests.bench.servers import daemon as started
from tests.bench.servers import running

IN_TURN = 500
MANY = 2_000
IN_FLIGHT = 32

T = TypeVar("T")
Call = Callable[[], Awaitable[None]]

_BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Say hello."}]}).encode()
_HEADERS = {"content-type": "application/json", "accept": "application/json"}
_REQUEST = (
    b'{"jsonrpc":"2.0","id":%d,"method":"execute","params":{"provider":"up","model":"m","prompt":"Say hello."}}\n'
)


def run(directory: Path, rounds: int) -> list[Row]:
    with running("upstream", "0") as upstream, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        base_url = f"http://127.0.0.1:{upstream.address}/v1"
        config = f'[providers.up]\ndialect = "openai"\nbase_url = "{base_url}"\n'
        client = runner.run(_opened(httpx.AsyncClient))
        transport = runner.run(_opened(AiohttpTransport))
        with started(directory, config=config) as daemon, Lines(daemon.socket) as connection:
            reply = json.loads(connection.one(_REQUEST % 0))
            assert reply["result"]["text"] == "Hello there.", reply
            samples = interleaved(
                [
                    *_direct_lanes("httpx", runner, _httpx_call(client, base_url)),
                    *_direct_lanes("transport", runner, _transport_call(transport, base_url)),
                    *_daemon_lanes(connection, daemon.process.pid),
                ],
                rounds,
            )
        runner.run(client.aclose())
        runner.run(transport.aclose())
    return _rows(samples)


def _rows(samples: Mapping[str, list[float]]) -> list[Row]:
    httpx_1, transport_1, llmd_1 = (samples[f"{name} 1"] for name in ("httpx", "transport", "llmd"))
    httpx_cpu, transport_cpu, llmd_cpu = (samples[f"{name} CPU"] for name in ("httpx", "transport", "llmd"))
    many = f"{IN_FLIGHT} in flight"
    return [
        Row("execute, 1: httpx as it comes", "us", httpx_1),
        Row("execute, 1: llmd's transport, direct", "us", transport_1),
        Row("execute, 1: through the daemon", "us", llmd_1, transport_1),
        Row("execute, 1: daemon over llmd's transport", "us", difference(llmd_1, transport_1), aim="500 us"),
        Row("execute, 1: daemon over httpx as it comes", "us", difference(llmd_1, httpx_1), aim="500 us"),
        Row("execute, 1: CPU of the daemon", "us", samples["llmd CPU 1"], samples["transport CPU 1"]),
        Row(f"execute, {many}: CPU, httpx as it comes", "us", httpx_cpu),
        Row(f"execute, {many}: CPU, llmd's transport, direct", "us", transport_cpu),
        Row(f"execute, {many}: CPU, the daemon", "us", llmd_cpu, transport_cpu, "500 us"),
        Row(f"execute, {many}: calls a second and core, direct", "", [1 / value for value in transport_cpu]),
        Row(f"execute, {many}: calls a second and core, daemon", "", [1 / value for value in llmd_cpu], aim="2,000"),
        Row(f"execute, {many}: wall, httpx as it comes", "us", samples["httpx many"]),
        Row(f"execute, {many}: wall, llmd's transport, direct", "us", samples["transport many"]),
        Row(f"execute, {many}: wall, through the daemon", "us", samples["llmd many"], samples["transport many"]),
    ]


async def _opened(make: Callable[[], T]) -> T:
    """Made inside the running loop, as both need."""
    return make()


def _httpx_call(client: httpx.AsyncClient, base_url: str) -> Call:
    async def call() -> None:
        response = await client.post(base_url + "/chat/completions", content=_BODY, headers=_HEADERS)
        assert response.json()["usage"]["total_tokens"] == 12

    return call


def _transport_call(transport: AiohttpTransport, base_url: str) -> Call:
    async def call() -> None:
        request = httpx.Request("POST", base_url + "/chat/completions", content=_BODY, headers=_HEADERS)
        response = await transport.handle_async_request(request)
        try:
            body = await response.aread()
        finally:
            await response.aclose()
        assert json.loads(body)["usage"]["total_tokens"] == 12

    return call


def _direct_lanes(name: str, runner: asyncio.Runner, call: Call) -> list[Lane]:
    def in_turn() -> Mapping[str, float]:
        cpu, began = process_time(), perf_counter()
        runner.run(_repeat(call, iter(range(IN_TURN))))
        wall = (perf_counter() - began) / IN_TURN
        return {f"{name} 1": wall, f"{name} CPU 1": (process_time() - cpu) / IN_TURN}

    def many() -> Mapping[str, float]:
        cpu, began = process_time(), perf_counter()
        runner.run(_repeat_together(call))
        wall = (perf_counter() - began) / MANY
        return {f"{name} many": wall, f"{name} CPU": (process_time() - cpu) / MANY}

    return [in_turn, many]


async def _repeat(call: Call, turns: Iterator[int]) -> None:
    for _ in turns:
        await call()


async def _repeat_together(call: Call) -> None:
    turns = iter(range(MANY))  # shared: each worker takes the next
    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(_repeat(call, turns))


def _daemon_lanes(connection: Lines, pid: int) -> list[Lane]:
    requests = [_REQUEST % number for number in range(MANY)]

    def in_turn() -> Mapping[str, float]:
        cpu = cpu_s(pid)
        took = connection.in_turn(requests[0], IN_TURN)
        return {"llmd 1": took / IN_TURN, "llmd CPU 1": (cpu_s(pid) - cpu) / IN_TURN}

    def many() -> Mapping[str, float]:
        cpu = cpu_s(pid)
        took = connection.pipelined(requests, IN_FLIGHT)
        return {"llmd many": took / MANY, "llmd CPU": (cpu_s(pid) - cpu) / MANY}

    return [in_turn, many]
