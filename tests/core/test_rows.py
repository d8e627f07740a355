"""Facts of a model."""

import msgspec
import pytest

from llmd.core.rows import Price, Tier
from tests.support.calls import row


def test_a_models_name_for_routing_is_its_providers_and_its_own() -> None:
    assert row(provider="work", model="a/b").target == "work/a/b"


@pytest.mark.parametrize("name", ["input", "output", "cache_read", "cache_write", "request"])
def test_no_rate_of_a_price_is_negative(name: str) -> None:
    with pytest.raises(ValueError, match="not negative"):
        Price(**{"input": 1, "output": 1, name: -0.1})
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"input": 1, "output": 1, name: -0.1}, Price)


def test_a_price_has_both_rates_and_no_unknown_ones() -> None:
    assert msgspec.convert({"input": 0, "output": 2.5}, Price) == Price(input=0, output=2.5)
    for table in ({"input": 1}, {"output": 1}, {"input": 1, "output": 1, "colour": 1}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(table, Price)


TIERS = (Tier(above=10, input=2, output=3), Tier(above=20, input=4, output=5))


@pytest.mark.parametrize(("tokens", "rate"), [(0, 1), (10, 1), (11, 2), (20, 2), (21, 4), (10**9, 4)])
def test_the_rates_of_a_call_are_those_of_the_last_tier_that_it_is_above(tokens: int, rate: float) -> None:
    assert Price(input=1, output=1, tiers=TIERS).at(tokens).input == rate


@pytest.mark.parametrize("tiers", [TIERS[::-1], (TIERS[0], TIERS[0])])
def test_tiers_come_in_the_order_of_what_they_are_above(tiers: tuple[Tier, ...]) -> None:
    with pytest.raises(ValueError, match="above more tokens"):
        Price(input=1, output=1, tiers=tiers)
