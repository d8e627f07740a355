"""The daemon that a call starts: detached, shared by everyone, and gone when nobody needs it."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from llmd import fingerprint, paths, spawn
from llmd.cli.call import connect
from llmd.client import Wire
from tests.support.cli import llmd
from tests.support.daemon import running_daemon

ECHO = '{"model": "echo/echo", "prompt": "hello"}'


def lock_holder() -> int:
    lock = paths.default_socket(os.environ).with_name("rpc.sock.lock")
    return int(lock.read_text().splitlines()[0])


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


def test_a_call_that_meets_a_daemon_in_its_stop_is_made_on_the_next_one() -> None:
    path = paths.default_socket(os.environ)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    fingerprint.lock_file(path).write_text(fingerprint.Fingerprint(os.getpid(), True, "00", {}).text())
    with socket.socket(socket.AF_UNIX) as stopping, ThreadPoolExecutor(1) as pool:
        stopping.bind(str(path))
        stopping.listen()
        call = pool.submit(llmd, "call", "execute", stdin=ECHO)
        connection, _ = stopping.accept()
        path.unlink()
        with connection, connection.makefile("rb") as reader:
            reader.readline()
            error = {"code": -32000, "message": "the daemon is stopping", "data": {"kind": "shutting_down"}}
            connection.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}).encode() + b"\n")
            done = call.result()
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out)["text"] == "hello"


@pytest.mark.parametrize("error", [None, spawn.SpawnFailed("killed in its start")])
def test_a_daemon_that_is_gone_before_it_answers_is_started_once_more(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spawns = []

    def gone_at_first(path: Path, _: Mapping[str, str]) -> None:
        spawns.append(path)
        if len(spawns) > 1:
            llmd("call", "ping")  # as a process of its own, which leaves a daemon there
        elif error is not None:
            raise error

    monkeypatch.setattr(spawn, "spawn", gone_at_first)
    with connect(None, os.environ, spawn=True) as wire:
        assert wire.call("ping")["result"] == {}
    assert capsys.readouterr().err == ""


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


# -- giving way ---------------------------------------------------------------------------------------------------

SLOW = '[providers.slow]\ndialect = "echo"\nlatency_ms = 2000\n'


def configure(text: str) -> None:
    file = Path(os.environ["XDG_CONFIG_HOME"]) / "llmd" / "config.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)


def begin_slow_call() -> Wire:
    """A call that the daemon is busy with for a while."""
    wire = Wire([paths.default_socket(os.environ)], 20)
    params = '{"model": "slow/x", "prompt": "late"}'
    wire.send(f'{{"jsonrpc":"2.0","id":1,"method":"execute","params":{params}}}')
    wire.send('{"jsonrpc":"2.0","id":2,"method":"ping"}')
    assert wire.receive()["id"] == 2
    return wire


def wait_until_gone(pid: int) -> None:
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        select.select([descriptor], [], [])
        os.close(descriptor)


def test_a_shell_with_a_new_key_gets_a_daemon_that_has_it_and_running_calls_finish(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure(SLOW)
    llmd("call", "ping")
    old = lock_holder()
    with begin_slow_call() as wire:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-one")
        assert llmd("call", "ping").status == 0
        new = lock_holder()
        assert new != old
        assert not gone(old)
        assert wire.receive()["result"]["text"] == "late"
    wait_until_gone(old)
    assert llmd("call", "ping").status == 0
    assert lock_holder() == new


def test_two_terminals_do_not_replace_each_others_daemon_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    holders = []
    for key in ("sk-one", "sk-two", "sk-one", "sk-two"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        assert llmd("call", "ping").status == 0
        holders.append(lock_holder())
    assert holders[0] != holders[1]
    assert holders[1:] == [holders[1]] * 3


def test_a_daemon_that_takes_over_has_the_keys_of_both_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one")
    llmd("call", "ping")
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("GROQ_API_KEY", "gsk-two")
    llmd("call", "ping")
    environment = Path(f"/proc/{lock_holder()}/environ").read_bytes().split(b"\0")
    assert {b"OPENAI_API_KEY=sk-one", b"GROQ_API_KEY=gsk-two"} <= set(environment)


def test_with_no_spawn_nothing_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    llmd("call", "ping")
    old = lock_holder()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one")
    assert llmd("call", "ping", "--no-spawn").status == 0
    assert lock_holder() == old


def test_a_configuration_that_is_wrong_leaves_the_daemon_where_it_is() -> None:
    configure(SLOW)
    llmd("call", "ping")
    old = lock_holder()
    configure("colour = 1")
    done = llmd("call", "ping")
    assert (done.status, done.out) == (0, "{}\n")
    assert "colour: there is no such member" in done.err
    assert lock_holder() == old


def test_serve_takes_over_from_a_spawned_daemon(tmp_path: Path) -> None:
    llmd("call", "ping")
    old = lock_holder()
    with running_daemon(tmp_path) as daemon, daemon.wire() as wire:
        assert "result" in wire.call("ping")
        assert lock_holder() == daemon.process.pid
        wait_until_gone(old)


def test_a_daemon_that_somebody_started_is_not_replaced_and_the_call_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_daemon(tmp_path) as daemon:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-one")
        assert llmd("call", "execute", stdin=ECHO).err == ""
        done = llmd("call", "execute", '{"model": "openai/gpt-5", "prompt": "x"}')
        assert done.status == 1
        assert done.err.splitlines()[0].startswith("llmd: the daemon is a service, and has not this shell's OPENAI_API")
        assert lock_holder() == daemon.process.pid


def test_asked_twice_to_give_way_it_still_finishes_its_calls() -> None:
    configure(SLOW)
    llmd("call", "ping")
    old = lock_holder()
    with begin_slow_call() as wire:
        for _ in range(2):
            os.kill(old, signal.SIGUSR1)
        assert wire.receive()["result"]["text"] == "late"
    wait_until_gone(old)
