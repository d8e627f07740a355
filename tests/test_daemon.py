"""A daemon's life: it answers, keeps its limits, drains, and starts again on the same path."""

import json
import os
import signal
import socket
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import anyio
import pytest

from llmd import config
from llmd.client import Wire
from llmd.config import Config
from llmd.daemon import Daemon, Options
from llmd.transports.claims import Claim
from tests.support.daemon import RunningDaemon, running_daemon

SLOW = """
[providers.slow]
dialect = "echo"
latency_ms = 3000

[providers.stuck]
dialect = "echo"
latency_ms = 600000

[limits]
connections = 3
drain_ms = {drain_ms}
"""


def request(number: int, method: str, **params: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def begin(wire: Wire, model: str, prompt: str) -> None:
    """A call with the id 1 that is in flight: the ping behind it has been answered."""
    wire.send(request(1, "execute", model=model, prompt=prompt))
    wire.send(request(2, "ping"))
    assert wire.receive()["id"] == 2


def wait_for_stopping(daemon: RunningDaemon) -> None:
    while "stopping: SIGTERM" not in daemon.log.read_text():
        pass


def test_a_stop_finishes_what_is_in_flight_and_refuses_what_comes(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=SLOW.format(drain_ms=20_000)) as daemon, daemon.wire() as wire:
        begin(wire, "slow/x", "late")
        daemon.process.send_signal(signal.SIGTERM)
        wait_for_stopping(daemon)
        wire.send(request(3, "execute", model="slow/x", prompt="later"))
        wire.send(request(4, "ping"))
        refused, pong, done = wire.receive(), wire.receive(), wire.receive()
        assert (refused["id"], refused["error"]["data"]["kind"]) == (3, "shutting_down")
        assert (pong["id"], done["id"], done["result"]["text"]) == (4, 1, "late")
        assert daemon.process.wait(20) == 0


def test_what_does_not_finish_in_time_is_cancelled_and_answered(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=SLOW.format(drain_ms=100)) as daemon, daemon.wire() as wire:
        begin(wire, "stuck/x", "never")
        assert daemon.stop() == 0
        error = wire.receive()["error"]
        assert (error["code"], error["data"]["reason"]) == (-32800, "shutting_down")


def test_a_stop_frees_the_path_at_once(tmp_path: Path) -> None:
    with running_daemon(tmp_path) as daemon, daemon.wire():
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(20) == 0
    with running_daemon(tmp_path) as daemon, daemon.wire() as wire:
        assert "result" in wire.call("ping")


def test_a_daemon_that_drains_has_left_its_path_to_the_next(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=SLOW.format(drain_ms=20_000)) as old, old.wire() as wire:
        begin(wire, "slow/x", "late")
        old.process.send_signal(signal.SIGTERM)
        wait_for_stopping(old)
        while old.socket.exists():
            pass
        with running_daemon(tmp_path) as new, new.wire() as other:
            assert "result" in other.call("ping")
        assert wire.receive()["result"]["text"] == "late"


def test_a_second_signal_cuts_the_drain_short(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=SLOW.format(drain_ms=600_000)) as daemon, daemon.wire() as wire:
        begin(wire, "stuck/x", "never")
        daemon.process.send_signal(signal.SIGINT)
        while "stopping: SIGINT" not in daemon.log.read_text():
            pass
        assert daemon.stop(signal.SIGINT) == 0
        assert wire.receive()["error"]["data"]["kind"] == "cancelled"
        assert "'stuck/x' cut short" in daemon.log.read_text()


def test_after_a_kill_the_next_daemon_takes_the_path(tmp_path: Path) -> None:
    with running_daemon(tmp_path) as daemon:
        daemon.stop(signal.SIGKILL)
        assert daemon.socket.exists()
    with running_daemon(tmp_path) as daemon, daemon.wire() as wire:
        assert "result" in wire.call("ping")


def test_a_connection_too_many_is_told_busy_and_closed(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=SLOW.format(drain_ms=100)) as daemon, ExitStack() as stack:
        wires = [stack.enter_context(daemon.wire()) for _ in range(3)]
        for wire in wires:
            assert "result" in wire.call("ping")
        with socket.socket(socket.AF_UNIX) as fourth:
            fourth.connect(str(daemon.socket))
            with fourth.makefile("rb") as reader:
                assert json.loads(reader.readline())["error"]["data"]["kind"] == "busy"
                assert reader.read() == b""
        assert "result" in wires[0].call("ping")


def test_no_prompt_reaches_the_log(tmp_path: Path) -> None:
    with running_daemon(tmp_path, "--log-level", "debug") as daemon, daemon.wire() as wire:
        wire.send(request(1, "execute", model="echo/echo", prompt="canary-prompt"))
        assert wire.receive()["result"]["text"] == "canary-prompt"
        daemon.stop()
        log = daemon.log.read_text()
    assert "'echo/echo' ok" in log
    assert "canary" not in log


def with_default_model(directory: Path, model: str) -> Path:
    file = directory / "config.toml"
    file.write_text(f'default_model = "{model}"\n')
    return file


def default_models(daemon: Daemon) -> tuple[str | None, str | None]:
    """What the daemon knows of, and what calls are routed by."""
    return daemon._config.catalog.default_model, daemon._upstreams.catalog.default_model


@pytest.mark.anyio
async def test_of_two_reloads_at_once_the_one_that_came_last_is_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = with_default_model(tmp_path, "echo/old")
    daemon = Daemon(Options(socket=tmp_path / "s.sock", config=file), os.environ)
    load, has_read, second_is_over = config.load, anyio.Event(), Event()

    def held_up(*arguments: object) -> Config:
        loaded = load(os.environ, file)
        if not has_read.is_set():
            anyio.from_thread.run_sync(has_read.set)
            second_is_over.wait(0.3)  # it never is, for it begins behind this one
        return loaded

    async def second() -> None:
        await daemon._reload()
        second_is_over.set()

    monkeypatch.setattr(config, "load", held_up)
    async with anyio.create_task_group() as group:
        group.start_soon(daemon._reload)
        await has_read.wait()
        with_default_model(tmp_path, "echo/new")
        group.start_soon(second)
    assert default_models(daemon) == ("echo/new", "echo/new")


@pytest.mark.anyio
async def test_a_reload_is_whole_where_the_lock_file_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = with_default_model(tmp_path, "echo/old")
    daemon = Daemon(Options(socket=tmp_path / "s.sock", config=file), os.environ)

    def full(_: Claim) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Claim, "tell", full)
    with_default_model(tmp_path, "echo/new")
    await daemon._reload()
    assert default_models(daemon) == ("echo/new", "echo/new")
    assert "the lock file is not written: No space left on device" in caplog.text
