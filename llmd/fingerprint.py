"""What a daemon was started with, as the lock file beside its socket tells: a call sees what is new in its shell.

The first line of the file is the daemon's pid, the second is JSON: whether a call has spawned it, and for its version,
its configuration and each variable that a provider's key may be in, hashes of what it has and of what the daemons had
that it has taken over from. What was there once is never news again: two terminals that differ do not replace each
other's daemon in turn. The hashes are salted. Standard library only: the command line's call path imports it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from llmd import paths, version

try:
    from _blake2 import blake2b  # hashlib takes 3 ms to load OpenSSL, and every call would pay for it
except ImportError:  # another Python than CPython
    from hashlib import blake2b

HASH_BYTES = 8
KEPT = 32
FILE_BYTES_MAX = 256 * 1024
VERSION, CONFIG = "version", "config"


class Fingerprint:
    """One lock file's. `seen` has hashes by name, the latest last: none for a variable that was never set."""

    def __init__(self, pid: int, spawned: bool, salt: str, seen: Mapping[str, list[str]]) -> None:
        self.pid = pid
        self.spawned = spawned
        self.salt = salt
        self.seen = seen

    def news(self, env: Mapping[str, str]) -> list[str]:
        """The names of what is new or changed in `env`, not merely missing there."""
        found = ((name, value(name, env)) for name in self.seen)
        return [name for name, text in found if text is not None and _hash(self.salt, text) not in self.seen[name]]

    def news_of_keys(self, env: Mapping[str, str]) -> list[str]:
        return [name for name in self.news(env) if name not in (VERSION, CONFIG)]

    def text(self) -> str:
        told = {"spawned": self.spawned, "salt": self.salt, "seen": self.seen}
        return f"{self.pid}\n{json.dumps(told)}\n"


def lock_file(socket: Path) -> Path:
    return socket.with_name(socket.name + ".lock")


def read(lock: Path) -> Fingerprint | None:
    """None where there is no such file, or it tells no more than a pid."""
    try:
        with lock.open("rb") as file:
            return parsed(file.read(FILE_BYTES_MAX))
    except OSError:
        return None


def parsed(content: bytes) -> Fingerprint | None:
    try:
        pid, told, _ = content.split(b"\n", 2)  # behind them may be the end of a longer one that is written over
        fields = json.loads(told)
        return Fingerprint(int(pid), fields["spawned"] is True, fields["salt"], fields["seen"])
    except (ValueError, KeyError, TypeError):
        return None


def made(env: Mapping[str, str], names: Iterable[str], spawned: bool, before: Fingerprint | None) -> Fingerprint:
    """This process's. `names` are the variables that matter; what is `before` it has been seen."""
    salt = before.salt if before is not None else os.urandom(16).hex()
    seen = dict(before.seen) if before is not None else {}
    for name in (VERSION, CONFIG, *names):
        text, known = value(name, env), seen.get(name, [])
        new = [] if text is None else [_hash(salt, text)]
        seen[name] = [*(one for one in known if one not in new), *new][-KEPT:]
    return Fingerprint(os.getpid(), spawned, salt, seen)


def value(name: str, env: Mapping[str, str]) -> str | None:
    """What is compared under this name; None where there is nothing."""
    if name == VERSION:
        return version.VERSION
    if name != CONFIG:
        return env.get(name) or None
    file = paths.config_file(env).absolute()
    try:
        return f"{file}\n{file.read_bytes().hex()}"
    except OSError:
        return None


def inherited(held: Fingerprint, env: Mapping[str, str]) -> dict[str, str]:
    """`env`, and of what its daemon has what is missing there: who takes over does so for every terminal."""
    names = [name for name, seen in held.seen.items() if seen and name not in (VERSION, CONFIG)]
    if value(CONFIG, env) is None:
        names.append("LLMD_CONFIG")
    try:
        pairs = Path(f"/proc/{held.pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or this system has no such file
        return dict(env)
    has = {name: text for name, _, text in (os.fsdecode(pair).partition("=") for pair in pairs)}
    return {**{name: has[name] for name in names if has.get(name) and not env.get(name)}, **env}


def _hash(salt: str, text: str) -> str:
    return blake2b(os.fsencode(text), digest_size=HASH_BYTES, key=salt.encode()).hexdigest()
