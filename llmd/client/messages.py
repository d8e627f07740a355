"""What both clients say and understand: the params of each method as types, requests, replies, and errors anew."""

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from llmd import paths
from llmd.books import Allow, Enforcement, Scope, Window
from llmd.chat import Delta, ErrorObject, Message, NamedTool, Reasoning, ResponseFormat, Tool
from llmd.errors import KINDS, LLMError, typed

T = TypeVar("T")

SENSELESS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What reading a line raises that no daemon says: malformed, of another shape, no UTF-8, nested without end."""

KEYED = frozenset({"execute", "budget.open", "budget.charge"})
"""The methods that take an idempotency key."""


class ExecuteParams(TypedDict, total=False):
    """The params of `execute`, one of `prompt` and `messages` among them; README and schemas say what each is."""

    prompt: str
    messages: Sequence[Message | Mapping[str, Any]]
    system: str
    model: str
    provider: str
    task_type: str
    labels: Mapping[str, str]
    max_tokens: int
    fit: Literal["refuse", "clamp"]
    wait_ms: int
    temperature: float
    top_p: float
    stop: str | Sequence[str]
    seed: int
    reasoning: Reasoning | Mapping[str, Any]
    tools: Sequence[Tool | Mapping[str, Any]]
    tool_choice: Literal["auto", "none", "required"] | NamedTool
    response_format: ResponseFormat | Mapping[str, Any]
    budget: str
    timeout_ms: int
    idempotency_key: str
    metadata: Mapping[str, Any]


class ManyParams(TypedDict, total=False):
    """The params of `execute_many` beside its calls."""

    budget: str
    max_concurrency: int
    timeout_ms: int


class OpenBudgetParams(TypedDict, total=False):
    """The params of `budget.open`, one of `total` and `limits` among them."""

    parent: str
    total: int
    limits: Mapping[str, int | str]
    guarantee: Mapping[str, int | str]
    window: Window
    label: str
    scope: Scope
    lease_s: int
    enforcement: Enforcement
    allow: Allow | Mapping[str, Any]
    idempotency_key: str


class ResizeBudgetParams(TypedDict, total=False):
    """The params of `budget.resize` beside the budget."""

    child: str
    limits: Mapping[str, int | str]
    guarantee: Mapping[str, int | str]
    lease_s: int


class Incoming(Struct):
    """A line of the daemon's: a notification with `method`, else the reply to `id`."""

    id: int | None = None
    method: str | None = None
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: ErrorObject | None = None


class DeltaLine(Struct):
    """What is read of the params of an `llmd.delta`."""

    stream: str


decode = msgspec.json.Decoder(Incoming).decode
decode_line = msgspec.json.Decoder(DeltaLine).decode


def sockets(named: str | Path | None) -> list[Path]:
    """Where to look, in order."""
    return paths.client_sockets(os.environ, None if named is None else str(named))


def request(number: int, method: str, params: Mapping[str, Any] | Struct) -> str:
    """A request, without its newline. Raises invalid_params for what is no JSON."""
    try:
        text = msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
    except (TypeError, ValueError, RecursionError):
        raise LLMError("invalid_params", "the params hold something that JSON has no words for") from None
    return text.decode()


def cancel(number: int) -> str:
    return f'{{"jsonrpc":"2.0","method":"$/cancelRequest","params":{{"id":{number}}}}}'


def keyed(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """With an idempotency key wherever the method takes one and none is given."""
    made = dict(params)
    if method in KEYED:
        made.setdefault("idempotency_key", uuid.uuid4().hex)
    elif method == "execute_many":
        made["calls"] = [keyed("execute", call) for call in made["calls"]]
    return made


def charge(budget: str, amounts: Mapping[str, int | str], force: bool, note: str | None) -> dict[str, Any]:
    """The params of `budget.charge`."""
    return {"budget": budget, "amounts": amounts, "force": force, **({} if note is None else {"note": note})}


def closing(budget: str, cancel: bool) -> dict[str, Any]:
    """The params of `budget.close`."""
    return {"budget": budget, "mode": "cancel" if cancel else "drain"}


def result(reply: Incoming, kind: type[T]) -> T:
    """The result. Raises the error that the daemon answers with, and outcome_unknown for what is no such result."""
    if reply.error is not None:
        raise _error(reply.error)
    return _read(b"null" if reply.result is UNSET else reply.result, kind)


def longest(refusal: Incoming) -> int | None:
    """How many bytes a message may have, where the daemon refuses one that has more."""
    data = {} if refusal.error is None else refusal.error.data
    limit = data.get("limit")
    return limit if data.get("kind") == "too_large" and isinstance(limit, int) else None


def delta(params: bytes) -> Delta:
    """The params of an `llmd.delta`. Raises outcome_unknown for what is none."""
    return _read(params, Delta)


def _read(data: bytes | Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except SENSELESS:
        reason = "what the daemon answered makes no sense: whether the call was made is unknown"
        raise LLMError("outcome_unknown", reason) from None


def _error(told: ErrorObject) -> LLMError:
    data = {name: value for name, value in told.data.items() if name not in ("kind", "retryable", "message")}
    known = str(told.data.get("kind"))
    kind = known if known in KINDS else "internal_error"  # one that a newer daemon has
    error = LLMError(kind, told.message, retryable=told.data.get("retryable"))
    error.data = data if known == kind else {**data, "told_kind": known}
    return typed(error)


def lost() -> LLMError:
    """The connection broke in the middle of a call."""
    return LLMError("outcome_unknown", "the connection broke before the answer: whether the call was made is unknown")
