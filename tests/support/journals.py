"""Stores on disk for tests: batches that are told apart by a number, and stores as a crash leaves them."""

import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from llmd.journal import Batch, Journal, JournalEntry
from llmd.journal.sqlite import SqliteJournal, open_journal
from llmd.journal.store_files import log_of

NOW_MS = 1_700_000_000_000
KEYS = 7


def opened(
    path: Path, durability: str = "full", holder: str = "/run/llmd/rpc.sock", now_ms: int = NOW_MS
) -> SqliteJournal:
    """Open the store at `path` as a daemon of that socket would."""
    assert durability == "full" or durability == "process"
    return open_journal(path, durability=durability, holder=holder, now_ms=now_ms)


def numbered(number: int, size: int = 10) -> Batch:
    """The batch of that number: its count, a row of a few that all batches share, one that goes, an entry."""
    rows: dict[str, bytes | None] = {
        "count": b"%d" % number,
        f"shared/{number % KEYS}": b"%d" % number * size,
        f"short/{number}": b"",
        f"short/{number - 1}": None,
    }
    return Batch(rows=rows, entries=[JournalEntry(NOW_MS + number, "root/leaf", b"%d" % number + b" " * size)])


def state_after(number: int, size: int = 10) -> dict[str, bytes]:
    """The rows when the batches 1 to `number` are written, and no others."""
    rows: dict[str, bytes] = {}
    for each in range(1, number + 1):
        for key, value in numbered(each, size).rows.items():
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value
    return rows


async def write_all(journal: Journal, numbers: Iterable[int], size: int = 10) -> None:
    for number in numbers:
        await journal.write(numbered(number, size))


async def crashed(directory: Path, batches: int, size: int = 10) -> Path:
    """A store whose daemon was killed after so many batches: all of them are in its log."""
    journal = opened(directory / "before" / "ledger.db")
    await write_all(journal, range(1, batches + 1), size)
    (directory / "after").mkdir(mode=0o700)
    path = directory / "after" / "ledger.db"
    for source in (directory / "before" / "ledger.db", log_of(directory / "before" / "ledger.db")):
        shutil.copy2(source, path.with_name(source.name))
    await journal.aclose()
    return path


def flip(file: Path, position: int) -> None:
    """Damage one byte."""
    data = bytearray(file.read_bytes())
    data[position] ^= 0x5A
    file.write_bytes(data)


def contents(directory: Path, pattern: str = "*") -> dict[str, bytes]:
    """The files there, by name."""
    return {file.name: file.read_bytes() for file in directory.glob(pattern)}


async def found(path: Path) -> tuple[dict[str, bytes], list[bytes]]:
    """What a store gives back when it is opened again: its rows, and the numbers in its entries."""
    journal = opened(path)
    assert journal.read_only is None
    try:
        return dict(journal.rows("")), [entry.data.rstrip() for _, entry in await journal.entries("root", 0, 1_000_000)]
    finally:
        await journal.aclose()


class Child:
    """A process of journal_child, spoken with a line at a time."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def tell(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """The next line, or nothing at the end."""
        assert self.process.stdout
        return self.process.stdout.readline().rstrip("\n")

    def ask(self, line: str) -> str:
        self.tell(line)
        return self.hear()

    def kill(self) -> list[str]:
        """End it at once, and return what it had said."""
        self.process.kill()
        assert self.process.stdout
        rest = self.process.stdout.read().splitlines(keepends=True)
        self.process.wait(30)
        return [line.rstrip("\n") for line in rest if line.endswith("\n")]


@contextmanager
def child(*before: str) -> Iterator[Child]:
    """`before`: a command that the process is run by."""
    command = [*before, sys.executable, "-m", "tests.support.journal_child"]
    root = Path(__file__).parent.parent.parent
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            yield Child(process)
        finally:
            process.kill()
            process.wait(30)
