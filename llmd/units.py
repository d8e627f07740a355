"""The systemd units that llmd comes with, and what of them is installed.

They are written with this Python's path. The first line of an installed file has a hash of the rest, so that one that
is as llmd wrote it, even an older llmd, can be told from one that a hand has changed.
"""

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from msgspec import Struct

PACKAGED = "/usr/bin/llmd"
_HEAD = "# Written by `llmd systemd install`, hash "

State = Literal["missing", "current", "older", "changed"]


class Unit(Struct, frozen=True):
    """One file: where it belongs, and the text that is written there."""

    path: Path
    text: str

    @property
    def state(self) -> State:
        """What is there: nothing, this, what another llmd has written, or what somebody has changed."""
        try:
            found = self.path.read_text(errors="replace")
        except OSError:
            return "missing"
        if found == self.text:
            return "current"
        head, _, rest = found.partition("\n")
        return "older" if head == _head(rest) else "changed"

    def write(self) -> None:
        """Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(f".{self.path.name}.new")
        new.write_text(self.text)
        new.replace(self.path)


def units(env: Mapping[str, str], *, system: bool) -> list[Unit]:
    """This user's units, or those for the whole machine."""
    source = _source()
    if system:
        places = {
            "system/llmd.sysusers.conf": Path("/etc/sysusers.d/llmd.conf"),
            "system/llmd.socket": Path("/etc/systemd/system/llmd.socket"),
            "system/llmd.service": Path("/etc/systemd/system/llmd.service"),
        }
    else:
        given = env.get("XDG_CONFIG_HOME", "")
        base = Path(given) if os.path.isabs(given) else Path(env.get("HOME") or os.path.expanduser("~")) / ".config"
        places = {name: base / "systemd/user" / name for name in ("llmd.socket", "llmd.service")}
    return [Unit(path, filled((source / name).read_text())) for name, path in places.items()]


def filled(text: str) -> str:
    """A unit as it is written here: with the command that runs this llmd, and its hash on top."""
    body = text.replace(f"={PACKAGED} ", f"={command()} ")
    return f"{_head(body)}\n{body}"


def command() -> str:
    """This llmd as a unit's command line has it."""
    return f"{_quoted(sys.executable)} -P -m llmd"


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(character.isspace() or character in "\"'\\;" for character in word) else escaped


def _head(rest: str) -> str:
    return f"{_HEAD}{hashlib.sha256(rest.encode()).hexdigest()[:16]}"


def _source() -> Path:
    """Beside the package in a checkout, within it where it was installed."""
    package = Path(__file__).parent
    packed = package / "share" / "systemd"
    return packed if packed.is_dir() else package.parent / "systemd"
