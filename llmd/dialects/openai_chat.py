"""OpenAI's chat completions, and everyone who copies them.

Requests: `POST {base_url}/chat/completions`. Responses whole or as SSE that ends with `[DONE]`; usage comes last, in a
chunk without choices (OpenAI), on the finish chunk (Mistral, DeepSeek) or under `x_groq`. Reasoning text is
`reasoning` (Groq, OpenRouter) or `reasoning_content` (DeepSeek, xAI, llama.cpp). Sources: the providers' API references
and SDKs.
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
    TextPart,
    ToolCall,
    ToolCallDelta,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from llmd.core.rows import ModelRow
from llmd.dialects.base import Answer, Failure, Headers, HttpCall, Outcome
from llmd.dialects.openai_errors import read_error, read_stream_error, request_id
from llmd.dialects.sse import SSEDecoder
from llmd.scalars import AMOUNT_MAX

ERROR_BYTES_MAX = 2**20

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class OpenAIChat:
    auth_header = "authorization"
    auth_prefix = "Bearer "

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
        if stream:
            body["stream"] = True
            if row.stream_usage:
                body["stream_options"] = {"include_usage": True}
        return HttpCall(
            row=row,
            url=row.base_url.rstrip("/") + "/chat/completions",
            headers={
                "content-type": "application/json",
                "accept": "text/event-stream" if stream else "application/json",
            },
            body=msgspec.json.encode(body),
            stream=stream,
            dropped=dropped,
        )

    def reader(self, call: HttpCall, status: int, headers: Headers) -> "ErrorReader | BodyReader | StreamReader":
        if status != 200:
            return ErrorReader(status, headers)
        if headers.get("content-type", "").lower().startswith("text/event-stream"):
            return StreamReader(headers)
        return BodyReader(headers)


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

    @property
    def cached(self) -> int:
        details = self.prompt_tokens_details or _Details()
        return _amount(details.cached_tokens or self.prompt_cache_hit_tokens or self.num_cached_tokens)


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


def _invalid(message: str, headers: Headers, usage: Usage | None = None) -> Failure:
    return Failure(
        kind="upstream_invalid", message=message, http_status=200, request_id=request_id(headers), usage=usage
    )


class ErrorReader:
    """Collects the body behind an error status."""

    whole = False

    def __init__(self, status: int, headers: Headers) -> None:
        self._status = status
        self._headers = headers
        self._body = bytearray()

    def feed(self, data: bytes) -> list[Delta]:
        self._body += data[: max(0, ERROR_BYTES_MAX - len(self._body))]
        return []

    def end(self, cut: bool) -> Outcome:
        return read_error(self._status, self._headers, bytes(self._body))


class _Assembly:
    """The answer so far, put together from messages or deltas."""

    def __init__(self, headers: Headers) -> None:
        self.headers = headers
        self.failure: Failure | None = None
        self.chosen = False  # whether anything of an answer has come
        self.finish: str | None = None
        self.usage: Usage | None = None
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._refusals: list[str] = []
        self._calls: dict[int, _PartialCall] = {}

    def take(self, reply: _Reply) -> list[Delta]:
        if reply.error is not UNSET and reply.error is not None:
            self.failure = read_stream_error(reply.error, self.headers)
            return []
        usage = reply.usage or (reply.x_groq.usage if reply.x_groq else None)
        if usage is not None:
            self.usage = _usage(usage)
        deltas: list[Delta] = []
        for choice in reply.choices or []:
            if choice.index:
                continue  # of several that were asked for, the first
            self.chosen = True
            self.finish = choice.finish_reason or self.finish
            said = choice.message or choice.delta  # Perplexity sends an empty delta beside the message
            if said is not None:
                deltas += self._say(said)
        return deltas

    def _say(self, said: _Said) -> list[Delta]:
        deltas: list[Delta] = []
        text, thought = _split_content(said.content)
        reasoning = (said.reasoning or said.reasoning_content or "") + thought
        if reasoning:
            self._reasoning.append(reasoning)
            deltas.append(Delta(reasoning=reasoning))
        if said.refusal:
            self._refusals.append(said.refusal)
        if text:
            self._texts.append(text)
            deltas.append(Delta(text=text))
        return deltas + [Delta(tool_call=self._call(call)) for call in said.tool_calls or []]

    def _call(self, call: _ToolCall) -> ToolCallDelta:
        # A copy may leave the index out: then an id begins a call, and what has none goes on with the last.
        index = call.index
        if index is None:
            index = len(self._calls) if call.id or not self._calls else max(self._calls)
        first = index not in self._calls
        known = self._calls.setdefault(index, _PartialCall())
        function = call.function or _Function()
        arguments = function.arguments or ""
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        known.id = call.id or known.id
        known.name = function.name or known.name
        known.arguments.append(arguments)
        return ToolCallDelta(
            index=index,
            id=known.id if first and known.id else UNSET,
            name=known.name if first and known.name else UNSET,
            arguments=arguments if arguments else UNSET,
        )

    def outcome(self) -> Outcome:
        if self.failure is not None:
            return self.failure
        calls = []
        for index, partial in sorted(self._calls.items()):
            arguments = _arguments("".join(partial.arguments))
            if arguments is None:
                return _invalid("the model's tool call has arguments that are not JSON", self.headers, self.usage)
            calls.append(ToolCall(partial.id or f"call_{index}", partial.name, arguments))
        finish: FinishReason = _FINISH.get(self.finish or "", "other")
        if self._refusals:
            finish = "refusal"
        elif calls and self.finish in ("stop", "", None):
            finish = "tool_calls"  # some copies say "stop", or nothing, behind tool calls
        return Answer(
            text="".join(self._texts),
            finish_reason=finish,
            tool_calls=calls,
            reasoning="".join(self._reasoning) or None,
            refusal="".join(self._refusals) or None,
            usage=self.usage,
            request_id=request_id(self.headers),
        )


class _PartialCall(Struct):
    id: str = ""
    name: str = ""
    arguments: list[str] = []


class BodyReader:
    """Reads one JSON body."""

    whole = False  # which only the end of the response can tell

    def __init__(self, headers: Headers) -> None:
        self._assembly = _Assembly(headers)
        self._body = bytearray()

    def feed(self, data: bytes) -> list[Delta]:
        self._body += data
        return []

    def end(self, cut: bool) -> Outcome:
        headers = self._assembly.headers
        if cut:
            return _invalid("the provider's answer broke off before its end", headers)
        try:
            reply = _decode_reply(self._body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _invalid("the provider's answer is not a chat completion", headers)
        self._assembly.take(reply)
        if self._assembly.failure is None and not self._assembly.chosen:
            return _invalid("the provider's answer holds no choice", headers, self._assembly.usage)
        return self._assembly.outcome()


class StreamReader:
    """Reads a stream of chunks, which is whole only when its end mark has come."""

    def __init__(self, headers: Headers) -> None:
        self._assembly = _Assembly(headers)
        self._events = SSEDecoder()
        self._done = False

    def feed(self, data: bytes) -> list[Delta]:
        deltas: list[Delta] = []
        for event in self._events.feed(data):
            deltas += self._event(event.data)
        return deltas

    def _event(self, data: bytes) -> list[Delta]:
        if self._done or self._assembly.failure is not None:
            return []
        if data.strip() == b"[DONE]":
            self._done = True
            return []
        try:
            return self._assembly.take(_decode_reply(data))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # Usage told so far, as some tell it with every chunk, is not what the whole will cost.
            self._assembly.failure = _invalid("the provider's stream holds what is not a chunk", self._assembly.headers)
            return []

    @property
    def whole(self) -> bool:
        return self._done

    def end(self, cut: bool) -> Outcome:
        assembly = self._assembly
        for event in self._events.end():
            self._event(event.data)
        # A proxy may eat [DONE]; a finish reason and the usage behind it are an end too.
        whole = self._done or (assembly.finish is not None and assembly.usage is not None)
        if assembly.failure is None and not whole:
            return _invalid("the provider's stream broke off before its end", assembly.headers)
        if assembly.failure is None and not assembly.chosen:
            return _invalid("the provider's stream holds no choice", assembly.headers, assembly.usage)
        return assembly.outcome()


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


def _arguments(text: str) -> dict[str, Any] | None:
    if not text.strip():
        return {}
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _usage(usage: _Usage) -> Usage | None:
    """Usage in llmd's arithmetic; None where the provider told half of it, or zeros for a call that it served."""
    if min(-1 if count is None else count for count in (usage.prompt_tokens, usage.completion_tokens)) < 0:
        return None
    asked, answered = _amount(usage.prompt_tokens), _amount(usage.completion_tokens)
    if asked + answered == 0:
        return None
    thought = _amount((usage.completion_tokens_details or _Details()).reasoning_tokens)
    if usage.total_tokens is not None and usage.total_tokens == asked + answered + thought:
        answered = _amount(answered + thought)  # xAI counts reasoning beside the completion, as its total says
    return Usage(
        input_tokens=asked,
        output_tokens=answered,
        total_tokens=_amount(asked + answered),
        cache_read_tokens=usage.cached,
        reasoning_tokens=thought,
    )


def _amount(tokens: int | None) -> int:
    """A count as a provider tells it, within what llmd may say."""
    return min(max(0, tokens or 0), AMOUNT_MAX)
