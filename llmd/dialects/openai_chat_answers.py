"""What comes back of a chat completion in OpenAI's words, and in those of everyone who copies them.

Whole or as SSE that ends with `[DONE]`; usage comes last, in a chunk without choices (OpenAI), on the finish chunk
(Mistral, DeepSeek) or under `x_groq`. Reasoning text is `reasoning` (Groq, OpenRouter) or `reasoning_content`
(DeepSeek, xAI, llama.cpp). Wanted back are OpenRouter's `reasoning_details`, the `extra_content` of Gemini's compatible
endpoint, and DeepSeek's `reasoning_content` where it called tools. Sources: the providers' API references and SDKs.
"""

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from llmd.chat import Delta, FinishReason, Usage
from llmd.dialects.base import Headers
from llmd.dialects.draft import TICKS_A_NANO_USD, Draft, amount, nano_usd
from llmd.dialects.events import Event

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class _Details(Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None  # OpenRouter
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
    extra_content: Any = None  # of Gemini's compatible endpoint


class _Said(Struct):
    """A message, or a delta of one. `content` is a list of parts at Mistral."""

    content: str | list[Any] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    reasoning_details: list[Any] | None = None  # OpenRouter
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    extra_content: Any = None


class _Choice(Struct):
    index: int | None = None
    message: _Said | None = None
    delta: _Said | None = None
    finish_reason: str | None = None
    error: Any = None  # OpenRouter


class _Groq(Struct):
    usage: _Usage | None = None


class _Reply(Struct):
    """A whole response, or one chunk of a stream."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    x_groq: _Groq | None = None
    error: Any | UnsetType = UNSET


_decode_reply = msgspec.json.Decoder(_Reply).decode


class ChatDraft(Draft):
    whole_name = "a chat completion"
    part_name = "choice"

    def __init__(self, headers: Headers) -> None:
        super().__init__(headers)
        self._finish: str | None = None
        self._numbers: dict[int | None, int] = {}  # of calls, by their latest index on the wire
        self._details: list[Any] = []
        self._thoughts: list[str] = []  # those that came as `reasoning_content`
        self._extra: Any = None
        self._extras: dict[int, Any] = {}  # of calls, by their numbers

    def take(self, event: Event) -> list[Delta]:
        if event.data.strip() == b"[DONE]":
            self.ended = True
            return []
        return self._take(_decode_reply(event.data), whole=False)

    def take_body(self, body: bytes) -> None:
        self._take(_decode_reply(body), whole=True)

    def may_end(self) -> bool:
        # A proxy may eat [DONE]; a finish reason and the usage behind it are an end too.
        return self.ended or (self._finish is not None and self.usage is not None)

    def finish(self) -> FinishReason:
        if self.calls and self._finish in ("stop", "", None):
            return "tool_calls"  # some copies say "stop", or nothing, behind tool calls
        return _FINISH.get(self._finish or "", "other")

    def state(self) -> Any:
        """Members of the assistant's message, those of its calls by the calls' ids."""
        calls = [{"id": self.id_of(number), "extra_content": extra} for number, extra in self._extras.items()]
        wanted = {
            "reasoning_details": self._details,
            "reasoning_content": "".join(self._thoughts) if self.calls else None,
            "extra_content": self._extra,
            "tool_calls": calls,
        }
        return {name: value for name, value in wanted.items() if value} or None

    def _take(self, reply: _Reply, whole: bool) -> list[Delta]:
        usage = reply.usage or (reply.x_groq.usage if reply.x_groq else None)
        if usage is not None:
            self.usage = _usage(usage)
            self.cost_nano_usd = _cost(usage)
        if reply.error is not UNSET and reply.error is not None:
            return self._failed(reply.error, usage)
        deltas: list[Delta] = []
        for choice in reply.choices or ():
            if choice.index:
                continue  # of several that were asked for, the first
            if choice.error is not None or choice.finish_reason == "error":
                return self._failed(choice.error or {}, usage)
            self.begun = True
            self._finish = choice.finish_reason or self._finish
            deltas += self._choice(choice, whole)
        return deltas

    def _failed(self, error: Any, usage: _Usage | None) -> list[Delta]:
        if usage is None:  # what chunks before this one told is not what the whole has cost
            self.usage = self.cost_nano_usd = None
        self.fail(error)
        return []

    def _choice(self, choice: _Choice, whole: bool) -> list[Delta]:
        # Perplexity sends both: an empty delta beside the message of a body, all of the text so far beside a delta.
        if whole or choice.delta is None:
            said = choice.message or choice.delta
            return [] if said is None else self._say(said, whole)
        deltas = self._say(choice.delta, whole)
        if choice.message is not None and choice.finish_reason:
            deltas += self.say_rest(_split_content(choice.message.content)[0])
        return deltas

    def _say(self, said: _Said, whole: bool) -> list[Delta]:
        text, thought = _split_content(said.content)
        self.refuse(said.refusal)
        if said.reasoning_content:
            self._thoughts.append(said.reasoning_content)
        for detail in said.reasoning_details or ():
            _append(self._details, detail)
        if said.extra_content is not None:
            self._extra = said.extra_content
        deltas = self.think((said.reasoning or said.reasoning_content or "") + thought) + self.say(text)
        for call in said.tool_calls or ():
            function = call.function or _Function()
            number = self.calls if whole else self._number(call)
            deltas += self.call(number, call.id, function.name, function.arguments)
            if call.extra_content is not None:
                self._extras[number] = call.extra_content
        return deltas

    def _number(self, call: _ToolCall) -> int:
        """Which of our calls this piece belongs to. A copy may leave the index out, or say 0 of all of them: then an
        id that is new begins a call, and what has none goes on with the last."""
        number = self._numbers.get(call.index)
        if number is None and call.index is None and not call.id and self.calls:
            number = self.last_call
        if number is None or (call.id and self._calls[number].id not in ("", call.id)):
            number = self.calls
        self._numbers[call.index] = number
        return number


def _append(details: list[Any], detail: Any) -> None:
    """A piece of `reasoning_details`: texts and summaries of one index are put together, as OpenRouter does."""
    last = details[-1] if details else None
    if not (isinstance(last, dict) and isinstance(detail, dict) and _alike(last, detail)):
        details.append(detail)
        return
    for name, value in detail.items():
        if name in ("text", "summary") and isinstance(value, str) and isinstance(last.get(name), str):
            last[name] += value
        elif value is not None:
            last[name] = value


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    same = all(one.get(name) == other.get(name) for name in ("type", "index"))
    return same and one.get("type") in ("reasoning.text", "reasoning.summary")


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
        cache_write_tokens=amount((usage.prompt_tokens_details or _Details()).cache_write_tokens),
        reasoning_tokens=thought,
    )
