"""The log: fields for the journal, numbers for whoever collects standard error, JSON on request, never a prompt."""

import json
import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmd import logs
from llmd.logs import JournalHandler, JsonFormatter, PriorityFormatter
from tests.support.daemon import running_daemon

CALL = '{"jsonrpc":"2.0","id":1,"method":"execute","params":{"model":"echo/echo","prompt":"canary prompt"}}'


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "journal"))
        listening.settimeout(20)
        yield listening


def fields(datagram: bytes) -> dict[str, str]:
    found = {}
    while datagram:
        head, _, datagram = datagram.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if not equals:
            (size,) = struct.unpack_from("<Q", datagram)
            value, datagram = datagram[8 : 8 + size], datagram[9 + size :]
        found[name.decode()] = value.decode()
    return found


def record(message: str, level: int = logging.INFO, **facts: object) -> logging.LogRecord:
    made = logging.LogRecord("llmd.call", level, "", 0, message, None, None)
    made.fields = facts
    return made


def test_the_journal_gets_each_fact_as_a_field(tmp_path: Path, journal: socket.socket) -> None:
    handler = JournalHandler(tmp_path / "journal")
    handler.handle(record("done", logging.WARNING, method="execute", tokens=5, cost_nano_usd=None))
    assert fields(journal.recv(65536)) == {
        "MESSAGE": "done",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "llmd",
        "LLMD_LOGGER": "llmd.call",
        "LLMD_METHOD": "execute",
        "LLMD_TOKENS": "5",
    }
    handler.close()


def test_a_text_with_lines_adds_no_fields_of_its_own(tmp_path: Path, journal: socket.socket) -> None:
    handler = JournalHandler(tmp_path / "journal")
    handler.handle(record("one\nPRIORITY=0", model="m\nLLMD_COST=0"))
    got = fields(journal.recv(65536))
    assert (got["MESSAGE"], got["PRIORITY"], got["LLMD_MODEL"]) == ("one\nPRIORITY=0", "6", "m\nLLMD_COST=0")
    handler.close()


def test_what_the_journal_does_not_take_goes_to_standard_error(
    tmp_path: Path, journal: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = JournalHandler(tmp_path / "journal")
    journal.close()
    handler.handle(record("still told", logging.ERROR))
    assert capsys.readouterr().err == "<3>llmd.call: still told\n"
    handler.close()


@pytest.mark.parametrize(
    ("level", "number"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2)],
)
def test_a_line_has_its_priority_in_front(level: int, number: int) -> None:
    assert PriorityFormatter("%(message)s").format(record("x", level)) == f"<{number}>x"


def test_json_is_one_object_a_line() -> None:
    line = JsonFormatter().format(record("two\nlines", method="execute"))
    assert "\n" not in line
    told = json.loads(line)
    assert (told["message"], told["level"], told["method"]) == ("two\nlines", "info", "execute")
    assert told["time"].endswith("Z")


def test_the_journal_is_there_only_where_standard_error_leads_to_it(
    tmp_path: Path, journal: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "JOURNAL", tmp_path / "journal")
    with (tmp_path / "err").open("w") as error:
        monkeypatch.setattr(logs, "STANDARD_ERROR", error.fileno())
        found = os.fstat(error.fileno())
        ours = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        handler = logs._handler(None, "text", ours)
        assert isinstance(handler, JournalHandler)
        handler.close()
        assert isinstance(logs._handler(None, "json", ours).formatter, JsonFormatter)
        other = logs._handler(None, "text", {"JOURNAL_STREAM": "1:1"})
        assert not isinstance(other.formatter, PriorityFormatter)
        monkeypatch.setattr(logs, "JOURNAL", tmp_path / "nobody")
        assert isinstance(logs._handler(None, "text", ours).formatter, PriorityFormatter)


def test_a_call_is_told_in_facts_without_its_prompt(tmp_path: Path) -> None:
    with running_daemon(tmp_path, "--log-format", "json") as daemon, daemon.wire() as wire:
        wire.send(CALL)
        assert wire.receive()["result"]["text"] == "canary prompt"
        daemon.stop()
        text = daemon.log.read_text()
    assert "canary" not in text
    told = next(line for line in map(json.loads, text.splitlines()) if line["logger"] == "llmd.call")
    facts = {
        name: told[name] for name in ("method", "peer_pid", "provider", "model", "outcome", "tokens", "request_id")
    }
    assert facts == {
        "method": "execute",
        "peer_pid": os.getpid(),
        "provider": "echo",
        "model": "echo",
        "outcome": "ok",
        "tokens": 4,
        "request_id": "1-1",
    }
    assert (told["cost_nano_usd"], told["ms"] >= 0) == (0, True)


def test_a_call_that_nobody_was_sent_is_told_with_why(tmp_path: Path) -> None:
    with running_daemon(tmp_path, "--log-format", "json") as daemon, daemon.wire() as wire:
        budget = wire.call("budget.open", '{"total": 1}')["result"]["budget"]
        for params in ({"model": "nobody/m"}, {"model": "echo/echo", "budget": budget}):
            assert "error" in wire.call("execute", json.dumps({"prompt": "canary prompt", **params}))
        daemon.stop()
        text = daemon.log.read_text()
    assert "canary" not in text
    told = [line for line in map(json.loads, text.splitlines()) if line["logger"] == "llmd.call"]
    assert [line["outcome"] for line in told] == ["no_route", "budget_exceeded"]
    assert {line.get("provider") for line in told} == {None}
