"""How many requests and tokens a provider may be sent in any minute."""

from collections import deque
from dataclasses import dataclass

MINUTE_S = 60.0
STEP_S = 1.0  # what is sent within a step leaves the window together


@dataclass
class Step:
    """What was sent from `first` to `latest`, in seconds of the clock."""

    first: float
    latest: float
    amount: int = 0
    gone: bool = False


class Window:
    """At most `limit` in any minute, None for no limit. What is larger than the limit goes alone."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self._steps: deque[Step] = deque()  # the oldest first
        self._sum = 0

    def free_at(self, now: float, amount: int) -> float:
        """When `amount` fits: `now`, or the moment at which enough has left."""
        if self.limit is None:
            return now
        self._forget(now)
        over = self._sum + min(amount, self.limit) - self.limit
        for step in self._steps:
            if over <= 0:
                break
            over -= step.amount
            if over <= 0:
                return step.latest + MINUTE_S
        return now

    def take(self, now: float, amount: int) -> Step:
        """`amount` is sent now."""
        self._forget(now)
        if not self._steps or now - self._steps[-1].first >= STEP_S:
            self._steps.append(Step(now, now))
        step = self._steps[-1]
        step.latest = now
        self.correct(step, amount)
        return step

    def correct(self, step: Step, amount: int) -> None:
        """What was sent in `step` has turned out to be so much more, or less."""
        if not step.gone:
            step.amount += amount
            self._sum += amount

    def _forget(self, now: float) -> None:
        while self._steps and now - self._steps[0].latest >= MINUTE_S:
            step = self._steps.popleft()
            step.gone = True
            self._sum -= step.amount
