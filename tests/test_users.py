"""`[peers]`: other users of the machine, each by a uid that is nobody else's, with labels that they cannot change."""

import json
import os
import stat
from pathlib import Path

import pytest

from llmd import users
from llmd.client import Wire
from llmd.settings import PeerSettings
from tests.support.cli import llmd
from tests.support.daemon import running_daemon
from tests.support.stranger import as_stranger, needs_root

WEB = PeerSettings(uid=1001, labels={"trust": "review"})
ALL = "0 0 4294967295\n"


@pytest.mark.parametrize(
    ("peers", "uid_map", "problem"),
    [
        ({"web": PeerSettings(uid=0)}, ALL, "peers.web.uid: 0 may be anybody"),
        ({"web": PeerSettings(uid=65534)}, ALL, "peers.web.uid: 65534 may be anybody"),
        ({"web": WEB}, "1777 1777 1\n", "peers.web.uid: 1001 is unknown in the daemon's user namespace"),
        ({"a": WEB, "b": WEB}, ALL, "peers.b.uid: 1001 is that of peers.a"),
        ({"web": "1001"}, ALL, "peers.web: expected a table with a `uid`"),
        ({"socket_group": WEB}, ALL, "peers.socket_group: expected a group"),
    ],
)
def test_who_could_be_anybody_is_refused(peers: users.Peers, uid_map: str, problem: str) -> None:
    (found,) = users.problems(peers, uid_map)
    assert found.startswith(problem)


@pytest.mark.parametrize("uid_map", [ALL, "", "0 100000 1001\n1001 1001 1\n"])
def test_who_is_somebody_is_taken(uid_map: str) -> None:
    peers: users.Peers = {"web": WEB, "socket_group": "llmd"}
    assert users.problems(peers, uid_map) == []
    assert (users.labels(peers), users.group(peers)) == ({1001: {"trust": "review"}}, "llmd")


def test_a_configuration_is_told_where_it_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[peers]\nsocket_group = "llmd"\n[peers.web]\nuid = "x"\n[peers.root]\nuid = 0\ncolour = 1\n')
    done = llmd("config", "check", "--config", str(file))
    assert done.err.splitlines() == [
        f"{file}: peers.web.uid: expected an integer, got a string",
        f"{file}: peers.root.colour: there is no such member; there are: labels, uid",
    ]


PEER = 1778
SHARED = f"""
[peers]
socket_group = "nogroup"
[peers.web]
uid = {PEER}
labels = {{ trust = "review" }}
[[routing.rules]]
match = {{ trust = "review" }}
deny = "reviewed first"
"""


def asked(path: Path, method: str, params: object, uid: int) -> dict[str, object]:
    """The reply that a process with this uid gets, in the group of the socket."""

    def ask() -> bytes:
        with Wire([path], 20) as wire:
            return json.dumps(wire.call(method, json.dumps(params))).encode()

    reply: dict[str, object] = json.loads(as_stranger(ask, uid))
    return reply


@needs_root
def test_a_listed_user_is_served_with_its_labels_and_no_other_is(tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents):
        if not directory.stat().st_mode & stat.S_IXOTH:
            directory.chmod(0o711)
    directory = tmp_path / "shared"
    socket = directory / "rpc.sock"
    with running_daemon(tmp_path, "--socket", str(socket), config=SHARED):
        assert stat.S_IMODE(socket.stat().st_mode) == 0o660
        assert stat.S_IMODE(directory.stat().st_mode) == 0o750
        assert (socket.stat().st_gid, directory.stat().st_gid) == (65534, 65534)
        assert asked(socket, "ping", {}, PEER)["result"] == {}
        say = {"model": "echo/echo", "prompt": "hello", "labels": {"trust": "auto_apply"}}
        denied = asked(socket, "execute", say, PEER)["error"]
        assert denied["data"]["kind"] == "no_route"  # type: ignore[index] - an error object
        opened = asked(socket, "budget.open", {"total": 9, "allow": {"labels": {"trust": "auto_apply"}}}, PEER)
        under = {**say, "budget": opened["result"]["budget"]}  # type: ignore[index] - a snapshot
        assert "error" in asked(socket, "execute", under, PEER)
        assert asked(socket, "daemon.auth", {"token": "any"}, PEER)["result"] == {}
        assert asked(socket, "daemon.reload", {}, PEER)["error"]["data"]["kind"] == "unauthorized"  # type: ignore[index] - as above
        other = asked(socket, "ping", {}, PEER + 1)["error"]
        assert other["data"]["kind"] == "unauthorized"  # type: ignore[index] - an error object
        with Wire([socket], 20) as wire:  # the daemon's own user is under no label
            assert wire.call("execute", json.dumps(say))["result"]["text"] == "hello"
    assert os.geteuid() == 0
