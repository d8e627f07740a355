"""Operations that come twice: joined while they run, replayed when they are done, and paid for once."""

from random import Random

import anyio
import msgspec
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from llmd.books import Snapshot
from llmd.errors import LLMError
from tests.support.sessions import STRANGER
from tests.support.stub import Caller
from tests.support.treasuries import (
    Bank,
    ScriptedJournal,
    bank,
    context,
    in_virtual_time,
    pass_time,
    refused,
    settle_down,
)

CHARGES = 10_000


@in_virtual_time
async def test_the_second_gets_the_answer_of_the_first_and_nothing_is_done_twice() -> None:
    async with bank() as opened:
        parent = await opened.open(1000, idempotency_key="o")
        assert await opened.open(1000, idempotency_key="o") == parent
        assert await opened.open(1000) != parent
        first = await opened.charge(parent, 10, idempotency_key="c")
        await opened.charge(parent, 1)
        assert await opened.charge(parent, 10, idempotency_key="c") == first
        assert opened.tokens(parent) == (11, 0)
        assert len(opened.treasury.ledger.budgets) == 2


@in_virtual_time
async def test_other_params_under_the_same_key_are_a_conflict() -> None:
    async with bank() as opened:
        handle = await opened.open(1000, idempotency_key="k")
        with refused("idempotency_conflict", path="idempotency_key"):
            await opened.open(999, idempotency_key="k")
        await opened.charge(handle, 10, idempotency_key="k")
        for other in ({"tokens": 11}, {"force": True}, {"note": "n"}):
            with refused("idempotency_conflict"):
                await opened.charge(handle, **{"tokens": 10, "idempotency_key": "k", **other})
        assert opened.tokens(handle) == (10, 0)


@in_virtual_time
async def test_how_long_a_charge_may_wait_is_no_part_of_what_it_is() -> None:
    async with bank() as opened:
        handle = await opened.open(1000)
        await opened.charge(handle, 10, idempotency_key="k")
        await opened.charge(handle, 10, idempotency_key="k", wait_ms=5000)
        assert opened.tokens(handle) == (10, 0)


@in_virtual_time
async def test_a_key_is_of_its_peer_its_method_and_its_budget() -> None:
    async with bank() as opened:
        one, other = await opened.open(1000), await opened.open(1000)
        await opened.charge(one, 10, idempotency_key="k")
        await opened.charge(other, 10, idempotency_key="k")
        await opened.charge(one, 10, context(peer=STRANGER), idempotency_key="k")
        await opened.open(5, parent=one, idempotency_key="k")
        await opened.open(5, parent=other, idempotency_key="k")
        assert (opened.tokens(one), opened.tokens(other)) == ((20, 0), (10, 0))


@in_virtual_time
async def test_one_that_still_runs_is_joined() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(1000)
        told: list[Snapshot] = []

        async def charge() -> None:
            told.append(await opened.charge(handle, 10, idempotency_key="k"))

        opened.journal.stall()
        for _ in range(5):
            group.start_soon(charge)
        await pass_time(1)
        with refused("idempotency_conflict"):
            await opened.charge(handle, 11, idempotency_key="k")
        assert told == []
        opened.journal.go.set()
        await settle_down()
        assert len(told) == 5
        assert len({msgspec.json.encode(one) for one in told}) == 1
        assert opened.tokens(handle) == (10, 0)


@in_virtual_time
async def test_one_that_joined_a_refusal_tries_itself() -> None:
    async with bank() as opened, anyio.create_task_group() as group:
        handle = await opened.open(100)
        caller = Caller(opened, group)
        await caller.begin(handle, max_tokens=30)
        kinds: list[str] = []

        async def charge(wait_ms: int) -> None:
            try:
                await opened.charge(handle, 90, idempotency_key="k", wait_ms=wait_ms)
                kinds.append("ok")
            except LLMError as error:
                kinds.append(error.kind)

        group.start_soon(charge, 1000)
        await settle_down()
        group.start_soon(charge, 1000)
        group.start_soon(charge, 1000)
        await pass_time(1.5)
        assert kinds == ["budget_contended"]
        await caller.finish()
        await pass_time(1)
        assert sorted(kinds) == ["budget_contended", "ok", "ok"]
        assert opened.tokens(handle) == (92, 0)


@in_virtual_time
async def test_a_refusal_is_not_kept() -> None:
    async with bank() as opened:
        root = await opened.open(100)
        handle = await opened.open(10, parent=root)
        with refused("budget_exceeded"):
            await opened.charge(handle, 20, idempotency_key="k")
        await opened.resize(root, child=opened.get(handle).id, limits={"total_tokens": 30})
        assert (await opened.charge(handle, 20, idempotency_key="k")).settled.total_tokens == 20


@in_virtual_time
async def test_an_open_that_was_not_written_is_not_there_and_may_come_again() -> None:
    async with bank() as opened:
        opened.journal.failing = True
        with refused("ledger_unavailable"):
            await opened.open(100, idempotency_key="k")
        opened.journal.failing = False
        await pass_time(1)
        assert opened.treasury.ledger.budgets == {}
        handle = await opened.open(100, idempotency_key="k")
        assert await opened.open(100, idempotency_key="k") == handle
        assert len(opened.treasury.ledger.budgets) == 1


@in_virtual_time
async def test_answers_outlive_a_restart_with_what_they_tell_of() -> None:
    async with bank() as first:
        handle = await first.open(1000, idempotency_key="o")
        told = await first.charge(handle, 10, idempotency_key="c")
        image = first.journal.image()
    async with bank(ScriptedJournal(image)) as second:
        assert await second.open(1000, idempotency_key="o") == handle
        assert await second.charge(handle, 10, idempotency_key="c") == told
        with refused("idempotency_conflict"):
            await second.charge(handle, 11, idempotency_key="c")
        assert second.tokens(handle) == (10, 0)


@in_virtual_time
async def test_a_handle_is_not_kept_with_its_answer() -> None:
    async with bank() as opened:
        handle = await opened.open(1000, idempotency_key="o")
        assert handle.removeprefix("bh_").encode() not in b"".join(opened.journal.image().values())


@in_virtual_time
async def test_charges_that_come_twice_and_in_any_order_add_up_to_the_same() -> None:
    async with bank() as opened:
        handles = [await opened.open(10**9) for _ in range(4)]
        rng = Random(1)
        charges = [(rng.choice(handles), rng.randint(1, 1000), f"k{number}") for number in range(CHARGES // 2)]
        expected = {handle: sum(tokens for at, tokens, _ in charges if at == handle) for handle in handles}
        coming = [*charges, *charges]
        rng.shuffle(coming)
        async with anyio.create_task_group() as group:

            async def send(mine: list[tuple[str, int, str]]) -> None:
                for handle, tokens, key in mine:
                    await opened.charge(handle, tokens, idempotency_key=key)

            for number in range(64):
                group.start_soon(send, coming[number::64])
        assert {handle: opened.tokens(handle)[0] for handle in handles} == expected
        image = opened.journal.image()
    async with bank(ScriptedJournal(image)) as second:
        assert {handle: second.tokens(handle)[0] for handle in handles} == expected


keys = st.integers(0, 3)
coming = st.lists(st.tuples(keys, st.sampled_from([5, 5, 5, 7]), st.sampled_from(["", "", "cut", "fail"])), max_size=12)


@given(coming=coming, crash=st.booleans())
def test_whatever_fails_on_the_way_each_key_is_charged_once(coming: list[tuple[int, int, str]], crash: bool) -> None:
    async def run() -> None:
        async with bank() as opened:
            handle = await opened.open(10**6)
            done: dict[int, int] = {}
            for key, tokens, fault in coming:
                await one(opened, handle, key, tokens, fault, done)
                settled = opened.tokens(handle)[0]
                assert settled >= sum(done.values()), "what was answered is there"
            if crash:
                await pass_time(1)
                image = opened.journal.image()
            else:
                image = {}
        if crash:
            async with bank(ScriptedJournal(image)) as second:
                assert second.tokens(handle)[0] == sum(done.values())

    trio.run(run, clock=MockClock(autojump_threshold=0))


async def one(opened: Bank, handle: str, key: int, tokens: int, fault: str, done: dict[int, int]) -> None:
    """A charge with this key; `fault`: its caller goes while it is written, or it cannot be written."""
    opened.journal.failing = fault == "fail"
    try:
        with anyio.CancelScope() as scope:
            if fault == "cut":
                scope.deadline = anyio.current_time()
            told = await opened.charge(handle, tokens, idempotency_key=f"k{key}")
            assert told.settled.total_tokens >= tokens
    except LLMError as error:
        ends = {"ledger_unavailable"} if done.get(key, tokens) == tokens else {"idempotency_conflict"}
        if error.kind not in ends:
            raise
    opened.journal.failing = False
    await pass_time(1)
    if opened.tokens(handle)[0] > sum(done.values()):
        assert key not in done, "charged twice"
        done[key] = tokens
    assert opened.tokens(handle)[0] == sum(done.values())
