"""What tokens cost, exactly: prices are per million tokens, costs are integers of nano-USD."""

from fractions import Fraction
from math import ceil

from llmd.chat import AMOUNT_MAX, Usage
from llmd.core.rows import Price


def cost_nano_usd(usage: Usage, price: Price) -> int:
    """What this usage costs, rounded up once, AMOUNT_MAX at most. A cache rate that is not given is the input rate."""
    plain = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens
    parts = (
        (max(0, plain), price.input),
        (usage.cache_read_tokens, price.input if price.cache_read is None else price.cache_read),
        (usage.cache_write_tokens, price.input if price.cache_write is None else price.cache_write),
        (usage.output_tokens, price.output),
    )
    # A decimal price as the user wrote it, not its nearest binary fraction; USD per million is 1000 nano-USD a token.
    return min(AMOUNT_MAX, ceil(sum(tokens * Fraction(str(rate)) * 1000 for tokens, rate in parts)))
