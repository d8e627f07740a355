"""`llmd budget tree --watch`, and what a terminal gets: drawn again with every change, and ended cleanly."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.budgets import CONFIG, ask, charge, opened, spend_slowly, started
from tests.support.cli import llmd
from tests.support.daemon import RunningDaemon, running_daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path, "--log-level", "debug", config=CONFIG) as running:
        yield running


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What it prints, up to the first line with this text."""
    assert process.stdout is not None
    read = ""
    while text not in read:
        line = process.stdout.readline()
        assert line, f"it ended: {read}"
        read += line
    return read


@pytest.mark.parametrize("who", ["handle", "id", "all"])
def test_a_watched_tree_is_printed_again_when_it_changes(daemon: RunningDaemon, who: str) -> None:
    handle = opened()
    name = {"handle": [handle], "id": [ask(daemon, "budget.get", budget=handle)["id"]], "all": []}[who]
    with started("tree", "--watch", *name) as watching:
        read_until(watching, " 0/4k")
        charge(daemon, handle, 100)
        assert read_until(watching, " 100/4k").count("budget") == 1
        charge(daemon, handle, 200)
        assert read_until(watching, " 300/4k").count("budget") == 1
        watching.send_signal(signal.SIGINT)
        assert watching.communicate(timeout=20) == ("", "")
        assert watching.returncode == 130


@pytest.mark.parametrize("by_handle", [True, False])
def test_a_tree_that_does_not_change_is_not_printed_again(daemon: RunningDaemon, by_handle: bool) -> None:
    handle = opened()
    with started("tree", "--watch", *([handle] if by_handle else [])) as watching:
        read_until(watching, " 0/4k")
        assert select.select([watching.stdout], [], [], 2.5) == ([], [], [])
        charge(daemon, handle, 100)
        read_until(watching, " 100/4k")


def test_a_watched_tree_in_json_is_a_line_a_change(daemon: RunningDaemon) -> None:
    handle = opened()
    with started("tree", handle, "--watch", "--json") as watching:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["budgets"][0]["settled"]["total_tokens"] == 0
        charge(daemon, handle, 100)
        assert json.loads(watching.stdout.readline())["budgets"][0]["settled"]["total_tokens"] == 100


def test_what_is_opened_far_below_is_seen(daemon: RunningDaemon) -> None:
    handle = opened()
    child = opened("--parent", handle, "--total", "1000")
    with started("tree", handle, "--watch") as watching:
        read_until(watching, "0/1k")
        charge(daemon, child, 10)
        read_until(watching, "10/1k")
        opened("--parent", child, "--label", "grandchild")
        assert "   └─ grandchild" in read_until(watching, "grandchild")


@pytest.mark.parametrize("by_handle", [True, False])
def test_watching_ends_with_the_budget(daemon: RunningDaemon, by_handle: bool) -> None:
    handle = opened()
    name = handle if by_handle else ask(daemon, "budget.get", budget=handle)["id"]
    with started("tree", "--watch", name) as watching:
        read_until(watching, "/4k")
        assert llmd("budget", "close", handle).status == 0
        out, err = watching.communicate(timeout=20)
    assert (watching.returncode, err) == (0, "")
    assert ("  closed  " in out) == by_handle  # of what is gone the daemon tells only who had been listening


@pytest.mark.parametrize("by_handle", [True, False])
def test_watching_shows_what_a_budget_has_closed_with(daemon: RunningDaemon, by_handle: bool) -> None:
    handle = opened()
    name = handle if by_handle else ask(daemon, "budget.get", budget=handle)["id"]
    with spend_slowly(daemon, handle), started("tree", "--watch", name) as watching:
        read_until(watching, "/4k")
        assert llmd("budget", "close", handle, "--cancel").status == 0
        out, err = watching.communicate(timeout=20)
    assert (watching.returncode, err) == (0, "")
    assert "  closed  " in out.splitlines()[-1]
    assert "uncertain" in out.splitlines()[-1]


@pytest.mark.parametrize("by_handle", [True, False])
def test_watching_ends_when_nobody_reads_though_nothing_changes(daemon: RunningDaemon, by_handle: bool) -> None:
    handle = opened()
    with started("tree", "--watch", *([handle] if by_handle else [])) as watching:
        read_until(watching, "/4k")
        assert watching.stdout is not None
        watching.stdout.close()
        assert watching.wait(timeout=20) == 1
        assert watching.stderr is not None
        assert watching.stderr.read() == ""


def test_watching_ends_when_the_daemon_does(daemon: RunningDaemon) -> None:
    handle = opened()
    with started("tree", "--watch", handle) as watching:
        read_until(watching, "/4k")
        daemon.stop(signal.SIGKILL)
        _, err = watching.communicate(timeout=20)
    assert (watching.returncode, err.count("\n")) == (4, 1)


# -- on a terminal ----------------------------------------------------------------------------------------------------


class Terminal:
    """A terminal of this width, and what was written to it."""

    def __init__(self, columns: int) -> None:
        self.ours, self.theirs = pty.openpty()
        self.text = ""
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))

    def read_until(self, text: str) -> None:
        while text not in self.text:
            self.text += os.read(self.ours, 65536).decode(errors="replace")

    def close(self) -> None:
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("COLUMNS", "LINES"):  # the readline that pytest loads sets them, and Python does not see them
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("TERM", "xterm-256color")
    made = Terminal(72)
    yield made
    made.close()


def test_a_terminal_gets_colours_and_its_own_width(daemon: RunningDaemon, terminal: Terminal) -> None:
    charge(daemon, opened("--total", "4000", "--label", "x" * 80), 1000)
    with started("tree", out=terminal.theirs) as process:
        process.communicate(timeout=20)
    terminal.read_until("1k/4k")
    assert "\x1b[32m████" not in terminal.text  # the name leaves no room for a bar
    assert "\x1b[1m" in terminal.text
    assert re.search("[^x]x{63}…", terminal.text)


def test_a_terminal_without_colour_gets_none(
    daemon: RunningDaemon, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    charge(daemon, opened(), 1000)
    with started("tree", out=terminal.theirs) as process:
        process.communicate(timeout=20)
    terminal.read_until("1k/4k")
    assert "█████" in terminal.text
    assert "\x1b" not in terminal.text


def test_a_watched_tree_is_drawn_over_the_last_one(daemon: RunningDaemon, terminal: Terminal) -> None:
    handle = opened()
    with started("tree", "--watch", handle, out=terminal.theirs) as watching:
        terminal.read_until("0/4k")
        charge(daemon, handle, 1500)
        terminal.read_until("1.5k/4k")
        assert "\x1b[1A" in terminal.text  # the cursor goes up again
        assert "\x1b[32m████" in terminal.text
        watching.send_signal(signal.SIGINT)
        _, err = watching.communicate(timeout=20)
        assert (watching.returncode, err) == (130, "")
    terminal.read_until("\x1b[?25h")  # the cursor is seen again


def test_open_says_on_a_terminal_what_it_has_opened(daemon: RunningDaemon, terminal: Terminal) -> None:
    command = [sys.executable, "-m", "llmd", "budget", "open", "--total", "4000", "--limit", "usd=0.50"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal.theirs, text=True, timeout=30, check=True)
    terminal.read_until("with 4k tokens, $0.50")
    assert done.stdout.startswith("bh_")
    assert done.stdout.count("\n") == 1
