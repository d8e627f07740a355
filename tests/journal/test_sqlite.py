"""The journal on disk: who may have it, what a crash leaves, what a disk refuses, how long a write is waited for."""

import asyncio
import os
import stat
import threading
from pathlib import Path

import anyio
import pytest

from llmd.journal import Batch, DurabilityLost, JournalEntry, StoreTaken, StoreUnavailable, WriteFailed
from llmd.journal import sqlite as module
from llmd.journal.database import SCANNED_MAX, Database
from tests.support.journals import (
    NOW_MS,
    child,
    crashed,
    found,
    numbered,
    opened,
    state_after,
    write_all,
)

pytestmark = pytest.mark.anyio


async def test_what_was_written_is_found_again(tmp_path: Path) -> None:
    journal = opened(tmp_path / "ledger.db")
    assert list(journal.rows("")) == []
    await write_all(journal, range(1, 20))
    await journal.aclose()
    assert await found(tmp_path / "ledger.db") == (state_after(19), [b"%d" % n for n in range(1, 20)])


async def test_numbers_of_entries_go_on_growing_after_a_restart(tmp_path: Path) -> None:
    for _ in range(3):
        journal = opened(tmp_path / "ledger.db")
        await write_all(journal, [1, 2])
        numbers = [number for number, _ in await journal.entries("root", 0, 100)]
        await journal.aclose()
    assert numbers == [1, 2, 3, 4, 5, 6]


async def test_a_store_is_its_owners_alone_from_the_first_moment(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        journal = opened(tmp_path / "made" / "ledger.db")
        await write_all(journal, [1])
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "made").iterdir()}
    assert modes == {"ledger.db": 0o600, "ledger.db-wal": 0o600, "ledger.db.lock": 0o600}
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700
    await journal.aclose()


async def test_a_store_that_others_could_read_is_taken_from_them(tmp_path: Path) -> None:
    path = await crashed(tmp_path, 3)
    path.chmod(0o644)
    journal = opened(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await journal.aclose()


async def test_a_second_opener_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    journal = opened(tmp_path / "ledger.db", holder="/run/other/rpc.sock")
    with pytest.raises(StoreTaken) as refused:
        opened(tmp_path / "ledger.db")
    assert (
        str(refused.value)
        == f"another llmd (pid {os.getpid()}, /run/other/rpc.sock) has the ledger {tmp_path}/ledger.db"
    )
    assert not refused.value.draining
    journal.yielding()
    with pytest.raises(StoreTaken) as refused:
        opened(tmp_path / "ledger.db")
    assert refused.value.draining
    await journal.aclose()
    await opened(tmp_path / "ledger.db").aclose()


async def test_two_names_of_one_store_are_one_store(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    journal = opened(tmp_path / "real" / "ledger.db")
    (tmp_path / "ledger.db").symlink_to(tmp_path / "real" / "ledger.db")
    for name in (tmp_path / "link" / "ledger.db", tmp_path / "ledger.db"):
        with pytest.raises(StoreTaken):
            opened(name)
    await journal.aclose()


def test_of_processes_that_race_exactly_one_gets_the_store(tmp_path: Path) -> None:
    for race in range(3):
        path = tmp_path / f"{race}" / "ledger.db"
        with child() as a, child() as b, child() as c:
            for each in (a, b, c):
                each.tell(f"open {path} full")
            said = sorted(each.hear() for each in (a, b, c))
            assert [line.split()[0] for line in said] == ["opened", "taken", "taken"]


def test_a_store_is_free_when_its_process_is_killed(tmp_path: Path) -> None:
    with child() as first, child() as second:
        assert first.ask(f"open {tmp_path}/ledger.db full") == "opened"
        assert second.ask(f"open {tmp_path}/ledger.db full").startswith(
            f"taken another llmd (pid {first.process.pid}, "
        )
        first.kill()
        assert second.ask(f"open {tmp_path}/ledger.db full") == "opened"


async def test_a_network_file_system_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 1 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / {tmp_path}/far rw - nfs4 host:/x rw\n")
    monkeypatch.setattr("llmd.journal.store_files.MOUNTS", mounts)
    with pytest.raises(StoreUnavailable, match=r"network file system \(nfs4\).*\[ledger\] path"):
        opened(tmp_path / "far" / "ledger.db")
    assert not (tmp_path / "far").exists()
    await opened(tmp_path / "near" / "ledger.db").aclose()


async def test_a_reading_of_a_long_history_lets_writes_through(tmp_path: Path) -> None:
    journal = opened(tmp_path / "ledger.db", "process")
    many = [JournalEntry(NOW_MS, "r/a", b"") for _ in range(3 * SCANNED_MAX)]
    await journal.write(Batch(rows={}, entries=[*many, JournalEntry(NOW_MS, "r/b", b"")]))
    order: list[str] = []

    async def read() -> None:
        assert [number for number, _ in await journal.entries("r/b", 0, 10)] == [len(many) + 1]
        order.append("read")

    async def write() -> None:
        await journal.write(numbered(1))
        order.append("written")

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        group.start_soon(write)
    assert order == ["written", "read"]
    await journal.aclose()


class Gate:
    """Holds a database's writes up until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        real = Database.write

        def write(database: Database, batch: Batch) -> None:
            self.entered.set()
            assert self.open.wait(30)
            real(database, batch)

        monkeypatch.setattr(Database, "write", write)


@pytest.mark.parametrize("native", [False, True], ids=["scope", "task"])
async def test_a_cancelled_write_is_waited_for_until_the_disk_has_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    journal = opened(tmp_path / "ledger.db")
    gate = Gate(monkeypatch)
    scope = anyio.CancelScope()

    async def write() -> None:
        with scope:
            await journal.write(numbered(1))

    task = asyncio.create_task(write())
    await anyio.to_thread.run_sync(gate.entered.wait, 30)
    task.cancel() if native else scope.cancel()
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    assert not task.done()
    gate.open.set()
    await asyncio.wait([task])
    assert task.cancelled() == native
    assert await journal.row("count") == b"1"
    await journal.aclose()


async def test_a_disk_that_does_not_answer_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "CLOSING_S", 0.01)
    journal = opened(tmp_path / "ledger.db")
    gate = Gate(monkeypatch)
    task = asyncio.create_task(journal.write(numbered(1)))
    await anyio.to_thread.run_sync(gate.entered.wait, 30)
    await journal.aclose()
    assert "does not answer" in caplog.text
    with pytest.raises(StoreTaken):
        opened(tmp_path / "ledger.db")
    gate.open.set()
    await task


async def test_what_is_closed_takes_nothing(tmp_path: Path) -> None:
    journal = opened(tmp_path / "ledger.db")
    await journal.aclose()
    with pytest.raises(WriteFailed, match="closed"):
        await journal.write(numbered(1))
    with pytest.raises(StoreUnavailable, match="closed"):
        await journal.row("count")
    with pytest.raises(StoreUnavailable, match="closed"):
        journal.rows("")


def test_a_journal_outlives_the_event_loop_that_it_was_first_used_in(tmp_path: Path) -> None:
    journal = opened(tmp_path / "ledger.db")
    for number in (1, 2):
        anyio.run(journal.write, numbered(number))
    assert dict(journal.rows("")) == state_after(2)
    anyio.run(journal.aclose)


async def test_opening_and_closing_leave_no_thread(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("what is this\n" * 100)
    with pytest.raises(StoreUnavailable):
        opened(tmp_path / "text.db")
    await opened(tmp_path / "ledger.db").aclose()
    for thread in threading.enumerate():
        if thread.name == "llmd-journal":
            thread.join(30)
            assert not thread.is_alive()


async def test_old_entries_go_a_few_with_each_write_and_at_the_start(tmp_path: Path) -> None:
    month_ms = 30 * 24 * 3600 * 1000
    journal = opened(tmp_path / "ledger.db")
    await journal.write(Batch(rows={}, entries=[JournalEntry(NOW_MS + number, "root", b"") for number in range(10)]))
    await journal.write(Batch(rows={}, entries=[JournalEntry(NOW_MS + month_ms + 5, "root", b"")]))
    assert [number for number, _ in await journal.entries("root", 0, 100)] == [6, 7, 8, 9, 10, 11]
    await journal.aclose()
    journal = opened(tmp_path / "ledger.db", now_ms=NOW_MS + month_ms + 8)
    assert [number for number, _ in await journal.entries("root", 0, 100)] == [9, 10, 11]
    await journal.aclose()


async def test_the_failure_of_durability_is_told_to_all_that_comes_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(tmp_path / "ledger.db")

    def fail(database: Database, batch: Batch) -> None:
        raise DurabilityLost("the disk said so")

    monkeypatch.setattr(Database, "write", fail)
    for _ in range(2):
        with pytest.raises(DurabilityLost, match="the disk said so"):
            await journal.write(numbered(1))
    with pytest.raises(DurabilityLost):
        await journal.row("count")
    with pytest.raises(DurabilityLost):
        await journal.entries("root", 0, 1)
    await journal.aclose()
