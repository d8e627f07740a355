"""The ledger in memory: a hold that is taken, dispatched and settled, and a large tree; no journal, no loop.

The floor is what no ledger of this shape can leave out: two integers added to and one compared at every level, in
Python. Times are CPU time.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from time import process_time

from llmd.books import Unit
from llmd.clock import Now
from llmd.core.amounts import pack
from llmd.core.budget import Budget, Terms
from llmd.core.holds import Call, Hold
from llmd.core.ledger import Ledger
from tests.bench.measure import Lane, Row, interleaved

CALLS = 5_000
DEPTHS = (1, 3, 8)
LIMIT = 10**12
WALL_MS = 1_795_348_800_000
TREE = 100_000
BUSY = 1_000  # budgets below the root, each with 99 of its own: what an agent's sub-agents are

HELD = pack({"total_tokens": 1500, "input_tokens": 1000, "output_tokens": 500, "requests": 1, "nano_usd": 2_000_000})
SPENT = pack({"total_tokens": 1200, "input_tokens": 1000, "output_tokens": 200, "requests": 1, "nano_usd": 1_000_000})
CALL = Call("a request", "provider/model")


def run(directory: Path, rounds: int) -> list[Row]:
    lanes = [lane for depth in DEPTHS for lane in (_floor(depth), _calls(depth, 0), _calls(depth, LIMIT))]
    samples = interleaved([*lanes, _tree], rounds)
    rows = []
    for depth in DEPTHS:
        floor, aim = samples[f"floor {depth}"], "20 us" if depth == 8 else ""
        rows += [
            Row(f"ledger: two additions and a comparison a level, twice, depth {depth}", "us", floor),
            Row(f"ledger: reserve, dispatch, settle, depth {depth}", "us", samples[f"{depth} plain"], floor, aim),
            Row(f"ledger: the same, each with a guarantee, depth {depth}", "us", samples[f"{depth} paid"], floor),
            Row(f"ledger: taking its rows and entries, depth {depth}", "us", samples[f"{depth} plain take"]),
        ]
    return [
        *rows,
        Row(f"ledger: opening one of {TREE:,} budgets", "us", samples["open"]),
        Row(f"ledger: bytes of memory of one of {TREE:,} budgets (RSS)", "", samples["bytes"]),
        Row(f"ledger: closing {TREE:,} budgets", "s", samples["close"]),
    ]


def _calls(depth: int, guarantee: int) -> Lane:
    """Calls one after the other at the bottom of a chain, and what the journal takes of all of them."""
    name = f"{depth} {'paid' if guarantee else 'plain'}"

    def lane() -> Mapping[str, float]:
        ledger, budget = _chain(depth, guarantee)
        begun = process_time()
        for number in range(CALLS):
            now = Now(number / 1000, WALL_MS + number)
            hold = ledger.reserve(now, budget, HELD, CALL)
            assert isinstance(hold, Hold)
            ledger.dispatch(hold)
            ledger.settle(now, hold, SPENT)
        done = process_time()
        ledger.changes.take()
        return {name: (done - begun) / CALLS, f"{name} take": (process_time() - done) / CALLS}

    return lane


def _chain(depth: int, guarantee: int) -> tuple[Ledger, Budget]:
    """Budgets limited in tokens and money; guarantees are of tokens, halve downwards and are never spent."""
    ledger, now = Ledger(), Now(0.0, WALL_MS)
    budget: Budget | None = None
    for number in range(depth):
        paid: dict[Unit, int] = {"total_tokens": guarantee >> number} if guarantee and budget is not None else {}
        terms = Terms(limits={"total_tokens": LIMIT, "nano_usd": LIMIT}, guarantee=paid)
        budget = Budget(str(number), budget, terms, None)
        assert ledger.open(now, budget) is None
    assert budget is not None
    ledger.changes.take()
    return ledger, budget


def _floor(depth: int) -> Lane:
    def lane() -> Mapping[str, float]:
        path = [[0, 0, LIMIT] for _ in range(depth)]
        begun = process_time()
        for _ in range(CALLS):
            for first, second in ((1500, 0), (-300, 1200)):
                for counters in path:
                    counters[0] += first
                    counters[1] += second
                    assert counters[0] <= counters[2]
        return {f"floor {depth}": (process_time() - begun) / CALLS}

    return lane


def _tree() -> Mapping[str, float]:
    """In a process of its own, whose memory has held nothing else."""
    command = [sys.executable, "-c", "from tests.bench.ledger import grow; grow()"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True, timeout=120
    )
    took, size, closed = map(float, done.stdout.split())
    return {"open": took / TREE, "bytes": size / TREE, "close": closed}


def grow() -> None:
    """Open the tree and close it; print how long the first took, the bytes that it takes, and how long the second."""
    ledger, now, before = Ledger(), Now(0.0, WALL_MS), _rss()
    budgets: list[Budget] = []
    terms = Terms(limits={"total_tokens": LIMIT}, lease_s=3600)
    begun = process_time()
    for number in range(TREE):
        above = (number - 1 - BUSY) % BUSY + 1 if number > BUSY else 0
        budget = Budget(f"b_{number:022}", budgets[above] if budgets else None, terms, f"{number:064x}")
        assert ledger.open(now, budget) is None
        budgets.append(budget)
        if number % 64 == 0:
            ledger.changes.take()
    opened = process_time() - begun
    ledger.changes.take()
    size = _rss() - before
    begun = process_time()
    ledger.close(now, budgets[0])
    for closed in ledger.finished:
        ledger.fold(closed)
    print(opened, size, process_time() - begun)
    assert ledger.budgets == {}


def _rss() -> int:
    """Bytes that this process has in memory; Linux."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096
