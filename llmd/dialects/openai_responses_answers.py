"""What comes back in OpenAI's Responses: a list of items.

A stream tells their pieces and ends with the whole of it in `response.completed`, `.incomplete` or `.failed`. Which
pieces come is each copy's own: what the whole holds and the pieces did not is told at the end. Items are known by their
ids and, where these differ from one event to the next, by their places in the output.
Sources: the provider's API reference and SDK.
"""

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from llmd.chat import Delta, FinishReason, Usage
from llmd.dialects.base import Headers
from llmd.dialects.draft import TICKS_A_NANO_USD, Draft, amount
from llmd.dialects.events import Event


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


class _Piece(Struct):
    delta: Any = None


class _Event(Struct):
    type: str | None = None
    delta: Any = None
    output_index: int | None = None
    item_id: str = ""
    arguments: Any = None
    item: dict[str, Any] | None = None
    response: _Reply | None = None
    error: Any | UnsetType = UNSET
    code: Any = None
    message: str | None = None


_SAID = "response.output_text.delta"
_NAMED = _SAID.encode()
_THOUGHT = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")
_SHOWN = ("summary", "content")  # where an item of reasoning has its texts
_LAST = ("response.completed", "response.incomplete", "response.failed")

_decode_reply = msgspec.json.Decoder(_Reply).decode
_decode_piece = msgspec.json.Decoder(_Piece).decode
_decode_event = msgspec.json.Decoder(_Event).decode


class ResponseDraft(Draft):
    whole_name = "a response"
    part_name = "output"

    def __init__(self, headers: Headers) -> None:
        super().__init__(headers)
        self._status = ""
        self._reason: str | None = None
        self._items: dict[int, dict[str, Any]] = {}  # those that are done, by their places
        self._output: list[dict[str, Any]] = []
        self._numbers: dict[int | str, int] = {}  # of calls: by their places, their ids and those of their items

    def take_body(self, body: bytes) -> None:
        self._take(_decode_reply(body))

    def take(self, event: Event) -> list[Delta]:
        if event.name == _NAMED:  # as nearly every event is
            piece = _decode_piece(event.data).delta
            return self.say(piece) if isinstance(piece, str) else []
        told = _decode_event(event.data)
        kind = told.type or event.name.decode()
        text = told.delta if isinstance(told.delta, str) else None
        if kind == _SAID:
            return self.say(text)
        if kind in _THOUGHT:
            return self.think(text)
        if kind == "response.refusal.delta":
            self.refuse(text)
        elif kind in ("response.output_item.added", "response.output_item.done") and told.item is not None:
            if kind.endswith("done"):
                self._items[len(self._items) if told.output_index is None else told.output_index] = told.item
            if told.item.get("type") == "function_call":
                return self._call(told.item, told.output_index)
        elif kind.startswith("response.function_call_arguments."):
            number = self._number(told.item_id, told.output_index)
            if number is not None and text:
                return self.call(number, None, None, text)
            if number is not None and isinstance(told.arguments, str):
                return self.call_rest(number, told.arguments)
        elif kind in _LAST and told.response is not None:
            self.ended = True
            return self._take(told.response)
        elif kind == "error":
            self.fail({"code": told.code, "message": told.message} if told.error is UNSET else told.error)
        return []

    def finish(self) -> FinishReason:
        if self._status == "completed":
            return "tool_calls" if self.calls else "stop"
        if self._reason == "max_output_tokens":
            return "length"
        return "content_filter" if self._reason == "content_filter" else "other"

    def state(self) -> Any:
        """All of its items, but for thoughts that are kept where nothing is stored, and a call that was cut short."""
        kept = [item for item in self._output if _is_whole(item)]
        plain = all(item.get("type") in ("message", "function_call") for item in kept)
        return None if plain else kept

    def _take(self, reply: _Reply) -> list[Delta]:
        self._count(reply.usage)
        if reply.error is not None:
            self.fail(reply.error)
            return []
        self._status = reply.status or ""
        if self._status in ("failed", "cancelled"):
            self.failure = self.with_cost(self.invalid(f"the provider's response is {self._status}"))
            return []
        self._reason = reply.incomplete_details.reason if reply.incomplete_details else None
        self.begun = reply.output is not None or bool(self._items or self._texts)
        # Some end with no output but what its items have told.
        self._output = reply.output or [item for _, item in sorted(self._items.items())]
        return self._rest()

    def _rest(self) -> list[Delta]:
        """What the output holds that no event has told."""
        thoughts, texts, refusals = "", "", ""
        for item in self._output:
            if item.get("type") == "reasoning":
                thoughts += "".join(_text(part, "text") for name in _SHOWN for part in _parts(item, name))
            elif item.get("type") == "message":
                texts += "".join(_text(part, "text") for part in _parts(item, "content"))
                refusals += "".join(_text(part, "refusal") for part in _parts(item, "content"))
        if refusals:
            self._refusals = [refusals]
        deltas = self.think_rest(thoughts) + self.say_rest(texts)
        for place, item in enumerate(self._output):
            if item.get("type") == "function_call":
                deltas += self._call(item, place)
        return deltas

    def _number(self, *names: int | str | None) -> int | None:
        return next((self._numbers[name] for name in names if name in self._numbers), None)

    def _call(self, item: dict[str, Any], place: int | None) -> list[Delta]:
        """A call as far as this item tells it: begun, or what was not told of it yet."""
        arguments, identifier = _text(item, "arguments"), _text(item, "call_id")
        names = (identifier, place, _text(item, "id"))
        number = self._number(*names)
        if number is not None and (not identifier or self._calls[number].id == identifier):
            return self.call_rest(number, arguments)
        number = self.calls
        self._numbers.update({name: number for name in names if name not in (None, "")})
        return self.call(number, identifier, _text(item, "name"), arguments)

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


def _is_whole(item: dict[str, Any]) -> bool:
    if item.get("type") == "reasoning":
        return bool(item.get("encrypted_content") or item.get("content"))
    return item.get("type") != "function_call" or Draft.arguments(_text(item, "arguments")) is not None
