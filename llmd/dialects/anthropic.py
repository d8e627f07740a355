"""Anthropic's messages.

Requests: `POST {base_url}/messages`. Responses whole or as named SSE events that end with `message_stop`; the usage of
`message_delta` is cumulative, and may leave out what `message_start` has told. What the model thought is signed and
wanted back unchanged, so a turn with more in it than text and tool calls is carried as it came. Sources: the
provider's API reference and SDK.
"""

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from llmd.chat import Chat, Delta, FinishReason, NamedTool, Usage
from llmd.core.rows import Auth, ModelRow
from llmd.dialects.anthropic_reasoning import sampling, thinking, thinks
from llmd.dialects.anthropic_turns import messages
from llmd.dialects.base import Headers, HttpCall, Reader, http_call
from llmd.dialects.counting import asking, members
from llmd.dialects.draft import Draft, amount
from llmd.dialects.events import Event
from llmd.dialects.listing import read_models
from llmd.dialects.reading import reader
from llmd.dialects.refusals import read_stream_error

VERSION = "2023-06-01"
_VERSIONED: Headers = {"anthropic-version": VERSION}
MAX_TOKENS = 4096  # of a request that names no limit, to a model whose own is not known: every model has as many

_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "refusal",
}
_READ = ("model", "system", "messages", "tools", "tool_choice", "thinking", "output_config")
_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


class Anthropic:
    auth: Auth = "x-api-key"
    models = "/models?limit=1000"
    models_headers = _VERSIONED
    read_models = staticmethod(read_models)

    def request(self, chat: Chat, row: ModelRow, max_tokens: int | None, stream: bool) -> HttpCall:
        dropped: list[str] = []
        limit = max_tokens or row.max_output_tokens or MAX_TOKENS
        body: dict[str, Any] = {
            "model": row.model,
            "max_tokens": limit,
            "messages": messages(chat, row.provider, dropped),
        }
        if system := "\n\n".join(turn.text for turn in chat.turns if turn.role == "system"):
            body["system"] = system
        told, effort = thinking(chat, row, limit, dropped)
        if told is not None:
            body["thinking"] = told
        body |= sampling(chat, thinks(told), dropped)
        if chat.stop is not None:
            body["stop_sequences"] = [chat.stop] if isinstance(chat.stop, str) else chat.stop
        if chat.seed is not None:
            dropped.append("seed")
        if chat.tools is not None:
            body["tools"] = [
                {"name": tool.name, "input_schema": tool.parameters}
                | ({} if tool.description is None else {"description": tool.description})
                for tool in chat.tools
            ]
        if (choice := chat.tool_choice) is not None:
            body["tool_choice"] = (
                {"type": "tool", "name": choice.name} if isinstance(choice, NamedTool) else {"type": _CHOICES[choice]}
            )
        output: dict[str, Any] = {} if effort is None else {"effort": effort}
        if (form := chat.response_format) is not None:
            output["format"] = {"type": "json_schema", "schema": form.schema}
        if output:
            body["output_config"] = output
        if stream:
            body["stream"] = True
        return http_call(row, "/messages", body, stream, dropped, more=_VERSIONED)

    def reader(self, call: HttpCall, status: int, headers: Headers) -> Reader:
        return reader(_Draft(headers), status, headers)

    def count(self, call: HttpCall) -> HttpCall | None:
        return asking(call, call.url + "/count_tokens", members(call, _READ))


# -- what comes back ------------------------------------------------------------------------------------------------


class _OutputDetails(Struct):
    thinking_tokens: int | None = None


class _Usage(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class _Reply(Struct):
    """A whole message."""

    content: list[dict[str, Any]] | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None
    error: Any | UnsetType = UNSET


class _Piece(Struct):
    """What a block goes on with, or what a message ends with."""

    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    citation: Any = None
    stop_reason: str | None = None


class _Event(Struct):
    type: str | None = None
    index: int = 0
    message: _Reply | None = None
    content_block: dict[str, Any] | None = None
    delta: _Piece | None = None
    usage: _Usage | None = None
    error: Any | UnsetType = UNSET


_decode_reply = msgspec.json.Decoder(_Reply).decode
_decode_event = msgspec.json.Decoder(_Event).decode


class _Draft(Draft):
    whole_name = "a message"
    part_name = "message"

    def __init__(self, headers: Headers) -> None:
        super().__init__(headers)
        self._stop: str | None = None
        self._counts: dict[str, int] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._pieces: dict[tuple[int, str], list[str]] = {}  # of a block's member, as they have come
        self._numbers: dict[int, int] = {}  # of the blocks that are tool calls, among those

    def take_body(self, body: bytes) -> None:
        reply = _decode_reply(body)
        if reply.error is not UNSET and reply.error is not None:
            self.failure = read_stream_error(reply.error, self.headers)
            return
        self._begin(reply)
        for index, block in enumerate(reply.content or []):
            self._start(index, block)

    def take(self, event: Event) -> list[Delta]:
        told = _decode_event(event.data)
        kind = told.type or event.name.decode()
        if kind == "content_block_delta" and told.delta is not None:
            return self._go_on(told.index, told.delta)
        if kind == "content_block_start" and told.content_block is not None:
            return self._start(told.index, told.content_block)
        if kind == "error":
            self.failure = read_stream_error(None if told.error is UNSET else told.error, self.headers)
        elif kind == "message_start" and told.message is not None:
            self._begin(told.message)
        elif kind == "message_delta":
            self._stop = (told.delta.stop_reason if told.delta else None) or self._stop
            self._count(told.usage)
        elif kind == "message_stop":
            self.ended = True
        return []

    def finish(self) -> FinishReason:
        return _FINISH.get(self._stop or "", "other")

    def state(self) -> Any:
        blocks = [block for _, block in sorted(self._blocks.items())]
        if all(block.get("type") in ("text", "tool_use") for block in blocks):
            return None
        for (index, name), pieces in self._pieces.items():
            block, text = self._blocks[index], "".join(pieces)
            block[name] = self.arguments(text) or {} if name == "input" else _text(block, name) + text
        return blocks

    def _begin(self, reply: _Reply) -> None:
        self.begun = reply.content is not None
        self._stop = reply.stop_reason
        self._count(reply.usage)

    def _start(self, index: int, block: dict[str, Any]) -> list[Delta]:
        self._blocks[index] = block
        kind = block.get("type")
        if kind == "text":
            return self.say(_text(block, "text"))
        if kind == "thinking":
            return self.think(_text(block, "thinking"))
        if kind == "tool_use":
            given = block.get("input")
            arguments = given if isinstance(given, dict) and given else None
            number = self._numbers[index] = self.calls
            return self.call(number, _text(block, "id"), _text(block, "name"), arguments)
        return []

    def _go_on(self, index: int, piece: _Piece) -> list[Delta]:
        if index not in self._blocks:
            self._blocks[index] = {"type": "text", "text": ""}
        if piece.text is not None:
            self._keep(index, "text", piece.text)
            return self.say(piece.text)
        if piece.thinking is not None:
            self._keep(index, "thinking", piece.thinking)
            return self.think(piece.thinking)
        if piece.signature is not None:
            self._keep(index, "signature", piece.signature)
        elif piece.partial_json is not None:
            self._keep(index, "input", piece.partial_json)
            if index in self._numbers and piece.partial_json:
                return self.call(self._numbers[index], None, None, piece.partial_json)
        elif piece.citation is not None:
            block = self._blocks[index]
            known = block.get("citations")
            block["citations"] = [*(known if isinstance(known, list) else []), piece.citation]
        return []

    def _keep(self, index: int, name: str, piece: str) -> None:
        self._pieces.setdefault((index, name), []).append(piece)

    def _count(self, usage: _Usage | None) -> None:
        """Counts are cumulative; those that are not told again stay."""
        if usage is None:
            return
        told = {
            "asked": usage.input_tokens,
            "answered": usage.output_tokens,
            "read": usage.cache_read_input_tokens,
            "written": usage.cache_creation_input_tokens,
            "thought": usage.output_tokens_details.thinking_tokens if usage.output_tokens_details else None,
        }
        self._counts |= {name: amount(count) for name, count in told.items() if count is not None}
        counts = self._counts
        if "asked" not in counts or "answered" not in counts:
            return
        read, written = counts.get("read", 0), counts.get("written", 0)
        asked = amount(counts["asked"] + read + written)
        self.usage = Usage(
            input_tokens=asked,
            output_tokens=counts["answered"],
            total_tokens=amount(asked + counts["answered"]),
            cache_read_tokens=read,
            cache_write_tokens=written,
            reasoning_tokens=counts.get("thought", 0),
        )


def _text(block: dict[str, Any], name: str) -> str:
    value = block.get(name)
    return value if isinstance(value, str) else ""
