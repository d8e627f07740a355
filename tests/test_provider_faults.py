"""Every way in which a provider's connection can fail, and what each may have cost.

`billed` is "no" exactly where nothing was written, or where the provider said that it refused.
"""

import asyncio
import gzip
import shutil
import socket
import ssl
import tracemalloc
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

from llmd import providers
from llmd.core.outcomes import Failure
from tests.support.calls import caller, failed, outcome_of
from tests.support.upstream import DELTA, Exchange, Refusing, Script, scripted

pytestmark = pytest.mark.anyio

# -- nothing was written ---------------------------------------------------------------------------------------------


async def test_a_refused_connection_cost_nothing() -> None:
    with Refusing() as url:
        async with caller(url) as made:
            failed(await made.send(), "upstream_unavailable", "no")


async def test_a_name_that_does_not_resolve_cost_nothing() -> None:
    async with caller("http://provider.invalid/v1") as made:
        failed(await made.send(), "upstream_unavailable", "no")


async def test_a_connect_that_takes_too_long_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "CONNECT_TIMEOUT_S", 0.05)
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # fill the queue of a listener that never accepts
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        async with caller(f"http://127.0.0.1:{listener.getsockname()[1]}/v1") as made:
            failed(await made.send(), "upstream_unavailable", "no")


async def test_a_server_that_speaks_no_tls_cost_nothing() -> None:
    async def never(exchange: Exchange) -> None:
        raise AssertionError("a request was written")

    async with scripted(never) as upstream, caller(upstream.url.replace("http", "https")) as made:
        async with anyio.create_task_group() as group:

            async def send() -> None:
                failed(await made.send(), "upstream_unavailable", "no")
                group.cancel_scope.cancel()

            group.start_soon(send)
            await upstream.until(lambda up: up.connections == 1)
            upstream.hang_up()
            await anyio.sleep_forever()
        assert upstream.requests == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
async def test_a_certificate_that_nobody_vouches_for_cost_nothing(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made_by = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "1"]
    await anyio.run_process([*made_by, "-keyout", key, "-out", certificate])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    requests = []

    async def serve(reader: object, writer: object) -> None:
        requests.append(reader)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server, caller(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1") as made:
        failed(await made.send(), "upstream_unavailable", "no")
    assert requests == []


# -- something was written, and what came back is no answer ----------------------------------------------------------


async def close(exchange: Exchange) -> None:
    exchange.close()


async def reset(exchange: Exchange) -> None:
    exchange.reset()


async def garbage(exchange: Exchange) -> None:
    await exchange.send(b"\x00\xff SSH-2.0-OpenSSH_9.2p1\r\n\r\n" * 10)
    exchange.close()


async def half_a_status_line(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 20")
    exchange.close()


async def flood_of_headers(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n")
    while True:  # until the client has enough
        await exchange.send(b"x-flood: " + b"f" * 4000 + b"\r\n")


async def one_endless_header(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nx-flood: ")
    while True:
        await exchange.send(b"f" * 4096)


@pytest.mark.parametrize(
    "script",
    [close, reset, garbage, half_a_status_line, flood_of_headers, one_endless_header],
    ids=lambda s: s.__name__,
)
async def test_a_connection_that_breaks_before_the_headers_may_have_cost_something(script: Script) -> None:
    failed(await outcome_of(script), "upstream_unavailable", "unknown")


async def body_then_reset(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 1000")
    await exchange.send(b'{"choices": [')
    exchange.reset()


async def body_then_close(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 1000")
    await exchange.send(b'{"choices": [')
    exchange.close()


async def chunk_that_is_none(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.send(b"this is no length\r\n")
    exchange.close()


async def stream_without_its_end(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.event(DELTA)
    exchange.close()


async def stream_that_ends_early_and_politely(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.event(DELTA)
    await exchange.chunk(b"")


async def stream_then_reset(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.event(DELTA)
    exchange.reset()


async def gzip_that_is_none(exchange: Exchange) -> None:
    await exchange.reply(b"this is no gzip at all", 200, "content-encoding: gzip")


async def gzip_cut(exchange: Exchange) -> None:
    await exchange.reply(gzip.compress(b'{"choices": [' + b" " * 5000)[:20], 200, "content-encoding: gzip")


async def not_json(exchange: Exchange) -> None:
    await exchange.reply(b"<html>It works!</html>")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "script",
    [
        body_then_reset,
        body_then_close,
        stream_without_its_end,
        stream_that_ends_early_and_politely,
        stream_then_reset,
        gzip_that_is_none,
        gzip_cut,
        not_json,
    ],
    ids=lambda s: s.__name__,
)
async def test_an_answer_that_breaks_off_is_a_failure_and_never_a_short_success(script: Script, stream: bool) -> None:
    failed(await outcome_of(script, stream), "upstream_invalid", "unknown")


async def test_a_stream_that_is_not_framed_as_it_says_is_a_failure_that_may_have_cost_something() -> None:
    outcome = await outcome_of(chunk_that_is_none, True)
    assert isinstance(outcome, Failure)
    assert outcome.billed == "unknown"


async def test_a_5xx_may_have_cost_something_and_a_4xx_did_not() -> None:
    for status, kind, billed in ((503, "upstream_unavailable", "unknown"), (429, "upstream_rate_limited", "no")):

        async def script(exchange: Exchange, status: int = status) -> None:
            await exchange.reply({"error": {"message": "no"}}, status)

        failed(await outcome_of(script), kind, billed)


async def test_a_gzip_bomb_ends_in_a_failure_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "RESPONSE_BYTES_MAX", 2**20)
    bomb = gzip.compress(bytes(256 * 2**20), 9)

    async def script(exchange: Exchange) -> None:
        await exchange.reply(bomb, 200, "content-encoding: gzip")

    async with scripted(script) as upstream, caller(upstream.url) as made:
        tracemalloc.start()
        try:
            failed(await made.send(), "upstream_invalid", "unknown")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 64 * 2**20


async def test_an_answer_that_was_compressed_twice_is_not_unpacked() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(gzip.compress(gzip.compress(b"{}")), 200, "content-encoding: gzip, gzip")

    assert "compressed" in failed(await outcome_of(script), "upstream_invalid", "unknown").message
