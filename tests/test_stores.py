"""Which journal a configuration asks for, and when it can be had."""

import os
from pathlib import Path

import anyio
import pytest

from llmd import paths
from llmd.journal import Batch, StoreTaken, StoreUnavailable
from llmd.journal.memory import MemoryJournal
from llmd.settings import LedgerSettings
from llmd.stores import Store
from tests.support.treasuries import settle_down

pytestmark = pytest.mark.anyio


def store(settings: LedgerSettings, file: Path) -> Store:
    return Store(settings, file, file.with_name("rpc.sock"))


async def test_a_ledger_in_memory_touches_no_file(tmp_path: Path) -> None:
    journal = store(LedgerSettings(store="memory"), tmp_path / "ledger.db").open()
    assert isinstance(journal, MemoryJournal)
    assert not [name for name in os.listdir(tmp_path) if name.startswith("ledger")]


async def test_what_was_written_is_found_again(tmp_path: Path) -> None:
    for durability in ("full", "process"):
        file = tmp_path / f"{durability}.db"
        journal = await store(LedgerSettings(durability=durability), file).opened()  # type: ignore[arg-type]  # a literal
        await journal.write(Batch({"b/1": b"x"}, []))
        await journal.aclose()
        journal = await store(LedgerSettings(), file).opened()
        assert list(journal.rows("b/")) == [("b/1", b"x")]
        await journal.aclose()


async def test_a_configured_path_counts_and_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own").mkdir(mode=0o700)
    journal = await store(LedgerSettings(path="~/own/books.db"), tmp_path / "ledger.db").opened()
    await journal.aclose()
    assert (tmp_path / "own" / "books.db").exists()
    assert not (tmp_path / "ledger.db").exists()


async def test_a_store_that_another_one_has_is_refused_and_said_who_has_it(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    holder = await store(LedgerSettings(), file).opened()
    with pytest.raises(StoreTaken, match=r"rpc\.sock"):
        store(LedgerSettings(), file).open()
    with pytest.raises(StoreUnavailable):
        await store(LedgerSettings(), file).opened()
    await holder.aclose()


async def test_one_that_drains_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    holder = await store(LedgerSettings(), file).opened()
    holder.yielding()
    other = store(LedgerSettings(), file)
    assert other.open() is None
    async with anyio.create_task_group() as group:
        got = anyio.Event()

        async def wait() -> None:
            journal = await other.opened()
            got.set()
            await journal.aclose()

        group.start_soon(wait)
        await settle_down()
        assert not got.is_set()
        await holder.aclose()
        await got.wait()


async def test_a_path_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable):
        store(LedgerSettings(path=str(tmp_path / "file" / "ledger.db")), paths.ledger_file(os.environ)).open()
