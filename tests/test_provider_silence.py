"""Streams that fall silent, and connections that are kept between calls."""

import anyio
import pytest

from llmd import providers
from llmd.core.outcomes import Answer
from tests.support.calls import caller, failed, outcome_of
from tests.support.upstream import DELTA, LAST, Exchange, Script, scripted

pytestmark = pytest.mark.anyio


async def close(exchange: Exchange) -> None:
    exchange.close()


async def reset(exchange: Exchange) -> None:
    exchange.reset()


async def test_a_stream_that_falls_silent_fails_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "IDLE_TIMEOUT_S", 0.05)

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.event(DELTA | {"usage": {"prompt_tokens": 90, "completion_tokens": 1}})
        await exchange.gone()

    outcome = failed(await outcome_of(script, True), "upstream_unavailable", "unknown")
    assert "said nothing" in outcome.message
    assert outcome.seen is not None
    assert outcome.seen.input_tokens == 90


async def test_a_stream_that_keeps_talking_slowly_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "IDLE_TIMEOUT_S", 0.5)

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        with anyio.move_on_after(0.8):
            while True:
                await exchange.chunk(b": still here\n\n")
                with anyio.move_on_after(0.05):
                    await exchange.gone()
        await exchange.event(LAST)
        await exchange.end_stream()

    assert isinstance(await outcome_of(script, True), Answer)


@pytest.mark.parametrize(
    ("bound", "end_mark"),
    [("END_TIMEOUT_S", [b"[DONE]"]), ("IDLE_TIMEOUT_S", [])],
    ids=["a moment behind the end mark", "and without one as long as any silence"],
)
async def test_a_whole_answer_counts_even_if_the_provider_then_holds_the_connection_open(
    monkeypatch: pytest.MonkeyPatch, bound: str, end_mark: list[bytes]
) -> None:
    monkeypatch.setattr(providers, bound, 0.05)

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for event in (LAST, *end_mark):
            await exchange.event(event)
        await exchange.gone()

    outcome = await outcome_of(script, True)
    assert isinstance(outcome, Answer)
    assert outcome.text == "two"


# -- keep-alive ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [close, reset], ids=["closed", "reset"])
async def test_a_kept_connection_that_ends_under_the_second_post_is_not_sent_again(end: Script) -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.number == 0:
            await exchange.reply()
        else:
            assert exchange.request.connection == 0
            await end(exchange)

    async with scripted(script) as upstream, caller(upstream.url) as made:
        assert isinstance(await made.send(), Answer)
        failed(await made.send(), "upstream_unavailable", "unknown")
        assert len(upstream.requests) == 2


async def test_a_kept_connection_that_the_provider_has_closed_costs_no_call() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply()
        exchange.close()

    async with scripted(script) as upstream, caller(upstream.url) as made:
        for _ in range(50):
            assert isinstance(await made.send(), Answer)
            await upstream.until(lambda up: up.open == 0)
        assert len(upstream.requests) == 50
