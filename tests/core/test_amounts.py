"""Amounts in all units at once: packed integers do what one integer for each unit would do."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.books import UNITS, Amounts
from llmd.chat import Usage
from llmd.core.amounts import (
    FULL_LANE,
    GUARDS,
    LANE,
    UNLIMITED,
    by_unit,
    excess,
    greatest,
    lanes,
    least,
    pack,
    pack_all,
    pack_lanes,
    spent,
    touched,
    unpack,
)
from llmd.scalars import AMOUNT_MAX

EDGES = [0, 1, AMOUNT_MAX - 1, AMOUNT_MAX, AMOUNT_MAX + 1, 2**64, FULL_LANE - 1, FULL_LANE]
counter = st.one_of(st.sampled_from(EDGES), st.integers(0, 100), st.integers(0, FULL_LANE))
counters = st.lists(counter, min_size=5, max_size=5)


def guards(units: list[bool]) -> int:
    return sum(1 << number * LANE + LANE - 1 for number, unit in enumerate(units) if unit)


@given(counters)
def test_what_is_packed_comes_out_again(amounts: list[int]) -> None:
    told = dict(zip(UNITS, amounts, strict=True))
    packed = pack_lanes(amounts)
    assert lanes(packed) == amounts
    assert unpack(packed) == Amounts(**told)
    assert by_unit(packed) == {unit: amount for unit, amount in told.items() if amount}
    assert pack(told) == pack_all(Amounts(**told)) == packed


@given(st.dictionaries(st.sampled_from(UNITS), st.integers(0, AMOUNT_MAX)), counters)
def test_units_that_are_not_given_are_those_of_the_default(amounts: dict[str, int], default: list[int]) -> None:
    packed = pack(amounts, pack_lanes(default))  # type: ignore[arg-type]  # the keys are units
    assert lanes(packed) == [amounts.get(unit, other) for unit, other in zip(UNITS, default, strict=True)]
    assert lanes(pack(amounts)) == [amounts.get(unit, 0) for unit in UNITS]  # type: ignore[arg-type]  # as above


@given(counters, counters)
def test_the_greater_the_lesser_the_excess_and_what_is_touched_are_those_of_each_unit(
    one: list[int], other: list[int]
) -> None:
    a, b = pack_lanes(one), pack_lanes(other)
    pairs = list(zip(one, other, strict=True))
    assert lanes(greatest(a, b)) == [max(pair) for pair in pairs]
    assert lanes(least(a, b)) == [min(pair) for pair in pairs]
    assert lanes(excess(a, b)) == [max(0, mine - its) for mine, its in pairs]
    assert touched(a) == guards([amount > 0 for amount in one])


@given(counters, counters, counters)
def test_one_subtraction_says_which_units_are_beyond_their_limits(
    limits: list[int], used: list[int], change: list[int]
) -> None:
    used, change = [amount // 2 for amount in used], [amount // 2 for amount in change]
    left = (pack_lanes(limits) | GUARDS) - pack_lanes(used) - pack_lanes(change)
    beyond = [mine + more > limit for limit, mine, more in zip(limits, used, change, strict=True)]
    assert GUARDS & ~left == guards(beyond)


@given(st.lists(st.lists(st.integers(-(2**60), 2**60), min_size=5, max_size=5), max_size=20), st.randoms())
def test_signed_changes_may_come_in_any_order_if_the_counters_come_out_right(
    changes: list[list[int]], order: random.Random
) -> None:
    start = [2**65] * 5
    end = [sum(column) for column in zip(start, *changes, strict=True)]
    order.shuffle(changes)
    packed = pack_lanes(start)
    for change in changes:
        packed += pack_lanes(change)
    assert lanes(packed) == end


def test_a_counter_far_above_what_one_amount_may_be_touches_no_other_unit() -> None:
    packed = sum(pack({"total_tokens": AMOUNT_MAX, "requests": 1}) for _ in range(100_000))
    assert by_unit(packed) == {"total_tokens": 100_000 * AMOUNT_MAX, "requests": 100_000}


def test_without_a_limit_there_is_the_largest_amount() -> None:
    assert lanes(UNLIMITED) == [AMOUNT_MAX] * 5


def test_one_request_posts_its_tokens_itself_and_its_money() -> None:
    usage = Usage(input_tokens=5, output_tokens=2, total_tokens=7, cache_read_tokens=4, reasoning_tokens=1)
    assert spent(usage, 30) == Amounts(total_tokens=7, input_tokens=5, output_tokens=2, requests=1, nano_usd=30)


@pytest.mark.parametrize("cost", [None, 0])
def test_an_unknown_price_posts_no_money_but_the_request(cost: int | None) -> None:
    assert spent(Usage(), cost) == Amounts(requests=1)
