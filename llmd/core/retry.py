"""What becomes of a call whose attempt has failed: tried again where it was, tried elsewhere, or over.

408, 409, 429 (but for a quota that is used up), 5xx and broken connections are tried again; what the request itself is
to blame for is not.
"""

from llmd.core.outcomes import Failure
from llmd.errors import KINDS

RETRIES = 2  # of a target, unless a rule says otherwise
BACKOFF_S = 0.5
BACKOFF_MAX_S = 8.0
PATIENCE_S = 120.0  # a target that asks for longer is given up


def is_retryable(failure: Failure) -> bool:
    return KINDS[failure.kind].retryable if failure.retryable is None else failure.retryable


def wait_s(failure: Failure, tried: int, retries: int, left_s: float, roll: float, elsewhere: bool) -> float | None:
    """Seconds until the target is tried again, None where it is given up.

    tried      how often it has been tried again already, of `retries` at most
    left_s     what is left of the call's time
    roll       a random number from 0 to 1: those who failed together come back one by one
    elsewhere  whether there is another target to turn to, which is better than a long wait
    """
    if tried >= retries or not is_retryable(failure):
        return None
    asked = failure.retry_after_s
    if asked is None:
        backoff = roll * min(BACKOFF_MAX_S, BACKOFF_S * 2**tried)
        return backoff if backoff < left_s else None
    asked += roll * BACKOFF_S
    return asked if asked < min(left_s, BACKOFF_MAX_S if elsewhere else PATIENCE_S) else None


def may_go_elsewhere(failure: Failure) -> bool:
    """Whether another target might do better: not with what a content filter has refused."""
    return failure.kind != "content_filtered"
