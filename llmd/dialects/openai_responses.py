"""OpenAI's Responses, and those who have them too (Azure, xAI).

Requests: `POST {base_url}/responses`, told to store nothing. A response is a list of items; a stream tells their pieces
and ends with the whole of it in `response.completed`, `.incomplete` or `.failed`. What the model thought comes sealed,
and is wanted back: a turn with more in it than text and function calls is carried as it came. Sources: the provider's
API reference and SDK.
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
    NamedTool,
    StatePart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from llmd.core.rows import Auth, ModelRow
from llmd.dialects.base import NO_HEADERS, Headers, HttpCall, Reader, http_call
from llmd.dialects.counting import asking, members
from llmd.dialects.draft import TICKS_A_NANO_USD, Draft, amount
from llmd.dialects.events import Event
from llmd.dialects.listing import read_models
from llmd.dialects.reading import reader
from llmd.dialects.refusals import read_stream_error

_READ = ("model", "instructions", "input", "tools", "tool_choice", "reasoning", "text")


class OpenAIResponses:
    auth: Auth = "bearer"
    models = "/models"
    models_headers = NO_HEADERS
    read_models = staticmethod(read_models)

    def request(self, chat: Chat, row: ModelRow, max_tokens: int | None, stream: bool) -> HttpCall:
        dropped = [name for name in ("stop", "seed") if getattr(chat, name) is not None]
        body: dict[str, Any] = {
            "model": row.model,
            "input": [item for turn in chat.turns if turn.role != "system" for item in _items(turn, row.provider)],
            "store": False,
            "include": ["reasoning.encrypted_content"],
        }
        if instructions := "\n\n".join(turn.text for turn in chat.turns if turn.role == "system"):
            body["instructions"] = instructions
        if max_tokens is not None:
            body["max_output_tokens"] = max_tokens
        for name in ("temperature", "top_p"):
            if (value := getattr(chat, name)) is not None:
                body[name] = value
        if chat.reasoning is not None:
            if chat.reasoning.effort is not None:
                body["reasoning"] = {"effort": chat.reasoning.effort, "summary": "auto"}
            else:
                dropped.append("reasoning")  # this dialect has efforts, not amounts
        if chat.tools is not None:
            body["tools"] = [
                {"type": "function", "name": tool.name, "parameters": tool.parameters, "strict": False}
                | ({} if tool.description is None else {"description": tool.description})
                for tool in chat.tools
            ]
        if (choice := chat.tool_choice) is not None:
            body["tool_choice"] = {"type": "function", "name": choice.name} if isinstance(choice, NamedTool) else choice
        if (form := chat.response_format) is not None:
            body["text"] = {"format": {"type": "json_schema", "name": form.name, "schema": form.schema, "strict": True}}
        if stream:
            body["stream"] = True
        return http_call(row, "/responses", body, stream, dropped)

    def reader(self, call: HttpCall, status: int, headers: Headers) -> Reader:
        return reader(_Draft(headers), status, headers)

    def count(self, call: HttpCall) -> HttpCall | None:
        return asking(call, call.url + "/input_tokens", members(call, _READ))


def _items(turn: Message, provider: str) -> list[Any]:
    """One turn of ours is a message of theirs, but that calls and results are items of their own."""
    states = [part for part in turn.parts if isinstance(part, StatePart) and part.provider == provider]
    if states:  # all of what it had said, in its own words
        return [item for state in states if isinstance(state.data, list) for item in state.data]
    role = "user" if turn.role == "tool" else turn.role
    content = [said for part in turn.parts if (said := _part(part, role)) is not None]
    results = [
        {"type": "function_call_output", "call_id": part.id, "output": part.content}
        for part in turn.parts
        if isinstance(part, ToolResultPart)
    ]
    calls = [
        {
            "type": "function_call",
            "call_id": part.id,
            "name": part.name,
            "arguments": msgspec.json.encode(part.arguments).decode(),
        }
        for part in turn.parts
        if isinstance(part, ToolCallPart)
    ]
    return [*results, *([{"role": role, "content": content}] if content else []), *calls]


def _part(part: Any, role: str) -> dict[str, Any] | None:
    if isinstance(part, TextPart):
        return {"type": "output_text" if role == "assistant" else "input_text", "text": part.text}
    if isinstance(part, ImagePart):
        return {"type": "input_image", "image_url": f"data:{part.media_type};base64,{part.data}"}
    if isinstance(part, FilePart):
        data = f"data:{part.media_type};base64,{part.data}"
        return {"type": "input_file", "filename": "file", "file_data": data}
    return None


# -- what comes back ------------------------------------------------------------------------------------------------


class _Incomplete(Struct):
    reason: str | None = None


class _InputDetails(Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _OutputDetails(Struct):
    reasoning_tokens: int | None = None


class _Counts(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None
    cost_in_usd_ticks: int | None = None  # xAI


class _Reply(Struct):
    """A whole response."""

    status: str | None = None
    incomplete_details: _Incomplete | None = None
    output: list[dict[str, Any]] | None = None
    usage: _Counts | None = None
    error: Any = None


class _Event(Struct):
    type: str | None = None
    delta: Any = None
    item_id: str = ""
    item: dict[str, Any] | None = None
    response: _Reply | None = None
    error: Any | UnsetType = UNSET
    code: Any = None
    message: str | None = None


_decode_reply = msgspec.json.Decoder(_Reply).decode
_decode_event = msgspec.json.Decoder(_Event).decode


class _Draft(Draft):
    whole_name = "a response"
    part_name = "output"

    def __init__(self, headers: Headers) -> None:
        super().__init__(headers)
        self._status = ""
        self._reason: str | None = None
        self._output: list[dict[str, Any]] = []
        self._numbers: dict[str, int] = {}  # of the items that are calls, by their ids, among those
        self._told = False  # whether its pieces have come already

    def take_body(self, body: bytes) -> None:
        self._take(_decode_reply(body))

    def take(self, event: Event) -> list[Delta]:
        told = _decode_event(event.data)
        kind = told.type or event.name.decode()
        text = told.delta if isinstance(told.delta, str) else None
        if kind == "response.output_text.delta":
            self._told = True
            return self.say(text)
        if kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            self._told = True
            return self.think(text)
        if kind == "response.refusal.delta":
            self._told = True
            self.refuse(text)
        elif kind == "response.output_item.added" and (told.item or {}).get("type") == "function_call":
            self._told = True
            return self._call(told.item or {}, arguments=None)
        elif kind == "response.function_call_arguments.delta" and told.item_id in self._numbers:
            return self.call(self._numbers[told.item_id], None, None, text) if text else []
        elif kind in ("response.completed", "response.incomplete", "response.failed") and told.response is not None:
            self.ended = True
            return self._take(told.response)
        elif kind == "error":
            error = {"code": told.code, "message": told.message} if told.error is UNSET else told.error
            self.failure = read_stream_error(error, self.headers)
        return []

    def finish(self) -> FinishReason:
        if self._status == "completed":
            return "tool_calls" if self.calls else "stop"
        if self._reason == "max_output_tokens":
            return "length"
        return "content_filter" if self._reason == "content_filter" else "other"

    def state(self) -> Any:
        plain = all(item.get("type") in ("message", "function_call") for item in self._output)
        return None if plain else self._output

    def _take(self, reply: _Reply) -> list[Delta]:
        self._count(reply.usage)
        if reply.error is not None:
            self.failure = read_stream_error(reply.error, self.headers)
            return []
        self._status = reply.status or ""
        self._reason = reply.incomplete_details.reason if reply.incomplete_details else None
        self.begun = reply.output is not None
        self._output = reply.output or []
        if self._told:
            return []
        return [delta for item in self._output for delta in self._item(item)]

    def _item(self, item: dict[str, Any]) -> list[Delta]:
        kind = item.get("type")
        if kind == "function_call":
            return self._call(item, _text(item, "arguments"))
        if kind == "reasoning":
            return [
                delta
                for name in ("summary", "content")
                for part in _parts(item, name)
                for delta in self.think(_text(part, "text"))
            ]
        deltas: list[Delta] = []
        for part in _parts(item, "content") if kind == "message" else []:
            self.refuse(_text(part, "refusal"))
            deltas += self.say(_text(part, "text"))
        return deltas

    def _call(self, item: dict[str, Any], arguments: str | None) -> list[Delta]:
        number = self._numbers[_text(item, "id")] = self.calls
        return self.call(number, _text(item, "call_id"), _text(item, "name"), arguments)

    def _count(self, counts: _Counts | None) -> None:
        if counts is None or counts.input_tokens is None or counts.output_tokens is None:
            return
        asked, answered = amount(counts.input_tokens), amount(counts.output_tokens)
        read = counts.input_tokens_details or _InputDetails()
        self.usage = Usage(
            input_tokens=asked,
            output_tokens=answered,
            total_tokens=amount(asked + answered),
            cache_read_tokens=amount(read.cached_tokens),
            cache_write_tokens=amount(read.cache_write_tokens),
            reasoning_tokens=amount((counts.output_tokens_details or _OutputDetails()).reasoning_tokens),
        )
        if counts.cost_in_usd_ticks is not None:
            self.cost_nano_usd = amount(-(-counts.cost_in_usd_ticks // TICKS_A_NANO_USD))


def _text(item: dict[str, Any], name: str) -> str:
    value = item.get(name)
    return value if isinstance(value, str) else ""


def _parts(item: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = item.get(name)
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []
