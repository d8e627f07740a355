"""`llmd ledger`: tells whether the file that budgets are kept in is sound, and goes on without what it has lost."""

import json
import os
import signal
from pathlib import Path

import pytest

from llmd import paths
from llmd.journal import Batch
from llmd.journal.database import Database
from tests.support.budgets import ask, charge, opened
from tests.support.cli import llmd
from tests.support.daemon import running_daemon

LOG_HEADER, FRAME_HEADER = 32, 24


def log_of_the_ledger() -> Path:
    file = paths.ledger_file(os.environ)
    return file.with_name(file.name + "-wal")


def leave_a_ledger(directory: Path) -> str:
    """What a daemon leaves that was killed after four charges of 100 tokens each; the handle that they went to."""
    with running_daemon(directory) as daemon:
        handle = opened()
        for _ in range(4):
            charge(daemon, handle, 100)
        daemon.stop(signal.SIGKILL)
    return handle


def damage() -> None:
    """Change a byte in the page of the log's last frame but three, behind which more was committed."""
    log = log_of_the_ledger()
    data = bytearray(log.read_bytes())
    frame = FRAME_HEADER + int.from_bytes(data[8:12])  # the size of a page stands in the log's header
    frames = (len(data) - LOG_HEADER) // frame
    data[LOG_HEADER + (frames - 4) * frame + FRAME_HEADER + 100] ^= 0xFF
    log.write_bytes(data)


def files() -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in paths.ledger_file(os.environ).parent.glob("ledger*")}


def test_a_sound_ledger_is_summed_up_and_not_touched(tmp_path: Path) -> None:
    leave_a_ledger(tmp_path)
    before = files()
    done = llmd("ledger", "check")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"{paths.ledger_file(os.environ)} is sound: ")
    found = json.loads(llmd("ledger", "check", "--json").out)
    assert (found["problems"], found["entries"]) == ([], 5)
    assert f"{found['rows']} rows, 5 entries of history, {found['bytes']} bytes" in done.out
    assert files() == before


def test_a_ledger_that_contradicts_itself_is_no_dead_end(tmp_path: Path) -> None:
    leave_a_ledger(tmp_path)
    file = paths.ledger_file(os.environ)
    database = Database(file, "full")
    database.write(Batch({key: None for key, _ in database.rows("b/")} | {"b/x": b"{}"}, []))
    database.close()
    left = files()
    for action in ("check", "accept-loss"):
        done = llmd("ledger", action)
        assert done.status == 1
        assert f"the ledger {file} contradicts itself: a row of the ledger cannot be read" in done.err
        assert "put back a copy, or move it and ledger.db-wal away" in done.err
        assert len(json.loads(llmd("ledger", action, "--json").out)["problems"]) == 1
    assert files()["ledger.db"] == left["ledger.db"]
    for name in left:
        (file.parent / name).rename(tmp_path / name)
    assert leave_a_ledger(tmp_path), "which is what was told"


def test_there_is_nothing_to_accept_in_a_sound_ledger(tmp_path: Path) -> None:
    leave_a_ledger(tmp_path)
    log = log_of_the_ledger().read_bytes()
    done = llmd("ledger", "accept-loss")
    assert (done.status, done.err) == (0, "")
    assert done.out.endswith("has lost nothing: nothing was changed\n")
    assert json.loads(llmd("ledger", "accept-loss", "--json").out)["changed"] is False
    assert log_of_the_ledger().read_bytes() == log


def test_damage_is_a_problem_until_its_loss_is_accepted(tmp_path: Path) -> None:
    handle = leave_a_ledger(tmp_path)
    damage()
    log = log_of_the_ledger().read_bytes()
    found = llmd("ledger", "check")
    assert (found.status, found.out, found.err.count("\n")) == (1, "", 1)
    assert "is damaged" in found.err
    in_json = llmd("ledger", "check", "--json")
    assert (in_json.status, json.loads(in_json.out)["problems"]) == (1, [found.err.strip()])

    accepted = llmd("ledger", "accept-loss")
    assert (accepted.status, accepted.err) == (0, "")
    told, advice = accepted.out.splitlines()
    assert advice == "start the daemon again: it goes on with what is left"
    kept = next(word for word in told.split() if word.startswith("ledger.db.lost-"))
    assert paths.ledger_file(os.environ).with_name(kept).exists()
    assert log in files().values()

    assert llmd("ledger", "check").status == 0
    with running_daemon(tmp_path) as daemon:
        assert ask(daemon, "budget.get", budget=handle)["settled"]["total_tokens"] in (0, 100, 200, 300)
        assert charge(daemon, handle, 1)["state"] == "open"


def test_accepting_in_json_says_what_was_done(tmp_path: Path) -> None:
    leave_a_ledger(tmp_path)
    damage()
    done = json.loads(llmd("ledger", "accept-loss", "--json").out)
    assert (done["path"], done["changed"], done["problems"]) == (str(paths.ledger_file(os.environ)), True, [])
    assert "is kept as ledger.db.lost-" in done["told"]


def test_beside_a_daemon_the_ledger_can_be_checked_and_not_changed(tmp_path: Path) -> None:
    with running_daemon(tmp_path) as daemon:
        opened()
        checked = llmd("ledger", "check")
        assert (checked.status, checked.out.count("\n")) == (0, 2)
        assert checked.out.startswith(f"in use by pid {daemon.process.pid} ({daemon.socket})\n")
        refused = llmd("ledger", "accept-loss")
    assert (refused.status, refused.out, refused.err.count("\n")) == (1, "", 1)
    assert f"another llmd (pid {daemon.process.pid}, {daemon.socket}) has the ledger" in refused.err


@pytest.mark.parametrize("action", ["check", "accept-loss"])
def test_where_there_is_no_ledger_there_is_nothing_to_do(action: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    for text, told in [
        ("", f"there is no ledger at {paths.ledger_file(os.environ)}: "),
        ('[ledger]\npath = "~/none/ledger.db"', f"there is no ledger at {Path.home()}/none/ledger.db: "),
        ('[ledger]\nstore = "memory"', "budgets are kept in memory: "),
    ]:
        config.write_text(text)
        done = llmd("ledger", action, "--config", str(config))
        assert (done.status, done.err) == (0, "")
        assert done.out.startswith(told)
        done = llmd("ledger", action, "--json", "--config", str(config))
        assert (done.status, json.loads(done.out)["problems"]) == (0, [])
    assert not paths.ledger_file(os.environ).parent.exists()


@pytest.mark.parametrize("action", ["check", "accept-loss"])
def test_a_log_without_its_ledger_is_a_problem(action: str, tmp_path: Path) -> None:
    leave_a_ledger(tmp_path)
    paths.ledger_file(os.environ).unlink()
    done = llmd("ledger", action)
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert "is gone, and its log ledger.db-wal is there" in done.err


def test_a_wrong_configuration_is_told(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[ledger]\ncolour = 1")
    done = llmd("ledger", "check", "--config", str(config))
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"{config}: ledger.colour")


def test_a_usage_error_is_one() -> None:
    assert llmd("ledger").status == 2
    assert llmd("ledger", "mend").status == 2
