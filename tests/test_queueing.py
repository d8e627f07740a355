"""Who waits for room in a budget: in order of arrival, and never for a place that another one's need does not take."""

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.support.treasuries import in_virtual_time, refused, settle_down
from tests.support.waiting import NOW, Wait, check, line, moved


@in_virtual_time
async def test_what_fits_does_not_wait() -> None:
    async with line() as made:
        wait = await made.want(made.open("a", 10), 10, wait_s=0)
        assert wait.held
        assert wait.over


@in_virtual_time
async def test_what_will_never_fit_is_refused_at_once() -> None:
    async with line() as made:
        wait = await made.want(made.open("a", 10), 11)
        assert wait.refusal is not None
        assert not wait.refusal.contended


@in_virtual_time
async def test_a_big_one_is_not_starved_by_small_ones_that_come_later() -> None:
    async with line() as made:
        budget = made.open("a", 10)
        first = await made.want(budget, 9)
        big = await made.want(budget, 5)
        small = await made.want(budget, 1)
        assert not small.over, "it would fit, but has come later"
        first.give_back()
        await settle_down()
        assert big.held
        assert small.held


@in_virtual_time
async def test_who_waits_gets_room_in_order_of_arrival() -> None:
    async with line() as made:
        budget = made.open("a", 10)
        ahead = await made.want(budget, 10)
        waits = [await made.want(budget, 10) for _ in range(5)]
        for wait in waits:
            assert not any(one.over for one in waits[waits.index(wait) :])
            ahead.give_back()
            await settle_down()
            assert wait.held
            ahead = wait


@in_virtual_time
async def test_those_of_another_subtree_are_not_held_up() -> None:
    async with line() as made:
        root = made.open("root", 100)
        full, free = made.open("full", 10, root), made.open("free", 10, root)
        await made.want(full, 10)
        assert not (await made.want(full, 1)).over
        assert (await made.want(free, 10)).held


@in_virtual_time
async def test_those_of_another_subtree_wait_behind_who_waits_above_both() -> None:
    async with line() as made:
        root = made.open("root", 10)
        one, other = made.open("one", 100, root), made.open("other", 100, root)
        first = await made.want(one, 8)
        big = await made.want(one, 5)
        small = await made.want(other, 1)
        assert not small.over
        first.give_back()
        await settle_down()
        assert big.held
        assert small.held


@in_virtual_time
async def test_a_guarantee_is_spent_while_others_wait_above_it() -> None:
    async with line() as made:
        root = made.open("root", 10)
        sure, other = made.open("sure", 5, root, guarantee=5), made.open("other", 10, root)
        await made.want(other, 5)
        assert not (await made.want(other, 1)).over
        assert (await made.want(sure, 5)).held, "it was set aside for this"


@in_virtual_time
async def test_one_that_needs_more_than_its_guarantee_waits_behind_those_above() -> None:
    async with line() as made:
        root = made.open("root", 10)
        sure, other = made.open("sure", 8, root, guarantee=5), made.open("other", 10, root)
        first = await made.want(other, 4)
        waiting = await made.want(other, 5)
        more = await made.want(sure, 6)
        assert not waiting.over
        assert not more.over
        first.give_back()
        await settle_down()
        assert waiting.held
        assert not more.over


@in_virtual_time
async def test_one_that_moves_on_to_another_account_keeps_its_place_in_the_order() -> None:
    async with line() as made:
        root = made.open("root", 20)
        child = made.open("child", 10, root)
        own, others = await made.want(child, 10), await made.want(root, 10)
        moves = await made.want(child, 10)
        later = await made.want(root, 10)
        own.give_back()
        await settle_down()
        assert moves.held
        assert not later.over
        others.give_back()
        await settle_down()
        assert later.held


@in_virtual_time
async def test_one_that_is_refused_further_up_waits_there_before_those_who_came_later() -> None:
    async with line() as made:
        root = made.open("root", 10)
        child = made.open("child", 8, root)
        own, others = await made.want(child, 8), await made.want(root, 2)
        moves = await made.want(child, 8)  # refused by both, and waits at the one with least
        later = await made.want(root, 5)
        others.give_back()
        await settle_down()
        assert not moves.over
        assert not later.over
        own.give_back()
        await settle_down()
        assert moves.held
        assert not later.over
        moves.give_back()
        await settle_down()
        assert later.held


@in_virtual_time
async def test_a_guarantee_that_has_room_again_pays_for_who_had_to_wait_above_it() -> None:
    async with line() as made:
        root = made.open("root", 10)
        sure = made.open("sure", 8, root, guarantee=2)
        leaf = made.open("leaf", 8, sure)
        first = await made.want(leaf, 2)
        await made.want(root, 1)
        big = await made.want(root, 8)
        small = await made.want(leaf, 1)
        assert not small.over, "the guarantee is used up, and the big one waits for the rest"
        first.give_back()
        await settle_down()
        assert small.held
        assert not big.over


@in_virtual_time
async def test_one_that_has_moved_on_is_served_where_it_waits_now_and_before_those_who_came_later() -> None:
    async with line() as made:
        first, second, last, taker, _ = await moved(made)
        taker.give_back()
        await settle_down()
        assert first.held
        assert not last.over
        assert not second.over


@in_virtual_time
async def test_room_at_one_account_does_not_let_anybody_overtake_who_waits_at_another_that_both_need() -> None:
    async with line() as made:
        first, second, last, _, full = await moved(made)
        full.give_back()  # the root has 12 left, X 10
        await settle_down()
        assert first.held
        assert not second.over
        assert not last.over


@in_virtual_time
async def test_all_that_wait_in_a_budget_that_closes_are_told_and_others_get_its_room() -> None:
    async with line() as made:
        root = made.open("root", 10)
        closing, other = made.open("closing", 10, root), made.open("other", 10, root)
        await made.want(root, 6)
        waits = [await made.want(closing, 5) for _ in range(3)]
        small = await made.want(other, 4)
        assert not small.over
        made.ledger.close(NOW, closing)
        made.queues.refuse_closed()
        await settle_down()
        assert [wait.error is not None and wait.error.kind for wait in waits] == ["budget_closed"] * 3
        assert small.held


@in_virtual_time
async def test_what_an_attempt_raises_is_its_own_waiters_affair() -> None:
    async with line() as made:
        budget, other = made.open("a", 10), made.open("b", 10)
        first = await made.want(budget, 10)
        wait, behind = await made.want(budget, 10), await made.want(budget, 10)
        wait.budget = other
        made.ledger.close(NOW, other)
        first.give_back()
        await settle_down()
        assert wait.error is not None
        assert wait.error.kind == "budget_closed"
        assert behind.held


@in_virtual_time
async def test_an_attempt_that_raises_at_once_is_not_waited_for() -> None:
    async with line() as made:
        budget = made.open("a", 10)
        made.ledger.close(NOW, budget)
        with refused("budget_closed"):
            await made.queues.wait(lambda: (budget.path(NOW), 1), Wait(made, budget, 1).attempt, 10.0)


which = st.integers(0, 7)
steps = st.lists(
    st.tuples(st.sampled_from(["want", "want", "want", "give back", "give back", "cancel", "close"]), which, which),
    min_size=5,
    max_size=30,
)


@given(steps=steps)
def test_nobody_waits_whose_turn_it_is_and_who_fits(steps: list[tuple[str, int, int]]) -> None:
    async def run() -> None:
        async with line() as made:
            root = made.open("0", 12)
            middle = made.open("1", 9, root, guarantee=2)
            budgets = [root, middle, made.open("2", 6, middle), made.open("3", 6, middle, 2), made.open("4", 8, root)]
            waits: list[Wait] = []
            for step, pick, tokens in steps:
                budget = budgets[pick % len(budgets)]
                if step == "want":
                    waits.append(await made.want(budget, tokens))
                elif step == "close" and tokens == 0 and budget.state == "open":
                    for hold in made.ledger.close(NOW, budget):
                        made.queues.wake(hold.path)
                    made.queues.refuse_closed()
                    made.queues.wake(budget.path(NOW))
                elif step == "give back" and (
                    holding := [w for w in waits if w.held and w.held.id in made.ledger.holds]
                ):
                    holding[pick % len(holding)].give_back()
                elif step == "cancel" and (waiting := [wait for wait in waits if not wait.over]):
                    waiting[pick % len(waiting)].scope.cancel()
                await settle_down()
                check(made, [wait for wait in waits if not wait.over])

    trio.run(run, clock=MockClock(autojump_threshold=0))
