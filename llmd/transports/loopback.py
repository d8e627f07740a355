"""Addresses on this machine alone: what a URL to listen on says, and the socket bound to it."""

import ipaddress
import socket
from urllib.parse import urlsplit

from llmd.errors import ConfigError

BACKLOG = 1024


def is_loopback(host: str) -> bool:
    """Whether this is a loopback address, or the one name that means one."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address(url: str, scheme: str) -> tuple[str, int]:
    """Host and port of a URL such as "tcp://127.0.0.1:9998". Raises ConfigError for anything but loopback."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    if parts.scheme != scheme or port is None or parts.path not in ("", "/"):
        raise ConfigError([f"{url!r} is no address to listen on: write it as {scheme}://127.0.0.1:9998"])
    if not is_loopback(host):
        raise ConfigError(
            [f"{url!r} is not on this machine alone: listen on 127.0.0.1 or [::1] and put ssh or a TLS proxy in front"]
        )
    return ("127.0.0.1" if host == "localhost" else host), port


def bound(url: str, scheme: str) -> socket.socket:
    """A listening socket at this URL. Raises ConfigError, one that says so where the port is taken too."""
    host, port = address(url, scheme)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError([f"cannot listen on {url}: {error.strerror}"]) from None
    return listener
