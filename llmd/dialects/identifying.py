"""The ids of tool calls, each made one of its own.

Some providers give calls no ids, and llmd counts those of each answer anew; others refuse a conversation in which an id
comes twice (Anthropic: "`tool_use` ids must be unique").
"""

from collections.abc import Iterable
from itertools import count

from msgspec.structs import replace

from llmd.chat import AnyPart, Chat, Message, StatePart, ToolCallPart, ToolResultPart


def distinct(chat: Chat, provider: str) -> Chat:
    """The chat with an id of its own for each call, and for the result that belongs to it.

    What this provider wants back in its own words is left as it is.
    """
    if chat.messages is None:
        return chat
    kept = {id(turn) for turn in chat.messages if _stated(turn, provider)}
    calls = [(id(turn) in kept, call.id) for turn in chat.messages for call in _calls(turn)]
    if len(calls) == len({identifier for _, identifier in calls}):
        return chat
    taken = {identifier for is_kept, identifier in calls if is_kept}
    given: dict[str, list[str]] = {}  # by an id, those that its calls of the latest turn with it have now
    messages = []
    for turn in chat.messages:
        given |= {call.id: [] for call in _calls(turn)}
        messages.append(_renamed(turn, id(turn) in kept, taken, given))
    return replace(chat, messages=messages)


def _stated(turn: Message, provider: str) -> bool:
    return any(isinstance(part, StatePart) and part.provider == provider for part in turn.parts)


def _calls(turn: Message) -> Iterable[ToolCallPart]:
    return () if isinstance(turn.content, str) else (part for part in turn.content if isinstance(part, ToolCallPart))


def _renamed(turn: Message, kept: bool, taken: set[str], given: dict[str, list[str]]) -> Message:
    if isinstance(turn.content, str):
        return turn
    parts: list[AnyPart] = []
    for part in turn.content:
        if isinstance(part, ToolCallPart):
            name = part.id if kept else _free(part.id, taken)
            taken.add(name)
            given[part.id].append(name)
            parts.append(replace(part, id=name))
        elif isinstance(part, ToolResultPart) and (names := given.get(part.id)):
            parts.append(replace(part, id=names.pop(0) if len(names) > 1 else names[0]))
        else:
            parts.append(part)
    return replace(turn, content=parts)


def _free(identifier: str, taken: set[str]) -> str:
    names = (f"{identifier}_{number}" for number in count(2))
    return identifier if identifier not in taken else next(name for name in names if name not in taken)
