"""Many calls at once: execute_many over its slowest call, calls over many connections, pings meanwhile, memory.

The upstream answers after a fixed time; the floor of a group is that time, of memory an idle daemon.
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

from tests.bench import ping
from tests.bench.client import Lines
from tests.bench.measure import Lane, Row, cpu_s, interleaved
from tests.bench.servers import LATENCY_S, running
from tests.bench.servers import daemon as started

GROUPS = (5, 50, 500)
CONNECTIONS = (1, 32, 256)
CALLS = 2_048
PINGS = 500
HELD = 256
IDLE = 500

_CONFIG = """
[providers.late]
base_url = "http://127.0.0.1:{late}/v1"
[providers.up]
base_url = "http://127.0.0.1:{prompt}/v1"
[providers.held]
dialect = "echo"
latency_ms = 600000
[limits]
connections = 2048
in_flight = 10000
[ledger]
store = "memory"
"""
_LATE = {"provider": "late", "model": "m", "prompt": "Say hello."}
_PROMPT = {**_LATE, "provider": "up"}


def run(directory: Path, rounds: int) -> list[Row]:
    with running("late", "0") as late, running("upstream", "0") as prompt, ExitStack() as stack:
        config = _CONFIG.format(late=late.address, prompt=prompt.address)
        daemon = stack.enter_context(started(directory, config=config))
        pool = [stack.enter_context(Lines(daemon.socket)) for _ in range(max(CONNECTIONS))]
        lanes = [
            *(_many(pool[0], size) for size in GROUPS),
            *(_together(pool[:count], daemon.process.pid) for count in CONNECTIONS),
            _pings(daemon.socket, busy=False),
            _pings(daemon.socket, busy=True),
        ]
        samples = interleaved(lanes, rounds)
    wait = [LATENCY_S] * rounds
    aims = {5: "1.05 x floor", 50: "1.05 x floor", 500: "1.2 x floor"}
    return [
        *(Row(f"execute_many of {n}: wall", "ms", samples[f"many {n}"], wait, aims[n]) for n in GROUPS),
        *(Row(f"{n} connections: calls a second", "", samples[f"rate {n}"]) for n in CONNECTIONS),
        *(Row(f"{n} connections: CPU a call", "us", samples[f"CPU {n}"], samples["CPU 1"]) for n in CONNECTIONS),
        Row("ping, nothing else: p99", "us", samples["idle p99"]),
        Row(f"ping, while {HELD} calls run and end: p99", "us", samples["busy p99"], samples["idle p99"]),
        *_memory(directory),
    ]


def _request(number: int, method: str, params: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"


def _many(lines: Lines, size: int) -> Lane:
    request = _request(1, "execute_many", {"calls": [_LATE] * size})

    def measure() -> Mapping[str, float]:
        began = perf_counter()
        reply = json.loads(lines.one(request))
        took = perf_counter() - began
        assert all("ok" in result for result in reply["result"]["results"])
        return {f"many {size}": took}

    return measure


def _together(pool: list[Lines], pid: int) -> Lane:
    """One call in flight on each connection, again as soon as it is answered."""
    request = _request(1, "execute", _PROMPT)

    def measure() -> Mapping[str, float]:
        cpu, began = cpu_s(pid), perf_counter()
        for _ in range(CALLS // len(pool)):
            for lines in pool:
                lines.send(request)
            for lines in pool:
                lines.receive(1)
        took = perf_counter() - began
        made = CALLS // len(pool) * len(pool)
        return {f"rate {len(pool)}": made / took, f"CPU {len(pool)}": (cpu_s(pid) - cpu) / made}

    return measure


def _pings(path: Path, *, busy: bool) -> Lane:
    calls = b"".join(_request(number, "execute", _LATE) for number in range(HELD))

    def measure() -> Mapping[str, float]:
        with Lines(path) as other, Lines(path) as pinging:
            times: list[float] = []
            while len(times) < PINGS:
                if busy:
                    other.send(calls)
                for _ in range(PINGS // 5):
                    began = perf_counter()
                    pinging.one(ping.REQUEST)
                    times.append(perf_counter() - began)
                if busy:
                    other.receive(HELD)
            return {f"{'busy' if busy else 'idle'} p99": sorted(times)[len(times) * 99 // 100]}

    return measure


def _memory(directory: Path) -> list[Row]:
    """Once: what an idle connection takes, and a call in flight."""
    call = _request(1, "execute", {"model": "held/m", "prompt": "Say hello."})
    with started(directory, config=_CONFIG.format(late=9, prompt=9)) as daemon, ExitStack() as stack:
        warm = stack.enter_context(Lines(daemon.socket))
        warm.send(call)
        warm.one(ping.REQUEST)
        empty = daemon.rss_bytes()
        for _ in range(IDLE):
            stack.enter_context(Lines(daemon.socket))
        warm.one(ping.REQUEST)
        connected = daemon.rss_bytes()
        warm.send(b"".join(call.replace(b'"id": 1', b'"id": %d' % number) for number in range(2, IDLE + 2)))
        warm.one(ping.REQUEST)
        calling = daemon.rss_bytes()
    return [
        Row(f"memory: a connection, of {IDLE}", "KB", [(connected - empty) / IDLE]),
        Row(f"memory: a call in flight, of {IDLE}", "KB", [(calling - connected) / IDLE]),
    ]
