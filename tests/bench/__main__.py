"""Run benchmarks and print one table: the command and the commit above it, a floor beside each number.

Rounds are interleaved, so that a machine that is busy for a while is busy for all of them. Nothing here asserts a time.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from llmd.known import KNOWN
from tests.bench import budgets, command, dialects, durable, execute, http, ledger, library, load, ping, routing, start
from tests.bench.measure import Row, table

BENCHMARKS: dict[str, Callable[[Path, int], list[Row]]] = {
    "ping": ping.run,
    "command": command.run,
    "start": start.run,
    "execute": execute.run,
    "http": http.run,
    "dialects": dialects.run,
    "routing": routing.run,
    "load": load.run,
    "ledger": ledger.run,
    "durable": durable.run,
    "budgets": budgets.run,
    "library": library.run,
}


def main() -> int:
    options = _options()
    print(f"command: python -m tests.bench {' '.join(sys.argv[1:])}".rstrip())
    print(f"commit:  {_commit()}")
    print(f"on:      Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs")
    print(f"rounds:  {options.rounds}, interleaved\n", flush=True)
    rows: list[Row] = []
    for name in dict.fromkeys(options.names or BENCHMARKS):
        print(f"measuring {name}", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="llmd-bench-") as directory:
            _own_environment(Path(directory))
            rows += BENCHMARKS[name](Path(directory), options.rounds)
    print(table(rows))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"{', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {unknown[0]!r}: there are {', '.join(BENCHMARKS)}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def _commit() -> str:
    """The commit that is measured, and whether the sources differ from it."""
    here = Path(__file__).parents[2]
    try:
        head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, check=True)
        changed = subprocess.run(["git", "status", "--porcelain", "llmd"], cwd=here, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.decode().strip() + (", with changes in llmd/" if changed.stdout else "")


def _own_environment(directory: Path) -> None:
    """Every path that llmd takes from the environment is this run's own, and no key is set."""
    for name, part in {"XDG_RUNTIME_DIR": "run", "XDG_STATE_HOME": "state", "XDG_CONFIG_HOME": "config"}.items():
        (directory / part).mkdir(mode=0o700)
        os.environ[name] = str(directory / part)
    for name in ("LLMD_SOCKET", "LLMD_CONFIG", *(variable for row in KNOWN.values() for variable in row.key_env)):
        os.environ.pop(name, None)


if __name__ == "__main__":
    sys.exit(main())
