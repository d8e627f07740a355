"""`llmd reload` and SIGHUP: a good configuration takes over, a wrong one changes nothing and says why."""

import json
import signal
from pathlib import Path

from tests.support.cli import llmd
from tests.support.daemon import RunningDaemon, running_daemon

ONE = '[providers.one]\ndialect = "echo"'
TWO = '[providers.two]\ndialect = "echo"'


def providers(daemon: RunningDaemon) -> set[str]:
    with daemon.wire() as wire:
        return {model["provider"] for model in wire.call("models.list")["result"]["models"]}


def test_a_reload_swaps_the_configuration(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=ONE) as daemon:
        (tmp_path / "config.toml").write_text(TWO)
        done = llmd("reload")
        assert (done.status, done.out, done.err) == (0, "reloaded\n", "")
        assert providers(daemon) == {"echo", "two"}


def test_a_wrong_configuration_changes_nothing_and_is_told(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=ONE) as daemon:
        (tmp_path / "config.toml").write_text('colour = 1\n[providers.b]\ndialect = "x"')
        done = llmd("reload")
        assert (done.status, done.out) == (1, "")
        assert [line.split(": ")[2] for line in done.err.splitlines()] == [
            "colour",
            "providers.b.dialect",
        ]
        assert str(tmp_path) not in done.err
        assert providers(daemon) == {"echo", "one"}


def test_a_call_in_flight_goes_on_with_what_it_began_with(tmp_path: Path) -> None:
    slow = '[providers.one]\ndialect = "echo"\nlatency_ms = 300'
    with running_daemon(tmp_path, config=slow) as daemon, daemon.wire() as wire:
        wire.send(
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": "execute", "params": {"model": "one/x", "prompt": "a"}})
        )
        wire.send('{"jsonrpc":"2.0","id":2,"method":"ping"}')
        assert wire.receive()["id"] == 2  # behind the execute, which has begun
        (tmp_path / "config.toml").write_text(TWO)
        assert llmd("reload").status == 0
        assert wire.receive()["result"]["text"] == "a"


def test_sighup_reloads_as_well(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=ONE) as daemon:
        (tmp_path / "config.toml").write_text(TWO)
        daemon.process.send_signal(signal.SIGHUP)
        while providers(daemon) != {"echo", "two"}:
            pass


def test_without_a_daemon_it_says_so() -> None:
    done = llmd("reload")
    assert done.status == 3
    assert done.err.startswith("llmd: no daemon listens on ")


def test_what_only_a_restart_brings_into_force_is_told_until_it_has(tmp_path: Path) -> None:
    waiting = (
        "[listen]\ntcp = 'tcp://127.0.0.1:0'\n[ledger]\ndefault_max_tokens = 7\nstore = 'memory'\n[limits]\nbudgets = 5"
    )
    with running_daemon(tmp_path, config=ONE) as daemon:
        (tmp_path / "config.toml").write_text(waiting)
        for _ in range(2):
            done = llmd("reload")
            assert done.out == ("reloaded; with a restart comes into force: ledger.store, listen.tcp, limits.budgets\n")
        (tmp_path / "config.toml").write_text(ONE)
        assert llmd("reload").out == "reloaded\n"
        assert daemon.log.read_text().count("comes into force: ledger.store") == 2
