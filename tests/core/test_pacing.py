"""What may be sent in any minute, with a clock of the test's own."""

from hypothesis import given
from hypothesis import strategies as st

from llmd.core.pacing import MINUTE_S, Window


def test_without_a_limit_everything_goes_at_once() -> None:
    window = Window()
    window.take(0, 10**9)
    assert window.free_at(0, 10**9) == 0


def test_what_is_over_the_limit_waits_until_enough_has_left() -> None:
    window = Window(10)
    window.take(0, 4)
    window.take(10, 4)
    assert window.free_at(20, 2) == 20
    assert window.free_at(20, 3) == MINUTE_S
    assert window.free_at(20, 7) == 10 + MINUTE_S
    assert window.free_at(MINUTE_S, 6) == MINUTE_S


def test_what_is_larger_than_the_limit_goes_alone() -> None:
    window = Window(10)
    assert window.free_at(0, 50) == 0
    window.take(0, 50)
    assert window.free_at(30, 1) == MINUTE_S
    assert window.free_at(MINUTE_S, 50) == MINUTE_S


def test_what_turns_out_to_be_more_or_less_counts_where_it_was_sent() -> None:
    window = Window(10)
    step = window.take(0, 8)
    window.correct(step, -6)
    assert window.free_at(1, 8) == 1
    window.correct(step, 6)
    assert window.free_at(1, 8) == MINUTE_S
    assert window.free_at(MINUTE_S, 10) == MINUTE_S
    window.correct(step, 100)  # it has left the window
    assert window.free_at(MINUTE_S, 10) == MINUTE_S


CALLS = st.lists(st.tuples(st.floats(0, 20), st.integers(1, 12)), max_size=40)


@given(CALLS, st.integers(1, 20))
def test_no_minute_has_more_than_the_limit_but_for_what_goes_alone(calls: list[tuple[float, int]], limit: int) -> None:
    window, now, sent = Window(limit), 0.0, []
    for pause, amount in calls:
        now = window.free_at(now + pause, amount)
        assert window.free_at(now, amount) == now
        window.take(now, amount)
        sent.append((now, amount))
    for at, _ in sent:
        minute = [amount for when, amount in sent if at <= when < at + MINUTE_S]
        assert sum(minute) <= limit or len(minute) == 1
