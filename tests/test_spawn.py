"""The daemon that a call starts: detached, shared by everyone, and gone when nobody needs it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from llmd import paths
from tests.support.cli import llmd

ECHO = '{"model": "echo/echo", "prompt": "hello"}'


def lock_holder() -> int:
    lock = paths.default_socket(os.environ).with_name("rpc.sock.lock")
    return int(lock.read_text())


def gone(pid: int) -> bool:
    """Whether the process has ended; one that nobody has waited for counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


@pytest.fixture(autouse=True)
def end_spawned() -> Iterator[None]:
    yield
    if paths.default_socket(os.environ).with_name("rpc.sock.lock").exists() and not gone(lock_holder()):
        os.kill(lock_holder(), signal.SIGKILL)


def test_a_call_starts_a_daemon_that_the_next_one_finds() -> None:
    assert json.loads(llmd("call", "execute", stdin=ECHO).out)["text"] == "hello"
    first = lock_holder()
    assert llmd("call", "ping").status == 0
    assert lock_holder() == first


def test_command_substitution_returns_while_the_daemon_lives() -> None:
    shell = f"x=$({sys.executable} -m llmd call execute '{ECHO}'); echo \"$x\""
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(done.stdout)["text"] == "hello"
    assert not gone(lock_holder())


def test_the_daemon_is_detached_and_inherits_nothing() -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    subprocess.run([sys.executable, "-m", "llmd", "call", "ping"], close_fds=False, capture_output=True, check=True)
    pid = lock_holder()
    assert os.getsid(pid) == pid
    opened = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # it opens and closes some of its own meanwhile
            opened.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    assert os.readlink(f"/proc/self/fd/{write}") not in opened
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert os.readlink(f"/proc/{pid}/fd/2") == str(paths.log_file(os.environ))
    os.close(read)
    os.close(write)


def test_after_a_kill_the_next_call_works_at_once() -> None:
    llmd("call", "ping")
    killed = lock_holder()
    os.kill(killed, signal.SIGKILL)
    assert json.loads(llmd("call", "execute", stdin=ECHO).out)["text"] == "hello"
    assert lock_holder() != killed


def test_after_a_stop_the_next_call_works_at_once() -> None:
    llmd("call", "ping")
    for _ in range(3):
        stopped = lock_holder()
        os.kill(stopped, signal.SIGTERM)
        assert json.loads(llmd("call", "execute", stdin=ECHO).out)["text"] == "hello"
        assert lock_holder() != stopped


def test_of_many_calls_at_once_one_starts_the_daemon_and_all_use_it() -> None:
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda _: llmd("call", "execute", stdin=ECHO), range(6)))
    assert [one.status for one in done] == [0] * 6
    assert paths.log_file(os.environ).read_text().count("ready on") == 1


def test_a_daemon_that_cannot_start_says_why() -> None:
    directory = Path(os.environ["XDG_CONFIG_HOME"]) / "llmd"
    directory.mkdir()
    (directory / "config.toml").write_text("colour = 1")
    done = llmd("call", "ping")
    assert (done.status, done.out) == (3, "")
    first, second = done.err.splitlines()
    assert "config.toml: colour: there is no such member" in first
    assert second.startswith("llmd: no daemon listens on ")


def spawned(idle_exit_s: float) -> "subprocess.Popen[bytes]":
    """A spawned daemon as our own child, ready to answer."""
    ready, report = os.pipe()
    command = [sys.executable, "-m", "llmd", "serve", "--spawned", "--idle-exit-s", str(idle_exit_s)]
    paths.log_file(os.environ).parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen([*command, "--ready-fd", str(report)], pass_fds=[report])
    os.close(report)
    assert os.read(ready, 1)
    os.close(ready)
    return process


def test_it_ends_when_nobody_calls() -> None:
    assert spawned(idle_exit_s=0.3).wait(20) == 0
    assert "nobody has called for a while" in paths.log_file(os.environ).read_text()


def test_it_ends_when_its_socket_is_gone() -> None:
    process = spawned(idle_exit_s=600)
    paths.default_socket(os.environ).unlink()
    assert process.wait(20) == 0
    assert "the socket is gone" in paths.log_file(os.environ).read_text()
