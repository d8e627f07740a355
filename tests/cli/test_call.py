"""`llmd call`: payloads in, results and errors out, each with its exit status; never a traceback."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import llmd
from tests.support.daemon import RunningDaemon, running_daemon

ECHO = '{"model": "echo/echo", "prompt": "hello there"}'
SLOW = """
[providers.slow]
dialect = "echo"
latency_ms = 30000

[providers.broken]
dialect = "echo"
fail = "model_not_found"
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path, "--log-level", "debug", config=SLOW) as running:
        yield running


def test_a_payload_piped_in_gives_its_completion(daemon: RunningDaemon) -> None:
    done = llmd("call", "execute", stdin=ECHO)
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out)["text"] == "hello there"
    assert done.out.count("\n") == 1


def test_a_payload_may_be_pretty_printed_and_hold_any_text(daemon: RunningDaemon) -> None:
    text = 'a\nb\r\n\t"\\ \u2028 \u0085 \U0001f600 {['
    payload = json.dumps({"model": "echo/echo", "prompt": text}, indent=4, ensure_ascii=False).replace("\n", "\r\n")
    done = llmd("call", "execute", stdin=payload)
    assert json.loads(done.out)["text"] == text


def test_params_may_be_an_argument(daemon: RunningDaemon) -> None:
    assert json.loads(llmd("call", "execute", ECHO).out)["text"] == "hello there"


@pytest.mark.parametrize("order", [("--stream", ECHO), (ECHO, "--stream")], ids=["first", "last"])
def test_options_may_stand_on_either_side_of_the_params(daemon: RunningDaemon, order: tuple[str, str]) -> None:
    assert llmd("call", "execute", *order).out == "hello there\n"


def test_a_locale_that_cannot_say_it_does_not_lose_the_answer(
    daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    payload = '{"model": "echo/echo", "prompt": "a \u2026"}'.encode()
    assert llmd("call", "execute", "--stream", stdin=payload).out == "a \u2026\n"


def test_output_that_cannot_be_written_is_one_line(daemon: RunningDaemon) -> None:
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "llmd", "call", "ping"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"llmd: cannot write to standard output: No space left on device\n")


def test_no_standard_input_at_all_is_an_empty_one() -> None:
    command = f"{sys.executable} -m llmd call execute --no-spawn <&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("payload", [ECHO, json.dumps({"model": "echo/echo", "prompt": "hello there", "stream": "s"})])
def test_streamed_text_is_printed_as_it_comes(daemon: RunningDaemon, payload: str) -> None:
    done = llmd("call", "execute", "--stream", stdin=payload)
    assert (done.status, done.out, done.err) == (0, "hello there\n", "")


def test_a_method_without_params_leaves_standard_input_alone(daemon: RunningDaemon) -> None:
    done = llmd("call", "daemon.info", stdin="not JSON")
    assert (done.status, json.loads(done.out)["protocol"]) == (0, 1)


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        ('{"prompt": "x", "colour": 1}', "invalid_params"),
        ('{"model": "nobody/x", "prompt": "x"}', "no_route"),
        ('{"model": "broken/x", "prompt": "x"}', "model_not_found"),
        ('{"model": "echo/echo", "prompt": "x", "budget": "b"}', "budget_unknown"),
        ('{"model": "slow/x", "prompt": "x", "timeout_ms": 1}', "deadline_exceeded"),
    ],
)
def test_an_error_of_the_daemon_is_json_on_standard_error(daemon: RunningDaemon, payload: str, kind: str) -> None:
    done = llmd("call", "execute", stdin=payload)
    assert (done.status, done.out) == (1, "")
    assert json.loads(done.err)["data"]["kind"] == kind


def test_a_payload_beyond_the_limit_is_told_so(daemon: RunningDaemon) -> None:
    payload = json.dumps({"model": "echo/echo", "prompt": "x" * 17 * 2**20})
    done = llmd("call", "execute", stdin=payload)
    assert done.status == 1
    assert json.loads(done.err)["data"] == {"kind": "too_large", "retryable": False, "limit": 16 * 2**20}
    assert llmd("call", "ping").status == 0


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (b"", "standard input is empty: execute takes a JSON object"),
        (b" \n ", "standard input is empty"),
        (b"{", "standard input is not JSON: expecting property name enclosed in double quotes at line 1, column 2"),
        (b'{"prompt": "x",}', "standard input is not JSON"),
        (b'{"temperature": NaN}', "standard input is not JSON: it has no NaN"),
        (b'{"prompt": "\xff"}', "standard input is not UTF-8 at byte 13"),
        (b"[1]", "standard input must be a JSON object"),
        (b"[" * 100_000, "standard input is nested too deep"),
    ],
)
def test_a_bad_payload_gets_one_line(payload: bytes, complaint: str) -> None:
    done = llmd("call", "execute", "--no-spawn", stdin=payload)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"llmd: {complaint}")


def test_without_a_daemon_a_named_socket_is_reported(tmp_path: Path) -> None:
    done = llmd("call", "ping", "--socket", str(tmp_path / "none"))
    assert (done.status, done.err) == (3, f"llmd: no daemon listens on {tmp_path / 'none'}\n")
    assert llmd("call", "ping", "--no-spawn").status == 3


def start_call(*arguments: str) -> subprocess.Popen[bytes]:
    """A call that the daemon has begun: its deltas or its log say so."""
    return subprocess.Popen(
        [sys.executable, "-m", "llmd", "call", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell that runs the tests in the background has its children ignore interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_until_called(daemon: RunningDaemon) -> None:
    """The daemon logs a connection as soon as it serves it; the next ping is answered behind what came before it."""
    with daemon.wire() as wire:
        while daemon.log.read_text().count("connection ") < 2:
            wire.call("ping")


def test_an_interrupted_call_is_cancelled(daemon: RunningDaemon) -> None:
    call = start_call("execute", '{"model": "slow/x", "prompt": "x"}')
    wait_until_called(daemon)
    call.send_signal(signal.SIGINT)
    out, err = call.communicate(timeout=20)
    assert (call.returncode, out, err) == (130, b"", b"")


def test_a_connection_that_breaks_has_an_unknown_outcome(daemon: RunningDaemon) -> None:
    call = start_call("execute", '{"model": "slow/x", "prompt": "x"}')
    wait_until_called(daemon)
    daemon.stop(signal.SIGKILL)
    _, err = call.communicate(timeout=20)
    assert call.returncode == 4
    assert err.decode().startswith("llmd: the daemon closed the connection before it answered")


def test_a_reader_that_goes_away_is_no_traceback(daemon: RunningDaemon) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "llmd", "call", "rpc.discover"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


MANY = '{"calls": [{"model": "echo/echo", "prompt": "a b"}, {"model": "nobody/m", "prompt": "c"}]}'


@pytest.mark.usefixtures("daemon")
def test_many_calls_are_one_result_and_one_that_failed_is_the_status() -> None:
    done = llmd("call", "execute_many", stdin=MANY)
    assert (done.status, done.err) == (1, "")
    results = json.loads(done.out)["results"]
    assert (results[0]["ok"]["text"], results[1]["error"]["data"]["kind"]) == ("a b", "no_route")
    good = llmd("call", "execute_many", '{"calls": [{"model": "echo/echo", "prompt": "a"}]}')
    assert (good.status, good.err) == (0, "")


@pytest.mark.usefixtures("daemon")
def test_many_texts_are_printed_as_they_come_behind_their_numbers() -> None:
    done = llmd("call", "execute_many", "--stream", stdin=MANY)
    assert (done.status, done.out) == (1, "[0] a b\n")
    assert done.err.startswith('[1] {"code": 1010')
