"""What was said, as Anthropic's messages: blocks, in turns that alternate between user and assistant.

Sources: the provider's pages on tool use and on PDFs, its SDK's types of a document's source, and its answers to blank
texts ("text content blocks must contain non-whitespace text", "all messages must have non-empty content").
"""

from base64 import b64decode
from typing import Any

from llmd.chat import Chat, FilePart, ImagePart, Message, StatePart, TextPart, ToolCallPart, ToolResultPart


def messages(chat: Chat, provider: str, dropped: list[str]) -> list[dict[str, Any]]:
    """The turns but for `system` and those without a word; those of one role that follow one another are one message.

    Files that cannot be said are told in `dropped`.
    """
    made: list[dict[str, Any]] = []
    for turn in chat.turns:
        if turn.role == "system":
            continue
        role = "assistant" if turn.role == "assistant" else "user"
        content = turn.content if isinstance(turn.content, str) else _blocks(turn, provider, dropped)
        if not content or (isinstance(content, str) and not content.strip()):
            continue
        if made and made[-1]["role"] == role:
            made[-1]["content"] = [*_list(made[-1]["content"]), *_list(content)]
        else:
            made.append({"role": role, "content": content})
    for message in made:
        if message["role"] == "user" and isinstance(message["content"], list):
            message["content"].sort(key=lambda block: block["type"] != "tool_result")  # where they must be: first
    return made


def _list(content: str | list[Any]) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _blocks(turn: Message, provider: str, dropped: list[str]) -> list[Any]:
    states = [part for part in turn.parts if isinstance(part, StatePart) and part.provider == provider]
    if states and turn.role == "assistant":  # all of what it had said, in its own words
        return [block for state in states if isinstance(state.data, list) for block in state.data]
    return [block for part in turn.parts if (block := _block(part, dropped)) is not None]


def _block(part: Any, dropped: list[str]) -> dict[str, Any] | None:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text} if part.text.strip() else None
    if isinstance(part, ImagePart):
        return {"type": "image", "source": _base64(part)}
    if isinstance(part, FilePart):
        source = _document(part)
        if source is None and "file" not in dropped:
            dropped.append("file")
        return None if source is None else {"type": "document", "source": source}
    if isinstance(part, ToolCallPart):
        return {"type": "tool_use", "id": part.id, "name": part.name, "input": part.arguments}
    if isinstance(part, ToolResultPart):
        result = {"type": "tool_result", "tool_use_id": part.id, "content": part.content}
        return {**result, "is_error": True} if part.error else result
    return None


def _document(part: FilePart) -> dict[str, Any] | None:
    """The source of a document: PDFs as they are, texts as plain ones. There are no others."""
    if part.media_type == "application/pdf":
        return _base64(part)
    if not part.media_type.startswith("text/"):
        return None
    try:
        return {"type": "text", "media_type": "text/plain", "data": b64decode(part.data, validate=True).decode()}
    except ValueError:  # no base64, or no UTF-8
        return None


def _base64(part: ImagePart | FilePart) -> dict[str, Any]:
    return {"type": "base64", "media_type": part.media_type, "data": part.data}
