"""When budgets end by themselves: their lease has run out, or the connection that they belong to has gone.

A lease counts from the last use of its budget or of anything below, so that it is only looked at when it could have run
out, and then begins again if it has not.
"""

import heapq
import itertools

from llmd.clock import Now
from llmd.core.budget import Budget

GRACE_S = 5.0  # of a budget whose connection has gone


class Leases:
    def __init__(self) -> None:
        self._due: list[tuple[float, int, Budget]] = []
        self._order = itertools.count()

    def __bool__(self) -> bool:
        return bool(self._due)

    def begin(self, budget: Budget) -> None:
        """Watch this budget's lease, from its last use on."""
        if budget.terms.lease_s is not None and not budget.connection:
            self._push(budget.touched + budget.terms.lease_s, budget)

    def doom(self, now: Now, budget: Budget) -> None:
        """Its connection has gone; one that has closed already does not mind."""
        budget.doomed = now.mono + GRACE_S
        self._push(budget.doomed, budget)

    def due(self, now: Now) -> list[Budget]:
        """The budgets that end now, `doomed` ones with cancel."""
        ended = []
        while self._due and self._due[0][0] <= now.mono:
            _, _, budget = heapq.heappop(self._due)
            lease_s = budget.terms.lease_s
            if budget.state != "open":
                continue
            if budget.doomed is not None:
                if budget.doomed <= now.mono:
                    ended.append(budget)
            elif lease_s is not None:
                # While something is held, it is in use.
                last = now.mono if budget.is_holding else budget.touched
                if last + lease_s <= now.mono:
                    ended.append(budget)
                else:
                    self._push(last + lease_s, budget)
        return ended

    def _push(self, when: float, budget: Budget) -> None:
        heapq.heappush(self._due, (when, next(self._order), budget))
