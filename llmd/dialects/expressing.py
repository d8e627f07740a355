"""What a model does not take, left out of a request before a dialect translates it; an effort that it knows, and ids
that no two calls share.

What an answer would be another without (tools, a schema, thoughts) is routing's to see: such a model is no target.
"""

from typing import get_args

from msgspec import convert
from msgspec.structs import replace

from llmd.chat import Chat, Reasoning, Relayed
from llmd.core.rows import ModelRow, Param
from llmd.dialects.identifying import distinct

_PARAMS = frozenset(get_args(Param))


def expressible(chat: Chat, row: ModelRow) -> tuple[Chat, list[str]]:
    """The chat without the params that this model refuses, and their names."""
    chat = _known_effort(distinct(chat, row.provider), row)
    refused: list[str] = [name for name in row.refuses if name in _PARAMS and getattr(chat, name) is not None]
    both = chat.temperature is not None and chat.top_p is not None and not {"temperature", "top_p"} & set(refused)
    if both and "temperature_with_top_p" in row.refuses:
        refused.append("top_p")
    foreign = list(chat.more) if isinstance(chat, Relayed) and row.dialect != "openai" else []
    if not refused:
        return chat, foreign
    return replace(chat, **dict.fromkeys(refused)), [*refused, *foreign]


def _known_effort(chat: Chat, row: ModelRow) -> Chat:
    """The chat with an effort that this model knows, where it is known which those are."""
    effort, limits = None if chat.reasoning is None else chat.reasoning.effort, row.reasoning_limits
    if effort is None or not limits.efforts or (effort == "none" and limits.off):
        return chat
    known = limits.effort(effort, limits.efforts)
    return chat if known == effort else replace(chat, reasoning=convert({"effort": known}, Reasoning))
