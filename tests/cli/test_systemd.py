"""`llmd systemd`: what it writes, what it leaves alone and says so, and what it tells where no systemd can be asked."""

import os
import stat
import sys
from pathlib import Path

import pytest

from llmd import units
from llmd.cli import main


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs in place of systemctl and systemd-sysusers, which write down how they are called."""
    calls = tmp_path / "calls"
    for name in ("systemctl", "systemd-sysusers"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {calls}\n[ ! -e {tmp_path}/broken ]\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    calls.touch()
    return calls


def installed() -> dict[str, str]:
    directory = Path(os.environ["XDG_CONFIG_HOME"]) / "systemd/user"
    return {file.name: file.read_text() for file in directory.iterdir()} if directory.exists() else {}


def test_install_writes_the_units_and_starts_the_socket(control: Path) -> None:
    assert main(["systemd", "install"]) == 0
    assert installed() == {unit.path.name: unit.text for unit in units.units(os.environ, system=False)}
    assert control.read_text().splitlines() == [
        "systemctl --user daemon-reload",
        "systemctl --user enable --now llmd.socket",
    ]


def test_install_again_changes_nothing_and_writes_an_older_one_anew(
    control: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["systemd", "install"])
    capsys.readouterr()
    assert main(["systemd", "install"]) == 0
    assert capsys.readouterr().out.count("is as it should be") == 2
    service = units.units(os.environ, system=False)[1]
    service.path.write_text(units.filled("[Service]\nExecStart=/old/llmd serve\n"))
    assert main(["systemd", "install"]) == 0
    assert f"{service.path} written anew" in capsys.readouterr().out
    assert service.state == "current"


@pytest.mark.parametrize("action", ["install", "uninstall"])
def test_a_file_that_somebody_has_changed_is_left_alone_and_said_so(
    control: Path, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    main(["systemd", "install", "--no-start"])
    socket, service = (unit.path for unit in units.units(os.environ, system=False))
    service.write_text(service.read_text() + "Nice=5\n")
    before = installed()
    assert main(["systemd", action]) == 1
    assert f"{service} was changed since llmd wrote it" in capsys.readouterr().err
    assert (installed(), control.read_text()) == (before, "")
    assert main(["systemd", action, "--force", "--no-start"]) == 0
    assert ("Nice=5" in "".join(installed().values()), socket.exists()) == (False, action == "install")


def test_uninstall_stops_first_and_then_removes(control: Path) -> None:
    main(["systemd", "install", "--no-start"])
    assert main(["systemd", "uninstall"]) == 0
    assert installed() == {}
    assert control.read_text().splitlines() == [
        "systemctl --user disable --now llmd.socket llmd.service",
        "systemctl --user daemon-reload",
    ]


def test_show_prints_and_writes_nothing(control: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["systemd", "show"]) == 0
    out = capsys.readouterr().out
    for unit in units.units(os.environ, system=False):
        assert f"# {unit.path} (missing)\n{unit.text}" in out
    assert (installed(), control.read_text()) == ({}, "")


def test_where_systemd_cannot_be_asked_it_says_what_to_run(control: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (control.parent / "broken").touch()
    assert main(["systemd", "install"]) == 1
    assert len(installed()) == 2
    assert capfd.readouterr().err == (
        "llmd: run this when systemd can be asked: "
        "systemctl --user daemon-reload && systemctl --user enable --now llmd.socket\n"
    )
    assert main(["systemd", "uninstall"]) == 1
    assert len(installed()) == 2  # what may still run keeps its units


def test_a_service_of_the_machine_is_not_made_of_what_is_in_a_home_directory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/home/me/venv/bin/python")
    assert main(["systemd", "install", "--system"]) == 1
    assert "is in a home directory, which the service cannot read" in capsys.readouterr().err
