"""OpenAI's chat completions, and everyone who copies them: `POST {base_url}/chat/completions`.

What comes back is read in openai_chat_answers. Sources: the providers' API references and SDKs.
"""

import re
from typing import Any

import msgspec

from llmd.chat import (
    Chat,
    FilePart,
    ImagePart,
    Message,
    NamedTool,
    Relayed,
    StatePart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from llmd.core.rows import Auth, ModelRow
from llmd.dialects.base import NO_HEADERS, Headers, HttpCall, Reader, http_call
from llmd.dialects.listing import read_models
from llmd.dialects.openai_chat_answers import ChatDraft
from llmd.dialects.reading import reader

_WITHIN = re.compile(r"(messages|tools)\[[0-9]{1,9}\]\.|response_format\.[^.]")
_PARTS = re.compile(r"messages\[([0-9]{1,9})\]\.content\[")
_STEP = re.compile(r"[^.\[\]]+")
_WANTED = ("reasoning_details", "reasoning_content", "extra_content")
"""Members of an assistant's message that a provider wants back."""


class OpenAIChat:
    auth: Auth = "bearer"
    models = "/models"
    models_headers = NO_HEADERS
    read_models = staticmethod(read_models)

    def request(self, chat: Chat, row: ModelRow, max_tokens: int | None, stream: bool) -> HttpCall:
        dropped: list[str] = []
        more = chat.more if isinstance(chat, Relayed) else {}
        apart = {int(found[1]) for path in more if (found := _PARTS.match(path))}
        said = [_messages(turn, row.provider, at in apart) for at, turn in enumerate(chat.turns)]
        body: dict[str, Any] = {"model": row.model, "messages": [message for messages in said for message in messages]}
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
            body["tools"] = [{"type": "function", "function": msgspec.to_builtins(tool)} for tool in chat.tools]
        if chat.tool_choice is not None:
            body["tool_choice"] = _tool_choice(chat.tool_choice)
        if (form := chat.response_format) is not None:
            schema = {"name": form.name, "schema": form.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        within = {**body, "messages": [messages[-1] if messages else None for messages in said]}
        dropped += [path for path, value in more.items() if not _add(body, within, path, value)]
        if stream:
            body["stream"] = True
            if row.stream_usage:
                body["stream_options"] = {"include_usage": True}
        return http_call(row, "/chat/completions", body, stream, dropped)

    def reader(self, call: HttpCall, status: int, headers: Headers) -> Reader:
        return reader(ChatDraft(headers), status, headers)

    def count(self, call: HttpCall) -> HttpCall | None:
        return None


def _tool_choice(choice: str | NamedTool) -> Any:
    return choice if isinstance(choice, str) else {"type": "function", "function": {"name": choice.name}}


def _add(body: dict[str, Any], within: Any, path: str, value: Any) -> bool:
    """Put what came in these words where it was; whether that place is there."""
    if not _WITHIN.match(path):
        body.setdefault(path, value)
        return True
    *steps, name = _STEP.findall(path)
    try:
        for step in steps:
            within = within[int(step) if isinstance(within, list) else step]
        within[name] = value
    except (LookupError, TypeError, ValueError):
        return False
    return True


def _messages(turn: Message, provider: str, apart: bool) -> list[dict[str, Any]]:
    """One turn of ours is one message of theirs, but that each tool result is a message of its own.

    apart  whether its parts stay so, though they are all text
    """
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
    # A message of the role `tool` is one result and nothing else.
    message: dict[str, Any] = {"role": "user" if turn.role == "tool" else turn.role}
    if content:
        texts = all(isinstance(part, TextPart) for part in turn.content if _part(part) is not None)
        message["content"] = turn.text if texts and not apart else content
    if calls:
        message.setdefault("content", None)
        message["tool_calls"] = calls
    for part in turn.content:
        if isinstance(part, StatePart) and part.provider == provider and isinstance(part.data, dict):
            _give_back(message, part.data)
    return [*results, message] if len(message) > 1 else results


def _give_back(message: dict[str, Any], state: dict[str, Any]) -> None:
    """What the provider had said beside this message and wants back, of its calls by their ids."""
    message.update({name: state[name] for name in _WANTED if name in state})
    said = state.get("tool_calls")
    told = [one for one in said if isinstance(one, dict)] if isinstance(said, list) else []
    for call in message.get("tool_calls", []):
        for one in told:
            if one.get("id") == call["id"] and "extra_content" in one:
                call["extra_content"] = one["extra_content"]


def _part(part: Any) -> dict[str, Any] | None:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, ImagePart):
        return {"type": "image_url", "image_url": {"url": f"data:{part.media_type};base64,{part.data}"}}
    if isinstance(part, FilePart):
        data = f"data:{part.media_type};base64,{part.data}"
        return {"type": "file", "file": {"filename": "file", "file_data": data}}
    return None
