"""Reads the bytes of one response into a draft: an error's body, a whole answer, or a stream of events."""

from typing import Protocol

import msgspec
from msgspec.structs import replace

from llmd.chat import Delta
from llmd.core.outcomes import Failure, Outcome
from llmd.dialects.base import Headers
from llmd.dialects.draft import Draft
from llmd.dialects.events import Event, SSEDecoder
from llmd.dialects.refusals import read_error

ERROR_BYTES_MAX = 2**20

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def is_event_stream(headers: Headers) -> bool:
    return headers.get("content-type", "").lower().startswith("text/event-stream")


class Events(Protocol):
    """Splits the bytes of a stream, at whatever cuts they come."""

    def feed(self, data: bytes) -> list[Event]: ...

    def end(self) -> list[Event]: ...


class ErrorReader:
    """Collects the body behind an error status."""

    whole = False

    def __init__(self, status: int, headers: Headers) -> None:
        self._status = status
        self._headers = headers
        self._body = bytearray()

    def feed(self, data: bytes) -> list[Delta]:
        self._body += data[: max(0, ERROR_BYTES_MAX - len(self._body))]
        return []

    def end(self, cut: bool) -> Outcome:
        return read_error(self._status, self._headers, bytes(self._body))


class BodyReader:
    """Reads one body."""

    whole = False  # which only the end of the response can tell

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._body = bytearray()

    def feed(self, data: bytes) -> list[Delta]:
        self._body += data
        return []

    def end(self, cut: bool) -> Outcome:
        draft = self._draft
        if cut:
            return draft.broken_off("answer")
        try:
            draft.take_body(bytes(self._body))
        except UNREADABLE:
            return draft.invalid(f"the provider's answer is not {draft.whole_name}")
        if draft.failure is None and not draft.begun:
            return draft.invalid(f"the provider's answer holds no {draft.part_name}", draft.usage)
        return draft.outcome()


class StreamReader:
    """Reads a stream of events, which is whole only when its end mark has come."""

    def __init__(self, draft: Draft, events: Events | None = None) -> None:
        self._draft = draft
        self._events = SSEDecoder() if events is None else events

    def feed(self, data: bytes) -> list[Delta]:
        return self._take(self._events.feed(data))

    def _take(self, events: list[Event]) -> list[Delta]:
        draft = self._draft
        deltas: list[Delta] = []
        for event in events:
            if draft.ended or draft.failure is not None:
                break
            try:
                deltas += draft.take(event)
            except UNREADABLE:
                # Usage told so far, as some tell it with every chunk, is not what the whole will cost.
                draft.failure = draft.invalid("the provider's stream holds what is not a chunk")
        return deltas

    @property
    def whole(self) -> bool:
        return self._draft.ended

    def end(self, cut: bool) -> Outcome:
        self._take(self._events.end())
        outcome = self._outcome()
        if isinstance(outcome, Failure) and outcome.usage is None:
            return replace(outcome, seen=self._draft.usage)
        return outcome

    def _outcome(self) -> Outcome:
        draft = self._draft
        if draft.failure is None and not draft.may_end():
            return draft.broken_off("stream")
        if draft.failure is None and not draft.begun:
            return draft.invalid(f"the provider's stream holds no {draft.part_name}", draft.usage)
        return draft.outcome()


def reader(draft: Draft, status: int, headers: Headers) -> ErrorReader | BodyReader | StreamReader:
    """Of a response that is server-sent events, or else one body."""
    if status != 200:
        return ErrorReader(status, headers)
    return StreamReader(draft) if is_event_stream(headers) else BodyReader(draft)
