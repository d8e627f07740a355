"""The proxy that the environment names for an address."""

import ipaddress
import urllib.request
from urllib.parse import urlsplit


def proxy(base_url: str) -> str | None:
    """The proxy that the environment names for this address; this machine itself is never behind one."""
    url = urlsplit(base_url)
    host = url.hostname or ""
    if _is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(url.scheme)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
