"""One hold: what an attempt may spend, and where it counts."""

from typing import NamedTuple

from llmd.core.accounts import Path
from llmd.core.amounts import Packed
from llmd.core.budget import Budget


class Call(NamedTuple):
    """What a hold is for, as the entries tell it; `deadline` in seconds of the forward clock."""

    request_id: str | None = None
    target: str | None = None
    deadline: float = 0.0


class Hold:
    """What one attempt may spend.

    path        the accounts that it counts in, whatever time it is when it resolves
    dispatched  whether bytes of the call may have left
    posted      what it resolved at, where that was a bound that may still be reconciled
    slot        the number of its row, from when it is noted until it is gone
    """

    __slots__ = ("amounts", "budget", "call", "dispatched", "id", "path", "posted", "posted_ms", "slot")

    def __init__(self, number: int, budget: Budget, amounts: Packed, path: Path, call: Call) -> None:
        self.id = number
        self.budget = budget
        self.amounts = amounts
        self.path = path
        self.call = call
        self.dispatched = False
        self.posted: Packed | None = None
        self.posted_ms = 0
        self.slot: int | None = None
