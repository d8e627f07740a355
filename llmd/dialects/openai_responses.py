"""OpenAI's Responses, and those who have them too (Azure, xAI): `POST {base_url}/responses`, told to store nothing.

What comes back is read in openai_responses_answers. What the model thought comes sealed, and is wanted back: a turn
with more in it than text and function calls is carried as it came. Sources: the provider's API reference and SDK.
"""

from typing import Any

import msgspec

from llmd.chat import (
    Chat,
    FilePart,
    ImagePart,
    Message,
    NamedTool,
    StatePart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from llmd.core.rows import Auth, ModelRow
from llmd.dialects.base import NO_HEADERS, Headers, HttpCall, Reader, http_call
from llmd.dialects.counting import asking, members
from llmd.dialects.listing import read_models
from llmd.dialects.openai_responses_answers import ResponseDraft
from llmd.dialects.reading import reader

_READ = ("model", "instructions", "input", "tools", "tool_choice", "reasoning", "text")


class OpenAIResponses:
    auth: Auth = "bearer"
    models = "/models"
    models_headers = NO_HEADERS
    read_models = staticmethod(read_models)

    def request(self, chat: Chat, row: ModelRow, max_tokens: int | None, stream: bool) -> HttpCall:
        dropped = [name for name in ("stop", "seed") if getattr(chat, name) is not None] + _unsaid(chat)
        body: dict[str, Any] = {
            "model": row.model,
            "input": [item for turn in chat.turns if turn.role != "system" for item in _items(turn, row.provider)],
            "store": False,
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
        if "reasoning" in body or "temperature" in row.refuses:
            body["include"] = ["reasoning.encrypted_content"]  # a 400 where the model does not reason
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
        return reader(ResponseDraft(headers), status, headers)

    def count(self, call: HttpCall) -> HttpCall | None:
        return asking(call, call.url + "/input_tokens", members(call, _READ))


def _unsaid(chat: Chat) -> list[str]:
    """Parts of system messages that are no text: instructions are."""
    return [
        f"messages[{at}].content[{place}]"
        for at, turn in enumerate(chat.messages or [])
        if turn.role == "system"
        for place, part in enumerate(turn.parts)
        if isinstance(part, ImagePart | FilePart)
    ]


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
    # Its type is optional, but llama.cpp takes no assistant's message without.
    message = [{"type": "message", "role": role, "content": content}] if content else []
    return [*results, *message, *calls]


def _part(part: Any, role: str) -> dict[str, Any] | None:
    if isinstance(part, TextPart):
        return {"type": "output_text" if role == "assistant" else "input_text", "text": part.text}
    if isinstance(part, ImagePart):
        return {"type": "input_image", "image_url": f"data:{part.media_type};base64,{part.data}"}
    if isinstance(part, FilePart):
        data = f"data:{part.media_type};base64,{part.data}"
        return {"type": "input_file", "filename": "file", "file_data": data}
    return None
