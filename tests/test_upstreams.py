"""Which providers there are, whether they could be called, and how local engines are found."""

from typing import Any

import anyio
import httpx
import msgspec
import pytest

from llmd import providers
from llmd.catalog import Catalog, ProviderRow, provider_row
from llmd.dialects.base import Offered
from llmd.echo import EchoProvider
from llmd.providers import AiohttpTransport, HttpProvider
from llmd.settings import KeySettings, ModelSettings, ProviderSettings
from llmd.upstreams import Carrier, Upstreams
from tests.support.upstream import Exchange, Refusing, Script, Upstream, scripted

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


async def test_what_carries_http_is_opened_once_and_closed_where_it_was_opened() -> None:
    carrier = Carrier()
    await carrier.aclose()
    opened = carrier.open()
    assert carrier.open() is opened
    await carrier.aclose()
    with pytest.raises(httpx.ReadError):  # open, it would not even connect
        await opened.handle_async_request(httpx.Request("GET", "http://127.0.0.1:9/"))


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
        facts = await found.facts(open_choice=True)
        assert facts.usable == {"llamacpp": "b"}


async def test_a_local_engine_that_does_not_listen_is_unreachable() -> None:
    with Refusing() as url:
        async with AiohttpTransport() as transport:
            found = upstreams(local("llamacpp", url), transport=transport)
            assert await found.health() == {"llamacpp": ("unreachable", [])}
            assert (await found.facts(open_choice=True)).usable == {}


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
    monkeypatch.setattr(providers, "QUESTION_TIMEOUT_S", 0.05)

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
    facts = await Upstreams(catalog, {}, no_transport).facts(open_choice=not named)
    assert (facts.usable, facts.default_model) == ({}, default)
    assert facts.providers == {"echo": "echo", "llamacpp": None}


async def test_an_engine_is_not_asked_again_for_every_request_that_names_no_model() -> None:
    async with scripted(listing("m1")) as upstream, AiohttpTransport() as transport:
        known = upstreams(local("engine", upstream.url), transport=transport)
        for _ in range(5):
            assert (await known.facts(open_choice=True)).usable == {"engine": "m1"}
        assert len(upstream.requests) == 1


async def test_echo_is_never_chosen_unnamed_and_neither_is_who_has_no_key_or_no_default_model() -> None:
    found = upstreams(
        made("echo"),
        made("openai"),
        made("groq"),
        made("work", base_url="http://127.0.0.1:9/v1"),
        env={"GROQ_API_KEY": "k"},
    )
    assert (await found.facts(open_choice=True)).usable == {"groq": "openai/gpt-oss-20b"}


# -- what they offer ---------------------------------------------------------------------------------------------------


def asked(upstream: Upstream, name: str = "work", **settings: Any) -> ProviderRow:
    return made(name, base_url=upstream.url, api_key=KeySettings(env="WORK_KEY"), **settings)


async def test_a_provider_tells_its_models_to_its_key_beside_those_that_are_named_here_once_in_a_while() -> None:
    async with scripted(listing("b", "a")) as upstream, AiohttpTransport() as transport:
        row = asked(upstream, default_model="m", models={"a": ModelSettings()})
        found = upstreams(row, made("echo"), transport=transport, env={"WORK_KEY": "secret"})
        for _ in range(2):
            assert await found.offers() == {
                "work": ("ready", [Offered("m"), Offered("a"), Offered("b")]),
                "echo": ("ready", [Offered("echo")]),
            }
        (request,) = upstream.requests
        assert request.headers["authorization"] == "Bearer secret"


async def test_a_provider_without_its_key_is_not_asked() -> None:
    found = upstreams(made("openai"), env={}, transport=None)
    assert await found.offers() == {"openai": ("no_key", [Offered("gpt-5-mini")])}


@pytest.mark.parametrize(
    ("status", "health"),
    [(401, "key_refused"), (403, "key_refused"), (500, "unreachable"), (404, "ready"), (200, "ready")],
)
async def test_a_provider_that_tells_no_models_has_those_that_are_named_here(status: int, health: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply({"error": "no list here"}, status)

    async with scripted(script) as upstream, AiohttpTransport() as transport:
        found = upstreams(asked(upstream, default_model="m"), transport=transport, env={"WORK_KEY": "k"})
        for _ in range(2):
            assert await found.offers() == {"work": (health, [Offered("m")])}


async def test_a_provider_that_is_gone_is_unreachable_and_asked_again() -> None:
    with Refusing() as url:
        async with AiohttpTransport() as transport:
            row = made("work", base_url=url, api_key=KeySettings(env="WORK_KEY"))
            found = upstreams(row, transport=transport, env={"WORK_KEY": "k"})
            assert await found.offers() == {"work": ("unreachable", [])}


@pytest.mark.parametrize(
    ("dialect", "path", "header", "said"),
    [
        ("openai", "/v1/models", "authorization", {"data": [{"id": "m"}]}),
        ("openai-responses", "/v1/models", "authorization", {"data": [{"id": "m"}]}),
        ("anthropic", "/v1/models?limit=1000", "x-api-key", {"data": [{"id": "m"}]}),
        (
            "gemini",
            "/v1/models?pageSize=1000",
            "x-goog-api-key",
            {"models": [{"name": "models/m", "supportedGenerationMethods": ["generateContent"]}]},
        ),
        ("ollama", "/v1/api/tags", "authorization", {"models": [{"name": "m"}]}),
    ],
)
async def test_each_dialect_has_its_own_list(dialect: str, path: str, header: str, said: Any) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(said)

    async with scripted(script) as upstream, AiohttpTransport() as transport:
        row = asked(upstream, dialect=dialect)
        found = upstreams(row, transport=transport, env={"WORK_KEY": "secret"})
        assert await found.offers() == {"work": ("ready", [Offered("m")])}
        (request,) = upstream.requests
        assert (request.method, request.target) == ("GET", path)
        assert "secret" in request.headers[header]
        assert request.headers.get("anthropic-version") == ("2023-06-01" if dialect == "anthropic" else None)
