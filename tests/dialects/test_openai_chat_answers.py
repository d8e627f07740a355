"""Answers in OpenAI's format, whole and streamed, and what its copies do differently."""

from typing import Any

import msgspec
import pytest

from llmd.chat import ToolCall, Usage
from llmd.core.outcomes import Answer
from llmd.core.pricing import cost_nano_usd
from llmd.core.rows import Price
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


def test_calls_of_different_ids_are_different_calls_even_where_all_are_said_to_be_the_first() -> None:
    def piece(id: str | None, arguments: str) -> bytes:
        return chunk({"tool_calls": [{"index": 0, "id": id, "function": {"name": "f", "arguments": arguments}}]})

    stream = [piece("c1", '{"a"'), piece("c1", ": 1"), piece(None, "}"), piece("c2", '{"b": '), piece(None, "2}")]
    made, deltas = read([*stream, chunk({}, "tool_calls"), DONE], stream=True)
    assert isinstance(made, Answer)
    assert made.tool_calls == [ToolCall("c1", "f", {"a": 1}), ToolCall("c2", "f", {"b": 2})]
    assert [delta.tool_call.index for delta in deltas if delta.tool_call] == [0, 0, 0, 1, 1]


def test_calls_of_a_body_are_as_many_as_it_lists_whatever_they_lack() -> None:
    made = answer(whole({"tool_calls": [{"function": {"name": "f"}}, {"function": {"name": "g"}}]}))
    assert made.tool_calls == [ToolCall("call_0", "f", {}), ToolCall("call_1", "g", {})]


@pytest.mark.parametrize("arguments", ["", '{"x": "unfin', "{"])
def test_a_call_that_the_limit_has_cut_is_left_out_and_the_answer_was_paid_for(arguments: str) -> None:
    calls = [CALLS[0], {"index": 1, "id": "c2", "function": {"name": "g", "arguments": arguments}}]
    made = answer(whole({"content": "a", "tool_calls": calls}, "length"))
    assert (made.text, made.finish_reason, made.tool_calls) == ("a", "length", [ToolCall("c1", "f", {"x": 1})])
    assert made.usage == Usage(input_tokens=11, output_tokens=3, total_tokens=14)
    assert answer([chunk({"tool_calls": calls}), chunk({}, "length"), DONE], stream=True).finish_reason == "length"


def test_arguments_that_are_null_are_none() -> None:
    calls = [{"id": "c1", "function": {"name": "f", "arguments": "null"}}]
    assert answer(whole({"tool_calls": calls})).tool_calls == [ToolCall("c1", "f", {})]


def test_a_call_without_an_id_gets_one() -> None:
    assert answer(whole({"tool_calls": [{"function": {"name": "f"}}]})).tool_calls == [ToolCall("call_0", "f", {})]


@pytest.mark.parametrize("arguments", ['{"x": 1', "[1]", "1", '{"x": NaN}', "[" * 100_000])
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
        (  # OpenRouter
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 6},
            },
            Usage(input_tokens=10, output_tokens=5, total_tokens=15, cache_read_tokens=2, cache_write_tokens=6),
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
        *("none", "zeros", "cached", "reasoning inside", "reasoning beside", "cache writes", "cache hits", "nonsense"),
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


def test_tokens_written_to_a_cache_have_their_own_price() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": {"cache_write_tokens": 8}}
    made = answer(whole({"content": "x"}, usage=usage))
    assert made.usage
    assert cost_nano_usd(made.usage, Price(input=1, output=2, cache_write=1.25)) == 2 * 1000 + 8 * 1250 + 1 * 2000


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


def test_a_message_of_all_so_far_beside_the_deltas_of_a_stream_is_not_told_twice() -> None:
    def both(delta: str, message: str, finish: str | None = None) -> bytes:
        said = {"delta": {"content": delta}, "message": {"role": "assistant", "content": message}}
        return event(msgspec.json.encode({"choices": [{"index": 0, **said, "finish_reason": finish}]}))

    made, deltas = read([both("a", "a"), both("b", "ab"), both("", "abc", "stop"), DONE], stream=True)
    assert isinstance(made, Answer)
    assert made.text == joined(deltas) == "abc"
    assert answer([event(whole({"content": "abc"})), DONE], stream=True).text == "abc"


def test_an_empty_delta_beside_the_message_of_a_body_is_nothing() -> None:
    choice = {"index": 0, "message": {"content": "a"}, "delta": {"content": ""}, "finish_reason": "stop"}
    assert answer(msgspec.json.encode({"choices": [choice]})).text == "a"
