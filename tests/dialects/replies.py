"""Responses in OpenAI's format for the dialect's tests, and ways to read them."""

from collections.abc import Iterable
from typing import Any

import msgspec

from llmd.chat import Delta
from llmd.core.outcomes import Answer, Failure, Outcome
from tests.support.calls import DIALECT, ask, row

USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}


def whole(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> bytes:
    """A response in one body."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return msgspec.json.encode({"id": "c", "model": "m1", "choices": [choice], "usage": USAGE, **more})


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    """One event of a stream."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return event(msgspec.json.encode({"id": "c", "model": "m1", "choices": choices, **more}))


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


DONE = event(b"[DONE]")

STREAM = [
    b": comment\n\n",
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning_content": "hm "}),
    chunk({"content": "Hé"}),
    chunk({"content": " \u2028you\u0085"}),
    chunk({"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": '{"x'}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '": 1}'}}]}),
    chunk({}, "tool_calls"),
    chunk(None, usage=USAGE),
    DONE,
]
"""One of everything, event by event."""


def read(
    data: Iterable[bytes] | bytes,
    *,
    stream: bool = False,
    status: int = 200,
    cut: bool = False,
    headers: dict[str, str] | None = None,
) -> tuple[Outcome, list[Delta]]:
    """What the reader of a response makes of these pieces, and the deltas on the way."""
    kind = "text/event-stream" if stream else "application/json"
    reader = DIALECT.reader(
        DIALECT.request(ask(), row(), None, stream), status, {"content-type": kind, **(headers or {})}
    )
    pieces = [data] if isinstance(data, bytes) else data
    deltas = [delta for piece in pieces for delta in reader.feed(piece)]
    return reader.end(cut), deltas


def answer(data: Iterable[bytes] | bytes, **how: Any) -> Answer:
    outcome, _ = read(data, **how)
    assert isinstance(outcome, Answer), outcome
    return outcome


def failure(data: Iterable[bytes] | bytes, **how: Any) -> Failure:
    outcome, _ = read(data, **how)
    assert isinstance(outcome, Failure), outcome
    return outcome


def joined(deltas: Iterable[Delta]) -> str:
    return "".join(delta.text or "" for delta in deltas)
