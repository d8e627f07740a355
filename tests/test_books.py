"""Amounts as callers give them: which are understood, and what is said of the others."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.books import UNITS, GivenAmounts
from llmd.scalars import AMOUNT_MAX
from llmd.validation import explain

NOT_DOLLARS = '`usd` is a decimal number of dollars as a string, at most nine places, as in "5.00"'


def read(text: str) -> dict[str, int]:
    given = msgspec.json.decode(text, type=GivenAmounts)
    return {str(unit): amount for unit, amount in given.by_unit().items()}


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        ("{}", {}),
        ('{"total_tokens": 0}', {"total_tokens": 0}),
        ('{"requests": 3, "total_tokens": 4000}', {"total_tokens": 4000, "requests": 3}),
        ('{"input_tokens": 9007199254740991}', {"input_tokens": AMOUNT_MAX}),
        ('{"nano_usd": 5}', {"nano_usd": 5}),
        ('{"output_tokens": null, "usd": null}', {}),
        ('{"usd": "5"}', {"nano_usd": 5_000_000_000}),
        ('{"usd": "5.00"}', {"nano_usd": 5_000_000_000}),
        ('{"usd": "0.000000001"}', {"nano_usd": 1}),
        ('{"usd": "0.1", "requests": 1}', {"requests": 1, "nano_usd": 100_000_000}),
        ('{"usd": "0"}', {"nano_usd": 0}),
        ('{"usd": "9007199.254740991"}', {"nano_usd": AMOUNT_MAX}),
    ],
)
def test_the_units_that_are_given_are_understood_and_no_others(text: str, amounts: dict[str, int]) -> None:
    assert read(text) == amounts
    assert list(read(text)) == [unit for unit in UNITS if unit in amounts]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"total_tokens": -1}', "total_tokens: expected an integer >= 0"),
        ('{"total_tokens": 9007199254740992}', "total_tokens: expected an integer <= 9007199254740991"),
        ('{"nano_usd": 9223372036854775808}', "nano_usd: expected an integer <= 9007199254740991"),
        ('{"requests": 1.5}', "requests: expected an integer or null, got a number"),
        ('{"requests": 1.0}', "requests: expected an integer or null, got a number"),
        ('{"requests": "1"}', "requests: expected an integer or null, got a string"),
        ('{"requests": true}', "requests: expected an integer or null, got true or false"),
        (
            '{"tokens": 1}',
            "tokens: there is no such member; there are: input_tokens, nano_usd, output_tokens, requests, "
            "total_tokens, usd",
        ),
        ('{"usd": 5}', "usd: expected a string or null, got an integer"),
        ('{"usd": 0.5}', "usd: expected a string or null, got a number"),
        ('{"usd": "5", "nano_usd": 5}', "give one of `usd` and `nano_usd`"),
        ("[]", "expected an object, got an array"),
    ],
)
def test_other_amounts_are_refused_in_words_that_say_which_and_why(text: str, problem: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        read(text)
    assert str(explain(refused.value, GivenAmounts)) == problem


@pytest.mark.parametrize(
    "dollars",
    [
        "",
        " 5",
        "5\n",
        "-1",
        "-0",
        "+5",
        "$5",
        "5,00",
        "5.",
        ".5",
        "1_000",
        "1e3",
        "9e999999",
        "0x5",
        "NaN",
        "Infinity",
        "1.0000000001",
        "1.000000000000000000000000000001",
        "9007199.254740992",
        "99999999999999999999999999999999",
        "\N{ARABIC-INDIC DIGIT FIVE}",
    ],
)
def test_dollars_that_are_no_plain_decimal_or_too_many_or_too_fine_are_refused(dollars: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        read(msgspec.json.encode({"usd": dollars}).decode())
    assert str(explain(refused.value, GivenAmounts)) == NOT_DOLLARS


@given(st.decimals(0, 9_007_199, places=9))
def test_dollars_are_taken_to_the_last_place(dollars: Decimal) -> None:
    assert GivenAmounts(usd=f"{dollars:f}").by_unit() == {"nano_usd": int(dollars.scaleb(9))}
