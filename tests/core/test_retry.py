"""The retry decision, as a table."""

from typing import Any

import pytest

from llmd.core.outcomes import Failure
from llmd.core.retry import BACKOFF_MAX_S, PATIENCE_S, RETRIES, is_retryable, may_go_elsewhere, wait_s
from llmd.dialects.refusals import read_error


def failure(kind: str = "upstream_unavailable", **more: Any) -> Failure:
    return Failure(kind=kind, message="", **more)


def waits(
    found: Failure, tried: int = 0, left_s: float = 600, roll: float = 1.0, elsewhere: bool = False
) -> float | None:
    return wait_s(found, tried, RETRIES, left_s, roll, elsewhere)


@pytest.mark.parametrize(
    ("status", "body", "retried"),
    [
        (408, b"", True),
        (409, b"", True),
        (429, b"", True),
        (429, b'{"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}', False),
        (500, b"", True),
        (502, b"", True),
        (503, b"", True),
        (529, b"", True),
        (400, b"", False),
        (401, b"", False),
        (402, b"", False),
        (403, b"", False),
        (404, b"", False),
        (413, b"", False),
        (422, b"", False),
        (500, b'{"error": {"message": "exceed_context_size_error"}}', False),
    ],
)
def test_which_statuses_are_tried_again(status: int, body: bytes, retried: bool) -> None:
    assert is_retryable(read_error(status, {}, body)) is retried


def test_a_broken_connection_is_tried_again_and_a_stream_that_holds_garbage_is_not() -> None:
    assert is_retryable(failure("upstream_unavailable"))
    assert not is_retryable(failure("upstream_invalid"))


def test_a_target_is_tried_again_twice_with_full_jitter_that_doubles_up_to_a_limit() -> None:
    assert [waits(failure(), tried) for tried in range(3)] == [0.5, 1.0, None]
    assert waits(failure(), roll=0.0) == 0.0
    assert wait_s(failure(), 9, 10, 600, 1.0, False) == BACKOFF_MAX_S
    assert wait_s(failure(), 0, 0, 600, 1.0, False) is None


def test_what_the_provider_asks_for_is_waited_for_if_it_is_not_too_long() -> None:
    later = failure("upstream_rate_limited", retry_after_s=20.0)
    assert waits(later, roll=0.0) == 20.0
    assert waits(later, left_s=19) is None
    assert waits(later, elsewhere=True) is None
    assert waits(failure(retry_after_s=3.0), roll=0.0, elsewhere=True) == 3.0
    assert waits(failure(retry_after_s=PATIENCE_S + 1)) is None


def test_nothing_is_waited_for_beyond_the_deadline() -> None:
    assert waits(failure(), left_s=0.4) is None


def test_a_content_filters_refusal_is_not_carried_elsewhere() -> None:
    assert not may_go_elsewhere(failure("content_filtered"))
    assert may_go_elsewhere(failure("upstream_auth"))
