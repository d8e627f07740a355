"""What tokens cost, exactly: prices are per million tokens, costs are integers of nano-USD."""

from fractions import Fraction
from functools import lru_cache
from math import lcm

from llmd.chat import Usage
from llmd.core.rows import Price, Rates
from llmd.scalars import AMOUNT_MAX

NANO_USD_A_TOKEN = 1000
"""What a price of 1 USD per million tokens is."""
NANO_USD = 10**9
"""What a price of 1 USD a request is."""


def cost_nano_usd(usage: Usage, price: Price) -> int:
    """What this usage costs, rounded up once, AMOUNT_MAX at most."""
    amount, over = _scaled(usage, price)
    return min(AMOUNT_MAX, -(-amount // over))


def exact_nano_usd(usage: Usage, price: Price) -> Fraction:
    """What this usage costs."""
    return Fraction(*_scaled(usage, price))


def _scaled(usage: Usage, price: Price) -> tuple[int, int]:
    """The cost as an integer, and what it is to be divided by."""
    (plain, read, written, output, request), over = _units(price, price.at(usage.input_tokens))
    uncached = max(0, usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens)
    cached = usage.cache_read_tokens * read + usage.cache_write_tokens * written
    return uncached * plain + cached + usage.output_tokens * output + request, over


@lru_cache(1024)
def _units(price: Price, rates: Rates) -> tuple[tuple[int, ...], int]:
    """What a token costs: of the input, read from and written to the cache, of the output; and a call; over one
    denominator."""
    read = rates.input if rates.cache_read is None else rates.cache_read
    written = rates.input if rates.cache_write is None else rates.cache_write
    # A decimal price as the user wrote it, not its nearest binary fraction.
    exact = [Fraction(str(rate)) * NANO_USD_A_TOKEN for rate in (rates.input, read, written, rates.output)]
    exact.append(Fraction(str(price.request or 0)) * NANO_USD)
    over = lcm(*(rate.denominator for rate in exact))
    return tuple(int(rate * over) for rate in exact), over
