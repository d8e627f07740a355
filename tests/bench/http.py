"""`execute` over HTTP beside the same over the Unix socket, before one upstream: one call at a time and 32 in flight.

Every client is a bare blocking socket that knows the bytes it sends, so that what is measured is the daemon.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from tests.bench.client import Http, Lines
from tests.bench.measure import Lane, Row, cpu_s, difference, interleaved
from tests.bench.servers import daemon as started
from tests.bench.servers import running
from tests.transports.test_tcp import free_port

IN_TURN = 500
MANY = 2_000
IN_FLIGHT = 32

_ASK = {"provider": "up", "model": "m", "prompt": "Say hello."}
_CHAT = {"model": "up/m", "messages": [{"role": "user", "content": "Say hello."}]}
_LINE = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "execute", "params": _ASK}).encode() + b"\n"


def run(directory: Path, rounds: int) -> list[Row]:
    port = free_port()
    with running("upstream", "0") as upstream:
        base_url = f"http://127.0.0.1:{upstream.address}/v1"
        config = f'[listen]\nhttp = "http://127.0.0.1:{port}"\n[providers.up]\nbase_url = "{base_url}"\n'
        with started(directory, config=config) as daemon, Lines(daemon.socket) as lines:
            reply = json.loads(lines.one(_LINE))
            execute, chat = _post("/execute", _ASK), _post("/v1/chat/completions", _CHAT)
            with Http(port) as ours:
                assert json.loads(ours.one(execute))["text"] == reply["result"]["text"] == "Hello there."
                assert json.loads(ours.one(chat))["choices"][0]["message"]["content"] == "Hello there."
            pid = daemon.process.pid
            samples = interleaved(
                [
                    _direct_lane(int(upstream.address)),
                    *_line_lanes(lines, pid),
                    *_http_lanes("execute", port, execute, pid),
                    *_http_lanes("chat", port, chat, pid),
                ],
                rounds,
            )
    return _rows(samples)


def _rows(samples: Mapping[str, list[float]]) -> list[Row]:
    direct, socket = samples["direct"], samples["socket"]
    many = f"{IN_FLIGHT} in flight"
    return [
        Row("http, 1: the upstream alone", "us", direct),
        Row("http, 1: the socket over the upstream", "us", difference(socket, direct), aim="500 us"),
        Row("http, 1: /execute over the upstream", "us", difference(samples["execute"], direct), aim="500 us"),
        Row("http, 1: /v1/chat/completions over the upstream", "us", difference(samples["chat"], direct)),
        Row("http, 1: /execute over the socket", "us", difference(samples["execute"], socket)),
        Row("http, 1: CPU of the daemon, socket", "us", samples["socket CPU"]),
        Row("http, 1: CPU, /execute", "us", samples["execute CPU"], samples["socket CPU"]),
        Row("http, 1: CPU, /v1/chat/completions", "us", samples["chat CPU"], samples["socket CPU"]),
        Row(f"http, {many}: CPU of the daemon, socket", "us", samples["socket CPU many"]),
        Row(f"http, {many}: CPU, /execute", "us", samples["execute CPU many"], samples["socket CPU many"]),
        Row(f"http, {many}: CPU, /v1/chat/completions", "us", samples["chat CPU many"], samples["socket CPU many"]),
    ]


def _post(path: str, body: object) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def _direct_lane(port: int) -> Lane:
    request = _post("/v1/chat/completions", {**_CHAT, "model": "m"})

    def in_turn() -> Mapping[str, float]:
        with Http(port) as http:
            return {"direct": http.in_turn(request, IN_TURN) / IN_TURN}

    return in_turn


def _line_lanes(lines: Lines, pid: int) -> list[Lane]:
    def in_turn() -> Mapping[str, float]:
        cpu = cpu_s(pid)
        took = lines.in_turn(_LINE, IN_TURN)
        return {"socket": took / IN_TURN, "socket CPU": (cpu_s(pid) - cpu) / IN_TURN}

    requests = [_LINE.replace(b'"id": 1', b'"id": %d' % number) for number in range(MANY)]

    def many() -> Mapping[str, float]:
        cpu = cpu_s(pid)
        lines.pipelined(requests, IN_FLIGHT)
        return {"socket CPU many": (cpu_s(pid) - cpu) / MANY}

    return [in_turn, many]


def _http_lanes(name: str, port: int, request: bytes, pid: int) -> list[Lane]:
    def in_turn() -> Mapping[str, float]:
        with Http(port) as http:
            cpu = cpu_s(pid)
            took = http.in_turn(request, IN_TURN)
            return {name: took / IN_TURN, f"{name} CPU": (cpu_s(pid) - cpu) / IN_TURN}

    def many() -> Mapping[str, float]:
        with Http(port, IN_FLIGHT) as http:
            cpu = cpu_s(pid)
            http.together(request, MANY)
            return {f"{name} CPU many": (cpu_s(pid) - cpu) / MANY}

    return [in_turn, many]
