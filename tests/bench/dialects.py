"""Reading answers over decoding the same bytes, and the time to the first delta through the daemon over calling direct.

An answer is a stream of 500 events, or one body of 100 KB, in each dialect. The floor is msgspec's decoding of the same
JSON into Python's own values: the events' data one by one, or the body.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import msgspec
import uvloop

from llmd.core.outcomes import Answer
from llmd.core.rows import ModelRow
from llmd.dialects import DIALECTS
from llmd.dialects.events import LineDecoder, SSEDecoder
from llmd.providers import AiohttpTransport
from tests.bench.client import Lines
from tests.bench.measure import Lane, Row, difference, interleaved
from tests.bench.servers import daemon, running
from tests.support.calls import ask

EVENTS = 500
BODY_BYTES = 100_000
READ_BYTES = 16 * 1024  # as providers.py is handed them
TIMES = 20
FIRST = 300

_ROW = ModelRow(provider="up", model="m", dialect="openai", base_url="http://127.0.0.1:9/v1")
_WORD = "word and "
_TEXT = _WORD * (BODY_BYTES // len(_WORD))


def run(directory: Path, rounds: int) -> list[Row]:
    samples = interleaved([partial(_read, name) for name in DIALECTS], rounds)
    rows = []
    for name in DIALECTS:
        for what in ("stream", "body"):
            floor, ours = samples[f"{name} {what} floor"], samples[f"{name} {what}"]
            rows.append(Row(f"read, {name}: {what}", "us", ours, floor, "4 x floor"))
    return [*rows, *_first_delta(directory, rounds)]


# -- reading -----------------------------------------------------------------------------------------------------------


def _read(name: str) -> Mapping[str, float]:
    kind, stream, body = _STREAMS[name](), _CONTENT_TYPES.get(name, "text/event-stream"), _BODIES[name]()
    data = [event.data for event in _split(name, kind)]
    pieces = [kind[at : at + READ_BYTES] for at in range(0, len(kind), READ_BYTES)]
    return {
        f"{name} stream floor": _timed(lambda: [msgspec.json.decode(one) for one in data if one != b"[DONE]"]),
        f"{name} stream": _timed(lambda: _answer(name, stream, pieces)),
        f"{name} body floor": _timed(lambda: msgspec.json.decode(body)),
        f"{name} body": _timed(lambda: _answer(name, "application/json", [body])),
    }


def _split(name: str, stream: bytes) -> list[Any]:
    decoder = LineDecoder() if name == "ollama" else SSEDecoder()
    return [*decoder.feed(stream), *decoder.end()]


def _answer(name: str, content_type: str, pieces: list[bytes]) -> None:
    dialect = DIALECTS[name]
    reader = dialect.reader(_CALLS[name], 200, {"content-type": content_type})
    for piece in pieces:
        reader.feed(piece)
    answer = reader.end(cut=False)
    assert isinstance(answer, Answer), answer
    assert len(answer.text) > len(_WORD) * EVENTS * 0.9


def _timed(work: Callable[[], object]) -> float:
    began = perf_counter()
    for _ in range(TIMES):
        work()
    return (perf_counter() - began) / TIMES


def _sse(*events: Any) -> bytes:
    named = (f"event: {event['type']}\n" if "type" in event else "" for event in events)
    return "".join(f"{name}data: {json.dumps(event)}\n\n" for name, event in zip(named, events, strict=True)).encode()


def _openai_stream() -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "m"}
    chunks = [
        {**head, "choices": [{"index": 0, "delta": {"content": _WORD}, "finish_reason": None}]}
        for _ in range(EVENTS - 2)
    ]
    usage = {"prompt_tokens": 9, "completion_tokens": 900, "total_tokens": 909}
    last = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return _sse(*chunks, last, {**head, "choices": [], "usage": usage}) + b"data: [DONE]\n\n"


def _openai_body() -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": _TEXT}, "finish_reason": "stop"}
    return json.dumps(
        {"id": "chatcmpl-1", "choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}
    ).encode()


def _anthropic_stream() -> bytes:
    usage = {"input_tokens": 9, "output_tokens": 900}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": _WORD}}
    return _sse(
        {"type": "message_start", "message": {"id": "msg_1", "content": [], "stop_reason": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *[delta] * (EVENTS - 5),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 900}},
        {"type": "message_stop"},
    )


def _anthropic_body() -> bytes:
    usage = {"input_tokens": 9, "output_tokens": 900}
    content = [{"type": "text", "text": _TEXT}]
    return json.dumps({"id": "msg_1", "content": content, "stop_reason": "end_turn", "usage": usage}).encode()


def _gemini(text: str, **more: Any) -> dict[str, Any]:
    usage = {"promptTokenCount": 9, "candidatesTokenCount": 900, "totalTokenCount": 909}
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0, **more}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m", "responseId": "r"}


def _gemini_stream() -> bytes:
    return _sse(*[_gemini(_WORD)] * (EVENTS - 1), _gemini(_WORD, finishReason="STOP"))


def _gemini_body() -> bytes:
    return json.dumps(_gemini(_TEXT, finishReason="STOP")).encode()


def _ollama(text: str, done: bool = True) -> dict[str, Any]:
    counts = {"done_reason": "stop", "prompt_eval_count": 9, "eval_count": 900} if done else {}
    return {"model": "m", "message": {"role": "assistant", "content": text}, "done": done, **counts}


def _ollama_stream() -> bytes:
    lines = [*[_ollama(_WORD, done=False)] * (EVENTS - 1), _ollama("")]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _ollama_body() -> bytes:
    return json.dumps(_ollama(_TEXT)).encode()


def _response(text: str) -> dict[str, Any]:
    message = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text}],
    }
    usage = {"input_tokens": 9, "output_tokens": 900, "total_tokens": 909}
    return {"id": "resp_1", "object": "response", "status": "completed", "output": [message], "usage": usage}


def _responses_stream() -> bytes:
    delta = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": _WORD}
    words = EVENTS - 1
    return _sse(*[delta] * words, {"type": "response.completed", "response": _response(_WORD * words)})


def _responses_body() -> bytes:
    return json.dumps(_response(_TEXT)).encode()


_STREAMS = {
    "openai": _openai_stream,
    "anthropic": _anthropic_stream,
    "gemini": _gemini_stream,
    "ollama": _ollama_stream,
    "openai-responses": _responses_stream,
}
_BODIES = {
    "openai": _openai_body,
    "anthropic": _anthropic_body,
    "gemini": _gemini_body,
    "ollama": _ollama_body,
    "openai-responses": _responses_body,
}
_CONTENT_TYPES = {"ollama": "application/x-ndjson"}
_CALLS = {name: dialect.request(ask(), _ROW, None, True) for name, dialect in DIALECTS.items()}


# -- the first delta ---------------------------------------------------------------------------------------------------


def _first_delta(directory: Path, rounds: int) -> list[Row]:
    with running("stream", "0") as upstream, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        base_url = f"http://127.0.0.1:{upstream.address}/v1"
        config = f'[providers.up]\ndialect = "openai"\nbase_url = "{base_url}"\n'
        transport = runner.run(_opened())
        with daemon(directory, config=config) as started, Lines(started.socket) as connection:
            direct: Lane = partial(_direct, runner, _direct_call(transport, base_url))
            samples = interleaved([direct, partial(_through, connection)], rounds)
        runner.run(transport.aclose())
    through, alone = samples["through"], samples["direct"]
    return [
        Row("first delta: llmd's transport, direct", "us", alone),
        Row("first delta: through the daemon", "us", through, alone),
        Row("first delta: the daemon's part", "us", difference(through, alone), aim="500 us"),
    ]


async def _opened() -> AiohttpTransport:
    return AiohttpTransport()


def _direct_call(transport: AiohttpTransport, base_url: str) -> Callable[[], Awaitable[float]]:
    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "hello"}]}).encode()

    async def call() -> float:
        """Seconds until the first delta is there."""
        began = perf_counter()
        request = httpx.Request("POST", base_url + "/chat/completions", content=body)
        response = await transport.handle_async_request(request)
        took = 0.0
        try:
            async for chunk in response.aiter_bytes():
                if not took and b"Hello" in chunk:
                    took = perf_counter() - began
        finally:
            await response.aclose()
        return took

    return call


def _direct(runner: asyncio.Runner, call: Callable[[], Awaitable[float]]) -> Mapping[str, float]:
    async def repeat() -> float:
        return sum([await call() for _ in range(FIRST)]) / FIRST

    return {"direct": runner.run(repeat())}


def _through(connection: Lines) -> Mapping[str, float]:
    params = b'{"provider":"up","model":"m","prompt":"hello","stream":"s"}'
    request = b'{"jsonrpc":"2.0","id":1,"method":"execute","params":%b}\n' % params
    return {"through": sum(connection.first(request, b'"result"') for _ in range(FIRST)) / FIRST}
