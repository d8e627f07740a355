"""The journal on disk: what a crash leaves, and a disk that is full, refuses bytes, or cannot sync."""

import logging
import os
import random
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from llmd.journal import StoreUnavailable, WriteFailed
from llmd.journal.store_files import log_of
from tests.support.journals import Child, child, contents, crashed, flip, found, numbered, opened, state_after

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("durability", ["full", "process"])
async def test_after_a_kill_a_prefix_with_all_that_was_acknowledged_is_found(tmp_path: Path, durability: str) -> None:
    chance = random.Random(durability)
    for run in range(8):
        path = tmp_path / f"{run}" / "ledger.db"
        with child() as writer:
            assert writer.ask(f"open {path} {durability}") == "opened"
            writer.tell("run")
            heard = [writer.hear() for _ in range(chance.randrange(200))]
            acknowledged = int(["0", *heard, *writer.kill()][-1])
        rows, entries = await found(path)
        number = int(rows.get("count", b"0"))
        assert number in (acknowledged, acknowledged + 1)
        assert rows == state_after(number)
        assert entries == [b"%d" % each for each in range(1, number + 1)]


async def test_a_torn_tail_is_cut_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = await crashed(tmp_path, 5)
    data = log_of(path).read_bytes()
    log_of(path).write_bytes(data[:-1])
    with caplog.at_level(logging.WARNING, "llmd.journal"):
        assert await found(path) == (state_after(4), [b"1", b"2", b"3", b"4"])
    assert f"ledger {path}: a torn tail of " in caplog.text


async def test_a_log_without_its_database_is_not_thrown_away(tmp_path: Path) -> None:
    path = await crashed(tmp_path, 5)
    for lose in (path.unlink, path.touch):
        lose()
        with pytest.raises(StoreUnavailable, match=r"is gone, and its log ledger\.db-wal is there"):
            opened(path)
        assert log_of(path).stat().st_size


def modes(directory: Path, pattern: str) -> list[int]:
    return [stat.S_IMODE(file.stat().st_mode) for file in directory.glob(pattern)]


async def damaged(tmp_path: Path) -> Path:
    path = await crashed(tmp_path, 6)
    flip(log_of(path), log_of(path).stat().st_size // 2)
    return path


async def test_a_damaged_log_leaves_a_journal_that_is_only_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = await damaged(tmp_path)
    before = contents(path.parent)
    journal = opened(path)
    assert journal.read_only
    assert "llmd ledger accept-loss" in journal.read_only
    assert journal.read_only in caplog.text
    with pytest.raises(WriteFailed, match="accept-loss"):
        await journal.write(numbered(9))
    rows = dict(journal.rows(""))
    assert 0 < int(rows["count"]) < 6
    assert rows == state_after(int(rows["count"]))
    assert await journal.row("count") == rows["count"]
    assert len(await journal.entries("root", 0, 100)) == int(rows["count"])
    assert modes(tmp_path, "llmd-ledger-*/*") == [0o600, 0o600]
    # The lock is free, for whoever accepts the loss.
    other = opened(path)
    await other.aclose()
    await journal.aclose()
    assert contents(path.parent) == {**before, "ledger.db.lock": b""}
    assert modes(tmp_path, "llmd-ledger-*") == []


def needs_seccomp() -> None:
    if sys.platform != "linux" or os.uname().machine not in ("x86_64", "aarch64"):
        pytest.skip("the numbers of its system calls are known for Linux on two machines")


async def test_a_failed_sync_is_the_end_for_everything_that_comes_after(tmp_path: Path) -> None:
    needs_seccomp()
    with child() as writer:
        assert writer.ask(f"open {tmp_path}/ledger.db full") == "opened"
        assert writer.ask("write 1 10") == "written"
        assert writer.ask("deny fsync fdatasync") == "denied"
        assert writer.ask("write 2 10") == "DurabilityLost disk I/O error (SQLITE_IOERR_FSYNC)"
        assert writer.ask("write 3 10").startswith("DurabilityLost")
        assert writer.ask("count").startswith("DurabilityLost")
        writer.kill()
    rows, _ = await found(tmp_path / "ledger.db")
    assert rows in (state_after(1), state_after(2))


async def test_a_disk_that_refuses_bytes_fails_the_write_and_nothing_of_it_is_there(tmp_path: Path) -> None:
    needs_seccomp()
    with child() as writer:
        assert writer.ask(f"open {tmp_path}/ledger.db full") == "opened"
        assert writer.ask("write 1 10") == "written"
        assert writer.ask("deny pwrite64") == "denied"
        for _ in range(3):
            assert writer.ask("write 2 10") == "WriteFailed disk I/O error (SQLITE_IOERR_WRITE)"
        assert writer.ask("count") == "1"
        writer.kill()
    assert (await found(tmp_path / "ledger.db"))[0] == state_after(1)


def write_until_refused(writer: Child, first: int, size: int) -> tuple[int, str]:
    """The number of the first batch that is refused, and how."""
    for number in range(first, first + 5000):
        said = writer.ask(f"write {number} {size}")
        if said != "written":
            return number, said
    pytest.fail("nothing was refused")


@pytest.mark.parametrize("spare", [0, 1, 20, 24, 25, 2000, 4120, 5000, 9000, 12000])
async def test_when_there_is_room_again_the_batch_that_was_refused_is_written(tmp_path: Path, spare: int) -> None:
    path = tmp_path / "ledger.db"
    with child() as writer:
        assert writer.ask(f"open {path} full") == "opened"
        for number in range(1, 11):
            assert writer.ask(f"write {number} 10") == "written"
        assert writer.ask(f"room {log_of(path).stat().st_size + spare}") == "limited"
        refused, said = write_until_refused(writer, 11, 10)
        assert said.startswith(("WriteFailed disk I/O error (SQLITE_IOERR", "WriteFailed database or disk is full"))
        # A larger one, refused as well, and then the one from before: what is left of them is no damage.
        assert writer.ask(f"write {refused} 900").startswith("WriteFailed")
        assert writer.ask("count") == str(refused - 1)
        assert writer.ask(f"room {1 << 40}") == "limited"
        assert writer.ask(f"write {refused} 10") == "written"
        writer.kill()
    assert await found(path) == (state_after(refused), [b"%d" % each for each in range(1, refused + 1)])


async def test_a_full_disk_refuses_until_there_is_room_and_loses_nothing(tmp_path: Path) -> None:
    mount = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size=12m none {tmp_path}/small && exec "$@"', "sh"]
    (tmp_path / "small").mkdir()
    path = tmp_path / "small" / "ledger.db"
    with child(*mount) as writer:
        if not (said := writer.ask(f"open {path} full")):
            pytest.skip("may not mount a small file system here")
        assert said == "opened"
        # Checkpoints happen on the way, and fail: neither the log nor the database may grow any more.
        refused, said = write_until_refused(writer, 1, 9000)
        assert said == "WriteFailed database or disk is full (SQLITE_FULL)"
        inside = Path(f"/proc/{writer.process.pid}/root{path}")
        assert writer.ask(f"write {refused} 9000") == said
        assert writer.ask("count") == str(refused - 1)
        assert writer.ask("close") == "closed"
        (tmp_path / "moved").mkdir(mode=0o700)
        for name in (inside, log_of(inside)):
            if name.exists():
                (tmp_path / "moved" / name.name).write_bytes(name.read_bytes())
    rows, entries = await found(tmp_path / "moved" / "ledger.db")
    assert rows == state_after(refused - 1, 9000)
    assert entries == [b"%d" % each for each in range(1, refused)]
