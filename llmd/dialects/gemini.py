"""Google's Gemini, as its own API and Vertex have it.

Requests: `POST {base_url}/models/{model}:generateContent`, or `:streamGenerateContent?alt=sse`. A stream is made of the
same objects as a whole answer and ends with its bytes, behind a finish reason; every one of them tells the usage so
far. Thoughts are counted beside the candidates, and signed: a turn with a signature is carried as it came, and so is
one with a function call that has an id. Sources: the provider's API reference and SDKs.
"""

from itertools import groupby
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Struct, UnsetType

from llmd.chat import Chat, Delta, FinishReason, NamedTool, Reasoning, Usage
from llmd.core.outcomes import Outcome
from llmd.core.rows import Auth, ModelRow
from llmd.dialects.base import NO_HEADERS, Headers, HttpCall, Reader, http_call
from llmd.dialects.counting import asking
from llmd.dialects.draft import Draft, amount
from llmd.dialects.events import Event
from llmd.dialects.gemini_turns import contents, identifier
from llmd.dialects.listing import read_gemini_models
from llmd.dialects.reading import reader
from llmd.dialects.refusals import read_stream_error

_FINISH: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"), "content_filter"),
}
_NUMBERED: dict[int, str] = {
    1: "STOP",
    2: "MAX_TOKENS",
    3: "SAFETY",
    4: "RECITATION",
    7: "BLOCKLIST",
    8: "SPII",
}
"""What an endpoint means that was asked for numbers, where the Gemini API and Vertex mean the same by them.

From 6 on the numbers differ: 7 and 8 are filters in both, but 9 is SPII in one, MALFORMED_FUNCTION_CALL in the other.
Sources: the enums FinishReason of google.ai.generativelanguage.v1beta and google.cloud.aiplatform.v1.
"""

_BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 24_576}
_LEVELS = ("minimal", "low", "medium", "high")
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


class Gemini:
    auth: Auth = "x-goog-api-key"
    models = "/models?pageSize=1000"
    models_headers = NO_HEADERS
    read_models = staticmethod(read_gemini_models)

    def request(self, chat: Chat, row: ModelRow, max_tokens: int | None, stream: bool) -> HttpCall:
        dropped: list[str] = []
        body: dict[str, Any] = {"contents": contents(chat, row.provider)}
        if system := "\n\n".join(turn.text for turn in chat.turns if turn.role == "system"):
            body["systemInstruction"] = {"parts": [{"text": system}]}
        if config := _generation(chat, row, max_tokens, dropped):
            body["generationConfig"] = config
        if chat.tools is not None:
            body["tools"] = [
                {
                    "functionDeclarations": [
                        {"name": tool.name, "parametersJsonSchema": tool.parameters}
                        | ({} if tool.description is None else {"description": tool.description})
                        for tool in chat.tools
                    ]
                }
            ]
        if (choice := chat.tool_choice) is not None:
            calling = (
                {"mode": "ANY", "allowedFunctionNames": [choice.name]}
                if isinstance(choice, NamedTool)
                else {"mode": _MODES[choice]}
            )
            body["toolConfig"] = {"functionCallingConfig": calling}
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return http_call(row, f"/models/{quote(row.model, safe='')}:{method}", body, stream, dropped)

    def reader(self, call: HttpCall, status: int, headers: Headers) -> Reader:
        return reader(_Draft(headers), status, headers)

    def count(self, call: HttpCall) -> HttpCall | None:
        model = f"models/{call.row.model}"
        request = {"model": model, **msgspec.json.decode(call.body)}
        url = f"{call.url.rpartition(':')[0]}:countTokens"
        return asking(call, url, {"generateContentRequest": request})


def _generation(chat: Chat, row: ModelRow, max_tokens: int | None, dropped: list[str]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "maxOutputTokens": max_tokens,
        "temperature": chat.temperature,
        "topP": chat.top_p,
        "stopSequences": [chat.stop] if isinstance(chat.stop, str) else chat.stop,
        "seed": chat.seed,
    }
    if chat.seed is not None and not -(2**31) <= chat.seed < 2**31:
        config["seed"] = None
        dropped.append("seed")
    if chat.response_format is not None:
        config |= {"responseMimeType": "application/json", "responseJsonSchema": chat.response_format.schema}
    if chat.reasoning is not None:
        config["thinkingConfig"] = _thinking(chat.reasoning, row)
    return {name: value for name, value in config.items() if value is not None}


def _thinking(reasoning: Reasoning, row: ModelRow) -> dict[str, Any]:
    if reasoning.effort is not None and row.reasoning != "tokens":  # the older models think by the token
        level = row.reasoning_limits.effort(reasoning.effort, _LEVELS)
        return {"thinkingLevel": level, "includeThoughts": True}
    wanted = reasoning.tokens if reasoning.effort is None else _BUDGETS[reasoning.effort]
    budget = row.reasoning_limits.tokens(wanted or 0)
    # "include_thoughts is only enabled when thinking is enabled", says Vertex.
    return {"thinkingBudget": budget, **({"includeThoughts": True} if budget else {})}


# -- what comes back ------------------------------------------------------------------------------------------------


class _Content(Struct):
    parts: list[dict[str, Any]] | None = None


class _Candidate(Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | int | None = None
    index: int | None = None


class _Feedback(Struct, rename="camel"):
    block_reason: str | int | None = None


class _Counts(Struct, rename="camel"):
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    cached_content_token_count: int | None = None


class _Reply(Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Counts | None = None
    response_id: str | None = None
    error: Any | UnsetType = UNSET


_decode_reply = msgspec.json.Decoder(_Reply).decode
_decode_replies = msgspec.json.Decoder(list[_Reply] | _Reply).decode


class _Draft(Draft):
    whole_name = "a generated content"
    part_name = "candidate"

    def __init__(self, headers: Headers) -> None:
        super().__init__(headers)
        self._finish: str | None = None
        self._parts: list[dict[str, Any]] = []

    def take_body(self, body: bytes) -> None:
        replies = _decode_replies(body)
        for reply in replies if isinstance(replies, list) else [replies]:
            self._take(reply)

    def take(self, event: Event) -> list[Delta]:
        return self._take(_decode_reply(event.data))

    def may_end(self) -> bool:
        return self._finish is not None

    def finish(self) -> FinishReason:
        if self.calls and self._finish == "STOP":
            return "tool_calls"
        return _FINISH.get(self._finish or "", "other")

    def state(self) -> Any:
        if all(part.keys() <= {"text", "thought", "functionCall"} and not identifier(part) for part in self._parts):
            return None
        parts: list[dict[str, Any]] = []
        for plain, run in groupby(self._parts, key=lambda part: len(part) == 1 and isinstance(part.get("text"), str)):
            alike = list(run)
            parts += [{"text": "".join(part["text"] for part in alike)}] if plain else alike
        return parts

    def outcome(self) -> Outcome:
        if self._finish == "MALFORMED_FUNCTION_CALL":
            return self.failure or self.invalid("the model's tool call cannot be read", self.usage)
        return super().outcome()

    def _take(self, reply: _Reply) -> list[Delta]:
        if reply.error is not UNSET and reply.error is not None:
            self.failure = read_stream_error(reply.error, self.headers)
            return []
        self.request_id = self.request_id or (reply.response_id or "")[:256] or None
        if reply.usage_metadata is not None:
            self.usage = _usage(reply.usage_metadata)
        if reply.prompt_feedback is not None and reply.prompt_feedback.block_reason:
            self.begun, self._finish = True, "PROHIBITED_CONTENT"
        deltas: list[Delta] = []
        for candidate in reply.candidates or []:
            if candidate.index:
                continue  # of several that were asked for, the first
            self.begun = True
            reason = candidate.finish_reason
            if isinstance(reason, int):
                reason = _NUMBERED.get(reason, "OTHER") if reason else None
            self._finish = reason or self._finish
            for part in (candidate.content.parts if candidate.content else None) or []:
                deltas += self._part(part)
        return deltas

    def _part(self, part: dict[str, Any]) -> list[Delta]:
        self._parts.append(part)
        text = part.get("text")
        if isinstance(text, str):
            return self.think(text) if part.get("thought") is True else self.say(text)
        call = part.get("functionCall")
        if isinstance(call, dict):
            name, arguments = call.get("name"), call.get("args")
            return self.call(
                self.calls,
                identifier(part),
                name if isinstance(name, str) else None,
                arguments if isinstance(arguments, dict) else None,
            )
        return []


def _usage(counts: _Counts) -> Usage | None:
    if counts.prompt_token_count is None:
        return None
    thought = amount(counts.thoughts_token_count)
    asked = amount(amount(counts.prompt_token_count) + amount(counts.tool_use_prompt_token_count))
    answered = amount(amount(counts.candidates_token_count) + thought)
    return Usage(
        input_tokens=asked,
        output_tokens=answered,
        total_tokens=amount(asked + answered),
        cache_read_tokens=amount(counts.cached_content_token_count),
        reasoning_tokens=thought,
    )
