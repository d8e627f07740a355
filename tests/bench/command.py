"""`llmd call ping` with a running daemon, against an interpreter that does nothing."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter

from tests.bench.measure import Lane, Row, interleaved
from tests.bench.servers import daemon as started

RUNS = 10
IMPORTS = "import argparse, json, socket"


def run(directory: Path, rounds: int) -> list[Row]:
    script = Path(sys.executable).with_name("llmd")
    installed = [str(script)] if script.exists() else [sys.executable, "-m", "llmd"]
    with started(directory):
        samples = interleaved(
            [
                _lane("nothing", [sys.executable, "-c", "pass"]),
                _lane("imports", [sys.executable, "-c", IMPORTS]),
                _lane("call", [*installed, "call", "ping"]),
            ],
            rounds,
        )
    nothing = samples["nothing"]
    return [
        Row("command: python -c pass", "ms", nothing),
        Row(f"command: python -c '{IMPORTS}'", "ms", samples["imports"], nothing),
        Row("command: llmd call ping", "ms", samples["call"], nothing, "4 x floor"),
    ]


def _lane(name: str, command: Sequence[str]) -> Lane:
    def lane() -> Mapping[str, float]:
        began = perf_counter()
        for _ in range(RUNS):
            # Without a timeout: with one, `run` looks whether the process has ended at ever longer intervals.
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        return {name: (perf_counter() - began) / RUNS}

    return lane
