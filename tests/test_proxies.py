"""A proxy that the environment names carries what is not on this machine."""

import pytest

from llmd.core.outcomes import Answer, Failure
from llmd.proxies import proxy
from tests.support.calls import caller
from tests.support.upstream import scripted
from tests.test_providers import ok

pytestmark = pytest.mark.anyio


async def test_each_scheme_has_a_proxy_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:2")
    assert (proxy("http://provider.invalid"), proxy("https://provider.invalid/v1")) == (
        "http://127.0.0.1:1",
        "http://127.0.0.1:2",
    )
    assert proxy("https://[::1]:8080/v1") is None


async def test_a_proxy_of_the_environment_carries_what_is_not_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with scripted(ok) as between:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{between.port}")
        async with caller("http://provider.invalid/v1") as made:
            assert isinstance(await made.send(), Answer)
        assert between.requests[0].target == "http://provider.invalid/v1/chat/completions"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.8.8"])
async def test_this_machine_is_never_behind_a_proxy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted(ok) as between, scripted(ok) as upstream:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{between.port}")
        async with caller(f"http://{host}:{upstream.port}/v1") as made:
            await made.send()
        assert between.requests == []


async def test_no_proxy_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted(ok) as between:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{between.port}")
        monkeypatch.setenv("no_proxy", "provider.invalid")
        async with caller("http://provider.invalid/v1") as made:
            assert isinstance(await made.send(), Failure)
        assert between.requests == []
