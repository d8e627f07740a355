"""The shell that carries calls: what it sends, what it never does, and how its calls share connections and keys."""

import gzip
import zlib
from pathlib import Path

import anyio
import pytest

from llmd.core.outcomes import Answer, Failure
from llmd.settings import KeySettings
from tests.support.calls import caller
from tests.support.upstream import OK, Exchange, scripted

pytestmark = pytest.mark.anyio

KEY = "sk-secret-0123456789"
FROM_ENV = KeySettings(env="WORK_KEY")


async def ok(exchange: Exchange) -> None:
    await exchange.reply()


async def stream_of_three(exchange: Exchange) -> None:
    await exchange.begin_stream()
    for word in ("one ", "two ", "three"):
        await exchange.event({"choices": [{"delta": {"content": word}}]})
    await exchange.event({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": OK["usage"]})
    await exchange.end_stream()


async def test_a_call_carries_the_key_our_own_user_agent_and_the_request_as_the_dialect_made_it() -> None:
    async with scripted(ok) as upstream, caller(upstream.url, FROM_ENV, {"WORK_KEY": KEY}) as made:
        outcome = await made.send()
        assert isinstance(outcome, Answer)
        assert outcome.text == "hello"
        (request,) = upstream.requests
        assert (request.method, request.target) == ("POST", "/v1/chat/completions")
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["user-agent"].startswith("llmd/")
        assert request.headers["content-type"] == "application/json"
        assert "cookie" not in request.headers
        assert request.body == made.call().body


async def test_only_what_is_no_stream_may_come_compressed() -> None:
    async def script(exchange: Exchange) -> None:
        await (stream_of_three if exchange.request.json().get("stream") else ok)(exchange)

    async with scripted(script) as upstream, caller(upstream.url) as made:
        await made.send()
        await made.send(stream=True)
        accepted = [request.headers["accept-encoding"] for request in upstream.requests]
        assert accepted == ["gzip, deflate", "identity"]


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_compressed_answer_is_read(encoding: str, pack: object) -> None:
    import msgspec

    async def script(exchange: Exchange) -> None:
        assert callable(pack)
        await exchange.reply(pack(msgspec.json.encode(OK)), 200, f"content-encoding: {encoding}")

    async with scripted(script) as upstream, caller(upstream.url) as made:
        outcome = await made.send()
        assert isinstance(outcome, Answer)
        assert outcome.text == "hello"


async def test_deltas_come_while_the_stream_runs() -> None:
    told = anyio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.event({"choices": [{"delta": {"content": "first"}}]})
        await told.wait()
        await exchange.event({"choices": [{"delta": {"content": " last"}, "finish_reason": "stop"}]})
        await exchange.end_stream()

    async with scripted(script) as upstream, caller(upstream.url) as made, anyio.create_task_group() as group:

        async def tell() -> None:
            await made.first_delta.wait()
            assert made.text == "first"
            told.set()

        group.start_soon(tell)
        outcome = await made.send(stream=True)
        assert isinstance(outcome, Answer)
        assert outcome.text == made.text == "first last"


async def test_a_provider_that_answers_a_stream_with_one_body_still_tells_its_whole_text_in_deltas() -> None:
    call = {"id": "c1", "function": {"name": "f", "arguments": '{"x":1}'}}
    said = {"content": "hello", "reasoning": "hm", "tool_calls": [call]}

    async def script(exchange: Exchange) -> None:
        await exchange.reply({"choices": [{"message": said, "finish_reason": "stop"}]})

    async with scripted(script) as upstream, caller(upstream.url) as made:
        outcome = await made.send(stream=True)
        assert isinstance(outcome, Answer)
        reasoning, text, tool = made.deltas
        assert (reasoning.reasoning, text.text) == ("hm", "hello")
        assert tool.tool_call
        assert (tool.tool_call.id, tool.tool_call.name, tool.tool_call.arguments) == ("c1", "f", '{"x":1}')


async def test_one_connection_carries_call_after_call_streams_included() -> None:
    async with scripted(stream_of_three) as upstream, caller(upstream.url) as made:
        for _ in range(5):
            assert isinstance(await made.send(stream=True), Answer)
        assert upstream.connections == 1


async def test_a_hundred_calls_are_in_flight_at_once_where_nobody_limits_them() -> None:
    everyone = anyio.Event()

    async def script(exchange: Exchange) -> None:
        if upstream.in_flight == 100:
            everyone.set()
        await everyone.wait()
        await exchange.reply()

    async with scripted(script) as upstream, caller(upstream.url) as made:
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(made.send)
        assert upstream.peak == 100


async def test_a_redirect_is_an_error_and_is_not_followed() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(b"", 307, f"location: {upstream.url}/elsewhere")

    async with scripted(script) as upstream, caller(upstream.url) as made:
        outcome = await made.send()
        assert isinstance(outcome, Failure)
        assert (outcome.kind, outcome.http_status) == ("upstream_invalid", 307)
        assert len(upstream.requests) == 1


async def test_a_cookie_that_a_provider_sets_is_not_kept() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(OK, 200, "set-cookie: session=1; path=/")

    async with scripted(script) as upstream, caller(upstream.url) as made:
        await made.send()
        await made.send()
        assert [request.headers.get("cookie") for request in upstream.requests] == [None, None]


async def test_a_percent_sign_in_a_base_url_goes_out_as_it_was_written() -> None:
    async with scripted(ok) as upstream, caller(upstream.url + "/a%3Ab%2Fc") as made:
        await made.send()
        assert upstream.requests[0].target == "/v1/a%3Ab%2Fc/chat/completions"


# -- keys ------------------------------------------------------------------------------------------------------------


async def test_a_key_that_the_provider_repeats_in_its_error_is_taken_out() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply({"error": {"message": f"key {KEY} may not do that"}}, 422)

    async with scripted(script) as upstream, caller(upstream.url, FROM_ENV, {"WORK_KEY": KEY}) as made:
        outcome = await made.send()
        assert isinstance(outcome, Failure)
        assert outcome.provider_text == "key [key] may not do that"
        assert KEY not in repr(outcome)
        assert KEY not in repr(vars(made.provider))


async def test_without_its_key_a_call_fails_before_a_byte_is_sent() -> None:
    async with scripted(ok) as upstream, caller(upstream.url, FROM_ENV, {}) as made:
        outcome = await made.send()
        assert isinstance(outcome, Failure)
        assert (outcome.kind, outcome.billed) == ("upstream_auth", "no")
        assert "WORK_KEY" in outcome.message
        assert upstream.connections == 0


def counting_command(directory: Path) -> KeySettings:
    """A command whose n-th run prints key-n."""
    script = directory / "key.sh"
    script.write_text(f'echo x >> "{directory}/runs"; echo "key-$(wc -l < "{directory}/runs" | tr -d " ")"\n')
    return KeySettings(command=["/bin/sh", str(script)])


async def only_the_second_key(exchange: Exchange) -> None:
    if exchange.request.headers["authorization"] == "Bearer key-2":
        await exchange.reply()
    else:
        await exchange.reply({"error": {"message": "expired"}}, 401)


async def test_a_key_from_a_command_is_renewed_after_a_401_and_kept(tmp_path: Path) -> None:
    async with scripted(only_the_second_key) as upstream, caller(upstream.url, counting_command(tmp_path)) as made:
        assert isinstance(await made.send(), Answer)
        assert isinstance(await made.send(), Answer)
        sent = [request.headers["authorization"] for request in upstream.requests]
        assert sent == ["Bearer key-1", "Bearer key-2", "Bearer key-2"]


async def test_calls_whose_key_expires_together_renew_it_once_and_all_succeed(tmp_path: Path) -> None:
    everyone = anyio.Event()

    async def script(exchange: Exchange) -> None:
        if exchange.request.headers["authorization"] == "Bearer key-1":
            if upstream.in_flight == 8:
                everyone.set()
            await everyone.wait()
        await only_the_second_key(exchange)

    outcomes = []
    async with scripted(script) as upstream, caller(upstream.url, counting_command(tmp_path)) as made:

        async def send() -> None:
            outcomes.append(await made.send())

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(send)
    assert [type(outcome) for outcome in outcomes] == [Answer] * 8
    assert (tmp_path / "runs").read_text() == "x\n" * 2


async def test_a_renewed_key_that_is_refused_too_fails_the_call_and_the_next_call_asks_the_command_again(
    tmp_path: Path,
) -> None:
    async def script(exchange: Exchange) -> None:
        good = exchange.request.headers["authorization"] == "Bearer key-3"
        await exchange.reply(OK if good else {"error": {"message": "expired"}}, 200 if good else 401)

    async with scripted(script) as upstream, caller(upstream.url, counting_command(tmp_path)) as made:
        outcome = await made.send()
        assert isinstance(outcome, Failure)
        assert (outcome.kind, outcome.billed) == ("upstream_auth", "no")
        assert len(upstream.requests) == 2
        assert isinstance(await made.send(), Answer)


async def test_a_key_that_is_no_commands_is_not_tried_twice() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply({"error": {"message": "no"}}, 401)

    async with scripted(script) as upstream, caller(upstream.url, FROM_ENV, {"WORK_KEY": KEY}) as made:
        await made.send()
        assert len(upstream.requests) == 1
