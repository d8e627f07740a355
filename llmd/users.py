"""Who besides the daemon's own user is served on the Unix socket: `[peers]`, by uid, with the labels that it fixes."""

from collections.abc import Mapping
from pathlib import Path

from llmd.settings import PeerSettings

GROUP = "socket_group"
ROOT, NOBODY = 0, 65534
UID_MAP = Path("/proc/self/uid_map")

Peers = Mapping[str, PeerSettings | str]


def labels(peers: Peers) -> dict[int, dict[str, str]]:
    """The fixed labels by uid."""
    return {peer.uid: peer.labels for peer in peers.values() if isinstance(peer, PeerSettings)}


def group(peers: Peers) -> str | None:
    """Whose members may reach the socket."""
    found = peers.get(GROUP)
    return found if isinstance(found, str) else None


def problems(peers: Peers, uid_map: str) -> list[str]:
    """What is wrong, with its path. `uid_map` is the text of /proc/self/uid_map, empty where there is none."""
    found = []
    taken: dict[int, str] = {}
    for name, peer in peers.items():
        if name == GROUP or isinstance(peer, str):
            if (name == GROUP) != isinstance(peer, str):
                found.append(f"peers.{name}: expected {'a group' if name == GROUP else 'a table with a `uid`'}")
            continue
        if peer.uid in (ROOT, NOBODY):
            found.append(f"peers.{name}.uid: {peer.uid} may be anybody: name a user of its own")
        elif not _is_mapped(peer.uid, uid_map):
            found.append(f"peers.{name}.uid: {peer.uid} is unknown in the daemon's user namespace: unset PrivateUsers")
        elif (other := taken.setdefault(peer.uid, name)) != name:
            found.append(f"peers.{name}.uid: {peer.uid} is that of peers.{other}")
    return found


def read_uid_map() -> str:
    try:
        return UID_MAP.read_text()
    except OSError:  # no Linux
        return ""


def _is_mapped(uid: int, uid_map: str) -> bool:
    ranges = [tuple(map(int, line.split())) for line in uid_map.splitlines()]
    return not ranges or any(first <= uid < first + count for first, _, count in ranges)
