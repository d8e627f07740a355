"""OpenAI's chat completions from the other side: answers, chunks and errors as a server of that API gives them.

What that API has no word for is in one member of llmd's own, `llmd`: of a whole answer, and of a stream's last choice.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from llmd.chat import Completion, Delta, FinishReason, ToolCallDelta, Usage
from llmd.errors import KINDS, LLMError

_FINISH: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
    "other": "stop",
}

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    404: "invalid_request_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}


class Heading(Struct, frozen=True):
    """What is said above an answer and each of its chunks: `created` in seconds since the epoch."""

    id: str
    created: int
    model: str


def whole(heading: Heading, made: Completion) -> dict[str, Any]:
    """`model` of the heading is what was asked for; the answer says which it was."""
    message: dict[str, Any] = {"role": "assistant", "content": made.text or None, "refusal": _refusal(made)}
    if not made.tool_calls and message["refusal"] is None:
        message["content"] = made.text
    if made.reasoning is not None:
        message["reasoning_content"] = made.reasoning  # as DeepSeek, vLLM and llama.cpp call it
    if made.tool_calls:
        message["tool_calls"] = [
            _call(call.id, call.name, msgspec.json.encode(call.arguments).decode()) for call in made.tool_calls
        ]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(made)}
    return {
        "id": heading.id,
        "object": "chat.completion",
        "created": heading.created,
        "model": _target(made),
        "choices": [choice],
        "usage": _usage(made.usage),
        "llmd": _own(made),
    }


class Chunks:
    """One stream. `usage`: whether it is to end with a chunk that tells it."""

    def __init__(self, heading: Heading, usage: bool) -> None:
        self._heading = heading
        self._tells_usage = usage
        self._begun = False

    def delta(self, delta: Delta) -> dict[str, Any]:
        if delta.tool_call is not None:
            return self._chunk({"tool_calls": [_piece(delta.tool_call)]})
        if delta.reasoning is not None:
            return self._chunk({"reasoning_content": delta.reasoning})
        return self._chunk({"content": delta.text})

    def end(self, made: Completion) -> Iterable[dict[str, Any]]:
        """The finish reason and what llmd has to tell, then the usage, if it is wanted and known."""
        refusal = _refusal(made)
        last = self._chunk({} if refusal is None else {"refusal": refusal}, _finish(made))
        yield {**last, "model": _target(made), "llmd": _own(made)}
        if self._tells_usage and made.usage.exact:
            yield {**last, "model": _target(made), "choices": [], "usage": _usage(made.usage)}

    def _chunk(self, said: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        if not self._begun:
            said = {"role": "assistant", "content": "", **said}
            self._begun = True
        heading = self._heading
        chunk: dict[str, Any] = {
            "id": heading.id,
            "object": "chat.completion.chunk",
            "created": heading.created,
            "model": heading.model,
            "choices": [{"index": 0, "delta": said, "logprobs": None, "finish_reason": finish}],
        }
        return {**chunk, "usage": None} if self._tells_usage else chunk


def error_object(error: LLMError) -> dict[str, Any]:
    """`code` is llmd's kind, and `data` what it tells beside."""
    return {
        "error": {
            "message": error.message,
            "type": _ERROR_TYPES.get(KINDS[error.kind].http_status, "api_error"),
            "param": error.data.get("path") or None,
            "code": error.kind,
            "data": error.to_object()["data"],
        }
    }


def models(ids: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Models by id with who owns them. When they were made is not known."""
    return {"object": "list", "data": [model(*each) for each in ids]}


def model(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


def _target(made: Completion) -> str:
    return f"{made.provider}/{made.model}"


def _finish(made: Completion) -> str:
    return "stop" if _refusal(made) is not None else _FINISH[made.finish_reason]


def _refusal(made: Completion) -> str | None:
    """What the model said instead of an answer."""
    said = made.message.text
    return said if made.finish_reason == "refusal" and said and not made.text else None


def _call(identifier: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}


def _piece(call: ToolCallDelta) -> dict[str, Any]:
    function = {name: value for name in ("name", "arguments") if (value := getattr(call, name)) is not None}
    if call.id is None:
        return {"index": call.index, "function": function}
    return {"index": call.index, "id": call.id, "type": "function", "function": {"arguments": "", **function}}


def _usage(usage: Usage) -> dict[str, Any] | None:
    """None where the provider told none."""
    if not usage.exact:
        return None
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def _own(made: Completion) -> dict[str, Any]:
    return {
        name: getattr(made, name) for name in ("cost", "budget", "route", "dropped", "latency_ms", "clamped_max_tokens")
    }
