"""`llmd route explain`: for a person and for a program."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmd.cli.route import shown
from tests.support.cli import llmd
from tests.support.daemon import RunningDaemon, running_daemon

CONFIG = """
[providers.work]
dialect = "echo"
[providers.work.models.dear]
price = { input = 100, output = 600 }
[providers.anthropic]

[[routing.rules]]
never = { model = "echo/x" }

[[routing.rules]]
task_type = "triage"
prefer = [{ provider = "work", model = "dear" }, { provider = "echo" }]
fallback = { provider = "anthropic" }
max_cost_per_1k = 0.5

[[routing.rules]]
match = { trust = "none" }
deny = "not here"
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path, config=CONFIG) as running:
        yield running


@pytest.mark.usefixtures("daemon")
def test_a_table_shows_who_is_tried_in_order_and_why_the_others_are_out() -> None:
    done = llmd("route", "explain", stdin='{"task_type": "triage", "prompt": "hello"}')
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == [
        "rule 1 plans this, guarded by rule 0",
        "   target                      input  output  why",
        "1  echo/echo                       0       0  ready",
        "-  work/dear                     100     600  it costs more than the rule's ceiling",
        "-  anthropic/claude-haiku-4-5      1       5  the daemon's environment has no ANTHROPIC_API_KEY",
    ]


@pytest.mark.usefixtures("daemon")
def test_a_request_that_is_denied_is_told_so_and_the_status_too() -> None:
    done = llmd("route", "explain", '{"labels": {"trust": "none"}, "prompt": "x"}')
    assert (done.status, done.err) == (1, "")
    assert done.out.splitlines() == [
        "no rule plans this, guarded by rule 0, rule 2",
        "refused: rule 2 denies this: not here",
    ]


@pytest.mark.usefixtures("daemon")
def test_for_a_program_it_is_what_the_daemon_answers() -> None:
    told = json.loads(llmd("route", "explain", "--json", '{"model": "echo/echo", "prompt": "x"}').out)
    assert [target["in"] for target in told["targets"]] == [True]


@pytest.mark.usefixtures("daemon")
def test_a_payload_that_is_none_is_one_line() -> None:
    bad = llmd("route", "explain", stdin="{")
    assert (bad.status, bad.out, len(bad.err.splitlines())) == (2, "", 1)
    wrong = llmd("route", "explain", '{"promt": "x"}')
    assert wrong.status == 1
    assert wrong.err.startswith("llmd: promt: there is no such member; there are:")


def test_what_others_chose_is_made_safe_to_print() -> None:
    target = {"provider": "p", "model": "m\x1b[2J", "in": False, "reason": "x", "detail": None, "price": None}
    lines = shown({"rule": None, "guards": [], "targets": [{**target, "retry_after_ms": 1500}], "error": None})
    assert lines[0] == "no rule plans this"
    assert lines[-1] == "-  p/m\\x1b[2J      -       -  x, for 1.5 s"
