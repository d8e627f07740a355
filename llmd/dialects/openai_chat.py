"""OpenAI's chat completions, and everyone who copies them.

Requests: `POST {base_url}/chat/completions`. Responses whole or as SSE that ends with `[DONE]`; usage comes last, in a
chunk without choices (OpenAI), on the finish chunk (Mistral, DeepSeek) or under `x_groq`. Reasoning text is
`reasoning` (Groq, OpenRouter) or `reasoning_content` (DeepSeek, xAI, llama.cpp). Sources: the providers' API references
and SDKs.
"""

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from llmd.chat import (
    Chat,
    Delta,
    FilePart,
    FinishReason,
    ImagePart,
    Message,
    NamedTool,
    Relayed,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from llmd.core.rows import Auth, ModelRow
from llmd.dialects.base import NO_HEADERS, Headers, HttpCall, Reader, http_call
from llmd.dialects.draft import TICKS_A_NANO_USD, Draft, amount, nano_usd
from llmd.dialects.events import Event
from llmd.dialects.listing import read_models
from llmd.dialects.reading import reader
from llmd.dialects.refusals import read_stream_error

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class OpenAIChat:
    auth: Auth = "bearer"
    models = "/models"
    models_headers = NO_HEADERS
    read_models = staticmethod(read_models)

    def request(self, chat: Chat, row: ModelRow, max_tokens: int | None, stream: bool) -> HttpCall:
        dropped: list[str] = []
        body: dict[str, Any] = {
            "model": row.model,
            "messages": [m for turn in chat.turns for m in _messages(turn)],
        }
        if max_tokens is not None:
            body[row.max_tokens_name] = max_tokens
        for name in ("temperature", "top_p", "stop", "seed"):
            if (value := getattr(chat, name)) is not None:
                body[name] = value
        if chat.reasoning is not None:
            if chat.reasoning.effort is not None:
                body["reasoning_effort"] = chat.reasoning.effort
            else:
                dropped.append("reasoning")  # this dialect has efforts, not amounts
        if chat.tools is not None:
            body["tools"] = [{"type": "function", "function": tool} for tool in chat.tools]
        if chat.tool_choice is not None:
            body["tool_choice"] = _tool_choice(chat.tool_choice)
        if (form := chat.response_format) is not None:
            schema = {"name": form.name, "schema": form.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if isinstance(chat, Relayed):
            body = {**chat.more, **body}
        if stream:
            body["stream"] = True
            if row.stream_usage:
                body["stream_options"] = {"include_usage": True}
        return http_call(row, "/chat/completions", body, stream, dropped)

    def reader(self, call: HttpCall, status: int, headers: Headers) -> Reader:
        return reader(_Chat(headers), status, headers)

    def count(self, call: HttpCall) -> HttpCall | None:
        return None


def _tool_choice(choice: str | NamedTool) -> Any:
    return choice if isinstance(choice, str) else {"type": "function", "function": {"name": choice.name}}


def _messages(turn: Message) -> list[dict[str, Any]]:
    """One turn of ours is one message of theirs, but that each tool result is a message of its own."""
    if isinstance(turn.content, str):
        return [{"role": turn.role, "content": turn.content}]
    results = [
        {"role": "tool", "tool_call_id": part.id, "content": part.content}
        for part in turn.content
        if isinstance(part, ToolResultPart)
    ]
    calls = [
        {
            "id": part.id,
            "type": "function",
            "function": {"name": part.name, "arguments": msgspec.json.encode(part.arguments).decode()},
        }
        for part in turn.content
        if isinstance(part, ToolCallPart)
    ]
    content = [shown for part in turn.content if (shown := _part(part)) is not None]
    message: dict[str, Any] = {"role": turn.role}
    if content:
        texts = all(isinstance(part, TextPart) for part in turn.content if _part(part) is not None)
        message["content"] = turn.text if texts else content
    if calls:
        message.setdefault("content", None)
        message["tool_calls"] = calls
    return [*results, message] if len(message) > 1 else results


def _part(part: Any) -> dict[str, Any] | None:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, ImagePart):
        return {"type": "image_url", "image_url": {"url": f"data:{part.media_type};base64,{part.data}"}}
    if isinstance(part, FilePart):
        data = f"data:{part.media_type};base64,{part.data}"
        return {"type": "file", "file": {"filename": "file", "file_data": data}}
    return None


# -- what comes back ------------------------------------------------------------------------------------------------


class _Details(Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    prompt_cache_hit_tokens: int | None = None  # DeepSeek
    num_cached_tokens: int | None = None  # Mistral
    cost: Any = None  # USD; OpenRouter's a number, Perplexity's an object
    cost_in_usd_ticks: int | None = None  # xAI

    @property
    def cached(self) -> int:
        details = self.prompt_tokens_details or _Details()
        return amount(details.cached_tokens or self.prompt_cache_hit_tokens or self.num_cached_tokens)


class _Function(Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _ToolCall(Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Said(Struct):
    """A message, or a delta of one. `content` is a list of parts at Mistral."""

    content: str | list[Any] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(Struct):
    index: int | None = None
    message: _Said | None = None
    delta: _Said | None = None
    finish_reason: str | None = None


class _Groq(Struct):
    usage: _Usage | None = None


class _Reply(Struct):
    """A whole response, or one chunk of a stream."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    x_groq: _Groq | None = None
    error: Any | UnsetType = UNSET


_decode_reply = msgspec.json.Decoder(_Reply).decode


class _Chat(Draft):
    whole_name = "a chat completion"
    part_name = "choice"

    def __init__(self, headers: Headers) -> None:
        super().__init__(headers)
        self._finish: str | None = None

    def take(self, event: Event) -> list[Delta]:
        if event.data.strip() == b"[DONE]":
            self.ended = True
            return []
        return self._take(_decode_reply(event.data))

    def take_body(self, body: bytes) -> None:
        self._take(_decode_reply(body))

    def may_end(self) -> bool:
        # A proxy may eat [DONE]; a finish reason and the usage behind it are an end too.
        return self.ended or (self._finish is not None and self.usage is not None)

    def finish(self) -> FinishReason:
        if self.calls and self._finish in ("stop", "", None):
            return "tool_calls"  # some copies say "stop", or nothing, behind tool calls
        return _FINISH.get(self._finish or "", "other")

    def _take(self, reply: _Reply) -> list[Delta]:
        usage = reply.usage or (reply.x_groq.usage if reply.x_groq else None)
        if usage is not None:
            self.usage = _usage(usage)
            self.cost_nano_usd = _cost(usage)
        if reply.error is not UNSET and reply.error is not None:
            self.failure = read_stream_error(reply.error, self.headers)
            if usage is not None:  # told with the error, it is what the call has cost
                self.failure = replace(self.failure, usage=self.usage, cost_nano_usd=self.cost_nano_usd)
            return []
        deltas: list[Delta] = []
        for choice in reply.choices or []:
            if choice.index:
                continue  # of several that were asked for, the first
            self.begun = True
            self._finish = choice.finish_reason or self._finish
            said = choice.message or choice.delta  # Perplexity sends an empty delta beside the message
            if said is not None:
                deltas += self._say(said)
        return deltas

    def _say(self, said: _Said) -> list[Delta]:
        text, thought = _split_content(said.content)
        self.refuse(said.refusal)
        deltas = self.think((said.reasoning or said.reasoning_content or "") + thought) + self.say(text)
        for call in said.tool_calls or []:
            # A copy may leave the index out: then an id begins a call, and what has none goes on with the last.
            index = call.index
            if index is None:
                index = self.calls if call.id or not self.calls else self.last_call
            function = call.function or _Function()
            deltas += self.call(index, call.id, function.name, function.arguments)
        return deltas


def _split_content(content: str | list[Any] | None) -> tuple[str, str]:
    """Text and thoughts of a content that is text, or Mistral's list of parts."""
    if content is None or isinstance(content, str):
        return content or "", ""
    text, thoughts = "", ""
    for part in content:
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            text += part["text"]
        elif isinstance(part, dict) and isinstance(part.get("thinking"), list):
            thoughts += _split_content(part["thinking"])[0]
    return text, thoughts


def _cost(usage: _Usage) -> int | None:
    if usage.cost_in_usd_ticks is not None:
        return amount(-(-usage.cost_in_usd_ticks // TICKS_A_NANO_USD))
    return nano_usd(usage.cost.get("total_cost") if isinstance(usage.cost, dict) else usage.cost)


def _usage(usage: _Usage) -> Usage | None:
    """Usage in llmd's arithmetic; None where the provider told half of it, or zeros for a call that it served."""
    if min(-1 if count is None else count for count in (usage.prompt_tokens, usage.completion_tokens)) < 0:
        return None
    asked, answered = amount(usage.prompt_tokens), amount(usage.completion_tokens)
    if asked + answered == 0:
        return None
    thought = amount((usage.completion_tokens_details or _Details()).reasoning_tokens)
    if usage.total_tokens is not None and usage.total_tokens == asked + answered + thought:
        answered = amount(answered + thought)  # xAI counts reasoning beside the completion, as its total says
    return Usage(
        input_tokens=asked,
        output_tokens=answered,
        total_tokens=amount(asked + answered),
        cache_read_tokens=usage.cached,
        reasoning_tokens=thought,
    )
