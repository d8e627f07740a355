"""`llmd models`: what could be called, for a person and for a program."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmd.cli.models import row, table
from tests.support.cli import llmd
from tests.support.daemon import RunningDaemon, running_daemon

CONFIG = """
default_model = "work/m1"

[providers.work]
dialect = "echo"
[providers.work.models.m1]
price = { input = 0.25, output = 10.0, cache_read = 0.025, tiers = [{ above = 9, input = 0.5, output = 20.0 }] }
context_tokens = 128000
max_output_tokens = 4096
[providers.work.models."m\\u001b[2J"]

[providers.anthropic]
"""

PRICE = {"input": 0.25, "output": 10.0, "cache_read": 0.025}
TIERS = [{"above": 9, "input": 0.5, "output": 20.0}]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path, config=CONFIG) as running:
        yield running


@pytest.mark.usefixtures("daemon")
def test_a_table_shows_prices_limits_and_health() -> None:
    done = llmd("models")
    assert (done.status, done.err) == (0, "")
    lines = [line.split("  ") for line in done.out.splitlines()]
    assert [[cell.strip() for cell in line if cell] for line in lines] == [
        ["model", "input", "output", "context", "answer", "health"],
        ["echo/echo", "0", "0", "-", "-", "ready"],
        ["work/echo", "0", "0", "-", "-", "ready"],
        ["work/m1 *", "0.25", "10", "128,000", "4,096", "ready"],
        ["work/m\\x1b[2J", "0", "0", "-", "-", "ready"],
        ["anthropic/claude-haiku-4-5", "1", "5", "200,000", "-", "no key"],
    ]


@pytest.mark.usefixtures("daemon")
def test_only_those_with_all_the_texts_in_their_names_are_shown() -> None:
    lines = llmd("models", "CLAUDE", "4").out.splitlines()
    assert [line.split()[0] for line in lines] == ["model", "anthropic/claude-haiku-4-5"]
    none = llmd("models", "claude", "gpt")
    assert (none.status, none.out, none.err) == (0, "", "llmd: no model has that in its name\n")


@pytest.mark.usefixtures("daemon")
def test_for_a_program_it_is_what_the_daemon_answers() -> None:
    (model,) = json.loads(llmd("models", "--json", "work/m1").out)["models"]
    assert (model["price"], model["default"]) == ({**PRICE, "tiers": TIERS}, True)
    assert "caches costs" in llmd("models", "--help").out


def test_without_a_daemon_it_says_so_when_it_may_start_none() -> None:
    done = llmd("models", "--no-spawn")
    assert (done.status, done.out) == (3, "")
    assert done.err.startswith("llmd: no daemon listens on ")


def test_what_is_not_known_is_a_dash() -> None:
    model = {"model": "a/b", "price": None, "context_tokens": None, "max_output_tokens": 5, "default": False}
    assert row({**model, "health": "key_refused", "newer": 1}) == ("a/b", "-", "-", "-", "5", "key refused")


def test_words_stand_to_the_left_and_numbers_to_the_right() -> None:
    assert table([("a", "1", "xx"), ("bb", "22", "y")], left=("a", "xx")) == ["a    1  xx", "bb  22  y"]
