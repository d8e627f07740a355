"""What a service manager is told; each one here is a real datagram socket. tests/test_service.py has a real manager."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from llmd.client import Wire
from llmd.systemd import Manager, answers
from tests.support.daemon import RunningDaemon, running_daemon
from tests.support.treasuries import in_virtual_time, pass_time

SLOW = '[providers.slow]\ndialect = "echo"\nlatency_ms = 2500\n'


class Told:
    """What a manager has heard."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(20)

    def next(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())

    def until(self, name: str) -> dict[str, str]:
        while name not in (said := self.next()):
            pass
        return said


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    address = str(tmp_path / "notify")
    heard = Told(address)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    yield heard
    heard.socket.close()


def begin(daemon: RunningDaemon, wire: Wire, model: str) -> None:
    params = {"model": model, "prompt": "late"}
    wire.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "execute", "params": params}))


def test_without_a_manager_every_word_goes_nowhere() -> None:
    manager = Manager({})
    manager.ready()
    manager.stopping()
    assert (manager.handed, manager.watchdog_s) == ([], None)


def test_what_is_meant_for_this_process_alone_is_taken_out_of_the_environment(tmp_path: Path) -> None:
    env = {"NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}
    env |= {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "rpc", "OPENAI_API_KEY": "k"}
    manager = Manager(env)
    assert env == {"OPENAI_API_KEY": "k"}
    assert manager.watchdog_s == 2
    assert manager.handed == []  # they were handed to another


def test_a_watchdog_that_waits_for_another_process_is_none_of_ours() -> None:
    assert Manager({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}).watchdog_s is None


def test_an_abstract_address_is_understood() -> None:
    heard = Told(f"\0llmd-{os.getpid()}")
    Manager({"NOTIFY_SOCKET": f"@llmd-{os.getpid()}"}).ready()
    assert heard.next() == {"READY": "1"}
    heard.socket.close()


def test_a_life_is_told(tmp_path: Path, told: Told) -> None:
    config = SLOW + "[limits]\ndrain_ms = 20000\n"
    with running_daemon(tmp_path, config=config) as daemon, daemon.wire() as wire:
        assert told.next() == {"READY": "1"}
        assert told.until("STATUS")["STATUS"] == "0 calls in flight"
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        daemon.process.send_signal(signal.SIGHUP)
        reloading = told.until("RELOADING")
        assert before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert told.next() == {"READY": "1"}
        begin(daemon, wire, "slow/x")
        assert told.until("STATUS")["STATUS"] == "1 call in flight"
        daemon.process.send_signal(signal.SIGTERM)
        assert told.until("STOPPING") == {"STOPPING": "1"}
        assert int(told.until("EXTEND_TIMEOUT_USEC")["EXTEND_TIMEOUT_USEC"]) > 1_000_000
        assert wire.receive()["result"]["text"] == "late"
        assert daemon.process.wait(20) == 0


def test_a_reload_that_fails_is_over_all_the_same(tmp_path: Path, told: Told) -> None:
    with running_daemon(tmp_path, config=SLOW) as daemon:
        (tmp_path / "config.toml").write_text("colour = 1")
        daemon.process.send_signal(signal.SIGHUP)
        told.until("RELOADING")
        assert told.next() == {"READY": "1"}


def test_signs_of_life_come_while_the_loop_answers_and_stop_when_it_hangs(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    with running_daemon(tmp_path) as daemon:
        for _ in range(3):
            told.until("WATCHDOG")
        daemon.process.send_signal(signal.SIGSTOP)
        told.socket.settimeout(1)
        with pytest.raises(TimeoutError):
            told.until("anything else")
        daemon.process.send_signal(signal.SIGCONT)
        told.until("WATCHDOG")


@pytest.mark.anyio
async def test_without_an_answer_there_is_no_sign_of_life(tmp_path: Path) -> None:
    heard = Told(str(tmp_path / "notify"))
    heard.socket.settimeout(0)
    manager = Manager({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000"})
    asked = [0, 0]
    enough = anyio.Event()

    async def deaf() -> bool:
        asked[0] += 1
        if asked[0] == 3:
            enough.set()
        await anyio.sleep_forever()
        return True

    async with anyio.create_task_group() as group:
        group.start_soon(manager.keep_alive, deaf)
        await enough.wait()
        group.cancel_scope.cancel()
    with pytest.raises(BlockingIOError):
        heard.next()
    heard.socket.close()


@pytest.mark.parametrize(("takes_s", "every_s"), [(1, 10), (14, 14), (29, 15)])
@in_virtual_time
async def test_a_check_that_takes_long_makes_the_next_sign_of_life_no_later(takes_s: float, every_s: float) -> None:
    manager = Manager({"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": "30000000"})
    began, asked = anyio.current_time(), list[float]()

    async def slow() -> bool:
        asked.append(anyio.current_time() - began)
        await pass_time(takes_s)
        return True

    with anyio.move_on_after(59):
        await manager.keep_alive(slow)
    assert asked[:3] == pytest.approx([0, every_s, 2 * every_s])


@pytest.mark.anyio
async def test_the_check_is_a_ping_on_the_socket(tmp_path: Path) -> None:
    with running_daemon(tmp_path) as daemon:
        assert await answers(daemon.socket)
        daemon.process.send_signal(signal.SIGSTOP)
        with anyio.move_on_after(0.3) as scope:
            await answers(daemon.socket)
        assert scope.cancelled_caught
    assert await answers(daemon.socket)  # where nobody listens, nothing is known of the loop
