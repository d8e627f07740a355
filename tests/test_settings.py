"""What a configuration may say, type by type; tests/test_config.py has the words of the errors."""

import msgspec
import pytest

from llmd.settings import KeySettings, Limits, ProviderSettings


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/v1", "https://api.example.org", "http://[::1]:1/a/b"])
def test_an_address_is_http_or_https(url: str) -> None:
    assert ProviderSettings(base_url=url).base_url == url


@pytest.mark.parametrize("url", ["ftp://a/b", "http://", "https://user:secret@a/b", "http://a/b?key=1", "http://a b/"])
def test_an_address_has_no_user_query_or_space(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        ProviderSettings(base_url=url)


def test_a_key_comes_from_one_place() -> None:
    with pytest.raises(ValueError, match="give one of"):
        KeySettings()
    assert KeySettings(env="A").env == "A"


def test_the_limits_are_the_contracts_unless_told_otherwise() -> None:
    assert msgspec.to_builtins(Limits()) == {
        "frame_bytes": 16 * 2**20,
        "batch": 100,
        "calls": 1000,
        "in_flight": 256,
        "connections": 1024,
        "input_bytes": 256 * 2**20,
        "output_bytes": 2**20,
        "auth_bytes": 4096,
        "auth_ms": 5000,
        "stalled_write_ms": 10_000,
        "drain_ms": 30_000,
        "budgets": 100_000,
        "watches": 256,
    }
