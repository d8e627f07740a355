"""The files of a store: the lock, whose they are, and the file systems that they may not lie on."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from llmd.journal import StoreTaken, StoreUnavailable
from llmd.journal.store_files import (
    Holder,
    copy_private,
    copy_store,
    holder_of,
    lock_of,
    log_of,
    make_directory,
    make_private,
    mount_of,
    refuse_network,
    take_lock,
)

MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 27 0:40 / /home rw,relatime shared:2 master:1 - nfs4 server:/home rw,vers=4.2
31 30 8:1 / /home/local rw - xfs /dev/sda1 rw
32 27 0:41 / /mnt/with\\040blank\\134 rw - fuse.sshfs me@host:/ rw
33 27 8:2 / /srv rw - ext4 /dev/sdb rw
34 27 0:42 / /srv rw - 9p share rw
35 27 0:43 / /mnt/é rw - cifs //host/share rw
broken
36 27 - nothing
"""


@pytest.mark.parametrize(
    ("path", "place", "kind"),
    [
        ("/var/lib/x", "/", "ext4"),
        ("/home/me/ledger.db", "/home", "nfs4"),
        ("/home", "/home", "nfs4"),
        ("/homework/ledger.db", "/", "ext4"),
        ("/home/local/me/ledger.db", "/home/local", "xfs"),
        ("/mnt/with blank\\/ledger.db", "/mnt/with blank\\", "fuse.sshfs"),
        ("/srv/ledger.db", "/srv", "9p"),
        ("/mnt/é/ledger.db", "/mnt/é", "cifs"),
    ],
)
def test_a_path_lies_on_the_longest_mount_above_it_and_the_last_of_its_place(path: str, place: str, kind: str) -> None:
    assert mount_of(Path(path), MOUNTS) == (place, kind)


def test_a_system_that_does_not_tell_its_mounts_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmd.journal.store_files.MOUNTS", tmp_path / "none")
    refuse_network(Path("/home/me/ledger.db"))


@pytest.mark.parametrize("path", ["/home/me/ledger.db", "/srv/ledger.db", "/mnt/é/ledger.db", "/mnt/with blank\\/l"])
def test_network_file_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    (tmp_path / "mounts").write_text(MOUNTS, "utf-8")
    monkeypatch.setattr("llmd.journal.store_files.MOUNTS", tmp_path / "mounts")
    refuse_network(Path("/home/local/ledger.db"))
    with pytest.raises(StoreUnavailable, match=r"network file system .*\[ledger\] path"):
        refuse_network(Path(path))


def test_a_lock_names_its_holder_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    assert holder_of(path) is None
    lock = take_lock(path, "/run/a b.sock")
    assert holder_of(path) == Holder(os.getpid(), "/run/a b.sock")
    lock.say_draining()
    assert holder_of(path) == Holder(os.getpid(), "/run/a b.sock", draining=True)
    lock.release()
    lock.release()
    lock.say_draining()
    assert holder_of(path) is None
    assert lock_of(path).read_bytes() == b""


@pytest.mark.parametrize("said", [b"", b"\xff\n", b'{"pid":1}\n', b"x" * 10_000])
def test_a_holder_that_has_not_said_who_it_is_has_the_lock_all_the_same(tmp_path: Path, said: bytes) -> None:
    lock = take_lock(tmp_path / "ledger.db", "x")
    lock_of(tmp_path / "ledger.db").write_bytes(said)
    with pytest.raises(StoreTaken, match=r"^another llmd has the ledger") as refused:
        take_lock(tmp_path / "ledger.db", "y")
    assert not refused.value.draining
    assert holder_of(tmp_path / "ledger.db") == Holder(0, "")
    lock.release()


def test_of_a_longer_line_from_before_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    lock_of(path).write_text("x" * 1000)
    lock = take_lock(path, "/s")
    assert lock_of(path).read_text() == f'{{"pid":{os.getpid()},"socket":"/s","draining":false}}\n'
    lock.release()


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.db.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable, match="cannot open the lock file"):
        take_lock(tmp_path / "ledger.db", "x")
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_does_not_go_to_programs_that_are_started(tmp_path: Path) -> None:
    lock = take_lock(tmp_path / "ledger.db", "x")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as process:
        lock.release()
        take_lock(tmp_path / "ledger.db", "y").release()
        assert process.poll() is None
        process.communicate(timeout=30)


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="cannot make the directory"):
        make_directory(tmp_path / "file" / "below" / "ledger.db")


def test_files_are_made_for_their_owner_whatever_the_mask(tmp_path: Path) -> None:
    for number, mask in enumerate((0, 0o777)):
        before = os.umask(mask)
        try:
            make_private(tmp_path / f"{number}")
            copy_private(tmp_path / f"{number}", tmp_path / f"{number}-copy")
            take_lock(tmp_path / f"{number}", "x").release()
        finally:
            os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("[01]*")} == {0o600}


def test_what_a_file_holds_stays_when_it_is_made_private(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    make_private(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_copy_is_of_both_files_and_overwrites_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("database")
    log_of(source).write_text("log")
    copy_store(source, target)
    assert (target.read_text(), log_of(target).read_text()) == ("database", "log")
    with pytest.raises(FileExistsError):
        copy_store(source, target)
