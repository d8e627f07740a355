"""How much Anthropic's models are told to think, and what they take beside it.

Sources: the provider's pages on extended thinking ("Feature compatibility") and on adaptive thinking, and its answer
"Thinking may not be enabled when tool_choice forces tool use".
"""

from typing import Any

from llmd.chat import Chat, NamedTool, Reasoning
from llmd.core.rows import ModelRow

THINKING_MIN = 1024
TOP_P_MIN = 0.95  # of who thinks

_THINKING = {"minimal": THINKING_MIN, "low": THINKING_MIN, "medium": 4096, "high": 16_384, "xhigh": 32_768}
_EFFORTS = ("low", "medium", "high")  # that each of these models knows


def thinking(chat: Chat, row: ModelRow, limit: int, dropped: list[str]) -> tuple[dict[str, Any] | None, str | None]:
    """The thinking that was asked for, and the effort of models that are told one."""
    if chat.reasoning is None:
        return None, None
    told, effort = (
        _by_effort(chat.reasoning, row, dropped)
        if row.reasoning == "effort"
        else (_by_tokens(chat.reasoning, limit, dropped), None)
    )
    forced = chat.tool_choice == "required" or isinstance(chat.tool_choice, NamedTool)
    if thinks(told) and forced:  # the answer depends on the tool more than on the thought
        dropped.append("reasoning")
        return None, None
    return told, effort


def thinks(told: dict[str, Any] | None) -> bool:
    return told is not None and told["type"] != "disabled"


def sampling(chat: Chat, thinks: bool, dropped: list[str]) -> dict[str, float]:
    """The params of sampling that are taken: who thinks, samples nearly as it was trained to."""
    taken = {
        "temperature": not thinks or chat.temperature == 1,
        "top_p": not thinks or (chat.top_p or 0) >= TOP_P_MIN,
    }
    given = {name: value for name in taken if (value := getattr(chat, name)) is not None}
    dropped += [name for name in given if not taken[name]]
    return {name: value for name, value in given.items() if taken[name]}


def _by_tokens(reasoning: Reasoning, limit: int, dropped: list[str]) -> dict[str, Any] | None:
    tokens = reasoning.tokens if reasoning.tokens is not None else _THINKING.get(reasoning.effort or "", 0)
    if not tokens:
        return {"type": "disabled"}
    if limit <= THINKING_MIN:  # what it thinks is part of what it may say
        dropped.append("reasoning")
        return None
    return {"type": "enabled", "budget_tokens": min(max(tokens, THINKING_MIN), limit - 1)}


def _by_effort(reasoning: Reasoning, row: ModelRow, dropped: list[str]) -> tuple[dict[str, Any] | None, str | None]:
    """Of models that think as much as they see fit, and by themselves not at all: some refuse to be told so."""
    if reasoning.effort == "none" or reasoning.tokens == 0:
        return None, None
    if reasoning.effort is None:
        dropped.append("reasoning")  # this dialect has efforts, not amounts, for these
        return None, None
    return {"type": "adaptive"}, row.reasoning_limits.effort(reasoning.effort, _EFFORTS)
