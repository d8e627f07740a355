"""Answers in OpenAI's Responses: why they end, and whatever pieces a stream of them comes in."""

import json
from typing import Any

import pytest

from llmd.chat import Delta, ToolCall, Usage
from llmd.core.outcomes import Answer, Failure
from tests.dialects.samples import SAMPLES, read_as, sse

NAME = "openai-responses"


def read(**response: Any) -> Any:
    message = {"type": "message", "content": [{"type": "output_text", "text": "a"}]}
    whole = {"status": "completed", "output": [message], **response}
    return read_as(NAME, [json.dumps(whole).encode()], stream=False)[0]


@pytest.mark.parametrize(
    ("status", "reason", "finish"),
    [
        ("completed", None, "stop"),
        ("incomplete", "max_output_tokens", "length"),
        ("incomplete", "content_filter", "content_filter"),
        ("queued", None, "other"),
        (None, None, "other"),
    ],
)
def test_why_it_ended(status: str | None, reason: str | None, finish: str) -> None:
    details = None if reason is None else {"reason": reason}
    assert read(status=status, incomplete_details=details).finish_reason == finish


def test_a_refusal_is_no_text_and_a_finish_reason() -> None:
    message = {"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}
    made = read(output=[message])
    assert (made.text, made.refusal, made.finish_reason) == ("", "no", "refusal")
    pieces = sse(
        {"type": "response.refusal.delta", "delta": "n"},
        {"type": "response.refusal.delta", "delta": "o"},
        {"type": "response.completed", "response": {"status": "completed", "output": [message]}},
    )
    assert read_as(NAME, pieces)[0] == made


def test_a_stream_that_tells_only_its_end_is_whole() -> None:
    whole = {"status": "completed", "output": [{"type": "message", "content": [{"type": "output_text", "text": "a"}]}]}
    outcome, deltas = read_as(NAME, sse({"type": "response.completed", "response": whole}))
    assert isinstance(outcome, Answer)
    assert (outcome.text, [delta.text for delta in deltas]) == ("a", ["a"])


def test_what_the_provider_bills_is_the_cost_rounded_up() -> None:
    usage = {"input_tokens": 1, "output_tokens": 1, "cost_in_usd_ticks": 11}
    assert read(usage=usage).cost_nano_usd == 2
    assert read(usage={**usage, "cost_in_usd_ticks": None}).cost_nano_usd is None


def test_half_a_usage_is_none() -> None:
    assert read(usage={"input_tokens": 1}).usage is None


@pytest.mark.parametrize(
    "last",
    [
        {"type": "error", "code": "server_error", "message": "broken"},
        {"type": "error", "error": {"code": "server_error", "message": "broken"}},
        {
            "type": "response.failed",
            "response": {"status": "failed", "error": {"code": "server_error", "message": "broken"}},
        },
    ],
    ids=["flat", "nested", "failed"],
)
def test_an_error_within_a_stream_ends_it_with_that_error(last: dict[str, Any]) -> None:
    outcome, _ = read_as(NAME, [*SAMPLES[NAME].stream[:3], *sse(last)])
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.provider_text) == ("upstream_unavailable", "broken")


# -- calls, however a stream tells them -----------------------------------------------------------------------------

ITEM = {"type": "function_call", "id": "i", "call_id": "c1", "name": "f", "arguments": '{"x": 1}'}
MESSAGE = {"type": "message", "id": "m", "content": [{"type": "output_text", "text": "ab"}]}
THOUGHT = {"type": "reasoning", "id": "r", "summary": [{"text": "hm"}], "encrypted_content": "sealed"}
CALL = ToolCall("c1", "f", {"x": 1})


def item(kind: str, place: int | None = 0, **members: Any) -> dict[str, Any]:
    told = {"type": f"response.output_item.{kind}", "item": {**ITEM, **members}}
    return told if place is None else {**told, "output_index": place}


def arguments(kind: str, text: str, **members: Any) -> dict[str, Any]:
    return {
        "type": f"response.function_call_arguments.{kind}",
        "output_index": 0,
        "item_id": "i",
        {"delta": "delta", "done": "arguments"}[kind]: text,
        **members,
    }


def completed(*output: Any, **more: Any) -> dict[str, Any]:
    whole = {"status": "completed", "output": list(output), "usage": {"input_tokens": 1, "output_tokens": 2}, **more}
    return {"type": "response.completed", "response": whole}


def streamed(*events: Any) -> tuple[Answer, list[Delta]]:
    made, deltas = read_as(NAME, sse(*events))
    assert isinstance(made, Answer), made
    return made, deltas


def told_of_calls(deltas: list[Delta]) -> list[tuple[int, str | None, str | None, str]]:
    pieces = [delta.tool_call for delta in deltas if delta.tool_call]
    made: dict[int, tuple[int, str | None, str | None, str]] = {}
    for piece in pieces:
        index, id, name, text = made.get(piece.index, (piece.index, None, None, ""))
        made[index] = (index, piece.id or id, piece.name or name, text + (piece.arguments or ""))
    return list(made.values())


@pytest.mark.parametrize(
    "events",
    [
        [item("added", arguments=""), arguments("delta", '{"x'), arguments("delta", '": 1}'), completed(ITEM)],
        [item("added", arguments=""), arguments("done", '{"x": 1}'), completed(ITEM)],
        [item("added", arguments=""), arguments("delta", '{"x'), arguments("done", '{"x": 1}'), completed(ITEM)],
        [item("added", arguments=""), item("done"), completed(ITEM)],
        [item("added", arguments=""), completed(ITEM)],
        [item("added"), completed(ITEM)],
        [item("added"), arguments("done", '{"x": 1}'), item("done"), completed(ITEM)],
        [item("added", arguments="", id="other"), arguments("delta", '{"x": 1}', item_id="another"), completed(ITEM)],
        [item("added", None, arguments=""), arguments("delta", '{"x": 1}', output_index=None), completed(ITEM)],
        [arguments("delta", '{"x'), arguments("done", '{"x": 1}'), completed(ITEM)],
        [item("done"), completed(ITEM)],
        [item("done"), completed()],
        [item("done", None), completed(output=None)],
        [completed(ITEM)],
    ],
    ids=[
        *("in pieces", "done", "pieces and done", "an item that is done", "at the end", "as it begins", "thrice"),
        *("ids that change", "no places", "no beginning", "only done", "an empty end", "no end", "only the end"),
    ],
)
def test_a_call_is_told_once_and_whole_however_a_stream_tells_it(events: list[Any]) -> None:
    made, deltas = streamed(*events)
    assert (made.tool_calls, made.finish_reason) == ([CALL], "tool_calls")
    assert told_of_calls(deltas) == [(0, "c1", "f", '{"x": 1}')]


def test_calls_beside_one_another_are_told_by_their_places() -> None:
    other = {**ITEM, "id": "j", "call_id": "c2", "name": "g", "arguments": '{"y": 2}'}
    made, deltas = streamed(
        item("added", 1, arguments="", id="?"),
        {**item("added", 2), "item": {**other, "arguments": ""}},
        arguments("delta", '{"y": ', output_index=2, item_id="!"),
        arguments("delta", '{"x": ', output_index=1, item_id="!!"),
        arguments("delta", "2}", output_index=2, item_id="!!!"),
        arguments("delta", "1}", output_index=1, item_id="!!!!"),
        completed(MESSAGE, ITEM, other),
    )
    assert made.tool_calls == [CALL, ToolCall("c2", "g", {"y": 2})]
    assert told_of_calls(deltas) == [(0, "c1", "f", '{"x": 1}'), (1, "c2", "g", '{"y": 2}')]
    pieces = [delta.tool_call for delta in deltas if delta.tool_call]
    assert [piece.index for piece in pieces] == [0, 1, 1, 0, 1, 0]  # each as it came


def test_calls_that_are_all_said_to_be_in_the_first_place_are_told_apart_by_their_ids() -> None:
    other = {**ITEM, "id": "j", "call_id": "c2", "name": "g"}
    made, deltas = streamed(
        item("added", arguments=""),
        {**item("added"), "item": {**other, "arguments": ""}},
        arguments("delta", '{"x": 1}', item_id="i"),
        arguments("delta", '{"y": 2}', item_id="j"),
        completed(ITEM, {**other, "arguments": '{"y": 2}'}),
    )
    assert made.tool_calls == [CALL, ToolCall("c2", "g", {"y": 2})]
    assert told_of_calls(deltas) == [(0, "c1", "f", '{"x": 1}'), (1, "c2", "g", '{"y": 2}')]


def test_what_only_the_end_of_a_stream_holds_is_told_behind_what_came_before() -> None:
    refusal = {"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}
    made, deltas = streamed(
        {"type": "response.output_text.delta", "output_index": 0, "delta": "a"}, completed(THOUGHT, MESSAGE, ITEM)
    )
    assert (made.text, made.reasoning, made.tool_calls) == ("ab", "hm", [CALL])
    assert [(delta.text or "", delta.reasoning or "") for delta in deltas[:3]] == [("a", ""), ("", "hm"), ("b", "")]
    assert told_of_calls(deltas) == [(0, "c1", "f", '{"x": 1}')]
    assert streamed(completed(refusal))[0].refusal == "no"
    assert streamed({"type": "response.refusal.delta", "delta": "n"}, completed(refusal))[0].refusal == "no"


def test_an_end_that_says_other_words_than_those_that_came_does_not_say_them_again() -> None:
    made, deltas = streamed({"type": "response.output_text.delta", "delta": "ac"}, completed(MESSAGE))
    assert made.text == "ac" == "".join(delta.text or "" for delta in deltas)


def test_a_call_that_the_limit_has_cut_is_left_out_and_not_sent_back() -> None:
    half = {**ITEM, "arguments": '{"x'}
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    made = read(output=[THOUGHT, half], **cut)
    assert (made.finish_reason, made.tool_calls, made.state) == ("length", [], [THOUGHT])
    assert streamed(item("added", arguments=""), arguments("delta", '{"x'), completed(THOUGHT, half, **cut))[0] == (
        read(output=[THOUGHT, half], usage={"input_tokens": 1, "output_tokens": 2}, **cut)
    )


def test_thoughts_that_the_provider_alone_has_kept_do_not_go_back() -> None:
    kept = {"type": "reasoning", "id": "r", "summary": [{"text": "hm"}]}
    made = read(output=[kept, MESSAGE])
    assert (made.reasoning, made.state) == ("hm", None)
    open_thought = {"type": "reasoning", "id": "r", "content": [{"type": "reasoning_text", "text": "hm"}]}
    assert read(output=[open_thought, MESSAGE]).state == [open_thought, MESSAGE]


@pytest.mark.parametrize("status", ["failed", "cancelled"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_response_that_failed_without_a_word_is_no_answer_and_its_cost_is_kept(status: str, stream: bool) -> None:
    whole = completed(MESSAGE, status=status, error=None)["response"]
    pieces = sse({"type": "response.failed", "response": whole}) if stream else [json.dumps(whole).encode()]
    made, _ = read_as(NAME, pieces, stream=stream)
    assert isinstance(made, Failure)
    assert (made.kind, made.billed) == ("upstream_invalid", "unknown")
    assert made.usage == Usage(input_tokens=1, output_tokens=2, total_tokens=3)


def test_what_a_failed_response_says_of_its_cost_is_kept() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "cost_in_usd_ticks": 50}
    made = read(status="failed", error={"code": "server_error", "message": "broken"}, usage=usage)
    assert isinstance(made, Failure)
    assert (made.kind, made.cost_nano_usd) == ("upstream_unavailable", 5)
    assert made.usage == Usage(input_tokens=1, output_tokens=2, total_tokens=3)
