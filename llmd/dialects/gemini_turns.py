"""What was said, as Gemini's contents: parts, in turns of the user and the model.

Not every endpoint gives function calls ids. The result of a call finds its name by the id that llmd knows it by, and
has Gemini's own with it where there is one. Sources: the API's reference of FunctionCall.id, which is to be returned
with the response, and its answer to a turn without parts: "contents.parts must not be empty". Empty texts it takes.
"""

from typing import Any

from llmd.chat import Chat, FilePart, ImagePart, Message, StatePart, TextPart, ToolCallPart, ToolResultPart


def contents(chat: Chat, provider: str) -> list[dict[str, Any]]:
    """The turns but for `system` and those without parts; those of one role that follow each other are one content."""
    made: list[dict[str, Any]] = []
    names: dict[str, str] = {}  # of the calls, by the id that their results have
    own: set[str] = set()  # the ids that Gemini gave
    for turn in chat.turns:
        names |= {part.id: part.name for part in turn.parts if isinstance(part, ToolCallPart)}
        if turn.role == "system":
            continue
        role = "model" if turn.role == "assistant" else "user"
        parts = _stated(turn, provider)
        own |= {name for part in parts if (name := identifier(part))}
        parts = parts or [said for part in turn.parts if (said := _part(part, names, own)) is not None]
        if not parts:
            continue
        if made and made[-1]["role"] == role:
            made[-1]["parts"] += parts
        else:
            made.append({"role": role, "parts": parts})
    return made


def identifier(part: Any) -> str | None:
    """The id that Gemini gave the function call that this part is."""
    call = part.get("functionCall") if isinstance(part, dict) else None
    given = call.get("id") if isinstance(call, dict) else None
    return given if isinstance(given, str) and given else None


def _stated(turn: Message, provider: str) -> list[Any]:
    """All of what it had said, in its own words."""
    states = [part for part in turn.parts if isinstance(part, StatePart) and part.provider == provider]
    return [part for state in states if isinstance(state.data, list) for part in state.data]


def _part(part: Any, names: dict[str, str], own: set[str]) -> dict[str, Any] | None:
    if isinstance(part, TextPart):
        return {"text": part.text}
    if isinstance(part, ImagePart | FilePart):
        return {"inlineData": {"mimeType": part.media_type, "data": part.data}}
    if isinstance(part, ToolCallPart):
        return {"functionCall": {"name": part.name, "args": part.arguments}}
    if isinstance(part, ToolResultPart):
        told = {"error" if part.error else "result": part.content}
        response = {"name": names.get(part.id, part.id), "response": told}
        return {"functionResponse": response | ({"id": part.id} if part.id in own else {})}
    return None
