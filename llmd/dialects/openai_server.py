"""OpenAI's chat completions from the other side: a request as a client of that API makes it, in llmd's words.

What llmd has no word for goes into `more`, by its path, and on to providers that speak the same words. What would be
lost on the way is refused: several choices, media that llmd would have to fetch, and what asks for more than text and
tool calls.
"""

import re
from collections.abc import Iterator
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from llmd.chat import (
    AnyPart,
    FilePart,
    ImagePart,
    Message,
    NamedTool,
    Reasoning,
    Relayed,
    ResponseFormat,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from llmd.errors import LLMError
from llmd.validation import explain

AUTO = "auto"  # the model of requests that leave the choice to llmd

_DATA_URL = re.compile(r"data:([^;,]+);base64,(.*)", re.S)
_EFFORTS = frozenset(get_args(get_args(Reasoning.__annotations__["effort"])[0]))
_LOST = {
    "logprobs": "llmd passes no probabilities on",
    "audio": "llmd passes no sound on",
    "modalities": "llmd passes text on",
    "functions": "send `tools`",
    "function_call": "send `tool_choice`",
}
"""Members whose answers llmd would lose, and the values of these that ask for nothing of the kind."""
_HARMLESS: tuple[Any, ...] = (None, False, [], ["text"], "none")
_TAKEN = ("model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens")


class Request(Struct, frozen=True):
    """`usage`: whether a stream is to end with a chunk that tells it."""

    ask: Relayed
    stream: bool
    usage: bool


class _Url(Struct):
    url: str


class _File(Struct):
    file_data: str | None = None


class _Part(Struct):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: _Url | None = None
    file: _File | None = None


class _Function(Struct):
    name: str
    arguments: str = ""


class _Call(Struct):
    id: str
    function: _Function


class _Message(Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


class _StreamOptions(Struct):
    include_usage: bool = False


class _Request(Struct):
    """The members that llmd reads; a null is as good as none."""

    messages: list[_Message]
    model: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


class _ToolFunction(Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] = {}


class _Tool(Struct):
    function: _ToolFunction
    type: Literal["function"] = "function"


class _Named(Struct):
    name: str


class _Choice(Struct):
    function: _Named
    type: Literal["function"] = "function"


class _Schema(Struct):
    schema: dict[str, Any]
    name: str = "answer"


class _Format(Struct):
    json_schema: _Schema
    type: Literal["json_schema"]


def read_request(body: bytes) -> Request:
    """Raises LLMError invalid_params with the path of what is wrong."""
    try:
        given = msgspec.json.decode(body, type=dict[str, Any])
        read = msgspec.convert(given, _Request)
        turns = [_turn(message, f"messages[{at}]") for at, message in enumerate(read.messages)]
        params: dict[str, Any] = {"messages": turns, "more": {}}
        if read.model not in (None, "", AUTO):
            params["model"] = read.model
        if (limit := read.max_completion_tokens or read.max_tokens) is not None:
            params["max_tokens"] = limit
        for name, value in given.items():
            if value is not None and name not in _TAKEN and not _take(params, name, value):
                params["more"][name] = value
        params["more"] |= _beside(given, params)
        # Checked as the params of `execute` are.
        ask = msgspec.convert({**params, "messages": msgspec.to_builtins(turns)}, Relayed, strict=True)
    except msgspec.ValidationError as error:
        problem = explain(error, _Request)
        raise LLMError("invalid_params", str(problem), path=problem.path) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise LLMError("invalid_params", "the body is not JSON", path="") from None
    if read.n not in (None, 1):
        raise LLMError("invalid_params", "n: llmd gives one choice", path="n")
    for name, reason in _LOST.items():
        if given.get(name) not in _HARMLESS:
            raise LLMError("invalid_params", f"{name}: {reason}", path=name)
    options = read.stream_options or _StreamOptions()
    return Request(ask, bool(read.stream), options.include_usage)


def _take(params: dict[str, Any], name: str, value: Any) -> bool:
    """Put a member into llmd's words; whether it has some."""
    if name in ("temperature", "top_p", "stop", "seed"):
        params[name] = value
    elif name == "reasoning_effort" and isinstance(value, str) and value in _EFFORTS:
        params["reasoning"] = {"effort": value}
    elif name == "tools" and (tools := _converted(value, list[_Tool])):
        params["tools"] = [
            Tool(tool.function.name, tool.function.parameters, tool.function.description) for tool in tools
        ]
    elif name == "tool_choice" and value in ("auto", "none", "required", "any"):
        params[name] = "required" if value == "any" else value  # Mistral's word
    elif name == "tool_choice" and (choice := _converted(value, _Choice)):
        params[name] = NamedTool(choice.function.name)
    elif name == "response_format" and (form := _converted(value, _Format)):
        params[name] = ResponseFormat(form.json_schema.name, form.json_schema.schema)
    else:
        return False
    return True


def _converted(value: Any, kind: Any) -> Any:
    """The value as this kind, None where it is another."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return None


def _turn(message: _Message, path: str) -> Message:
    content = message.content
    if message.role == "tool":
        texts = content if isinstance(content, str) else "\n".join(part.text or "" for part in content or [])
        return Message("tool", [ToolResultPart(message.tool_call_id or "", texts)])
    role: Any = "system" if message.role == "developer" else message.role
    calls = [
        ToolCallPart(call.id, call.function.name, _arguments(call.function.arguments, f"{path}.tool_calls[{at}]"))
        for at, call in enumerate(message.tool_calls or [])
    ]
    if isinstance(content, str) and not calls:
        return Message(role, content)
    said: list[AnyPart]
    if isinstance(content, str):
        said = [TextPart(content)] if content else []
    else:
        said = [_part(part, f"{path}.content[{at}]") for at, part in enumerate(content or [])]
    return Message(role, [*said, *calls])


def _arguments(text: str, path: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        where = f"{path}.function.arguments"
        raise LLMError("invalid_params", f"{where}: expected an object as JSON text", path=where) from None


def _part(part: _Part, path: str) -> AnyPart:
    if part.type in ("text", "refusal"):
        return TextPart(part.text or part.refusal or "")
    if part.type == "image_url" and part.image_url is not None:
        media_type, data = _data(part.image_url.url, f"{path}.image_url.url")
        return ImagePart(media_type, data)
    if part.type == "file" and part.file is not None:
        media_type, data = _data(part.file.file_data or "", f"{path}.file.file_data")
        return FilePart(media_type, data)
    raise LLMError("invalid_params", f"{path}.type: expected text, image_url or file", path=f"{path}.type")


def _data(url: str, path: str) -> tuple[str, str]:
    found = _DATA_URL.fullmatch(url)
    if found is None:
        reason = "expected a data: URL in base64, as in data:image/png;base64,...: llmd fetches nothing"
        raise LLMError("invalid_params", f"{path}: {reason}", path=path)
    return found[1], found[2]


# -- what llmd has no words for ---------------------------------------------------------------------------------------

_STRICT = "response_format.json_schema.strict"
_PART = {"type": None, "text": None, "refusal": None, "image_url": {"url": None}, "file": {"file_data": None}}
_WORDS: dict[str, Any] = {
    "messages": {
        "role": None,
        "content": {
            "type": None,
            "text": None,
            "refusal": None,
            "image_url": {"url": None},
            "file": {"file_data": None},
        },
        "tool_calls": {"id": None, "type": None, "function": {"name": None, "arguments": None}},
        "tool_call_id": None,
    },
    "tools": {"type": None, "function": {"name": None, "description": None, "parameters": None}},
    "response_format": {"type": None, "json_schema": {"name": None, "schema": None}},
}
"""The members within these that llmd reads; None is read as it is."""


def _beside(given: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The members within what has become `params` that llmd has no words for, by their paths."""
    known = [(name, words) for name, words in _WORDS.items() if name in params]
    found = {path: value for name, words in known for path, value in _unread(given[name], words, name)}
    # llmd says it of every schema, and who has not asked for it is not to have it.
    if "response_format" in params and found.setdefault(_STRICT, False) is True:
        del found[_STRICT]
    return found


def _unread(value: Any, words: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        for at, one in enumerate(value):
            yield from _unread(one, words, f"{path}[{at}]")
    elif isinstance(value, dict):
        for name, member in value.items():
            if name not in words:
                if member is not None:
                    yield f"{path}.{name}", member
            elif words[name] is not None:
                yield from _unread(member, words[name], f"{path}.{name}")
