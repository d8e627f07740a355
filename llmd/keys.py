"""Provider keys: where each comes from, and the one place that holds it. A key never shows in a repr or a log."""

import os.path
import subprocess
from collections.abc import Mapping
from pathlib import Path

import anyio

from llmd.settings import KeySettings

COMMAND_TIMEOUT_S = 5.0
KEY_BYTES_MAX = 16 * 1024


class KeyUnavailable(Exception):
    """The key cannot be had; the message says why in llmd's words, without the key or a path."""


class Key:
    """One provider's key, read when it is first needed."""

    def __init__(self, settings: KeySettings | None, env: Mapping[str, str]) -> None:
        self._settings = settings
        self._env = env
        self._value: str | None = None
        self._reading = anyio.Lock()

    def __repr__(self) -> str:
        return "<Key>"

    @property
    def present(self) -> bool:
        """Whether there is anything to try: no key needed, a variable that is set, a file that is there, a command."""
        return self.missing is None

    @property
    def missing(self) -> str | None:
        """Why there is nothing to try."""
        settings = self._settings
        if settings is None or settings.command is not None:
            return None
        if settings.env is not None:
            return None if self._env.get(settings.env) else f"the daemon's environment has no {settings.env}"
        path = self._path(settings)
        if path is None:
            return "systemd gave the daemon no credentials"
        return None if path.is_file() else "the key's file is not there"

    async def get(self) -> str | None:
        """The key, None where the provider needs none. Raises KeyUnavailable."""
        if self._settings is None:
            return None
        async with self._reading:  # a command runs once, however many calls wait for it
            if self._value is None:
                self._value = _clean(await self._read(self._settings))
            return self._value

    def renew(self, refused: str | None) -> bool:
        """The provider refused this key: True if `get` may give another, as a command that runs again does."""
        if self._settings is None or self._settings.command is None:
            return False
        if self._value == refused:  # else another call has renewed it since
            self._value = None
        return True

    def _path(self, settings: KeySettings) -> Path | None:
        if settings.file is not None:
            return Path(os.path.expanduser(settings.file))
        directory = self._env.get("CREDENTIALS_DIRECTORY")
        return Path(directory) / (settings.credential or "") if directory else None

    async def _read(self, settings: KeySettings) -> str:
        if settings.command is not None:
            return await _run(settings.command)
        if (missing := self.missing) is not None:
            raise KeyUnavailable(missing)
        if settings.env is not None:
            return self._env[settings.env]
        path = self._path(settings)
        assert path is not None
        try:
            return await anyio.to_thread.run_sync(_read_file, path)
        except (OSError, UnicodeDecodeError):
            raise KeyUnavailable("the key's file cannot be read") from None


def _read_file(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(KEY_BYTES_MAX).decode()


async def _run(command: list[str]) -> str:
    """What `command` prints; its own complaints go to the daemon's log, never to a client."""
    try:
        with anyio.fail_after(COMMAND_TIMEOUT_S):
            done = await anyio.run_process(command, stdin=subprocess.DEVNULL, stderr=None, check=False)
        if done.returncode != 0:
            raise KeyUnavailable(f"the key's command ended with status {done.returncode}")
        return done.stdout[:KEY_BYTES_MAX].decode()
    except TimeoutError:
        raise KeyUnavailable(f"the key's command took longer than {COMMAND_TIMEOUT_S:.0f} s") from None
    except (OSError, UnicodeDecodeError):
        raise KeyUnavailable("the key's command cannot be run, or printed what is no key") from None


def _clean(value: str) -> str:
    key = value.strip()
    # What would end the header line would let a key file write headers of its own.
    if not key or not key.isprintable() or not key.isascii():
        raise KeyUnavailable("the key is empty, or holds characters that no key has")
    return key
