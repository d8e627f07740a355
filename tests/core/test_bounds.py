"""What a request can cost at most: never less than what it does."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.books import Amounts
from llmd.chat import Ask, FilePart, ImagePart, Message, Relayed, StatePart, TextPart, Usage
from llmd.core.amounts import spent
from llmd.core.bounds import COUNT_MARGIN, Bound, bound, largest_answer
from llmd.core.pricing import cost_nano_usd
from llmd.core.rows import Price, Tier
from llmd.scalars import AMOUNT_MAX
from tests.support.calls import ask, row

WITH_IMAGE = ask(messages=[Message("user", [TextPart("what"), ImagePart("image/png", "AAAA")])])
WITH_FILE = ask(messages=[Message("user", [FilePart("application/pdf", "AAAA")])])


def test_a_bound_is_the_bytes_of_the_request_the_overhead_and_the_longest_answer() -> None:
    made = bound(ask(), "12345678", row(overhead_tokens=64, price=Price(input=1, output=2)), 100)
    assert made.amounts == Amounts(
        input_tokens=72, output_tokens=100, total_tokens=172, requests=1, nano_usd=(72 + 200) * 1000
    )
    assert (made.max_tokens, made.sound) == (100, True)


def test_bytes_count_not_characters() -> None:
    assert bound(ask(), "é€😀", row(overhead_tokens=0), 1).amounts.input_tokens == 2 + 3 + 4


def test_text_that_a_tokenizer_unfolds_counts_as_what_it_unfolds_to() -> None:
    ligature = "\ufdfa"  # one character of three bytes, eighteen when normalised
    unfolded = unicodedata.normalize("NFKC", ligature)
    assert bound(ask(), ligature, row(overhead_tokens=0), 1).amounts.input_tokens == len(unfolded.encode()) > 3


def test_an_answer_without_a_limit_is_as_long_as_the_model_can_and_unsound_if_nobody_knows_how_long() -> None:
    known = bound(ask(), "x", row(max_output_tokens=50), None)
    assert (known.amounts.output_tokens, known.max_tokens, known.sound) == (50, None, True)
    unknown = bound(ask(), "x", row(), None)
    assert (unknown.amounts.output_tokens, unknown.sound) == (0, False)


@pytest.mark.parametrize("chat", [WITH_IMAGE, WITH_FILE], ids=["image", "file"])
def test_media_may_fill_the_whole_context_and_without_a_known_one_nothing_is_sure(chat: Ask) -> None:
    made = bound(chat, "x" * 10, row(context_tokens=8000, overhead_tokens=0), 10)
    assert (made.amounts.input_tokens, made.sound) == (8000, True)
    assert not bound(chat, "x", row(), 10).sound


def is_whole(made: Bound, unknown: Bound) -> bool:
    """Whether a bound is the context of 8000 tokens, and unsound where that is not known."""
    return (made.amounts.input_tokens, made.sound, unknown.sound) == (8000, True, False)


def test_a_model_that_reads_more_than_it_is_sent_may_fill_its_whole_context_whatever_was_counted() -> None:
    for counted in (None, 30):
        facts = row(agentic=True, counts="exact")
        known = bound(ask(), "x", row(agentic=True, counts="exact", context_tokens=8000), 10, counted)
        assert is_whole(known, bound(ask(), "x", facts, 10, counted))


def with_state(data: Any, provider: str = "work") -> Ask:
    state = Message("assistant", [StatePart(provider, data)])
    return ask(messages=[Message("user", "a"), state, Message("user", "b")])


@pytest.mark.parametrize(
    "data",
    [
        [{"fileData": {"fileUri": "https://x/files/big", "mimeType": "video/mp4"}}],
        [{"inlineData": {"data": "AAAA", "mimeType": "image/png"}}],
        [{"type": "document", "source": {"type": "url", "url": "https://x/1000-pages.pdf"}}],
        [{"type": "container_upload", "file_id": "f"}],
        [{"type": "tool_result", "content": [{"type": "image", "data": "AAAA"}]}],
        [{"type": "item_reference", "id": "m"}],
        [{"type": "message", "content": [{"type": "input_file", "file_id": "f"}]}],
        [{"type": "reasoning", "id": "r", "summary": []}],
        [{"type": "reasoning", "id": "r", "summary": [], "encrypted_content": None}],
        {"a": [[{"url": "https://x"}]]},
    ],
    ids=str,
)
def test_a_state_that_names_what_is_elsewhere_may_fill_the_whole_context(data: Any) -> None:
    chat = with_state(data)
    assert is_whole(bound(chat, "x", row(context_tokens=8000), 10), bound(chat, "x", row(), 10))
    assert bound(with_state(data, "another"), "x", row(), 10).sound, "it is not sent there"


@pytest.mark.parametrize(
    "data",
    [
        [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "d"}],
        [
            {"type": "text", "text": "see https://x/file"},
            {"type": "tool_use", "id": "1", "input": {"url": "https://x"}},
        ],
        [{"text": "a", "thought": True, "thoughtSignature": "s"}, {"functionCall": {"name": "f", "args": {"file": 1}}}],
        [{"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "e"}],
        [
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "a", "annotations": []}],
            }
        ],
        [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}],
        "source",
    ],
    ids=str,
)
def test_a_state_that_says_it_all_is_bounded_by_its_bytes(data: Any) -> None:
    assert bound(with_state(data), "x" * 10, row(overhead_tokens=0), 10).amounts.input_tokens == 10
    assert bound(with_state(data), "x", row(), 10).sound


def test_what_a_member_does_that_llmd_has_no_word_for_nobody_knows() -> None:
    def relayed(**more: Any) -> Relayed:
        return Relayed(prompt="x", more=more)

    assert bound(relayed(user="u", logit_bias={}), "x", row(), 10).sound
    searching = relayed(user="u", web_search_options={})
    assert is_whole(bound(searching, "x", row(context_tokens=8000), 10), bound(searching, "x", row(), 10))
    assert bound(searching, "x", row(dialect="gemini"), 10).sound, "it is not sent there"


def test_an_unpriced_model_has_no_money_in_its_bound() -> None:
    assert bound(ask(), "x", row(), 10).amounts.nano_usd == 0


def test_a_price_of_nothing_and_one_beyond_counting_are_both_amounts() -> None:
    assert bound(ask(), "x", row(price=Price(input=0, output=0)), 10).amounts.nano_usd == 0
    assert bound(ask(), "x", row(price=Price(input=0, output=1e12)), AMOUNT_MAX).amounts.nano_usd == AMOUNT_MAX


shares = st.floats(0, 1)
rates = st.floats(0, 100)


@given(st.text(), shares, shares, st.integers(1, 5000), rates, rates, st.none() | rates, st.none() | rates)
def test_no_usage_within_the_bytes_and_the_limit_costs_more_than_its_bound(
    text: str, read: float, written: float, limit: int, into: float, out: float, hit: float | None, miss: float | None
) -> None:
    price = Price(input=into, output=out, cache_read=hit, cache_write=miss)
    made = bound(ask(), text, row(price=price, overhead_tokens=0), limit)
    tokens = len(text.encode())
    reads = int(tokens * read)
    writes = int((tokens - reads) * written)
    used = Usage(
        input_tokens=tokens,
        output_tokens=limit,
        total_tokens=tokens + limit,
        cache_read_tokens=reads,
        cache_write_tokens=writes,
    )
    actual = spent(used, cost_nano_usd(used, price))
    for unit in Amounts.__struct_fields__:
        assert getattr(actual, unit) <= getattr(made.amounts, unit)


@given(st.text(max_size=50), st.integers(0, 60), st.integers(1, 50), st.lists(rates, min_size=6, max_size=6))
def test_no_shorter_input_than_the_bounds_costs_more_whatever_the_tiers_are(
    text: str, tokens: int, limit: int, some: list[float]
) -> None:
    tiers = (Tier(above=20, input=some[2], output=some[3]), Tier(above=40, input=some[4], output=some[5]))
    price = Price(input=some[0], output=some[1], request=0.5, tiers=tiers)
    made = bound(ask(), text, row(price=price, overhead_tokens=10), limit)
    inputs = min(tokens, made.amounts.input_tokens)
    used = Usage(input_tokens=inputs, output_tokens=limit, total_tokens=inputs + limit)
    assert cost_nano_usd(used, price) <= made.amounts.nano_usd


def test_the_longest_answer_is_reckoned_at_the_dearest_rate_that_is_reached() -> None:
    price = Price(input=0, output=1, tiers=(Tier(above=100, input=0, output=2),))
    room = [10**6, 10**6, 10**6, 1, 10_000]
    facts = row(price=price, overhead_tokens=0)
    short, long = (bound(ask(), "x" * length, facts, 1).amounts for length in (100, 101))
    assert (largest_answer(short, facts, room), largest_answer(long, facts, room)) == (10, 5)


# -- the provider's own count ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("counts", "sound"), [("exact", True), ("estimate", False)])
def test_a_count_takes_the_place_of_bytes_and_is_sound_where_it_is_exact(counts: str, sound: bool) -> None:
    made = bound(WITH_IMAGE, "x" * 1000, row(counts=counts, context_tokens=10**6), 50, counted=30)
    assert (made.amounts.input_tokens, made.estimate.input_tokens) == (30 + COUNT_MARGIN, 30)
    assert (made.amounts.output_tokens, made.sound) == (50, sound)
    assert not bound(ask(), "x", row(counts="exact"), None, counted=3).sound
