"""Facts of a model."""

import msgspec
import pytest

from llmd.core.rows import Price
from tests.support.calls import row


def test_a_models_name_for_routing_is_its_providers_and_its_own() -> None:
    assert row(provider="work", model="a/b").target == "work/a/b"


@pytest.mark.parametrize("name", ["input", "output", "cache_read", "cache_write"])
def test_no_rate_of_a_price_is_negative(name: str) -> None:
    with pytest.raises(ValueError, match="not negative"):
        Price(**{"input": 1, "output": 1, name: -0.1})
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"input": 1, "output": 1, name: -0.1}, Price)


def test_a_price_has_both_rates_and_no_unknown_ones() -> None:
    assert msgspec.convert({"input": 0, "output": 2.5}, Price) == Price(input=0, output=2.5)
    for table in ({"input": 1}, {"output": 1}, {"input": 1, "output": 1, "request": 1}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(table, Price)
