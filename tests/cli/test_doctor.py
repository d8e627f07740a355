"""`llmd doctor`: each line ok or what to do, and never a key."""

import os
import socket
from pathlib import Path

import pytest

from llmd import fingerprint, paths
from llmd.cli.doctor import BUILT, _clock, _directory, _units
from llmd.units import filled, units
from tests.support.cli import llmd
from tests.support.daemon import running_daemon

ECHO_ONLY = '[providers.mine]\ndialect = "echo"\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(ECHO_ONLY)
    file.chmod(0o600)
    return file


def test_where_all_is_well_every_line_is_ok(tmp_path: Path, config: Path) -> None:
    with running_daemon(tmp_path, config=ECHO_ONLY) as daemon:
        done = llmd("doctor", "--config", str(config))
    assert (done.status, done.err) == (0, "all is well\n")
    lines = done.out.splitlines()
    assert {line[:5] for line in lines} == {"ok   "}
    assert f"ok   socket: {daemon.socket} is answered by llmd 0.1.0" in lines
    assert f"ok   config: {config} is valid" in lines
    assert any(line.startswith("ok   store: ") and "is sound" in line for line in lines)


def test_a_configuration_that_is_wrong_is_told_with_its_place(config: Path) -> None:
    config.write_text("colour = 1\n[limits]\nbatch = 0\n")
    done = llmd("doctor", "--config", str(config))
    assert done.status == 1
    assert f"FIX  config: {config}: colour: there is no such member" in done.out
    assert f"FIX  config: {config}: limits.batch: expected" in done.out


def test_a_key_that_only_this_shell_has_is_told_by_its_name(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_daemon(tmp_path, config=ECHO_ONLY):
        monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
        done = llmd("doctor", "--config", str(config))
    assert "FIX  environment: the daemon has not this shell's OPENAI_API_KEY\n     give it the key" in done.out
    assert "canary" not in done.out + done.err


def test_a_socket_whose_path_is_too_long_is_told() -> None:
    done = llmd("doctor", "--socket", "/tmp/" + "x" * 120)
    assert "FIX  socket: /tmp/xxx" in done.out
    assert "name one of at most 107 bytes" in done.out


def test_a_daemon_that_sleeps_is_not_woken() -> None:
    path = paths.default_socket(os.environ)
    path.parent.mkdir(mode=0o700)
    fingerprint.lock_file(path).write_text(fingerprint.Fingerprint(2**22 + 1, False, "00", {}).text())
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.setblocking(False)
        assert f"ok   socket: systemd listens on {path}" in llmd("doctor").out
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_a_clock_before_this_was_written_is_wrong() -> None:
    assert [finding.cure is None for finding in _clock(BUILT + 1.0)] == [True]
    assert [finding.cure is None for finding in _clock(1000.0)] == [False]


def test_a_directory_that_others_may_write_in_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert [finding.cure for finding in _directory(tmp_path)] == [None]
    tmp_path.chmod(0o770)
    assert [finding.cure for finding in _directory(tmp_path)] == [f"chmod 700 {tmp_path}"]
    assert list(_directory(tmp_path / "missing")) == []


def test_units_of_another_llmd_are_told() -> None:
    mine = units(os.environ, system=False)
    assert list(_units()) == []
    for unit in mine:
        unit.write()
    assert [finding.cure for finding in _units()] == [None, None]
    old = mine[0].text.partition("\n")[2] + "Backlog=1\n"
    mine[0].path.write_text(filled(old))
    assert next(iter(_units())).cure == "llmd systemd install writes it anew"
