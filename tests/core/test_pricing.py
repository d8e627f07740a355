"""Costs: exact, in nano-USD, rounded up once."""

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.chat import Usage
from llmd.core.pricing import cost_nano_usd
from llmd.core.rows import Price, Tier
from llmd.scalars import AMOUNT_MAX


def usage(input: int = 0, output: int = 0, read: int = 0, written: int = 0) -> Usage:
    return Usage(
        input_tokens=input,
        output_tokens=output,
        total_tokens=input + output,
        cache_read_tokens=read,
        cache_write_tokens=written,
    )


@pytest.mark.parametrize(
    ("used", "price", "cost"),
    [
        (usage(10**6, 0), Price(input=1, output=2), 10**9),
        (usage(0, 10**6), Price(input=1, output=2), 2 * 10**9),
        (usage(1, 1), Price(input=1, output=2), 3000),
        (usage(3, 0), Price(input=0.1, output=0), 300),
        (usage(1, 0), Price(input=0.0001, output=0), 1),
        (usage(10, 0), Price(input=0.0001, output=0), 1),
        (usage(11, 0), Price(input=0.0001, output=0), 2),
        (usage(1, 1), Price(input=0.0004, output=0.0006), 1),
        (usage(10**6, 10**6), Price(input=0, output=0), 0),
        (usage(), Price(input=1, output=1), 0),
        (usage(1, 1), Price(input=1, output=2, request=0.012), 12_003_000),
        (usage(), Price(input=0, output=0, request=1e-10), 1),
    ],
    ids=str,
)
def test_a_cost_is_rounded_up_once_over_all_its_parts(used: Usage, price: Price, cost: int) -> None:
    assert cost_nano_usd(used, price) == cost


def test_cached_tokens_cost_their_own_rate_and_are_not_counted_twice() -> None:
    price = Price(input=10, output=0, cache_read=1, cache_write=12.5)
    assert cost_nano_usd(usage(100, 0, read=50, written=20), price) == (30 * 10 + 50 * 1 + 20 * 12.5) * 1000


def test_a_cache_rate_that_is_not_given_is_the_input_rate_and_one_of_0_is_free() -> None:
    cached = usage(100, 0, read=60, written=40)
    assert cost_nano_usd(cached, Price(input=10, output=0)) == 100 * 10_000
    assert cost_nano_usd(cached, Price(input=10, output=0, cache_read=0, cache_write=0)) == 0


def test_more_cached_tokens_than_input_never_make_a_discount() -> None:
    assert cost_nano_usd(usage(10, 0, read=50), Price(input=10, output=0, cache_read=1)) == 50_000


rates = st.decimals(0, 1000, places=6).map(float)


@given(st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1), rates, rates)
def test_a_cost_is_exact_for_the_decimals_that_the_user_wrote(
    asked: int, told: int, first: float, second: float
) -> None:
    exact = (asked * Fraction(str(first)) + told * Fraction(str(second))) * 1000
    assert cost_nano_usd(usage(asked, told), Price(input=first, output=second)) == min(AMOUNT_MAX, ceil(exact))


def test_beyond_a_tier_every_token_of_the_call_costs_the_tiers_rate() -> None:
    price = Price(input=1, output=2, cache_read=0.1, tiers=(Tier(above=100, input=3, output=4, cache_read=0.3),))
    assert cost_nano_usd(usage(100, 5, read=50), price) == 50 * 1000 + 50 * 100 + 5 * 2000
    assert cost_nano_usd(usage(101, 5, read=50), price) == 51 * 3000 + 50 * 300 + 5 * 4000
