"""What a model does not take, left out of a request before a dialect translates it."""

from msgspec.structs import replace

from llmd.chat import Chat, Relayed
from llmd.core.rows import ModelRow
from llmd.errors import LLMError

NEEDED = frozenset({"tools", "response_format"})
"""Without these the answer would be of another kind: a request with one is refused instead."""


def expressible(chat: Chat, row: ModelRow) -> tuple[Chat, list[str]]:
    """The chat without what this model refuses, and the names of that. Raises no_route where it cannot do without."""
    refused: list[str] = [name for name in row.refuses if getattr(chat, name) is not None]
    foreign = list(chat.more) if isinstance(chat, Relayed) and row.dialect != "openai" else []
    if not refused:
        return chat, foreign
    for name in refused:
        if name in NEEDED:
            raise LLMError(
                "no_route",
                f"{row.target} takes no `{name}`",
                targets=[{"provider": row.provider, "model": row.model, "reason": f"refuses_{name}"}],
            )
    return replace(chat, **dict.fromkeys(refused)), [*refused, *foreign]
