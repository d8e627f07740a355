"""The built-in provider: what it says, how it counts, and how it fails on purpose."""

from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.catalog import ProviderRow, provider_row
from llmd.chat import Delta, ImagePart, Message, Reasoning, Relayed, ResponseFormat, TextPart, Tool
from llmd.core.outcomes import Answer, Failure, Outcome
from llmd.echo import EchoProvider
from llmd.settings import ProviderSettings
from tests.support.calls import ask

pytestmark = pytest.mark.anyio


def echo_row(**settings: Any) -> ProviderRow:
    row = provider_row("echo", ProviderSettings(**settings))
    assert isinstance(row, ProviderRow)
    return row


async def said(max_tokens: int | None = None, settings: dict[str, Any] | None = None, **params: Any) -> Outcome:
    row = echo_row(**(settings or {}))
    provider = EchoProvider(row)
    return await provider.send(provider.request(ask(**params), row.model_row("echo"), max_tokens, False), None)


async def answer(max_tokens: int | None = None, **params: Any) -> Answer:
    outcome = await said(max_tokens, **params)
    assert isinstance(outcome, Answer)
    return outcome


async def test_it_says_what_it_was_asked_word_for_word() -> None:
    outcome = await answer(prompt=" two  words\n")
    assert (outcome.text, outcome.finish_reason) == (" two  words\n", "stop")


async def test_it_answers_the_last_user_message_and_counts_every_message_and_the_system_prompt() -> None:
    turns = [
        Message("user", "first one"),
        Message("assistant", "yes"),
        Message("user", "the last"),
        Message("tool", "x"),
    ]
    outcome = await answer(messages=turns, system="be kind to me")
    assert outcome.text == "the last"
    assert outcome.usage
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens, outcome.usage.total_tokens) == (10, 2, 12)
    assert outcome.usage.exact


@pytest.mark.deadline(5)
async def test_white_space_without_end_takes_no_longer_than_words() -> None:
    prompt = "word" + "\n" * 200_000
    outcome = await answer(prompt=prompt)
    assert outcome.text == prompt
    assert outcome.usage
    assert outcome.usage.output_tokens == 1


async def test_without_a_user_message_it_says_nothing() -> None:
    outcome = await answer(messages=[Message("system", "be kind")])
    assert (outcome.text, outcome.finish_reason) == ("", "stop")


async def test_it_reads_the_text_parts_of_a_message_and_no_others() -> None:
    parts = [TextPart("a"), ImagePart("image/png", "AAAA"), TextPart("b")]
    assert (await answer(messages=[Message("user", parts)])).text == "a\nb"


@pytest.mark.parametrize(
    ("limit", "text", "finish"), [(1, "one", "length"), (2, "one  two", "length"), (3, "one  two three", "stop")]
)
async def test_max_tokens_cuts_between_words_and_says_so(limit: int, text: str, finish: str) -> None:
    outcome = await answer(limit, prompt="one  two three")
    assert (outcome.text, outcome.finish_reason) == (text, finish)
    assert outcome.usage
    assert outcome.usage.output_tokens == limit


@given(text=st.text(st.sampled_from("ab \n\t\u2028\u00a0é"), max_size=30), limit=st.none() | st.integers(1, 6))
def test_deltas_joined_are_the_text_whatever_the_text_is(text: str, limit: int | None) -> None:
    async def main() -> None:
        deltas: list[str] = []

        async def emit(delta: Delta) -> None:
            deltas.append(delta.text or "")

        row = echo_row()
        provider = EchoProvider(row)
        outcome = await provider.send(provider.request(ask(prompt=text), row.model_row("echo"), limit, True), emit)
        assert isinstance(outcome, Answer)
        assert "".join(deltas) == outcome.text
        assert outcome.usage
        assert outcome.usage.output_tokens == len(outcome.text.split())
        assert len(deltas) == outcome.usage.output_tokens or not text.strip()

    anyio.run(main)


@pytest.mark.parametrize("kind", ["upstream_rate_limited", "upstream_invalid"])
async def test_it_fails_on_purpose_and_charges_nothing(kind: str) -> None:
    outcome = await said(settings={"fail": kind}, prompt="x")
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.billed) == (kind, "no")


async def test_latency_is_waited_for_and_can_be_cancelled() -> None:
    with anyio.move_on_after(0.01) as scope:
        await said(settings={"latency_ms": 60_000}, prompt="x")
    assert scope.cancelled_caught


async def test_it_tells_which_params_it_did_not_obey() -> None:
    row = echo_row()
    asked = ask(
        temperature=1.0,
        top_p=0.5,
        stop="x",
        seed=1,
        reasoning=Reasoning(effort="low"),
        tools=[Tool("f", {})],
        tool_choice="auto",
        response_format=ResponseFormat("r", {}),
        system="s",
    )
    call = EchoProvider(row).request(asked, row.model_row("echo"), None, False)
    assert call.dropped == [
        "temperature",
        "top_p",
        "stop",
        "seed",
        "reasoning",
        "tools",
        "tool_choice",
        "response_format",
    ]
    assert EchoProvider(row).request(ask(), row.model_row("echo"), None, False).dropped == []
    foreign = Relayed(prompt="hello", more={"logit_bias": {"7": 1}})
    assert EchoProvider(row).request(foreign, row.model_row("echo"), None, False).dropped == ["logit_bias"]
