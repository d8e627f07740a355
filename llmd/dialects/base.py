"""What a dialect is: a pure translator between llmd's words and a provider's.

Owns the shapes that pass between dialects and the one shell that carries them (providers.py). A dialect has no state,
does no I/O and never sees a key.
"""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from llmd.chat import Chat, Delta, ToolCallDelta
from llmd.core.outcomes import Answer, Outcome
from llmd.core.rows import Auth, ModelRow

Emit = Callable[[Delta], Awaitable[None]]
"""Passes one delta on; awaiting it is the back-pressure."""

Headers = Mapping[str, str]
"""Response headers, their names in lower case."""


NO_HEADERS: Headers = MappingProxyType({})


class HttpCall(Struct, frozen=True):
    """One POST, but for its key: `headers` holds no credentials, `dropped` the params that could not be expressed."""

    row: ModelRow
    url: str
    headers: dict[str, str]
    body: bytes
    stream: bool
    dropped: list[str]


def http_call(
    row: ModelRow,
    path: str,
    body: dict[str, Any],
    stream: bool,
    dropped: list[str],
    *,
    streamed: str = "text/event-stream",
    more: Headers = NO_HEADERS,
) -> HttpCall:
    """A POST below the provider's base URL; `streamed` is the media type of what is asked for as a stream."""
    return HttpCall(
        row=row,
        url=row.base_url.rstrip("/") + path,
        headers={"content-type": "application/json", "accept": streamed if stream else "application/json", **more},
        body=msgspec.json.encode(body),
        stream=stream,
        dropped=dropped,
    )


class Told:
    """How much of an answer its deltas have told: not all, where a provider was asked for a stream and sent none."""

    def __init__(self) -> None:
        self._text = 0
        self._reasoning = 0
        self._calls = False

    def note(self, delta: Delta) -> None:
        self._text += len(delta.text or "")
        self._reasoning += len(delta.reasoning or "")
        self._calls = self._calls or delta.tool_call is not None

    def rest(self, answer: Answer) -> list[Delta]:
        deltas = []
        if reasoning := (answer.reasoning or "")[self._reasoning :]:
            deltas.append(Delta(reasoning=reasoning))
        if text := answer.text[self._text :]:
            deltas.append(Delta(text=text))
        for index, call in enumerate(answer.tool_calls if not self._calls else []):
            arguments = msgspec.json.encode(call.arguments).decode()
            deltas.append(Delta(tool_call=ToolCallDelta(index, call.id, call.name, arguments)))
        return deltas


class Reader(Protocol):
    """Reads one response; neither method raises, whatever the bytes are."""

    def feed(self, data: bytes) -> list[Delta]: ...

    @property
    def whole(self) -> bool:
        """Whether the answer's end mark has come: all that may follow is the end of the response."""
        ...

    def end(self, cut: bool) -> Outcome:
        """The response is over; `cut` where the connection broke before its end."""


class Offered(Struct, frozen=True):
    """A model that a provider says it has, and what it tells of it."""

    id: str
    context_tokens: int | None = None
    max_output_tokens: int | None = None


class Dialect(Protocol):
    """`models` is the path of a provider's list of models, `models_headers` what it wants with it."""

    auth: Auth
    models: str
    models_headers: Headers

    def request(self, chat: Chat, row: ModelRow, max_tokens: int | None, stream: bool) -> HttpCall: ...

    def reader(self, call: HttpCall, status: int, headers: Headers) -> Reader: ...

    def read_models(self, body: bytes) -> list[Offered]:
        """Raises msgspec.DecodeError where it is no list of models."""
        ...

    def count(self, call: HttpCall) -> HttpCall | None:
        """The request that asks how many tokens the input of `call` has; None where there is no asking."""
        ...


class Provider(Protocol):
    """One provider that can be called: makes its requests, and carries them."""

    def request(self, chat: Chat, row: ModelRow, max_tokens: int | None, stream: bool) -> HttpCall: ...

    async def count(self, call: HttpCall) -> int | None:
        """How many tokens the input of this call has, by the provider's own count; None where it does not tell."""
        ...

    async def send(self, call: HttpCall, emit: Emit | None) -> Outcome:
        """Carry one call to its outcome. Cancelled, it aborts the request upstream; it raises nothing else."""
        ...
