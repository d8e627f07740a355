"""How a change climbs: by the formulas, on small trees whose numbers were worked out by hand."""

import pytest

from llmd.books import UNITS
from llmd.core.accounts import Account, available, fits, limited_units, move, refusers, release
from llmd.core.amounts import GUARDS, LANE, UNLIMITED, lanes, pack, pack_lanes
from llmd.scalars import AMOUNT_MAX
from tests.support.trees import tokens, total, unlimited


def account(limit: int | None = None, guarantee: int = 0, used: int = 0) -> Account:
    made = Account(None)
    made.limit(UNLIMITED if limit is None else unlimited(limit))
    made.floor = tokens(guarantee)
    made.used = made.firm = made.settled = tokens(used)
    return made


def left(*path: Account, firm: bool = False) -> int:
    """Of total tokens."""
    return available(path, firm=firm)[0]


def used(*path: Account) -> list[int]:
    return [total(each.used) for each in path]


def use(amount: int, *path: Account) -> None:
    move(path, tokens(amount), tokens(amount), settled=tokens(amount))


# -- without guarantees ---------------------------------------------------------------------------------------------


def test_a_change_without_guarantees_is_the_same_at_every_level() -> None:
    leaf, middle, root = account(10), account(20), account(30)
    use(7, leaf, middle, root)
    use(2, middle, root)
    assert used(leaf, middle, root) == [7, 9, 9]


@pytest.mark.parametrize(
    ("limits", "fitting"), [((10, 20, 30), 10), ((20, 10, 30), 10), ((30, 20, 10), 10), ((None, None, 10), 10)]
)
def test_the_smallest_rest_of_the_path_decides_to_the_last_token(limits: tuple[int | None, ...], fitting: int) -> None:
    path = [account(limit) for limit in limits]
    assert left(*path) == fitting
    assert fits(path, tokens(fitting))
    assert not fits(path, tokens(fitting + 1))


def test_every_account_that_refuses_is_named_with_its_units() -> None:
    leaf, root = account(10), account(5)
    root.limit(pack({"total_tokens": 5, "requests": 0}, UNLIMITED))
    change = pack({"total_tokens": 11, "requests": 1})
    total_guard, request_guard = 1 << LANE - 1, 1 << 4 * LANE - 1
    assert refusers((leaf, root), change) == [(leaf, total_guard), (root, total_guard | request_guard)]
    assert refusers((leaf, root), tokens(6)) == [(root, total_guard)]
    assert refusers((leaf, root), tokens(5)) == []


def test_nothing_more_of_a_unit_may_be_used_beyond_its_limit_but_of_others() -> None:
    path = [account(10, used=12)]
    assert left(*path) == 0
    assert not fits(path, tokens(1))
    assert fits(path, tokens(0))
    assert fits(path, pack({"requests": 1}))


def test_a_unit_without_a_limit_is_counted_to_the_largest_amount() -> None:
    path = [account(used=100)]
    assert left(*path) == AMOUNT_MAX - 100
    assert fits(path, tokens(AMOUNT_MAX - 100))
    assert not fits(path, tokens(AMOUNT_MAX - 99))


def test_what_if_every_hold_came_back_is_asked_of_the_firm_counters() -> None:
    path = [account(10)]
    move(path, tokens(8), 0, held=tokens(8))
    assert (left(*path), left(*path, firm=True)) == (2, 10)
    assert not fits(path, tokens(3))
    assert fits(path, tokens(10), firm=True)
    assert not fits(path, tokens(11), firm=True)


def test_the_sums_reach_the_root_whatever_the_guarantees_on_the_way() -> None:
    leaf, root = account(10, guarantee=10), account(100)
    root.used = root.firm = tokens(10)
    move((leaf, root), tokens(4), 0, held=tokens(4))
    move((leaf, root), tokens(3 - 4), tokens(3), held=tokens(-4), settled=tokens(3))
    for each in (leaf, root):
        assert (total(each.held), total(each.settled)) == (0, 3)
    assert used(leaf, root) == [3, 10]


# -- guarantees -----------------------------------------------------------------------------------------------------


def family(guarantee: int, leaf_limit: int | None = None) -> tuple[Account, Account]:
    """A leaf with this guarantee, which is already taken from its parent of 100."""
    leaf, root = account(leaf_limit, guarantee), account(100)
    use(guarantee, root)
    return leaf, root


def test_what_a_guarantee_covers_was_paid_for_and_the_rest_is_drawn() -> None:
    leaf, root = family(30)
    use(20, leaf, root)
    assert used(leaf, root) == [20, 30]
    use(25, leaf, root)
    assert used(leaf, root) == [45, 45]
    use(-20, leaf, root)
    assert used(leaf, root) == [25, 30]


def test_an_unspent_guarantee_works_though_the_parent_is_used_up() -> None:
    leaf, root = family(30)
    use(20, leaf, root)
    use(70, root)
    assert left(leaf, root) == 10
    assert fits((leaf, root), tokens(10))
    assert not fits((leaf, root), tokens(11))
    assert left(root) == 0


def test_a_parent_beyond_its_limit_takes_nothing_from_a_guarantee() -> None:
    leaf, root = family(30)
    use(90, root)
    assert (used(root), left(root)) == ([120], 0)
    assert left(leaf, root) == 30
    assert fits((leaf, root), tokens(30))
    assert not fits((leaf, root), tokens(31))


def test_the_own_limit_holds_within_a_guarantee_too() -> None:
    leaf, root = family(30, leaf_limit=30)
    assert left(leaf, root) == 30
    assert not fits((leaf, root), tokens(31))


def test_guarantees_within_guarantees_are_paid_out_of_one_another() -> None:
    # The root has 100. The middle has 50 of them set aside, and out of these the leaf has 20.
    leaf, middle, root = account(None, 20), account(None, 50), account(100)
    use(50, root)
    use(20, middle)
    # 20 of its own, 30 of the middle's that are left, 50 of the root's.
    assert left(leaf, middle, root) == 100
    use(25, leaf, middle, root)
    assert used(leaf, middle, root) == [25, 25, 50]
    use(30, leaf, middle, root)
    assert used(leaf, middle, root) == [55, 55, 55]
    assert left(leaf, middle, root) == 45


def test_a_guarantee_of_one_unit_does_not_pay_for_another() -> None:
    leaf, root = account(), account(100)
    root.limit(pack({"total_tokens": 100, "requests": 2}, UNLIMITED))
    leaf.floor = tokens(30)
    use(30, root)
    change = pack({"total_tokens": 10, "requests": 1})
    move((leaf, root), change, change)
    assert lanes(root.used) == [30, 0, 0, 1, 0]
    assert fits((leaf, root), change)
    assert not fits((leaf, root), pack({"requests": 2}))
    assert not fits((leaf, root), pack({"total_tokens": 10, "requests": 2}))


def test_a_hold_within_a_guarantee_leaves_the_firm_use_above_alone() -> None:
    leaf, root = family(30)
    move((leaf, root), tokens(50), 0, held=tokens(50))
    assert [total(each.firm) for each in (leaf, root)] == [0, 30]
    assert used(leaf, root) == [50, 50]
    assert left(leaf, root, firm=True) == 100
    move((leaf, root), tokens(40 - 50), tokens(40), held=tokens(-50), settled=tokens(40))
    assert [total(each.firm) for each in (leaf, root)] == [40, 40]
    assert used(leaf, root) == [40, 40]


@pytest.mark.parametrize(("spent", "drawn"), [(0, 0), (20, 20), (30, 30), (45, 45)])
def test_what_is_released_is_what_was_drawn_beyond_the_use(spent: int, drawn: int) -> None:
    leaf, root = family(30)
    use(spent, leaf, root)
    release(leaf, (root,))
    assert (leaf.floor, used(leaf, root)) == (0, [spent, drawn])
    assert total(root.firm) == drawn
    release(leaf, (root,))
    assert used(leaf, root) == [spent, drawn]


def test_what_is_released_comes_back_as_far_up_as_it_was_drawn() -> None:
    leaf, middle, root = account(None, 40), account(None, 30), account(100)
    use(40, root)
    use(40, middle)
    release(leaf, (middle, root))
    assert used(leaf, middle, root) == [0, 0, 30]


# -- what is told ---------------------------------------------------------------------------------------------------


def test_a_unit_is_limited_where_some_account_of_the_path_limits_it() -> None:
    leaf, root = account(10), account()
    root.limit(pack({"nano_usd": 0}, UNLIMITED))
    assert limited_units((account(), account())) == 0
    assert limited_units((leaf, root)) == 1 << LANE - 1 | 1 << 5 * LANE - 1


@pytest.mark.parametrize(
    ("limit", "spends", "told"),
    [
        (100, [79, 1, 14, 1, 4, 1], [[], [80], [], [95], [], [100]]),
        (100, [100], [[100]]),
        (100, [85, 5, 20, 5], [[80], [], [100], []]),
        (3, [2, 1], [[], [100]]),
        (1, [1, 1], [[100], []]),
        (0, [0, 1], [[], [100]]),
        (None, [AMOUNT_MAX], [[]]),
        (AMOUNT_MAX - 1, [AMOUNT_MAX - 1], [[100]]),
    ],
)
def test_each_share_of_a_limit_is_told_once(limit: int | None, spends: list[int], told: list[list[int]]) -> None:
    one, found = account(limit), []
    for amount in spends:
        use(amount, one)
        crossed = one.alert - one.settled & GUARDS != GUARDS
        found.append([percent for _, percent in one.passed()] if crossed else [])
    assert found == told


def test_shares_are_told_of_each_unit() -> None:
    one = account()
    one.limit(pack_lanes([10] * 5))
    one.settled = pack_lanes([9, 10, 2, 8, 30])
    assert one.passed() == list(zip([UNITS[0], UNITS[1], UNITS[3], UNITS[4]], [80, 100, 80, 100], strict=True))


def test_a_higher_limit_has_its_shares_told_again_and_a_lower_one_only_those_ahead() -> None:
    one = account(100)
    use(80, one)
    assert one.passed() == [("total_tokens", 80)]
    one.limit(unlimited(200))
    use(80, one)
    assert one.passed() == [("total_tokens", 80)]
    one.limit(unlimited(165))
    use(4, one)
    assert one.passed() == []
    use(1, one)
    assert one.passed() == [("total_tokens", 100)]
