"""The errors of llmd and the one table of their RPC codes.

Owns the kinds, their codes and whether a caller may try again. Knows nothing of who raises them, imports only the
standard library, and so is shared by the daemon, the library and the command line.
"""

import traceback
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """What an error means to a program: its JSON-RPC code, whether a retry may help, its HTTP status."""

    code: int
    retryable: bool
    http_status: int


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        # JSON-RPC 2.0, section 5.1
        "parse_error": Kind(-32700, False, 400),
        "invalid_request": Kind(-32600, False, 400),
        "method_not_found": Kind(-32601, False, 404),
        "invalid_params": Kind(-32602, False, 400),
        "internal_error": Kind(-32603, False, 500),
        # the daemon and the connection
        "shutting_down": Kind(-32000, True, 503),
        "busy": Kind(-32001, True, 429),
        "deadline_exceeded": Kind(-32002, False, 504),
        "too_large": Kind(-32003, False, 413),
        "unauthorized": Kind(-32004, False, 401),
        "idempotency_conflict": Kind(-32005, False, 409),
        "cancelled": Kind(-32800, False, 499),
        # upstream
        "upstream_rate_limited": Kind(1001, True, 429),
        "upstream_auth": Kind(1002, False, 502),
        "upstream_unavailable": Kind(1003, True, 503),
        "content_filtered": Kind(1004, False, 400),
        "context_too_long": Kind(1005, False, 400),
        "upstream_invalid": Kind(1006, False, 502),
        "model_not_found": Kind(1007, False, 404),
        "no_route": Kind(1010, False, 404),
        # budgets
        "budget_exceeded": Kind(1100, False, 402),
        "budget_contended": Kind(1101, True, 402),
        "budget_closed": Kind(1102, False, 402),
        "budget_unknown": Kind(1103, False, 404),
        "budget_busy": Kind(1104, True, 409),
        "budget_denied": Kind(1105, False, 402),
        "unpriced_model": Kind(1106, False, 402),
        "outcome_unknown": Kind(1107, False, 502),
        "ledger_unavailable": Kind(1108, True, 503),
        # the daemon's configuration, from daemon.reload
        "config_invalid": Kind(1200, False, 500),
    }
)


class LLMError(Exception):
    """An error whose kind, message and data may be shown to a client.

    kind       a key of KINDS
    message    one sentence for a person, in llmd's own words: never the text of an exception, a path or a key
    data       further members of the error object's `data`; None leaves a member out
    retryable  overrides what the table says of the kind
    """

    def __init__(self, kind: str, message: str, *, retryable: bool | None = None, **data: Any) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.retryable = KINDS[kind].retryable if retryable is None else retryable
        self.data = {name: value for name, value in data.items() if value is not None}

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors of worker processes come to their callers pickled; an exception's own way knows only the message.
        return _anew, (type(self), self.kind, self.message, self.retryable, self.data)

    @property
    def code(self) -> int:
        return KINDS[self.kind].code

    def to_object(self) -> dict[str, Any]:
        """The JSON-RPC error object: {"code", "message", "data": {"kind", "retryable", ...}}."""
        data = {"kind": self.kind, "retryable": self.retryable, **self.data}
        return {"code": self.code, "message": self.message, "data": data}


class LLMBudgetExceededError(LLMError):
    """A call would pass a limit of its budget; nothing was sent.

    kind is "budget_exceeded", final, or "budget_contended" where only the holds of other calls stood in the way for as
    long as it waited: then it is retryable. In `data`: `limiting` (id, unit), `requested`, `available`, `max_fit`.
    """


def _anew(kind: type[LLMError], name: str, message: str, retryable: bool, data: dict[str, Any]) -> LLMError:
    made = kind(name, message, retryable=retryable)
    made.data = data
    return made


def typed(error: LLMError) -> LLMError:
    """The same error anew, as the class that its kind has; one error may be told to many."""
    kinds = ("budget_exceeded", "budget_contended")
    made = LLMBudgetExceededError if error.kind in kinds else LLMError
    return made(error.kind, error.message, retryable=error.retryable, **error.data)


def trace(error: BaseException) -> str:
    """Where an exception came from, for the log: without its text, which may hold what a client sent."""
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"


class ConfigError(Exception):
    """A configuration that cannot be used: every problem found, each one line with its key path."""

    def __init__(self, problems: list[str], file: str | None = None) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
        self.file = file
