"""How a model at a provider is doing: its breaker, until when it asked to be left alone, how long it takes.

Decisions, handed the time in seconds of a clock that goes forward.
"""

from collections import deque
from typing import Literal, NamedTuple

from llmd.core.outcomes import Failure, Outcome

WINDOW_S = 30.0
LATEST = 20  # outcomes of a window that are looked at
FEWEST = 5  # outcomes before a share means anything
SHARE = 0.5  # of failures, at which the breaker opens
OPEN_S = 5.0
OPEN_MAX_S = 30.0  # after failed probes, each of which doubles it
PROBE_S = 1.0  # until somebody asks how a probe went
WEIGHT = 0.2  # of the latest call in an average

Reason = Literal["breaker_open", "rate_limited", "rate_window_full"]


class Trouble(NamedTuple):
    """Why a target takes no calls, and when to come back, in seconds of the clock.

    failure  the kind of what opened the breaker
    """

    reason: Reason
    until: float
    failure: str = ""


class Health:
    """One target. `enter` before a call is sent where there is no trouble, then `leave` with its outcome."""

    def __init__(self) -> None:
        self.first_token_s: float | None = None
        self.total_s: float | None = None
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=LATEST)  # when, and whether it failed
        self._failure = ""
        self._open_s = 0.0  # how long it opens for; 0: it is closed
        self._open_until = 0.0
        self._probing = False
        self._held_until = 0.0

    def trouble(self, now: float) -> Trouble | None:
        """What stands in the way of a call now."""
        if now < self._held_until:
            return Trouble("rate_limited", self._held_until)
        if self._open_s and (self._probing or now < self._open_until):
            return Trouble("breaker_open", max(self._open_until, now + PROBE_S if self._probing else 0), self._failure)
        return None

    def enter(self) -> bool:
        """Whether this call is a probe: one that tries whether an open breaker may close."""
        self._probing = self._open_s > 0
        return self._probing

    def leave(self, now: float, outcome: Outcome | None, probe: bool) -> None:
        """The call is over; `outcome` None where it was cut short."""
        if probe:
            self._probing = False
        if outcome is None:
            return
        failure = outcome if isinstance(outcome, Failure) else None
        if failure is not None and failure.retry_after_s is not None and failure.retryable is not False:
            self._held_until = max(self._held_until, now + failure.retry_after_s)
        if self._open_s and not probe:
            return  # it was sent before the breaker opened
        faulty = failure is not None and _is_fault(failure)
        self._outcomes.append((now, faulty))
        if failure is not None and (_is_final(failure) or (faulty and (probe or self._fails(now)))):
            self._open(now, failure.kind)
        elif probe:
            self._open_s = 0.0
            self._outcomes.clear()

    def mended(self) -> None:
        """Whatever made its calls fail may be gone: the breaker closes. What it asked for itself still holds."""
        self._open_s = 0.0
        self._probing = False
        self._outcomes.clear()

    def took(self, total_s: float, first_token_s: float | None) -> None:
        """How long an answer took, and its first piece."""
        self.total_s = _averaged(self.total_s, total_s)
        if first_token_s is not None:
            self.first_token_s = _averaged(self.first_token_s, first_token_s)

    def _fails(self, now: float) -> bool:
        recent = [failed for at, failed in self._outcomes if now - at <= WINDOW_S]
        return len(recent) >= FEWEST and sum(recent) >= SHARE * len(recent)

    def _open(self, now: float, failure: str) -> None:
        self._open_s = min(OPEN_MAX_S, self._open_s * 2 or OPEN_S)
        self._open_until = now + self._open_s
        self._failure = failure
        self._outcomes.clear()


def _is_final(failure: Failure) -> bool:
    """The next call would fail alike: the key is refused, the credit or the quota used up."""
    return failure.kind == "upstream_auth" or (failure.kind == "upstream_rate_limited" and failure.retryable is False)


def _is_fault(failure: Failure) -> bool:
    """The provider's own, not the request's."""
    return failure.kind == "upstream_unavailable" or (
        failure.kind == "upstream_invalid" and failure.http_status in (None, 200)
    )


def _averaged(before: float | None, latest: float) -> float:
    return latest if before is None else before + WEIGHT * (latest - before)
