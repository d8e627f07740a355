"""`llmd budget`: a handle to spend from, and trees and statements that show where it went."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmd import paths
from tests.support.budgets import CONFIG, ask, charge, opened, spend_slowly, started
from tests.support.cli import llmd
from tests.support.daemon import RunningDaemon, running_daemon


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningDaemon]:
    monkeypatch.setenv("COLUMNS", "")  # the readline that pytest loads sets it, and Python does not see it
    with running_daemon(tmp_path, "--log-level", "debug", config=CONFIG) as running:
        yield running


# -- open -------------------------------------------------------------------------------------------------------------


def test_open_prints_the_handle_alone_and_a_call_spends_from_it(daemon: RunningDaemon) -> None:
    handle = opened("--total", "4000")
    assert handle.startswith("bh_")
    assert handle.split() == [handle]
    completion = json.loads(
        llmd("call", "execute", f'{{"model": "echo/echo", "prompt": "a b", "budget": "{handle}"}}').out
    )
    assert completion["budget"]["settled"]["total_tokens"] == 4


def test_what_open_is_told_is_what_the_budget_is(daemon: RunningDaemon) -> None:
    parent = opened("--limit", "total_tokens=9000", "--limit", "usd=0.50")
    flags = ["--limit", "total=4000", "--guarantee", "total=1000", "--label", "an agent", "--lease", "60"]
    done = llmd("budget", "open", "--parent", parent, *flags, "--enforcement", "strict", "--json")
    child = json.loads(done.out)
    assert child["parent"] == ask(daemon, "budget.get", budget=parent)["id"]
    assert child["limits"] == {"total_tokens": 4000}
    assert child["guarantee"] == {"total_tokens": 1000}
    assert (child["label"], child["lease_s"], child["enforcement"]) == ("an agent", 60, "strict")
    assert ask(daemon, "budget.get", budget=parent)["limits"] == {"total_tokens": 9000, "nano_usd": 500_000_000}
    windowed = json.loads(llmd("budget", "open", "--total", "1", "--window", "day", "--json").out)
    assert windowed["window"] == "day"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--total", "many"], "'many' is no amount"),
        (["--total", "-1"], "'-1' is no amount"),
        (["--limit", "total_tokens"], "'total_tokens' is not UNIT=N"),
        (["--limit", "tokens=1"], "'tokens=1' is not UNIT=N"),
        (["--limit", "requests=1.5"], "'1.5' is no amount"),
        (["--total", "1", "--limit", "total_tokens=2"], "total_tokens is given twice"),
        (["--window", "year"], "invalid choice: 'year'"),
    ],
)
def test_a_flag_that_makes_no_sense_is_a_usage_error(arguments: list[str], complaint: str) -> None:
    done = llmd("budget", "open", "--no-spawn", *arguments)
    assert (done.status, done.out) == (2, "")
    assert complaint in done.err.splitlines()[-1]


def test_open_starts_a_daemon_where_none_runs() -> None:
    lock = paths.default_socket(os.environ).with_name("rpc.sock.lock")
    try:
        assert opened().startswith("bh_")
    finally:
        os.kill(int(lock.read_text().splitlines()[0]), signal.SIGKILL)


@pytest.mark.parametrize(
    "arguments", [["open", "--no-spawn"], ["tree"], ["tree", "--watch"], ["close", "bh_x"], ["statement", "b_x"]]
)
def test_without_a_daemon_nothing_else_starts_one(arguments: list[str]) -> None:
    done = llmd("budget", *arguments)
    assert (done.status, done.out) == (3, "")
    assert done.err.startswith("llmd: no daemon listens on ")


@pytest.mark.parametrize("action", ["tree", "close", "statement"])
def test_an_error_is_one_line_and_with_json_the_error_object(daemon: RunningDaemon, action: str) -> None:
    for name in ("bh_nobody", "b_nobody"):
        done = llmd("budget", action, name)
        assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
        assert done.err.startswith("llmd: there is no budget")
        assert json.loads(llmd("budget", action, name, "--json").err)["data"]["kind"] == "budget_unknown"


def test_a_connection_that_breaks_has_an_unknown_outcome(daemon: RunningDaemon) -> None:
    handle = opened()
    with spend_slowly(daemon, handle), started("close", handle) as closing:
        while ask(daemon, "budget.get", budget=handle)["state"] == "open":
            pass
        daemon.stop(signal.SIGKILL)
        _, err = closing.communicate(timeout=20)
    assert (closing.returncode, err.count("\n")) == (4, 1)


def test_the_help_shows_a_whole_life_of_a_budget() -> None:
    assert "budget " in llmd("--help").out
    told = llmd("budget", "--help").out
    assert "B=$(llmd budget open --total 4000" in told
    for action in ("open", "tree", "close", "statement"):
        assert llmd("budget", action, "--help").out.startswith(f"usage: llmd budget {action} ")


# -- tree -------------------------------------------------------------------------------------------------------------


def test_the_tree_shows_all_roots_or_the_one_that_is_named(daemon: RunningDaemon) -> None:
    agents = opened("--total", "4000", "--label", "agents")
    opened("--parent", agents, "--total", "1000", "--label", "planner")
    opened("--limit", "usd=1.00", "--label", "other")
    charge(daemon, agents, 1200)
    everything = llmd("budget", "tree")
    assert (everything.status, everything.err) == (0, "")
    lines = everything.out.splitlines()
    assert [line.split()[0] for line in lines] == ["budget", "agents", "└─", "other"]
    assert "██████░░░░░░░░░░░░░░  1.2k/4k" in lines[1]
    identifier = ask(daemon, "budget.get", budget=agents)["id"]
    for name in (agents, identifier):
        assert len(llmd("budget", "tree", name).out.splitlines()) == 3
    found = json.loads(llmd("budget", "tree", identifier, "--json").out)
    assert [branch["below"][0]["label"] for branch in found["budgets"]] == ["planner"]
    assert found["cursor"] is None


def test_no_budgets_are_said_to_be_none(daemon: RunningDaemon) -> None:
    assert llmd("budget", "tree").out == "there are no budgets\n"


def test_a_tree_of_many_pages_is_whole(daemon: RunningDaemon) -> None:
    root = opened()
    with daemon.wire() as wire:
        for number in range(600):
            handle = wire.call("budget.open", json.dumps({"parent": root, "total": 100, "label": f"a{number}"}))
            wire.call("budget.open", json.dumps({"parent": handle["result"]["budget"], "total": 100}))
    assert len(llmd("budget", "tree", root).out.splitlines()) == 1202
    assert len(llmd("budget", "tree").out.splitlines()) == 1202


def test_what_the_locale_cannot_say_is_drawn_in_ascii(daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    opened("--total", "4000", "--label", "\u65e5")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    line = llmd("budget", "tree").out.splitlines()[1]
    assert line.startswith("\\u65e5  b_")
    assert "....................  0/4k" in line
    assert "\u65e5" in llmd("budget", "tree", "--json").out


def test_columns_is_the_width_where_there_is_no_terminal(
    daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened("--total", "4000", "--label", "x" * 40)
    assert "x" * 40 in llmd("budget", "tree").out
    monkeypatch.setenv("COLUMNS", "50")
    assert max(map(len, llmd("budget", "tree").out.splitlines())) == 50


# -- close and statement ----------------------------------------------------------------------------------------------


def test_closing_prints_the_statement(daemon: RunningDaemon) -> None:
    handle = opened()
    charge(daemon, handle, 1234)
    done = llmd("budget", "close", handle)
    assert (done.status, done.err) == (0, "")
    rows = [line.split() for line in done.out.splitlines()]
    assert rows[0] == ["time", "budget", "kind", "tokens", "note"]
    assert [row[3] for row in rows[1:] if ":" in row[1]][:2] == ["open", "charge"]
    assert ["settled", "1234"] in [row[1:] for row in rows]
    again = llmd("budget", "close", handle)
    assert (again.status, again.err) == (1, "llmd: this budget is closed\n")


def test_a_budget_can_be_closed_by_its_id(daemon: RunningDaemon) -> None:
    identifier = json.loads(llmd("budget", "open", "--total", "1", "--json").out)["id"]
    closed = json.loads(llmd("budget", "close", identifier, "--json").out)
    assert (closed["budget"]["id"], closed["budget"]["state"]) == (identifier, "closed")


def test_closing_waits_as_long_as_it_is_told_and_cancels_when_it_is_told(daemon: RunningDaemon) -> None:
    handle = opened()
    with spend_slowly(daemon, handle):
        late = llmd("budget", "close", handle, "--timeout", "0.1", "--json")
        assert (late.status, json.loads(late.err)["data"]["kind"]) == (1, "deadline_exceeded")
        assert "draining" in llmd("budget", "tree", handle).out
        closed = json.loads(llmd("budget", "close", handle, "--cancel", "--json").out)
    assert closed["budget"]["state"] == "closed"
    assert closed["budget"]["uncertain"]["requests"] == 1


def charge_often(daemon: RunningDaemon, handle: str) -> None:
    """1,100 times 2 tokens: more entries than one page of a statement holds."""
    with daemon.wire() as wire:
        for _ in range(1100):
            wire.call("budget.charge", json.dumps({"budget": handle, "amounts": {"total_tokens": 2}}))


def test_a_statement_of_many_pages_is_whole(daemon: RunningDaemon) -> None:
    handle = opened()
    charge_often(daemon, handle)
    found = json.loads(llmd("budget", "statement", handle, "--json").out)
    charges = [entry["amounts"]["total_tokens"] for entry in found["entries"] if entry["kind"] == "charge"]
    assert (charges, found["cursor"]) == ([2] * 1100, None)
    lines = llmd("budget", "statement", found["budget"]["id"]).out.splitlines()
    assert len([line for line in lines if " charge " in line]) == 1100
    assert next(line.split()[1:] for line in lines if " settled " in line) == ["settled", "2200"]


@pytest.mark.parametrize("by", ["budget", "id"])
def test_closing_tells_all_that_happened(daemon: RunningDaemon, by: str) -> None:
    handle = opened()
    identifier = json.loads(llmd("budget", "statement", handle, "--json").out)["budget"]["id"]
    charge_often(daemon, handle)
    done = llmd("budget", "close", handle if by == "budget" else identifier)
    assert (done.status, done.err) == (0, "")
    assert len([line for line in done.out.splitlines() if " charge " in line]) == 1100
    assert " 2200" in done.out
