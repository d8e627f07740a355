"""`ping` on the Unix socket, against a bare server that answers the same bytes with the same bytes."""

from collections.abc import Mapping
from pathlib import Path

from tests.bench.client import Lines
from tests.bench.measure import Lane, Row, cpu_s, interleaved
from tests.bench.servers import REPLY, running
from tests.bench.servers import daemon as started

IN_TURN = 5_000
PIPELINED = 20_000
IN_FLIGHT = 64

REQUEST = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'


def run(directory: Path, rounds: int) -> list[Row]:
    with (
        running("lines", str(directory / "lines.sock")) as floor,
        started(directory) as daemon,
        Lines(floor.address) as bare,
        Lines(daemon.socket) as ours,
    ):
        daemon.wire().call("models.list")  # returns after what the daemon loads behind its first calls
        assert bare.one(REQUEST) == ours.one(REQUEST) == REPLY
        samples = interleaved(
            [*_lanes("floor", bare, floor.process.pid), *_lanes("llmd", ours, daemon.process.pid)], rounds
        )
    return [
        Row("ping: bare uvloop server, round trip", "us", samples["floor in turn"]),
        Row("ping: llmd, round trip", "us", samples["llmd in turn"], samples["floor in turn"], "3 x floor"),
        Row("ping: bare server, CPU, one at a time", "us", samples["floor CPU"]),
        Row("ping: llmd, CPU, one at a time", "us", samples["llmd CPU"], samples["floor CPU"]),
        Row(f"ping: bare server, CPU, {IN_FLIGHT} in flight", "us", samples["floor pipelined CPU"]),
        Row(
            f"ping: llmd, CPU, {IN_FLIGHT} in flight",
            "us",
            samples["llmd pipelined CPU"],
            samples["floor pipelined CPU"],
        ),
    ]


def _lanes(name: str, connection: Lines, pid: int) -> list[Lane]:
    def in_turn() -> Mapping[str, float]:
        before = cpu_s(pid)
        took = connection.in_turn(REQUEST, IN_TURN)
        return {f"{name} in turn": took / IN_TURN, f"{name} CPU": (cpu_s(pid) - before) / IN_TURN}

    def pipelined() -> Mapping[str, float]:
        before = cpu_s(pid)
        connection.pipelined([REQUEST] * PIPELINED, IN_FLIGHT)
        return {f"{name} pipelined CPU": (cpu_s(pid) - before) / PIPELINED}

    return [in_turn, pipelined]
