"""What a URL to listen on says, and that it never leaves this machine."""

import pytest

from llmd.errors import ConfigError
from llmd.transports.loopback import address, bound, is_loopback


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("tcp://127.0.0.1:9998", ("127.0.0.1", 9998)),
        ("tcp://localhost:1", ("127.0.0.1", 1)),
        ("tcp://127.8.9.1:2/", ("127.8.9.1", 2)),
        ("tcp://[::1]:3", ("::1", 3)),
    ],
)
def test_loopback_addresses_are_taken(url: str, expected: tuple[str, int]) -> None:
    assert address(url, "tcp") == expected


@pytest.mark.parametrize(
    "url", ["tcp://0.0.0.0:1", "tcp://[::]:1", "tcp://10.0.0.1:1", "tcp://example.org:1", "tcp://:1"]
)
def test_any_other_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="not on this machine alone"):
        address(url, "tcp")


@pytest.mark.parametrize(
    "url",
    [
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:x",
        "tcp://127.0.0.1:99999",
        "tcp://127.0.0.1:1/a",
        "http://127.0.0.1:1",
        "127.0.0.1:1",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is no address to listen on"):
        bound(url, "tcp")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_hosts_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "10.0.0.1", "example.org", "localhost.example", "127.0.0.1.example"])
def test_no_other_host_is_taken_for_one(host: str) -> None:
    assert not is_loopback(host)


def test_a_bound_socket_listens_there() -> None:
    with bound("http://127.0.0.1:0", "http") as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert listener.getsockopt(1, 30) == 1  # SO_ACCEPTCONN of SOL_SOCKET
