"""The units that llmd comes with: as they are written, as systemd reads them, and what a hand has changed in them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llmd import units
from llmd.units import Unit, filled

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "systemd"


def own() -> list[Unit]:
    return units.units(os.environ, system=False)


def test_they_go_where_this_users_manager_looks() -> None:
    directory = Path(os.environ["XDG_CONFIG_HOME"]) / "systemd/user"
    assert [unit.path for unit in own()] == [directory / "llmd.socket", directory / "llmd.service"]
    assert {str(unit.path) for unit in units.units({}, system=True)} == {
        "/etc/systemd/system/llmd.socket",
        "/etc/systemd/system/llmd.service",
        "/etc/sysusers.d/llmd.conf",
    }
    assert units.units({"HOME": "/h"}, system=False)[0].path == Path("/h/.config/systemd/user/llmd.socket")


@pytest.mark.parametrize("system", [False, True])
def test_what_is_written_is_what_is_shipped_with_this_pythons_path(system: bool) -> None:
    for unit in units.units(os.environ, system=system):
        name = "llmd.sysusers.conf" if unit.path.suffix == ".conf" else unit.path.name
        shipped = (SHIPPED / ("system" if system else "") / name).read_text()
        head, _, body = unit.text.partition("\n")
        assert head.startswith("# Written by `llmd systemd install`")
        assert body.replace(f"{sys.executable} -P -m llmd", "/usr/bin/llmd") == shipped
        if unit.path.suffix == ".service":
            assert f"\nExecStart={sys.executable} -P -m llmd serve\n" in body


def test_a_path_that_systemd_would_read_otherwise_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/my 100%/python$3")
    assert units.command() == '"/opt/my 100%%/python$$3" -P -m llmd'


def test_a_file_is_known_as_missing_current_older_or_changed(tmp_path: Path) -> None:
    unit = Unit(tmp_path / "new/llmd.socket", filled("[Socket]\n"))
    assert unit.state == "missing"
    unit.write()
    assert unit.state == "current"
    unit.path.write_text(filled("[Socket]\nBacklog=1\n"))
    assert unit.state == "older"
    unit.path.write_text(unit.path.read_text() + "Backlog=2\n")
    assert unit.state == "changed"
    unit.path.write_text("[Socket]\n")
    assert unit.state == "changed"
    assert [file.name for file in unit.path.parent.iterdir()] == ["llmd.socket"]


analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@analyze
@pytest.mark.parametrize("system", [False, True])
def test_systemd_finds_nothing_to_say_about_them(tmp_path: Path, system: bool) -> None:
    files = []
    for unit in units.units(os.environ, system=system):
        if unit.path.suffix != ".conf":
            file = tmp_path / unit.path.name
            file.write_text(unit.text)
            files.append(str(file))
    kind = [] if system else ["--user"]
    command = ["systemd-analyze", *kind, "verify", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@analyze
@pytest.mark.parametrize(("system", "worst"), [(False, 25), (True, 20)])
def test_what_they_leave_open_is_little(tmp_path: Path, system: bool, worst: int) -> None:
    """`worst` is in tenths of systemd's score, which goes from 0 to 10."""
    service = units.units(os.environ, system=system)[-1]
    file = tmp_path / "llmd.service"
    file.write_text(service.text)
    kind = [] if system else ["--user"]
    command = ["systemd-analyze", *kind, "security", "--offline=true", f"--threshold={worst}", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    print(done.stdout.strip().splitlines()[-1])
