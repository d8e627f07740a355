"""When budgets end by themselves: their lease has run out, or the connection that they belong to has gone.

A lease counts from the last use of its budget or of anything below, so that it is only looked at when it could have run
out, and then begins again if it has not.
"""

import heapq
import itertools

from llmd.clock import Now
from llmd.core.budget import Budget

GRACE_S = 5.0  # of a budget whose connection has gone
CROWDED = 1000


class Leases:
    def __init__(self) -> None:
        self._due: list[tuple[float, int, Budget]] = []
        self._order = itertools.count()
        self._crowded = CROWDED

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
        if len(self._due) > self._crowded:
            # Those that were closed before their time would wait here for it.
            self._due = [entry for entry in self._due if _is_awaited(*entry)]
            heapq.heapify(self._due)
            self._crowded = CROWDED + 2 * len(self._due)
        while self._due and self._due[0][0] <= now.mono:
            entry = heapq.heappop(self._due)
            if not _is_awaited(*entry):
                continue
            budget = entry[2]
            budget.due = None
            lease_s = budget.terms.lease_s
            if budget.doomed is not None:
                end = budget.doomed
            elif lease_s is not None:
                # While something is held, it is in use.
                end = (now.mono if budget.is_holding else budget.touched) + lease_s
            else:
                continue
            if end <= now.mono:
                ended.append(budget)
            else:
                self._push(end, budget)
        return ended

    def _push(self, when: float, budget: Budget) -> None:
        if budget.due is None or when < budget.due:
            budget.due = when
            heapq.heappush(self._due, (when, next(self._order), budget))


def _is_awaited(when: float, number: int, budget: Budget) -> bool:
    return budget.state != "closed" and budget.due == when and (budget.state == "open" or budget.doomed is not None)
