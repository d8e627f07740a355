"""What tokens cost, exactly: prices are per million tokens, costs are integers of nano-USD."""

from fractions import Fraction
from math import ceil

from llmd.chat import Usage
from llmd.core.rows import Price
from llmd.scalars import AMOUNT_MAX

NANO_USD_A_TOKEN = 1000
"""What a price of 1 USD per million tokens is."""


def cost_nano_usd(usage: Usage, price: Price) -> int:
    """What this usage costs, rounded up once, AMOUNT_MAX at most."""
    return min(AMOUNT_MAX, ceil(exact_nano_usd(usage, price)))


def exact_nano_usd(usage: Usage, price: Price) -> Fraction:
    """What this usage costs. A cache rate that is not given is the input rate."""
    plain = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens
    parts = (
        (max(0, plain), price.input),
        (usage.cache_read_tokens, price.input if price.cache_read is None else price.cache_read),
        (usage.cache_write_tokens, price.input if price.cache_write is None else price.cache_write),
        (usage.output_tokens, price.output),
    )
    # A decimal price as the user wrote it, not its nearest binary fraction.
    return sum((tokens * Fraction(str(rate)) * NANO_USD_A_TOKEN for tokens, rate in parts), Fraction())
