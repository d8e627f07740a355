"""Group commit: what changes together is written together, in order, and nobody is told of what is not durable."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from llmd.errors import LLMError
from llmd.flushing import GATHERING_TURNS_MAX, LAZY_S, RETRY_S, SETTLE_S, Flusher
from llmd.journal import Batch, DurabilityLost, JournalEntry
from tests.support.treasuries import ScriptedJournal, in_virtual_time, pass_time, refused, settle_down


class Desk:
    """A flusher, and what is there for it to write; everybody who waits for it runs in `group`."""

    def __init__(self, group: TaskGroup) -> None:
        self.journal = ScriptedJournal()
        self.flusher = Flusher(self.journal, self._take)
        self.done: list[str] = []
        self.failed: list[str] = []
        self._group = group
        self._batch = Batch({}, [])

    def _take(self) -> Batch:
        taken, self._batch = self._batch, Batch({}, [])
        return taken

    def change(self, name: str, value: str | None = None) -> None:
        """A row and an entry of this name, to be written."""
        self._batch.rows[name] = (value or name).encode()
        self._batch.entries.append(JournalEntry(0, name, b""))

    def ask(self, name: str) -> None:
        self.change(name)
        self.wait(name)

    def wait(self, name: str, *, settled: bool = False, scope: anyio.CancelScope | None = None) -> None:
        async def run() -> None:
            with scope or anyio.CancelScope():
                try:
                    await (self.flusher.settled() if settled else self.flusher.flushed())
                    self.done.append(name)
                except LLMError as error:
                    self.failed.append(name if error.kind == "ledger_unavailable" else error.kind)

        self._group.start_soon(run)

    def written(self) -> list[list[str]]:
        """The names of the entries of each batch."""
        return [[entry.path for entry in batch.entries] for batch in self.journal.batches]


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    async with anyio.create_task_group() as group:
        made = Desk(group)
        group.start_soon(made.flusher.run)
        yield made
        group.cancel_scope.cancel()


@in_virtual_time
async def test_all_who_wait_share_one_write() -> None:
    async with desk() as made:
        for name in "abc":
            made.ask(name)
        await settle_down()
        assert made.written() == [["a", "b", "c"]]
        assert sorted(made.done) == ["a", "b", "c"]


@in_virtual_time
async def test_a_write_takes_along_who_comes_in_the_next_turns() -> None:
    async with desk() as made:
        for name in "abcdefgh":
            made.ask(name)
            await checkpoint()
        await settle_down()
        assert made.written() == [list("abcdefgh")]


@in_virtual_time
async def test_a_crowd_without_an_end_is_not_waited_for() -> None:
    async with desk() as made:
        for number in range(3 * GATHERING_TURNS_MAX):
            made.ask(str(number))
            await checkpoint()
        await settle_down()
        first, *_ = made.written()
        assert GATHERING_TURNS_MAX // 2 < len(first) < 2 * GATHERING_TURNS_MAX


@in_virtual_time
async def test_what_comes_during_a_write_is_durable_only_with_the_next_one() -> None:
    async with desk() as made:
        made.journal.stall()
        made.ask("a")
        await settle_down()
        assert made.journal.writing
        made.ask("b")
        await settle_down()
        assert made.done == [], "nothing is durable yet"
        go = made.journal.go
        made.journal.stall()
        go.set()
        await settle_down()
        assert made.done == ["a"]
        made.journal.go.set()
        await settle_down()
        assert made.done == ["a", "b"]
        assert made.written() == [["a"], ["b"]]


@in_virtual_time
async def test_what_nobody_waits_for_is_written_soon() -> None:
    async with desk() as made:
        made.change("a")
        made.flusher.changed()
        await pass_time(LAZY_S / 2)
        assert made.written() == []
        await pass_time(LAZY_S)
        assert made.written() == [["a"]]


@in_virtual_time
async def test_what_nobody_waits_for_is_written_with_what_somebody_does() -> None:
    async with desk() as made:
        made.change("a")
        made.flusher.changed()
        await settle_down()
        made.ask("b")
        await settle_down()
        assert made.written() == [["a", "b"]]


@in_virtual_time
async def test_where_nothing_has_changed_nothing_is_written() -> None:
    async with desk() as made:
        made.wait("a")
        await settle_down()
        assert made.done == ["a"]
        assert made.written() == []


@in_virtual_time
async def test_a_failed_write_is_told_to_its_waiters_and_written_in_order_when_it_can_be(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with desk() as made:
        made.journal.failing = True
        made.change("a", "old")
        made.change("b")
        made.wait("a")
        await settle_down()
        assert made.failed == ["a"]
        with refused("ledger_unavailable", retry_after_ms=1000):
            made.flusher.check()
        made.change("a", "new")
        made.change("c")
        made.flusher.changed()
        await pass_time(3 * RETRY_S)
        assert made.written() == []
        assert len(caplog.records) == 1, "told once, however often it fails"
        made.journal.failing = False
        await pass_time(2 * RETRY_S)
        assert made.written() == [["a", "b", "a", "c"]], "nothing is lost, and nothing overtakes"
        assert made.journal.image() == {"a": b"new", "b": b"b", "c": b"c"}
        made.flusher.check()
        assert len(caplog.records) == 2
        await pass_time(10)
        assert len(made.written()) == 1


@in_virtual_time
async def test_who_waits_while_it_fails_is_told_when_it_works_again() -> None:
    async with desk() as made:
        made.journal.failing = True
        made.ask("a")
        await settle_down()
        made.journal.failing = False
        made.wait("later")
        await settle_down()
        assert (made.failed, made.done) == (["a"], ["later"])


@in_virtual_time
async def test_a_journal_that_is_read_only_refuses_what_is_new() -> None:
    async with desk() as made:
        made.flusher.check()
        made.journal.reason = "records are lost"
        with refused("ledger_unavailable"):
            made.flusher.check()


async def lose(desks: list[Desk]) -> None:
    async with desk() as made:
        desks.append(made)
        made.journal.lost = True
        made.ask("a")
        await pass_time(10)


@in_virtual_time
async def test_a_disk_that_cannot_be_trusted_ends_it_and_nobody_is_told_that_it_was_written() -> None:
    desks: list[Desk] = []
    with pytest.raises(BaseExceptionGroup) as caught:
        await lose(desks)
    assert caught.group_contains(DurabilityLost)
    assert (desks[0].done, desks[0].written()) == ([], [])
    with refused("ledger_unavailable"):
        desks[0].flusher.check()


@in_virtual_time
async def test_what_has_changed_after_the_disk_was_lost_does_not_hinder_the_end() -> None:
    desks: list[Desk] = []
    with pytest.raises(BaseExceptionGroup):
        await lose(desks)
    desks[0].change("b")
    desks[0].flusher.changed()
    await desks[0].flusher.finish()
    assert desks[0].written() == []


@in_virtual_time
@pytest.mark.parametrize("fails", [False, True])
async def test_one_that_is_cancelled_still_gets_to_know_how_its_write_ended(fails: bool) -> None:
    async with desk() as made:
        made.journal.stall()
        made.journal.failing = fails
        made.change("a")
        scope = anyio.CancelScope()
        made.wait("a", settled=True, scope=scope)
        await settle_down()
        scope.cancel()
        await pass_time(SETTLE_S - 1)
        assert (made.done, made.failed) == ([], [])
        made.journal.go.set()
        await settle_down()
        assert (made.done, made.failed) == (([], ["a"]) if fails else (["a"], []))


@in_virtual_time
async def test_one_that_is_cancelled_does_not_wait_for_ever() -> None:
    async with desk() as made:
        made.journal.stall()
        made.change("a")
        scope = anyio.CancelScope()
        made.wait("a", settled=True, scope=scope)
        await settle_down()
        scope.cancel()
        await pass_time(SETTLE_S + 1)
        assert scope.cancelled_caught
        made.journal.go.set()


@in_virtual_time
async def test_one_that_is_not_cancelled_waits_as_long_as_the_disk_takes() -> None:
    async with desk() as made:
        made.journal.stall()
        made.change("a")
        made.wait("a", settled=True)
        await pass_time(10 * SETTLE_S)
        assert (made.done, made.failed) == ([], [])
        made.journal.go.set()
        await settle_down()
        assert made.done == ["a"]


@in_virtual_time
async def test_what_is_left_at_the_end_is_written_once() -> None:
    async with desk() as made:
        made.journal.stall()
        made.ask("a")
        await settle_down()
        made.change("b")
        made.flusher.changed()
        made.journal.go.set()
    await made.flusher.finish()
    await made.flusher.finish()
    assert [name for batch in made.written() for name in batch] == ["a", "b"]


@in_virtual_time
async def test_what_could_not_be_written_is_tried_once_more_at_the_end() -> None:
    async with desk() as made:
        made.journal.failing = True
        made.ask("a")
        await settle_down()
    made.journal.failing = False
    await made.flusher.finish()
    assert made.written() == [["a"]]
