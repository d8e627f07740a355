"""Where the log goes and how it looks: the journal with a field for each fact, lines for people, JSON for programs.

What is logged of a call are facts about it (`extra={"fields": ...}`), never a prompt and never a key.
"""

import json
import logging
import os
import socket
import struct
import time
from collections.abc import Mapping
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

JOURNAL = Path("/run/systemd/journal/socket")
FILE_BYTES = 5 * 2**20
STANDARD_ERROR = 2
LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


def configure(file: Path | None, level: str, style: str, env: Mapping[str, str]) -> None:
    """Log to `file`, of which 2 x 5 MiB are kept, else to the journal or standard error. `style` is text or json."""
    handler = _handler(file, style, env)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("llmd").setLevel(level.upper())


def _handler(file: Path | None, style: str, env: Mapping[str, str]) -> logging.Handler:
    handler: logging.Handler
    if file is not None:
        handler = RotatingFileHandler(file, maxBytes=FILE_BYTES, backupCount=1, encoding="utf-8")
    elif style == "text" and _is_journal(STANDARD_ERROR, env):
        try:
            return JournalHandler(JOURNAL)
        except OSError:  # it takes our standard error and no more: a line's number is all that it understands
            handler = logging.StreamHandler()
            handler.setFormatter(PriorityFormatter("%(name)s: %(message)s"))
            return handler
    else:
        handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if style == "json" else logging.Formatter(LINE))
    return handler


def _is_journal(descriptor: int, env: Mapping[str, str]) -> bool:
    """Whether what is written there goes to the journal; a shell below a service has the variable as well."""
    if (stream := env.get("JOURNAL_STREAM")) is None:
        return False
    found = os.fstat(descriptor)
    return stream == f"{found.st_dev}:{found.st_ino}"


class JournalHandler(logging.Handler):
    """Sends each record to journald, its facts as fields. Raises OSError where nobody listens at `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._fallback = logging.StreamHandler()
        self._fallback.setFormatter(PriorityFormatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        told = {"MESSAGE": record.getMessage(), "PRIORITY": _priority(record), "SYSLOG_IDENTIFIER": "llmd"}
        facts = {f"LLMD_{name.upper()}": fact for name, fact in _facts(record).items() if fact is not None}
        fields = {**told, "LLMD_LOGGER": record.name, **facts}
        try:
            self._socket.send(b"".join(_field(name, str(text)) for name, text in fields.items()), socket.MSG_DONTWAIT)
        except OSError:  # it restarts, is full, or the record is too long for one datagram
            self._fallback.handle(record)

    def close(self) -> None:
        self._socket.close()
        super().close()


class PriorityFormatter(logging.Formatter):
    """A line as sd-daemon(3) has it: `<N>` in front, for whoever collects our standard error."""

    def format(self, record: logging.LogRecord) -> str:
        return f"<{_priority(record)}>{super().format(record)}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line; `time` is UTC."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        told = {"time": f"{at}.{int(record.msecs):03}Z", "level": record.levelname.lower(), "logger": record.name}
        return json.dumps({**told, "message": record.getMessage(), **_facts(record)}, ensure_ascii=False)


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    return dict(getattr(record, "fields", {}))


def _priority(record: logging.LogRecord) -> int:
    return next((number for level, number in _PRIORITIES if record.levelno >= level), 7)


def _field(name: str, text: str) -> bytes:
    """In journald's native form, with its length in front where it has lines: nobody adds fields of his own."""
    value = text.encode(errors="backslashreplace")
    if b"\n" in value:
        return name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
    return name.encode() + b"=" + value + b"\n"
