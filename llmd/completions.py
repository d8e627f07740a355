"""What a caller gets of a call: its completion, or the error that its last failure is."""

from llmd.attempts import Tried
from llmd.books import Snapshot
from llmd.chat import Attempt, Completion, Cost, Message, Route, StatePart, TextPart, ToolCallPart, Usage
from llmd.core.outcomes import Answer, Failure
from llmd.core.rows import ModelRow
from llmd.errors import LLMError


def completion(tried: Tried, answer: Answer, route: Route, latency_ms: int, budget: Snapshot | None) -> Completion:
    call, row = tried.held.quote.call, tried.held.quote.call.row
    return Completion(
        text=answer.text,
        finish_reason=answer.finish_reason,
        provider=row.provider,
        model=row.model,
        tool_calls=answer.tool_calls,
        reasoning=answer.reasoning,
        message=_message(row.provider, answer),
        usage=answer.usage or Usage(exact=False),
        cost=None if tried.nano_usd is None else Cost(tried.nano_usd),
        budget=budget,
        route=route,
        dropped=call.dropped,
        latency_ms=latency_ms,
        provider_request_id=answer.request_id,
        clamped_max_tokens=tried.held.clamped,
        replayed=False,
    )


def _message(provider: str, answer: Answer) -> Message:
    """The assistant's turn, ready to append to the messages of the next request."""
    said = answer.text or answer.refusal or ""
    if not answer.tool_calls and answer.state is None:
        return Message("assistant", said)
    calls = [ToolCallPart(call.id, call.name, call.arguments) for call in answer.tool_calls]
    state = [StatePart(provider, answer.state)] if answer.state is not None else []
    return Message("assistant", [*([TextPart(said)] if said else []), *calls, *state])


def upstream_error(failure: Failure, row: ModelRow, attempts: list[Attempt]) -> LLMError:
    return LLMError(
        failure.kind,
        f"{row.target}: {failure.message}",
        retryable=failure.retryable,
        provider=row.provider,
        model=row.model,
        http_status=failure.http_status,
        retry_after_ms=None if failure.retry_after_s is None else round(failure.retry_after_s * 1000),
        provider_request_id=failure.request_id,
        provider_message=failure.provider_text,
        attempts=attempts,
    )
