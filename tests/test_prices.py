"""The table of prices: that it is whole, that a name finds its row, and that the command which makes it still does."""

import os
import subprocess

import msgspec
import pytest

from llmd.core.rows import Price, Tier
from llmd.known import KNOWN
from llmd.prices import NOTHING, Listed, Table, listed, models_of, table
from tests import price_table


def test_the_catalogs_names_are_in_the_table_and_it_has_no_others() -> None:
    used = {name for known in KNOWN.values() for name in known.prices}
    assert used == set(table().providers) == set(price_table.PROVIDERS)
    assert "genai-prices" in table().source


@pytest.mark.parametrize("provider", price_table.PROVIDERS)
def test_every_row_of_the_table_is_of_some_name(provider: str) -> None:
    rows = models_of(provider)
    assert len(rows) >= 5
    for row in rows:
        assert row.names or row.starts or row.parts or row.expressions
        assert all(text == text.lower() for text in (*row.names, *row.starts, *row.parts))


@pytest.mark.parametrize(
    ("name", "found"), [("a", True), ("bcd", True), ("xdex", True), ("f7", True), ("f", False), ("ab", False)]
)
def test_a_row_is_of_names_beginnings_parts_and_expressions(name: str, found: bool) -> None:
    assert Listed(names=["a"], starts=["bc"], parts=["de"], expressions=["^f[0-9]$"]).is_of(name) is found


def test_a_name_is_found_whatever_its_case_in_the_first_provider_that_knows_it() -> None:
    assert listed(("openai",), "GPT-5-mini") == listed(("openai",), "gpt-5-mini") != NOTHING
    assert listed(("azure", "openai"), "gpt-5-mini").price is not None
    assert listed(("openai",), "nobody-knows-me") == listed((), "gpt-5-mini") == NOTHING


def test_long_inputs_have_a_price_of_their_own() -> None:
    price = listed(("google",), "gemini-2.5-pro").price
    assert price is not None
    assert price.tiers == (Tier(input=2.5, output=15.0, cache_read=0.25, above=200_000),)


# -- the command that makes it ---------------------------------------------------------------------------------------


class Rates:
    """Stands where genai-prices has a ModelPrice: its rates are attributes."""

    def __init__(self, **rates: object) -> None:
        self.__dict__.update(rates)


class Tiered:
    def __init__(self, base: float, **tiers: float) -> None:
        self.base = base
        self.tiers = [Rates(start=int(start[1:]), price=price) for start, price in tiers.items()]


def test_of_prices_by_the_hour_the_dearest_is_taken() -> None:
    night, day = Rates(input_mtok=1, output_mtok=3, cache_read_mtok=None), Rates(input_mtok=2, output_mtok=2)
    assert price_table.price([night, day]) == {"input": 2, "output": 3}


def test_tiers_of_one_rate_are_tiers_of_the_price() -> None:
    made = price_table.price([Rates(input_mtok=Tiered(1, a1000=2), output_mtok=Tiered(3, a1000=4, a5000=6))])
    assert msgspec.convert(made, Price) == Price(
        input=1, output=3, tiers=(Tier(above=1000, input=2, output=4), Tier(above=5000, input=2, output=6))
    )


@pytest.mark.parametrize(
    "rates",
    [
        {"input_mtok": 1},
        {"input_mtok": 1, "output_mtok": 2, "output_reasoning_mtok": 3},
        {"input_mtok": 1, "output_mtok": 2, "input_image_mtok": 3},
    ],
)
def test_a_price_that_llmd_could_not_reckon_with_is_none(rates: dict[str, float]) -> None:
    assert price_table.price([Rates(**rates)]) is None


def test_a_fee_is_told_for_one_request_and_what_is_not_asked_for_costs_nothing() -> None:
    made = price_table.price([Rates(input_mtok=1, output_mtok=2, requests_kcount=12, web_searches_kcount=10)])
    assert made == {"input": 1, "output": 2, "request": 0.012}


@pytest.mark.ci
def test_the_newest_data_makes_a_table() -> None:
    python = os.environ.get("LLMD_GENAI_PRICES")
    if not python:
        pytest.skip("LLMD_GENAI_PRICES names no interpreter that has genai-prices")
    done = subprocess.run([python, price_table.__file__], capture_output=True, check=True)
    made = msgspec.json.decode(done.stdout, type=Table)
    assert set(made.providers) == set(price_table.PROVIDERS)
    for rows in made.providers.values():
        assert msgspec.json.decode(rows, type=list[Listed])
