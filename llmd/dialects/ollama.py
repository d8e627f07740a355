"""Ollama's own chat.

Requests: `POST {base_url}/api/chat`, which streams unless it is told not to. A stream is JSON objects, a line each, and
ends with the one that is `done`; an error is a line as well. Tool calls come whole, without ids, their arguments as
objects. What is longer than `num_ctx` is cut without a word, so a context that is configured is asked for. Sources: the
project's API documentation, and its page on thinking.
"""

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from llmd.chat import (
    Chat,
    Delta,
    FilePart,
    FinishReason,
    ImagePart,
    Message,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from llmd.core.rows import Auth, ModelRow
from llmd.dialects.base import NO_HEADERS, Headers, HttpCall, Reader, http_call
from llmd.dialects.draft import Draft, amount
from llmd.dialects.events import Event, LineDecoder
from llmd.dialects.listing import read_ollama_models
from llmd.dialects.reading import BodyReader, ErrorReader, StreamReader
from llmd.dialects.refusals import read_stream_error

_EFFORTS = ("low", "medium", "high")  # of models that are told one, such as gpt-oss, which cannot be told not to think

_FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class Ollama:
    auth: Auth = "bearer"
    models = "/api/tags"
    models_headers = NO_HEADERS
    read_models = staticmethod(read_ollama_models)

    def request(self, chat: Chat, row: ModelRow, max_tokens: int | None, stream: bool) -> HttpCall:
        dropped: list[str] = []
        body: dict[str, Any] = {"model": row.model, "messages": _messages(chat, dropped), "stream": stream}
        options = {
            "num_predict": max_tokens,
            "num_ctx": row.context_tokens,
            "temperature": chat.temperature,
            "top_p": chat.top_p,
            "stop": [chat.stop] if isinstance(chat.stop, str) else chat.stop,
            "seed": chat.seed,
        }
        if given := {name: value for name, value in options.items() if value is not None}:
            body["options"] = given
        if chat.reasoning is not None:
            effort = "none" if chat.reasoning.tokens == 0 else chat.reasoning.effort
            if effort is None:
                dropped.append("reasoning")  # it has efforts at most, not amounts
            elif row.reasoning == "effort":
                body["think"] = row.reasoning_limits.effort(effort, _EFFORTS)
            else:
                body["think"] = effort != "none"
        if chat.tools is not None:
            body["tools"] = [{"type": "function", "function": tool} for tool in chat.tools]
        if chat.tool_choice not in (None, "auto"):
            dropped.append("tool_choice")
        if chat.response_format is not None:
            body["format"] = chat.response_format.schema
        return http_call(row, "/api/chat", body, stream, dropped, streamed="application/x-ndjson")

    def reader(self, call: HttpCall, status: int, headers: Headers) -> Reader:
        if status != 200:
            return ErrorReader(status, headers)
        lines = "ndjson" in headers.get("content-type", "").lower()
        return StreamReader(_Draft(headers), LineDecoder()) if lines else BodyReader(_Draft(headers))

    def count(self, call: HttpCall) -> HttpCall | None:
        return None


def _messages(chat: Chat, dropped: list[str]) -> list[dict[str, Any]]:
    """One turn of ours is one message of theirs, but that each tool result is a message of its own."""
    names: dict[str, str] = {}  # of the calls, by the id that their results have
    messages = []
    for turn in chat.turns:
        names |= {part.id: part.name for part in turn.parts if isinstance(part, ToolCallPart)}
        results = [
            {"role": "tool", "content": part.content, "tool_name": names.get(part.id, part.id)}
            for part in turn.parts
            if isinstance(part, ToolResultPart)
        ]
        messages += results
        if "file" not in dropped and any(isinstance(part, FilePart) for part in turn.parts):
            dropped.append("file")
        message = _message(turn)
        if len(message) > 2 or message["content"] or (turn.role == "user" and not results):
            messages.append(message)
    return messages


def _message(turn: Message) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "user" if turn.role == "tool" else turn.role, "content": turn.text}
    if images := [part.data for part in turn.parts if isinstance(part, ImagePart)]:
        message["images"] = images
    if calls := [part for part in turn.parts if isinstance(part, ToolCallPart)]:
        message["tool_calls"] = [{"function": {"name": call.name, "arguments": call.arguments}} for call in calls]
    return message


# -- what comes back ------------------------------------------------------------------------------------------------


class _Function(Struct):
    name: str | None = None
    arguments: dict[str, Any] | str | None = None


class _ToolCall(Struct):
    id: str | None = None
    function: _Function | None = None


class _Said(Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Reply(Struct):
    """A whole response, or one line of a stream."""

    message: _Said | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: Any | UnsetType = UNSET


_decode_reply = msgspec.json.Decoder(_Reply).decode


class _Draft(Draft):
    whole_name = "a chat response"
    part_name = "message"

    def __init__(self, headers: Headers) -> None:
        super().__init__(headers)
        self._reason: str | None = None

    def take_body(self, body: bytes) -> None:
        self._take(_decode_reply(body))

    def take(self, event: Event) -> list[Delta]:
        return self._take(_decode_reply(event.data))

    def finish(self) -> FinishReason:
        if self.calls and self._reason == "stop":
            return "tool_calls"
        return _FINISH.get(self._reason or "", "other")

    def _take(self, reply: _Reply) -> list[Delta]:
        if reply.error is not UNSET and reply.error is not None:
            self.failure = read_stream_error(reply.error, self.headers)
            return []
        deltas: list[Delta] = []
        if (said := reply.message) is not None:
            self.begun = True
            deltas = self.think(said.thinking) + self.say(said.content)
            for call in said.tool_calls or []:
                function = call.function or _Function()
                deltas += self.call(self.calls, call.id, function.name, function.arguments)
        if reply.done:
            self.ended = True
            self._reason = reply.done_reason or "stop"  # which older ones leave out
            self.usage = _usage(reply)
        return deltas


def _usage(reply: _Reply) -> Usage | None:
    if reply.prompt_eval_count is None or reply.eval_count is None:
        return None
    asked, answered = amount(reply.prompt_eval_count), amount(reply.eval_count)
    return Usage(input_tokens=asked, output_tokens=answered, total_tokens=amount(asked + answered))
