"""What the lock file tells of a daemon: a call sees what is new in its shell, and no key can be read from it."""

import os
from pathlib import Path

import pytest

from llmd import fingerprint, version
from llmd.fingerprint import Fingerprint, made, parsed

NAMES = ["A_KEY", "B_KEY"]


def of(env: dict[str, str], before: Fingerprint | None = None) -> Fingerprint:
    return made(env, NAMES, spawned=True, before=before)


@pytest.mark.parametrize(
    ("started", "shell", "news"),
    [
        ({}, {}, []),
        ({"A_KEY": "1"}, {"A_KEY": "1"}, []),
        ({"A_KEY": "1"}, {"A_KEY": "2"}, ["A_KEY"]),
        ({}, {"B_KEY": "1"}, ["B_KEY"]),
        ({"A_KEY": "1"}, {}, []),  # merely missing
        ({"A_KEY": "1"}, {"A_KEY": ""}, []),
        ({}, {"HOME": "/other"}, []),
    ],
)
def test_what_is_new_or_changed_is_news(started: dict[str, str], shell: dict[str, str], news: list[str]) -> None:
    assert of(started).news(shell) == news


def test_another_version_and_another_configuration_are_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "c.toml"
    env = {"LLMD_CONFIG": str(file)}
    file.write_text("one")
    began = of(env)
    assert began.news(env) == []
    file.write_text("two")
    assert began.news(env) == ["config"]
    file.unlink()
    assert began.news(env) == []
    monkeypatch.setattr(version, "VERSION", "9.9")
    assert began.news(env) == ["version"]


def test_two_shells_that_differ_do_not_replace_each_others_daemon_in_turn() -> None:
    one, two = {"A_KEY": "1"}, {"A_KEY": "2"}
    first = of(one)
    assert first.news(two)
    second = of(two, before=first)
    assert second.news(one) == []
    assert second.news(two) == []
    assert second.news({"A_KEY": "3"})


def test_it_is_read_as_it_was_written_and_begins_with_the_pid(tmp_path: Path) -> None:
    lock = fingerprint.lock_file(tmp_path / "rpc.sock")
    assert fingerprint.read(lock) is None
    written = of({"A_KEY": "1"})
    lock.write_text(written.text())
    read = fingerprint.read(lock)
    assert read is not None
    assert (read.pid, read.spawned, read.seen) == (os.getpid(), True, written.seen)
    assert lock.read_text().splitlines()[0] == str(os.getpid())


@pytest.mark.parametrize("content", [b"", b"12", b"12\n", b"12\n[]", b"12\n{}", b"x\n{", b"\xff\n\xff"])
def test_what_is_no_fingerprint_is_none(content: bytes) -> None:
    assert parsed(content) is None


def test_no_key_stands_in_it_and_two_daemons_hash_alike_only_where_one_took_over() -> None:
    first, second = of({"A_KEY": "sk-canary"}), of({"A_KEY": "sk-canary"})
    assert "canary" not in first.text()
    assert first.seen["A_KEY"] != second.seen["A_KEY"]
    assert of({"A_KEY": "sk-canary"}, before=first).seen["A_KEY"] == first.seen["A_KEY"]


def test_what_was_seen_is_bounded() -> None:
    last = of({})
    for number in range(fingerprint.KEPT + 5):
        last = of({"A_KEY": str(number)}, before=last)
    assert len(last.seen["A_KEY"]) == fingerprint.KEPT
    assert last.news({"A_KEY": str(fingerprint.KEPT + 4)}) == []


def test_who_takes_over_keeps_what_only_the_daemon_has() -> None:
    pairs = (os.fsdecode(pair).partition("=") for pair in Path("/proc/self/environ").read_bytes().split(b"\0"))
    name, text = next((name, text) for name, _, text in pairs if text)  # as it started, which `os.environ` may not be
    held = Fingerprint(os.getpid(), True, "00", {name: ["hash"], "A_KEY": [], "version": ["hash"]})
    assert fingerprint.inherited(held, {"B_KEY": "2"})[name] == text
    assert fingerprint.inherited(held, {name: "mine"})[name] == "mine"
    gone = Fingerprint(2**22 + 1, True, "00", {name: ["hash"]})
    assert fingerprint.inherited(gone, {"B_KEY": "2"}) == {"B_KEY": "2"}
