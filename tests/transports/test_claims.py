"""Who may have a path: a spawned daemon gives way, and nobody else is ever replaced."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llmd import fingerprint
from llmd.transports.claims import Claim, SocketTaken, SocketUnavailable
from tests.support.disks import full_disk

# Holds the lock of a path until it is asked to give way, and says so.
HOLDER = """
import os, signal, sys
from pathlib import Path
from llmd.transports.claims import GIVE_WAY, Claim
signal.pthread_sigmask(signal.SIG_BLOCK, [GIVE_WAY])
with Claim(os.environ, frozenset({"A_KEY"}), spawned="--spawned" in sys.argv).held(Path(sys.argv[1])):
    print("held", flush=True)
    signal.sigwait([GIVE_WAY])
print("gave way", flush=True)
"""


@contextmanager
def holder(path: Path, *arguments: str, **env: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", HOLDER, str(path), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **env})
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def claim(spawned: bool, **env: str) -> Claim:
    return Claim({**os.environ, **env}, frozenset({"A_KEY"}), spawned)


@pytest.mark.parametrize(("spawned", "key"), [(False, "1"), (True, "2")])
def test_a_spawned_daemon_gives_way(tmp_path: Path, spawned: bool, key: str) -> None:
    path = tmp_path / "rpc.sock"
    with holder(path, "--spawned", A_KEY="1") as old:
        with claim(spawned, A_KEY=key).held(path):
            told = fingerprint.read(fingerprint.lock_file(path))
            assert told is not None
            assert told.pid == os.getpid()
            assert told.news({**os.environ, "A_KEY": "1"}) == []
        assert old.stdout is not None
        assert old.stdout.readline() == "gave way\n"


@pytest.mark.parametrize(
    ("holds", "spawned", "key"),
    [
        (["--spawned"], True, "1"),  # another shell's call without news
        ([], False, "1"),
        ([], True, "2"),
    ],
)
def test_nobody_else_is_replaced(tmp_path: Path, holds: list[str], spawned: bool, key: str) -> None:
    path = tmp_path / "rpc.sock"
    with holder(path, *holds, A_KEY="1") as old:
        with pytest.raises(SocketTaken, match=rf"another llmd has \S+ \(pid {old.pid}\)"):
            claim(spawned, A_KEY=key).held(path).__enter__()
        assert old.poll() is None


def test_a_process_that_has_the_pid_of_an_earlier_holder_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    with holder(path) as old, subprocess.Popen(["cat"], stdin=subprocess.PIPE) as stranger:
        stale = fingerprint.Fingerprint(stranger.pid, True, "00", {})
        fingerprint.lock_file(path).write_text(stale.text())
        with pytest.raises(SocketTaken):
            claim(False).held(path).__enter__()
        assert (stranger.poll(), old.poll()) == (None, None)


@pytest.mark.parametrize("stale", [False, True])
def test_a_holder_that_has_not_told_yet_who_it_is_is_waited_for(
    tmp_path: Path, stale: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, parsed = tmp_path / "rpc.sock", fingerprint.parsed
    lock = fingerprint.lock_file(path)
    with subprocess.Popen(["true"]) as ended:
        pass
    with holder(path, "--spawned", A_KEY="1") as old:
        told = lock.read_text()

        def then_told(content: bytes) -> fingerprint.Fingerprint | None:
            lock.write_text(told)
            return parsed(content)

        lock.write_text(fingerprint.Fingerprint(ended.pid, True, "00", {}).text() if stale else "")
        monkeypatch.setattr(fingerprint, "parsed", then_told)
        with claim(False).held(path):
            assert old.stdout is not None
            assert old.stdout.readline() == "gave way\n"


def test_who_never_tells_who_it_is_is_not_waited_for_long(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    with holder(path) as old:
        fingerprint.lock_file(path).write_text(f"{old.pid}\n")
        with pytest.raises(SocketTaken, match=rf"\(pid {old.pid}\)"):
            claim(False).held(path).__enter__()


def test_there_is_no_moment_at_which_the_lock_file_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, truncate, seen = tmp_path / "rpc.sock", os.ftruncate, []
    lock = fingerprint.lock_file(path)
    longer = fingerprint.Fingerprint(1, True, "00", {f"{number}_KEY": [] for number in range(99)})
    lock.write_text(longer.text())

    def watched(file: int, length: int) -> None:
        seen.append(fingerprint.read(lock))
        truncate(file, length)

    monkeypatch.setattr(os, "ftruncate", watched)
    with claim(True).held(path):
        seen.append(fingerprint.read(lock))
    assert [told and told.pid for told in seen] == [os.getpid()] * 2
    assert lock.read_text().count("\n") == 2


def test_after_a_kill_nothing_was_seen_before(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    with holder(path, "--spawned", A_KEY="1") as old:
        old.send_signal(signal.SIGKILL)
        old.wait(20)
    with claim(True, A_KEY="2").held(path):
        told = fingerprint.read(fingerprint.lock_file(path))
        assert told is not None
        assert told.news({**os.environ, "A_KEY": "1"}) == ["A_KEY"]


def test_a_reload_is_told(tmp_path: Path) -> None:
    path, config = tmp_path / "rpc.sock", tmp_path / "c.toml"
    mine = claim(True, LLMD_CONFIG=str(config))
    with mine.held(path):
        config.write_text("new")
        env = {**os.environ, "LLMD_CONFIG": str(config), "B_KEY": "1"}
        before = fingerprint.read(fingerprint.lock_file(path))
        mine.tell_anew(frozenset({"A_KEY", "B_KEY"}))
        after = fingerprint.read(fingerprint.lock_file(path))
    assert before is not None
    assert after is not None
    assert (before.news(env), after.news(env)) == (["config"], ["B_KEY"])


def test_where_the_disk_is_full_the_socket_cannot_be_had(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    with (
        full_disk(),
        pytest.raises(SocketUnavailable, match="cannot write the lock file"),
        claim(spawned=False).held(path),
    ):
        pass
    with claim(spawned=False).held(path):
        assert fingerprint.read(fingerprint.lock_file(path))
