"""What a call spends, in every unit at once; integers only, money in nano-USD."""

from msgspec import Struct

from llmd.chat import Usage


class Amounts(Struct, frozen=True, kw_only=True):
    """One amount in each unit. What a budget holds, settles and limits."""

    total_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    nano_usd: int = 0


def spent(usage: Usage, nano_usd: int | None) -> Amounts:
    """What one request with this usage posts; an unknown cost posts no money."""
    return Amounts(
        total_tokens=usage.total_tokens,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        requests=1,
        nano_usd=nano_usd or 0,
    )
