"""What a configured budget is, and which changes of it take a restart."""

from llmd.books import Allow, GivenAmounts
from llmd.core.budget import Budget
from llmd.roots import counts_otherwise, problems, terms_of
from llmd.settings import BudgetSettings

DAILY = BudgetSettings(
    limits=GivenAmounts(usd="5.00", requests=3),
    window="day",
    timezone="Europe/Berlin",
    label="all of us",
    enforcement="estimate",
    allow=Allow(providers=["echo"]),
)


def test_its_terms_are_what_is_configured_and_it_has_no_lease() -> None:
    terms = terms_of(DAILY)
    assert terms.limits == {"requests": 3, "nano_usd": 5 * 10**9}
    assert (terms.window, terms.zone, terms.label) == ("day", "Europe/Berlin", "all of us")
    assert (terms.enforcement, terms.allow, terms.lease_s) == ("estimate", DAILY.allow, None)
    assert terms.configured


def test_another_window_or_zone_takes_a_restart_and_other_limits_do_not() -> None:
    there = {"daily": Budget("daily", None, terms_of(DAILY), None)}
    assert problems(there, {"daily": BudgetSettings(window="day", timezone="Europe/Berlin"), "new": DAILY}) == []
    for other in (BudgetSettings(window="hour", timezone="Europe/Berlin"), BudgetSettings(window="day")):
        assert counts_otherwise(there["daily"].terms, other)
        assert [problem.partition(":")[0] for problem in problems(there, {"daily": other})] == ["budgets.daily.window"]
