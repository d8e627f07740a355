"""How an attempt ends: an answer, or a failure and what it may have cost."""

from typing import Any, Literal

from msgspec import Struct

from llmd.chat import FinishReason, ToolCall, Usage


class Answer(Struct, frozen=True, kw_only=True):
    """A complete answer. `usage` and `cost_nano_usd` are None where the provider told none.

    refusal  what the model said instead of an answer; not part of `text`
    """

    text: str
    finish_reason: FinishReason
    tool_calls: list[ToolCall] = []
    reasoning: str | None = None
    refusal: str | None = None
    usage: Usage | None = None
    cost_nano_usd: int | None = None
    request_id: str | None = None
    state: Any = None


Billed = Literal["no", "unknown"]


class Failure(Struct, frozen=True, kw_only=True):
    """Why there is no answer.

    kind           a key of errors.KINDS
    message        one sentence in llmd's words
    billed         "no" only where the provider certainly charged nothing
    usage          what it said was used before it failed; `cost_nano_usd` what it said that it bills for that
    seen           what it had said was used so far, where that is not all
    provider_text  the provider's own words, for the caller to read; the shell takes keys out
    """

    kind: str
    message: str
    billed: Billed = "unknown"
    retryable: bool | None = None
    retry_after_s: float | None = None
    http_status: int | None = None
    request_id: str | None = None
    usage: Usage | None = None
    seen: Usage | None = None
    cost_nano_usd: int | None = None
    provider_text: str | None = None


Outcome = Answer | Failure
