"""The scalars of the contract: amounts, times, names and tokens, with their limits."""

from typing import Annotated

from msgspec import Meta

AMOUNT_MAX = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""

Amount = Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]
Millis = Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]
Positive = Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
Token = Annotated[str, Meta(min_length=1, max_length=128)]
