"""What an operator sees of a store, and going on without what is lost."""

import os
import tempfile
from pathlib import Path

import pytest

from llmd.journal import StoreTaken, StoreUnavailable
from llmd.journal import repair as module
from llmd.journal.repair import accept_loss, check
from llmd.journal.store_files import lock_of, log_of
from tests.support.journals import NOW_MS, contents, crashed, flip, found, numbered, opened, state_after, write_all

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies go, which nothing may stay in."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


async def test_a_sound_store_has_no_problems_and_is_counted(tmp_path: Path, temporary: Path) -> None:
    journal = opened(tmp_path / "ledger.db")
    await write_all(journal, range(1, 10))
    await journal.aclose()
    checked = check(tmp_path / "ledger.db")
    assert (checked.problems, checked.notes) == ([], [])
    assert (checked.rows, checked.entries) == (len(state_after(9)), 9)
    assert checked.bytes == len(contents(tmp_path, "ledger.db")["ledger.db"])
    assert contents(temporary) == {}


async def test_a_store_in_use_is_looked_at_and_its_holder_is_named(tmp_path: Path) -> None:
    journal = opened(tmp_path / "ledger.db", holder="/run/me.sock")
    await write_all(journal, range(1, 10))
    before = contents(tmp_path / "temporary"), log_of(tmp_path / "ledger.db").read_bytes()
    checked = check(tmp_path / "ledger.db")
    assert (checked.problems, checked.notes) == ([], [f"in use by pid {os.getpid()} (/run/me.sock)"])
    assert checked.entries == 9
    journal.yielding()
    assert check(tmp_path / "ledger.db").notes[0].endswith("draining")
    assert before == (contents(tmp_path / "temporary"), log_of(tmp_path / "ledger.db").read_bytes())
    await write_all(journal, range(10, 12))
    await journal.aclose()
    assert (await found(tmp_path / "ledger.db"))[0] == state_after(11)


async def test_checking_changes_nothing_of_a_store_that_a_crash_left(tmp_path: Path) -> None:
    path = await crashed(tmp_path, 5)
    log_of(path).write_bytes(log_of(path).read_bytes()[:-1])
    before = contents(path.parent)
    checked = check(path)
    assert checked.problems == []
    assert checked.notes[0].startswith("a torn tail of ")
    assert checked.entries == 4
    assert contents(path.parent) == before


async def test_a_damaged_log_is_a_problem(tmp_path: Path) -> None:
    path = await crashed(tmp_path, 6)
    flip(log_of(path), log_of(path).stat().st_size // 2)
    before = contents(path.parent)
    (problem,) = check(path).problems
    assert f"the log of the ledger {path} is damaged" in problem
    assert contents(path.parent) == before


async def test_damaged_pages_are_a_problem(tmp_path: Path) -> None:
    journal = opened(tmp_path / "ledger.db")
    await write_all(journal, range(1, 200), size=200)
    await journal.aclose()
    flip(tmp_path / "ledger.db", 2 * 4096 + 3)
    flip(tmp_path / "ledger.db", 3 * 4096 + 3)
    assert check(tmp_path / "ledger.db").problems


async def test_files_that_others_can_use_are_a_problem(tmp_path: Path) -> None:
    path = await crashed(tmp_path, 2)
    lock_of(path).touch()
    for file in (path, log_of(path), lock_of(path)):
        file.chmod(0o640)
    problems = check(path).problems
    assert len(problems) == 3
    assert problems[0] == f"{path} can be used by others (mode 0640): chmod 600"


@pytest.mark.parametrize(
    ("content", "said"), [(None, "No such file"), (b"", "not a database"), (b"x" * 200, "not a database")]
)
def test_what_is_no_ledger_is_said(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "ledger.db").write_bytes(content)
        (tmp_path / "ledger.db").chmod(0o600)
    (problem,) = check(tmp_path / "ledger.db").problems
    assert said in problem


async def test_a_store_that_begins_its_log_anew_under_the_copy_is_copied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    path = await crashed(tmp_path, 3)
    heads = iter([b"1", b"2", b"3", b"3"])
    monkeypatch.setattr(module, "_beginning", lambda path: next(heads))
    assert check(path).problems == []
    monkeypatch.setattr(module, "_beginning", lambda path: object())
    assert "is written too fast" in check(path).problems[0]
    assert contents(temporary) == {}


async def test_after_the_loss_is_accepted_the_store_goes_on_and_all_as_it_was_is_kept(tmp_path: Path) -> None:
    path = await crashed(tmp_path, 6)
    flip(log_of(path), log_of(path).stat().st_size // 2)
    before = contents(path.parent)
    reader = opened(path)
    rows = dict(reader.rows(""))
    told = accept_loss(path, now_ms=NOW_MS)
    kept = path.with_name("ledger.db.lost-20231114T221320Z")
    assert f"kept as {kept.name}" in told
    assert "whole transactions, are dropped" in told
    assert (kept.read_bytes(), log_of(kept).read_bytes()) == (before["ledger.db"], before["ledger.db-wal"])
    assert {os.stat(file).st_mode & 0o777 for file in (kept, log_of(kept), path)} == {0o600}
    await reader.aclose()
    assert (await found(path))[0] == rows
    journal = opened(path)
    await journal.write(numbered(7))
    await journal.aclose()
    assert check(path).problems == []


async def test_a_log_whose_header_is_damaged_is_given_up_whole(tmp_path: Path) -> None:
    path = await crashed(tmp_path, 3)
    flip(log_of(path), 17)
    reader = opened(path)
    assert reader.read_only
    await reader.aclose()
    assert "after 0 transactions" in accept_loss(path, now_ms=NOW_MS)
    assert (await found(path)) == ({}, [])


async def test_nothing_is_accepted_where_nothing_is_lost_or_somebody_writes(tmp_path: Path) -> None:
    path = await crashed(tmp_path, 3)
    before = contents(path.parent)
    assert "has lost nothing" in accept_loss(path, now_ms=NOW_MS)
    assert contents(path.parent) == {**before, "ledger.db.lock": b""}
    journal = opened(path)
    with pytest.raises(StoreTaken):
        accept_loss(path, now_ms=NOW_MS)
    await journal.aclose()


async def test_what_was_kept_once_is_not_overwritten(tmp_path: Path) -> None:
    path = await crashed(tmp_path, 6)
    flip(log_of(path), log_of(path).stat().st_size // 2)
    path.with_name("ledger.db.lost-20231114T221320Z").write_text("mine")
    before = contents(path.parent)
    with pytest.raises(StoreUnavailable, match="cannot keep a copy"):
        accept_loss(path, now_ms=NOW_MS)
    assert contents(path.parent) == {**before, "ledger.db.lock": b""}
