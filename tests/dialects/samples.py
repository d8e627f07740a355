"""One answer in every dialect's words, whole and as a stream: a thought, a text, and a tool call."""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from llmd.chat import Delta, ToolCall, Usage
from llmd.core.outcomes import Answer, Outcome
from llmd.dialects import DIALECTS
from tests.support.calls import ask, row

TEXT, THOUGHT = "Hé \u2028you\u0085", "hm "
CALL = ToolCall("c1", "f", {"x": 1})


class Sample(NamedTuple):
    """`stream` is a list of events, each with its framing; `ends` at how many of them the answer is whole already."""

    content_type: str
    stream: list[bytes]
    whole: bytes
    answer: Answer
    ends: int


def sse(*events: Any) -> list[bytes]:
    """Objects as server-sent events, named by their type where they have one."""
    made = []
    for event in events:
        name = f"event: {event['type']}\n" if "type" in event else ""
        made.append(f"{name}data: {json.dumps(event, ensure_ascii=False)}\n\n".encode())
    return made


def answered(**more: Any) -> Answer:
    usage = Usage(input_tokens=11, output_tokens=5, total_tokens=16, reasoning_tokens=2, cache_read_tokens=3)
    told: dict[str, Any] = {"finish_reason": "tool_calls", "usage": usage, **more}
    return Answer(text=TEXT, reasoning=THOUGHT, tool_calls=[CALL], **told)


def _openai() -> Sample:
    usage = {
        "prompt_tokens": 11,
        "completion_tokens": 5,
        "total_tokens": 16,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    def call(**more: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": 0, **more}]}

    message = {
        "content": TEXT,
        "reasoning_content": THOUGHT,
        **call(id="c1", function={"name": "f", "arguments": '{"x": 1}'}),
    }
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": usage}
    stream = sse(
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning_content": THOUGHT}),
        chunk({"content": TEXT[:2]}),
        chunk({"content": TEXT[2:]}),
        chunk(call(id="c1", function={"name": "f", "arguments": '{"x'})),
        chunk(call(function={"arguments": '": 1}'})),
        chunk({}, "tool_calls"),
        {"choices": [], "usage": usage},
    )
    stream = [b": comment\n\n", *stream, b"data: [DONE]\n\n"]
    made = answered(state={"reasoning_content": THOUGHT})
    return Sample("text/event-stream", stream, json.dumps(whole).encode(), made, len(stream) - 1)


def _anthropic() -> Sample:
    thinking = {"type": "thinking", "thinking": THOUGHT, "signature": "s1"}
    text = {"type": "text", "text": TEXT}
    call = {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}}
    asked = {"input_tokens": 8, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 0}
    told = {"output_tokens": 5, "output_tokens_details": {"thinking_tokens": 2}}
    whole = {"content": [thinking, text, call], "stop_reason": "tool_use", "usage": {**asked, **told}}

    def piece(index: int, kind: str, **delta: str) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **delta}}

    def start(index: int, block: dict[str, Any], **empty: Any) -> dict[str, Any]:
        return {"type": "content_block_start", "index": index, "content_block": {**block, **empty}}

    stream = sse(
        {
            "type": "message_start",
            "message": {"content": [], "stop_reason": None, "usage": {**asked, "output_tokens": 1}},
        },
        start(0, thinking, thinking="", signature=""),
        {"type": "ping"},
        piece(0, "thinking_delta", thinking=THOUGHT),
        piece(0, "signature_delta", signature="s1"),
        {"type": "content_block_stop", "index": 0},
        start(1, text, text=""),
        piece(1, "text_delta", text=TEXT[:2]),
        piece(1, "text_delta", text=TEXT[2:]),
        start(2, call, input={}),
        piece(2, "input_json_delta", partial_json=""),
        piece(2, "input_json_delta", partial_json='{"x'),
        piece(2, "input_json_delta", partial_json='": 1}'),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": told},
        {"type": "message_stop"},
    )
    made = answered(state=[thinking, text, call])
    return Sample("text/event-stream; charset=utf-8", stream, json.dumps(whole).encode(), made, len(stream))


def _gemini() -> Sample:
    usage = {
        "promptTokenCount": 9,
        "toolUsePromptTokenCount": 2,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 2,
        "cachedContentTokenCount": 3,
        "totalTokenCount": 16,
    }
    thought, text = {"text": THOUGHT, "thought": True}, {"text": TEXT}
    call = {"functionCall": {"name": "f", "args": {"x": 1}, "id": "c1"}, "thoughtSignature": "s1"}

    def reply(*parts: Any, finish: str | None = None, **more: Any) -> dict[str, Any]:
        candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
        return {"candidates": [{**candidate, **({"finishReason": finish} if finish else {})}], **more}

    stream = sse(
        reply(thought, usageMetadata={"promptTokenCount": 9}),
        reply({"text": TEXT[:2]}),
        reply({"text": TEXT[2:]}),
        reply(call, finish="STOP", usageMetadata=usage, responseId="r1"),
    )
    stream = [event.replace(b"\n", b"\r\n") for event in stream]
    whole = json.dumps(reply(thought, text, call, finish="STOP", usageMetadata=usage, responseId="r1")).encode()
    made = answered(state=[thought, text, call], request_id="r1")
    return Sample("text/event-stream", stream, whole, made, len(stream))


def _ollama() -> Sample:
    call = {"function": {"name": "f", "arguments": {"x": 1}}, "id": "c1"}
    said = {"role": "assistant", "content": TEXT, "thinking": THOUGHT, "tool_calls": [call]}
    last = {"done": True, "done_reason": "stop", "prompt_eval_count": 11, "eval_count": 5}
    lines: list[dict[str, Any]] = [
        {"message": {"role": "assistant", "content": "", "thinking": THOUGHT}, "done": False},
        {"message": {"content": TEXT[:2]}, "done": False},
        {"message": {"content": TEXT[2:]}, "done": False},
        {"message": {"content": "", "tool_calls": [call]}, "done": False},
        {"message": {"content": ""}, **last},
    ]
    stream = [json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines]
    made = answered(usage=Usage(input_tokens=11, output_tokens=5, total_tokens=16))
    return Sample("application/x-ndjson", stream, json.dumps({"message": said, **last}).encode(), made, len(stream))


def _responses() -> Sample:
    usage = {
        "input_tokens": 11,
        "output_tokens": 5,
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens_details": {"reasoning_tokens": 2},
    }
    thought = {"type": "reasoning", "id": "r", "summary": [{"text": THOUGHT}], "encrypted_content": "sealed"}
    message = {"type": "message", "id": "m", "content": [{"type": "output_text", "text": TEXT}]}
    call = {"type": "function_call", "id": "i", "call_id": "c1", "name": "f", "arguments": '{"x": 1}'}
    whole = {"status": "completed", "output": [thought, message, call], "usage": usage, "error": None}
    stream = sse(
        {"type": "response.created", "response": {"status": "in_progress", "output": []}},
        {"type": "response.reasoning_summary_text.delta", "item_id": "r", "delta": THOUGHT},
        {"type": "response.output_text.delta", "item_id": "m", "delta": TEXT[:2]},
        {"type": "response.output_text.delta", "item_id": "m", "delta": TEXT[2:]},
        {"type": "response.output_item.added", "item": {**call, "arguments": ""}},
        {"type": "response.function_call_arguments.delta", "item_id": "i", "delta": '{"x'},
        {"type": "response.function_call_arguments.delta", "item_id": "i", "delta": '": 1}'},
        {"type": "response.completed", "response": whole},
    )
    made = answered(state=[thought, message, call])
    return Sample("text/event-stream", stream, json.dumps(whole).encode(), made, len(stream))


SAMPLES = {
    "anthropic": _anthropic(),
    "gemini": _gemini(),
    "ollama": _ollama(),
    "openai": _openai(),
    "openai-responses": _responses(),
}


def read_as(
    dialect: str, pieces: Iterable[bytes], *, stream: bool = True, status: int = 200, cut: bool = False
) -> tuple[Outcome, list[Delta]]:
    """What this dialect makes of a response that comes in these pieces, and the deltas on the way."""
    made = DIALECTS[dialect]
    kind = SAMPLES[dialect].content_type if stream else "application/json"
    reader = made.reader(made.request(ask(), row(), None, stream), status, {"content-type": kind})
    deltas = [delta for piece in pieces for delta in reader.feed(piece)]
    return reader.end(cut), deltas
