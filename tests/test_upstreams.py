"""Which providers there are, whether they could be called, and how local engines are found."""

from typing import Any

import anyio
import msgspec
import pytest

from llmd import providers
from llmd.catalog import Catalog, ProviderRow, provider_row
from llmd.echo import EchoProvider
from llmd.providers import AiohttpTransport, HttpProvider
from llmd.settings import KeySettings, ModelSettings, ProviderSettings
from llmd.upstreams import Upstreams
from tests.support.upstream import Exchange, Refusing, Script, scripted

pytestmark = pytest.mark.anyio


def made(name: str, **settings: Any) -> ProviderRow:
    row = provider_row(name, ProviderSettings(**settings))
    assert isinstance(row, ProviderRow)
    return row


def local(name: str, base_url: str) -> ProviderRow:
    return msgspec.structs.replace(made("llamacpp"), name=name, base_url=base_url)


def listing(*models: str) -> Script:
    async def script(exchange: Exchange) -> None:
        assert (exchange.request.method, exchange.request.target) == ("GET", "/v1/models")
        await exchange.reply({"object": "list", "data": [{"id": model, "object": "model"} for model in models]})

    return script


def upstreams(
    *rows: ProviderRow, transport: Any = None, env: dict[str, str] | None = None, default_model: str | None = None
) -> Upstreams:
    catalog = Catalog(providers={row.name: row for row in rows}, default_model=default_model)
    return Upstreams(catalog, env or {}, lambda: transport)


def no_transport() -> AiohttpTransport:
    raise AssertionError("nothing here needs HTTP")


async def test_each_provider_is_made_once_and_echo_without_what_carries_http() -> None:
    found = Upstreams(Catalog(providers={"echo": made("echo")}, default_model=None), {}, no_transport)
    assert isinstance(found.provider("echo"), EchoProvider)
    assert found.provider("echo") is found.provider("echo")
    async with AiohttpTransport() as transport:
        found = upstreams(made("work", base_url="http://127.0.0.1:9/v1"), transport=transport)
        assert isinstance(found.provider("work"), HttpProvider)
        assert found.provider("work") is found.provider("work")


async def test_health_tells_who_has_a_key_and_which_models_are_known_without_asking_anybody() -> None:
    work = made(
        "work",
        base_url="http://127.0.0.1:9/v1",
        api_key=KeySettings(env="WORK_KEY"),
        default_model="m1",
        models={"m2": ModelSettings(), "m1": ModelSettings()},
    )
    catalog = Catalog(providers={row.name: row for row in (made("echo"), work)}, default_model=None)
    assert await Upstreams(catalog, {"WORK_KEY": "k"}, no_transport).health() == {
        "echo": ("ready", ["echo"]),
        "work": ("ready", ["m1", "m2"]),
    }
    assert (await Upstreams(catalog, {}, no_transport).health())["work"] == ("no_key", ["m1", "m2"])


async def test_a_local_engine_that_answers_is_ready_with_the_models_that_it_lists() -> None:
    async with scripted(listing("b", "a")) as engine, AiohttpTransport() as transport:
        found = upstreams(local("llamacpp", engine.url), transport=transport)
        assert await found.health() == {"llamacpp": ("ready", ["b", "a"])}
        facts = await found.facts(ask_names_target=False)
        assert facts.usable == {"llamacpp": "b"}


async def test_a_local_engine_that_does_not_listen_is_unreachable() -> None:
    with Refusing() as url:
        async with AiohttpTransport() as transport:
            found = upstreams(local("llamacpp", url), transport=transport)
            assert await found.health() == {"llamacpp": ("unreachable", [])}
            assert (await found.facts(ask_names_target=False)).usable == {}


async def web_page(exchange: Exchange) -> None:
    await exchange.reply(b"<html>something else lives here</html>", content_type="text/html")


async def other_json(exchange: Exchange) -> None:
    await exchange.reply({"models": []})


async def not_found(exchange: Exchange) -> None:
    await exchange.reply({"error": "no such path"}, 404)


async def brackets(exchange: Exchange) -> None:
    await exchange.reply(b'{"x": ' + b"[" * 100_000)


async def not_utf8(exchange: Exchange) -> None:
    await exchange.reply(b'{"data": [{"id": "\xff"}]}')


async def hang_up(exchange: Exchange) -> None:
    exchange.close()


async def cut(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 100")
    exchange.close()


async def endless(exchange: Exchange) -> None:
    await exchange.head(200)
    while True:
        await exchange.send(b" " * 65536)


@pytest.mark.parametrize(
    "script",
    [web_page, other_json, not_found, brackets, not_utf8, hang_up, cut, endless],
    ids=lambda script: script.__name__,
)
async def test_something_else_on_an_engines_port_is_unreachable(script: Script) -> None:
    async with scripted(script) as other, AiohttpTransport() as transport:
        found = upstreams(local("llamacpp", other.url), transport=transport)
        assert await found.health() == {"llamacpp": ("unreachable", [])}


async def test_an_engine_that_does_not_answer_in_time_is_unreachable_and_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(providers, "MODEL_LIST_TIMEOUT_S", 0.05)

    async def silent(exchange: Exchange) -> None:
        await exchange.gone()

    async with scripted(silent) as engine, AiohttpTransport() as transport:
        assert await upstreams(local("llamacpp", engine.url), transport=transport).health() == {
            "llamacpp": ("unreachable", [])
        }
        await engine.until(lambda up: up.open == 0)


async def test_local_engines_are_asked_at_the_same_time() -> None:
    both = anyio.Event()
    asked = []

    async def script(exchange: Exchange) -> None:
        asked.append(exchange)
        if len(asked) == 2:
            both.set()
        await both.wait()
        await listing("m")(exchange)

    async with scripted(script) as one, scripted(script) as two, AiohttpTransport() as transport:
        found = upstreams(local("one", one.url), local("two", two.url), transport=transport)
        assert await found.health() == {"one": ("ready", ["m"]), "two": ("ready", ["m"])}


@pytest.mark.parametrize(("named", "default"), [(True, None), (False, "echo/echo")], ids=["named", "default"])
async def test_nobody_is_asked_where_the_request_or_the_configuration_decides(named: bool, default: str | None) -> None:
    catalog = Catalog(providers={row.name: row for row in (made("echo"), made("llamacpp"))}, default_model=default)
    facts = await Upstreams(catalog, {}, no_transport).facts(named)
    assert (facts.usable, facts.default_model) == ({}, default)
    assert facts.default_models == {"echo": "echo", "llamacpp": None}


async def test_an_engine_is_not_asked_again_for_every_request_that_names_no_model() -> None:
    async with scripted(listing("m1")) as upstream, AiohttpTransport() as transport:
        known = upstreams(local("engine", upstream.url), transport=transport)
        for _ in range(5):
            assert (await known.facts(False)).usable == {"engine": "m1"}
        assert len(upstream.requests) == 1


async def test_echo_is_never_chosen_unnamed_and_neither_is_who_has_no_key_or_no_default_model() -> None:
    found = upstreams(
        made("echo"),
        made("openai"),
        made("groq"),
        made("work", base_url="http://127.0.0.1:9/v1"),
        env={"GROQ_API_KEY": "k"},
    )
    assert (await found.facts(ask_names_target=False)).usable == {"groq": "openai/gpt-oss-20b"}
