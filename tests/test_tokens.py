"""The bearer token: made once, for its user alone, and refused where others could have read it."""

import os
from pathlib import Path

import pytest

from llmd import tokens
from llmd.transports.claims import SocketUnavailable
from tests.support.disks import full_disk


def test_a_token_is_made_for_its_user_alone_and_is_the_same_the_next_time(tmp_path: Path) -> None:
    file = tmp_path / "state" / "token"
    before = os.umask(0)
    try:
        token = tokens.read(file)
    finally:
        os.umask(before)
    assert len(token) >= 32
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert tokens.read(file) == token


def test_where_the_disk_is_full_no_token_is_left_behind_and_one_is_made_when_it_has_room(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with full_disk(), pytest.raises(SocketUnavailable, match="cannot make or read the token file"):
        tokens.read(file)
    assert list(tmp_path.iterdir()) == []
    assert tokens.read(file)
    assert list(tmp_path.iterdir()) == [file]


def test_of_two_tokens_that_are_made_at_once_the_first_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tokens.read(tmp_path / "token")
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert tokens.read(tmp_path / "token") == first


def test_every_token_is_another(tmp_path: Path) -> None:
    assert tokens.read(tmp_path / "a") != tokens.read(tmp_path / "b")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_token_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "token"
    tokens.read(file)
    file.chmod(mode)
    with pytest.raises(SocketUnavailable, match="chmod 600"):
        tokens.read(file)


@pytest.mark.parametrize("text", ["", "short", "x" * 129])
def test_a_token_that_is_too_short_or_too_long_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(SocketUnavailable, match="16 to 128 characters"):
        tokens.read(file)


def test_a_token_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SocketUnavailable, match="cannot make or read the token file"):
        tokens.read(tmp_path / "file" / "token")
