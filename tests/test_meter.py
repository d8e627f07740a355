"""What is counted of calls; names that callers choose do not make it grow."""

from llmd.chat import Usage
from llmd.meter import OTHER, TARGETS_MAX, Histogram, Meter
from tests.support.calls import row


def test_a_histogram_counts_each_value_once_at_the_first_bound_that_holds_it() -> None:
    histogram = Histogram((0.1, 1))
    for value in (0.05, 0.1, 0.5, 7):
        histogram.observe(value)
    assert (histogram.counts, round(histogram.sum, 2)) == ([2, 1, 1], 7.65)


def test_an_attempt_counts_with_what_is_known_of_it() -> None:
    meter = Meter()
    usage = Usage(input_tokens=5, output_tokens=2, total_tokens=7)
    meter.attempted(row(), "ok", usage, 9000)
    meter.attempted(row(), "ok", usage, 1000)
    meter.attempted(row(), "cancelled", None, None)
    assert meter.attempts == {("work", "m1", "ok"): 2, ("work", "m1", "cancelled"): 1}
    assert meter.tokens == {("work", "m1", "input"): 10, ("work", "m1", "output"): 4}
    assert meter.nano_usd == {("work", "m1"): 10_000}


def test_only_so_many_models_are_kept_apart() -> None:
    meter = Meter()
    for number in range(TARGETS_MAX + 50):
        meter.attempted(row(model=f"m{number}"), "ok", None, None)
    assert len(meter.attempts) == TARGETS_MAX + 1
    assert meter.attempts["work", OTHER, "ok"] == 50
    assert meter.keeps("work", "m0")
    assert not meter.keeps("work", f"m{TARGETS_MAX}")
