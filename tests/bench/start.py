"""From exec to the first ping answered, what the daemon then weighs, and what it has loaded."""

import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from time import perf_counter

from tests.bench.client import Lines
from tests.bench.measure import Row, interleaved
from tests.bench.ping import REQUEST
from tests.bench.servers import REPLY, running
from tests.bench.servers import daemon as started

SERVING_HTTP = ("starlette", "uvicorn", "prometheus_client")

# What a daemon with no HTTP listener loads, its warm-up included.
_MODULES = f"""
import sys, llmd.cli.serve, llmd.daemon, llmd.providers
print(len(sys.modules), sum(name.partition(".")[0] in {SERVING_HTTP} for name in sys.modules))
"""


def run(directory: Path, rounds: int) -> list[Row]:
    samples = interleaved([partial(_floor, directory), partial(_daemon, directory)], rounds)
    done = subprocess.run([sys.executable, "-c", _MODULES], check=True, capture_output=True)
    modules, serving = (float(number) for number in done.stdout.split())
    return [
        Row("start: bare uvloop server, exec to first answer", "s", samples["floor"]),
        Row("start: llmd, exec to first ping answered", "s", samples["ready"], samples["floor"], "0.5 s"),
        Row("start: llmd, resident when ready", "MB", samples["resident"]),
        Row("start: llmd, resident after its warm-up", "MB", samples["warm"], aim="50 MB"),
        Row("start: llmd, modules loaded after its warm-up", "", [modules]),
        Row(f"start: of these {', '.join(SERVING_HTTP)}", "", [serving], aim="0"),
    ]


def _floor(directory: Path) -> Mapping[str, float]:
    path = directory / "lines.sock"
    path.unlink(missing_ok=True)
    began = perf_counter()
    with running("lines", str(path)), Lines(path) as connection:
        assert connection.one(REQUEST) == REPLY
        return {"floor": perf_counter() - began}


def _daemon(directory: Path) -> Mapping[str, float]:
    began = perf_counter()
    with started(directory) as daemon, daemon.wire() as wire:
        assert wire.call("ping")["result"] == {}
        ready, resident = perf_counter() - began, daemon.rss_bytes()
        # It asks the local engines, so it is answered when what carries HTTP is loaded.
        wire.call("models.list")
        return {"ready": ready, "resident": resident, "warm": daemon.rss_bytes()}
