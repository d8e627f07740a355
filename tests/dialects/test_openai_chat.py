"""Answers in OpenAI's format, whole and streamed, and what its copies do differently."""

from typing import Any

import pytest

from llmd.chat import ToolCall, Usage
from llmd.core.outcomes import Answer, Failure
from llmd.scalars import AMOUNT_MAX
from tests.dialects.replies import DONE, STREAM, USAGE, answer, chunk, event, failure, joined, read, whole

CALLS = [
    {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
    {"index": 1, "id": "c2", "type": "function", "function": {"name": "g", "arguments": ""}},
]


def test_a_whole_answer() -> None:
    made = answer(whole({"content": "hello"}), headers={"x-request-id": "r1"})
    assert made == Answer(
        text="hello",
        finish_reason="stop",
        usage=Usage(input_tokens=11, output_tokens=3, total_tokens=14),
        request_id="r1",
    )


def test_a_streamed_answer_is_the_same_as_its_deltas_joined() -> None:
    outcome, deltas = read(STREAM, stream=True)
    assert isinstance(outcome, Answer)
    assert outcome.text == joined(deltas) == "Hé \u2028you\u0085"
    assert outcome.reasoning == "hm "
    assert outcome.tool_calls == [ToolCall("c1", "f", {"x": 1})]
    assert outcome.finish_reason == "tool_calls"
    assert outcome.usage == Usage(input_tokens=11, output_tokens=3, total_tokens=14)
    pieces = [delta.tool_call for delta in deltas if delta.tool_call]
    assert [(piece.index, piece.id or None, piece.name or None, piece.arguments) for piece in pieces] == [
        (0, "c1", "f", '{"x'),
        (0, None, None, '": 1}'),
    ]


@pytest.mark.parametrize(
    ("said", "finish"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("insufficient_system_resource", "other"),
        (None, "other"),
    ],
)
def test_why_it_ended(said: str | None, finish: str) -> None:
    assert answer(whole({"content": "x"}, said)).finish_reason == finish


def test_an_empty_text_at_the_limit_is_an_answer() -> None:
    made = answer(whole({"content": ""}, "length"))
    assert (made.text, made.finish_reason) == ("", "length")


def test_a_refusal_is_no_text_and_a_finish_reason() -> None:
    made = answer(whole({"content": None, "refusal": "I will not"}))
    assert (made.text, made.refusal, made.finish_reason) == ("", "I will not", "refusal")


# -- tools -----------------------------------------------------------------------------------------------------------


def test_tool_calls_of_a_whole_answer() -> None:
    made = answer(whole({"content": None, "tool_calls": CALLS}, "tool_calls"))
    assert made.tool_calls == [ToolCall("c1", "f", {"x": 1}), ToolCall("c2", "g", {})]
    for said in ("stop", "", None):
        assert answer(whole({"tool_calls": CALLS}, said)).finish_reason == "tool_calls"
    assert answer(whole({"tool_calls": CALLS}, "length")).finish_reason == "length"


def test_a_copy_that_leaves_the_index_out_begins_a_call_with_each_id() -> None:
    def piece(arguments: str, id: str | None = None) -> bytes:
        return chunk({"tool_calls": [{"id": id, "function": {"name": "f" if id else None, "arguments": arguments}}]})

    stream = [piece('{"a"', "c1"), piece(": 1}"), piece('{"b": 2}', "c2"), chunk({}, "stop"), DONE]
    assert answer(stream, stream=True).tool_calls == [ToolCall("c1", "f", {"a": 1}), ToolCall("c2", "f", {"b": 2})]


def test_arguments_that_are_an_object_already_are_taken_as_they_are() -> None:
    calls = [{"id": "c1", "function": {"name": "f", "arguments": {"x": {"y": 1}}}}]
    assert answer(whole({"tool_calls": calls})).tool_calls == [ToolCall("c1", "f", {"x": {"y": 1}})]


def test_a_call_without_an_id_gets_one() -> None:
    assert answer(whole({"tool_calls": [{"function": {"name": "f"}}]})).tool_calls == [ToolCall("call_0", "f", {})]


@pytest.mark.parametrize("arguments", ['{"x": 1', "[1]", "1", "null", '{"x": NaN}', "[" * 100_000])
def test_arguments_that_are_no_object_are_the_providers_fault_and_what_they_cost_is_kept(arguments: str) -> None:
    calls = [{"id": "c1", "function": {"name": "f", "arguments": arguments}}]
    failed = failure(whole({"tool_calls": calls}))
    assert failed.kind == "upstream_invalid"
    assert failed.usage
    assert failed.usage.total_tokens == 14


# -- the copies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_under_either_name(name: str) -> None:
    made = answer(whole({"content": "x", name: "hm"}))
    assert (made.text, made.reasoning) == ("x", "hm")


def test_mistrals_list_of_parts() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "a"},
        {"type": "reference", "reference_ids": [1]},
        {"type": "text", "text": "b"},
    ]
    made = answer(whole({"content": parts}))
    assert (made.text, made.reasoning) == ("ab", "hm")


@pytest.mark.parametrize(
    "last",
    [
        [chunk({}, "stop", usage=USAGE)],
        [chunk({}, "stop", x_groq={"usage": USAGE})],
        [chunk({}, "stop"), chunk(None, usage=USAGE)],
    ],
    ids=["on the finish chunk", "under x_groq", "behind it"],
)
def test_usage_is_found_wherever_a_copy_puts_it(last: list[bytes]) -> None:
    made = answer([chunk({"content": "x"}), *last, DONE], stream=True)
    assert made.usage == Usage(input_tokens=11, output_tokens=3, total_tokens=14)


@pytest.mark.parametrize(
    ("said", "usage"),
    [
        (None, None),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "prompt_tokens_details": {"cached_tokens": 8},
            },
            Usage(input_tokens=10, output_tokens=5, total_tokens=15, cache_read_tokens=8),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 4}},
            Usage(input_tokens=10, output_tokens=5, total_tokens=15, reasoning_tokens=4),
        ),
        (  # xAI counts reasoning beside the completion
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 19,
                "completion_tokens_details": {"reasoning_tokens": 4},
            },
            Usage(input_tokens=10, output_tokens=9, total_tokens=19, reasoning_tokens=4),
        ),
        (  # DeepSeek
            {"prompt_tokens": 10, "completion_tokens": 5, "prompt_cache_hit_tokens": 7, "prompt_cache_miss_tokens": 3},
            Usage(input_tokens=10, output_tokens=5, total_tokens=15, cache_read_tokens=7),
        ),
        (
            {"prompt_tokens": 3, "completion_tokens": 10**30, "prompt_tokens_details": {"cached_tokens": -1}},
            Usage(input_tokens=3, output_tokens=AMOUNT_MAX, total_tokens=AMOUNT_MAX),
        ),
        ({"prompt_tokens": 3}, None),
        ({"prompt_tokens": 3, "completion_tokens": -1}, None),
        ({"prompt_tokens": -3, "completion_tokens": 5}, None),
    ],
    ids=[
        *("none", "zeros", "cached", "reasoning inside", "reasoning beside", "cache hits", "nonsense"),
        *("half of it", "a negative answer", "a negative question"),
    ],
)
def test_usage_arithmetic(said: dict[str, Any] | None, usage: Usage | None) -> None:
    assert answer(whole({"content": "x"}, usage=said)).usage == usage


@pytest.mark.parametrize(
    ("said", "cost"),
    [
        ("", None),
        (', "cost": 0.0000123456789', 12346),
        (', "cost": 0', 0),
        (', "cost": null', None),
        (', "cost": 1e300', AMOUNT_MAX),
        (', "cost": {"total_cost": 0.006}', 6_000_000),
        (', "cost": "much"', None),
        (', "cost": -1', 0),
        (', "cost_in_usd_ticks": 11', 2),
    ],
)
def test_what_the_provider_bills_is_the_cost_rounded_up(said: str, cost: int | None) -> None:
    usage = f'{{"prompt_tokens": 1, "completion_tokens": 1{said}}}'
    body = f'{{"choices": [{{"message": {{"content": "a"}}, "finish_reason": "stop"}}], "usage": {usage}}}'
    assert answer(body.encode()).cost_nano_usd == cost


def test_other_choices_are_not_mixed_in() -> None:
    stream = [
        chunk({"content": "a"}),
        event(b'{"choices":[{"index":1,"delta":{"content":"b"}}]}'),
        chunk({}, "stop"),
        DONE,
    ]
    assert answer(stream, stream=True).text == "a"


def test_a_media_type_in_capitals_with_a_charset_is_a_stream() -> None:
    made = answer(STREAM, headers={"content-type": "Text/Event-Stream; charset=utf-8"})
    assert made.finish_reason == "tool_calls"


# -- what is no answer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"index": 1, "message": {}}]}',
        b"<html>",
        b"\xff",
        b"[" * 10**6,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_body_that_is_no_answer_is_invalid(body: bytes) -> None:
    assert failure(body).kind == "upstream_invalid"


def test_a_body_that_was_cut_is_invalid_even_if_it_parses() -> None:
    assert failure(whole({"content": "x"}), cut=True).kind == "upstream_invalid"


@pytest.mark.parametrize("cut", [False, True], ids=["ended", "broke"])
@pytest.mark.parametrize("events", range(len(STREAM) - 1))
def test_a_stream_that_ends_before_its_end_is_invalid_at_every_event(events: int, cut: bool) -> None:
    outcome, _ = read(STREAM[:events], stream=True, cut=cut)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.billed, outcome.usage) == ("upstream_invalid", "unknown", None)


def test_a_stream_whose_end_mark_alone_is_missing_is_whole() -> None:
    assert answer(STREAM[:-1], stream=True, cut=True) == answer(STREAM, stream=True)


def test_a_stream_of_nothing_but_its_end_mark_is_no_answer() -> None:
    assert failure(DONE, stream=True).kind == "upstream_invalid"
    assert failure([chunk(None, usage=USAGE), DONE], stream=True).kind == "upstream_invalid"


def test_a_chunk_that_is_none_ends_the_stream_and_partial_usage_is_not_taken_for_the_whole() -> None:
    outcome, deltas = read(
        [chunk({"content": "a"}, usage=USAGE), event(b"{nonsense"), chunk({"content": "b"}, "stop"), DONE], stream=True
    )
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.usage) == ("upstream_invalid", None)
    assert joined(deltas) == "a"


def test_an_error_within_a_stream_ends_it_with_that_error() -> None:
    error = event(b'{"error": {"message": "slow down", "code": 429}}')
    failed = failure([chunk({"content": "a"}), error, chunk({"content": "b"}, "stop"), DONE], stream=True)
    assert (failed.kind, failed.billed, failed.provider_text) == ("upstream_rate_limited", "unknown", "slow down")


def test_an_error_in_the_body_of_a_200_is_that_error() -> None:
    failed = failure(b'{"error": {"message": "no provider is up", "code": 502}}')
    assert (failed.kind, failed.billed, failed.http_status) == ("upstream_unavailable", "unknown", 200)


def test_what_an_error_within_a_stream_says_of_its_cost_is_kept() -> None:
    usage = b'{"prompt_tokens": 10, "completion_tokens": 5, "cost": 0.25}'
    error = event(b'{"error": {"code": 400}, "usage": ' + usage + b"}")
    failed = failure([chunk({"content": "a"}), error], stream=True)
    assert failed.usage == Usage(input_tokens=10, output_tokens=5, total_tokens=15)
    assert failed.cost_nano_usd == 250_000_000
