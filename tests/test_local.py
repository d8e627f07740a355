"""This process as a place of calls: its configuration, its budgets in memory, the default one, and reloads."""

import pytest

from llmd import BudgetTracker, ConfigError, LLMBudgetExceededError, LLMError, RunConfig, create_adapter, engine
from llmd.local import Local, local
from tests.support.library import configure, library

DAILY = """
[budgets.daily]
limits = {{ total_tokens = {tokens} }}
window = "{window}"
default = true
"""


def test_the_configured_default_budget_holds_in_this_process_too() -> None:
    with library(DAILY.format(tokens=20, window="day")):
        adapter = create_adapter("echo/echo")
        with pytest.raises(LLMBudgetExceededError) as caught:
            adapter.execute_prompt("x", RunConfig(max_tokens=4000))
        assert caught.value.data["budget"] == "daily"
        with pytest.raises(LLMBudgetExceededError):
            adapter.execute_prompt("x", RunConfig(max_tokens=4000, budget_tracker=BudgetTracker(total=9000)))


def test_a_reload_raises_a_limit_and_what_it_cannot_do_changes_nothing() -> None:
    with library(DAILY.format(tokens=20, window="day")):
        adapter = create_adapter("echo/echo")
        configure(DAILY.format(tokens=9000, window="hour"))
        with pytest.raises(ConfigError, match=r"budgets.daily.window"):
            create_adapter("echo/echo")
        with pytest.raises(LLMBudgetExceededError):
            adapter.execute_prompt("x", RunConfig(max_tokens=4000))
        configure(DAILY.format(tokens=9000, window="day"))
        create_adapter("echo/echo")
        made = adapter.execute_prompt("x", RunConfig(max_tokens=4000))
        assert made.budget
        assert made.budget.limits == {"total_tokens": 9000}


def test_budgets_cannot_be_streamed_or_watched_where_there_is_no_connection() -> None:
    with library():
        place: Local = engine.shared().call(local)
        for use in (lambda: place._connection.stream("s"), lambda: place._connection.watch("w", None)):
            with pytest.raises(LLMError, match="here"):
                use()
        assert not place._connection.unwatch("w")


def test_the_same_configuration_again_changes_nothing() -> None:
    with library():
        create_adapter("echo/echo")
        place = engine.shared().call(local)
        before = place._upstreams
        create_adapter("echo/echo")
        assert place._upstreams is before
