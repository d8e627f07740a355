"""Client: the daemon from a thread, over one connection, one call at a time."""

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from msgspec import UNSET

from llmd.books import Opened, Snapshot, Statement
from llmd.chat import Completion, Delta, ManyCompletions
from llmd.client import messages
from llmd.client.messages import ExecuteParams, Incoming, ManyParams, OpenBudgetParams, ResizeBudgetParams
from llmd.client.wire import ConnectionLost, NoDaemon, Wire
from llmd.errors import LLMError

RECONNECT_S = 10.0  # how long a daemon may take to be there again, and a call that was lost is asked again
PAUSE_S = 0.05
GOODBYE_S = 2.0

T = TypeVar("T")


class Client:
    """A connection to the daemon. As a context manager it is closed behind the block, which cancels what runs.

    socket     its path; unset, where this user's daemon listens
    reconnect  send calls with idempotency keys, and when the connection is lost, connect anew and ask again for 10 s:
               the daemon goes on with such a call meanwhile, and none is paid twice

    For one thread at a time. Raises NoDaemon where nobody listens. Methods raise LLMError: the daemon's errors, with
    `kind`, `retryable` and `data`, and outcome_unknown where the connection broke before the answer.
    """

    def __init__(self, socket: str | Path | None = None, *, reconnect: bool = False) -> None:
        self._sockets = messages.sockets(socket)
        self._reconnect = reconnect
        self._number = 0
        self._busy = False
        self._wire: Wire | None = Wire(self._sockets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def execute(self, **params: Unpack[ExecuteParams]) -> Completion:
        """One LLM call. Interrupted, it is cancelled."""
        return self.call("execute", params, Completion)

    def execute_many(
        self, calls: Sequence[ExecuteParams | Mapping[str, Any]], **params: Unpack[ManyParams]
    ) -> ManyCompletions:
        """Calls that run together; `results` are in their order, each `ok` or `error`."""
        return self.call("execute_many", {"calls": list(calls), **params}, ManyCompletions)

    def stream(self, **params: Unpack[ExecuteParams]) -> "Stream":
        """One LLM call whose deltas come as they are made:

        with client.stream(prompt="...") as stream:
            for delta in stream: ...
            stream.completion()

        Leaving the block before the end cancels the call.
        """
        return Stream(self, params)

    def budget(self, **params: Unpack[OpenBudgetParams]) -> "ClientBudget":
        """A budget for a block: opened when it begins, closed behind it."""
        return ClientBudget(self, params)

    def call(self, method: str, params: Mapping[str, Any], kind: type[T]) -> T:
        """Any method, its result read as `kind`."""
        talk = self._talk(method, params)
        for _ in talk.heard():
            pass
        return messages.result(talk.reply, kind)

    def _talk(self, method: str, params: Mapping[str, Any]) -> "_Talk":
        if self._busy:
            raise RuntimeError("this client is in the middle of another call: use another one beside it")
        return _Talk(self, method, messages.keyed(method, params) if self._reconnect else params)

    def _connected(self) -> Wire:
        patient = False
        if self._wire is not None and self._wire.ended():  # while it was idle: nothing is lost that was asked
            self.close()
            patient = self._reconnect
        deadline = time.monotonic() + RECONNECT_S
        while self._wire is None:
            try:
                self._wire = Wire(self._sockets)
            except NoDaemon:
                if not patient or time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE_S)
        return self._wire


class _Talk:
    """One call: `heard` are the params of its notifications; when they are at their end there is its `reply`."""

    def __init__(self, client: Client, method: str, params: Mapping[str, Any]) -> None:
        self.reply: Incoming
        self._client = client
        self._method = method
        self._params = dict(params)

    def heard(self) -> Generator[bytes, None, None]:
        """Closed before its end, it cancels the call."""
        client = self._client
        client._busy = True
        try:
            yield from self._once(client._connected())
        except ConnectionLost:
            client.close()
            if not client._reconnect:
                raise messages.lost() from None
            # What it streams from now on may be of another answer: the completion has it whole.
            self._params.pop("stream", None)
            yield from self._again()
        finally:
            client._busy = False

    def _again(self) -> Generator[bytes, None, None]:
        until = time.monotonic() + RECONNECT_S
        while time.monotonic() < until:
            try:
                yield from self._once(self._client._connected())
            except (ConnectionLost, NoDaemon):
                self._client.close()
                time.sleep(PAUSE_S)
            else:
                return
        raise messages.lost() from None

    def _once(self, wire: Wire) -> Generator[bytes, None, None]:
        client = self._client
        client._number += 1
        number = client._number
        request = messages.request(number, self._method, self._params)
        over = False
        try:
            wire.send(request)
            while True:
                message = _take(wire)
                if message.method is not None:
                    yield bytes(b"{}" if message.params is UNSET else message.params)
                elif message.id in (number, None):
                    self.reply = message
                    over = True
                    if message.id is None:  # it was not read, and nothing more will be
                        client.close()
                    return
        except ConnectionLost:
            over = True
            raise
        finally:
            if not over:
                self._cancel(wire, number)

    def _cancel(self, wire: Wire, number: int) -> None:
        """Ask the daemon to stop, and wait a moment for it to say that it has."""
        try:
            wire.settimeout(GOODBYE_S)
            wire.send(messages.cancel(number))
            while _take(wire).id != number:
                pass
            wire.settimeout(None)
        except (ConnectionLost, OSError):
            self._client.close()


def _take(wire: Wire) -> Incoming:
    try:
        return messages.decode(wire.receive_line())
    except messages.SENSELESS:  # as good as no answer
        raise ConnectionLost from None


class Stream:
    """A call whose deltas are iterated; then there is its `completion`."""

    def __init__(self, client: Client, params: Mapping[str, Any]) -> None:
        self._client = client
        self._params = params
        self._deltas: Generator[Delta, None, None] | None = None
        self._completion: Completion | None = None

    def __enter__(self) -> Self:
        self._deltas = self._read(self._client._talk("execute", {**self._params, "stream": "client"}))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._deltas is not None:
            self._deltas.close()

    def __iter__(self) -> Iterator[Delta]:
        """The deltas, each with one of `text`, `reasoning` and `tool_call`. Raises what the call ends with."""
        if self._deltas is None:
            raise RuntimeError("a stream is used in a block: with client.stream(...) as stream")
        return self._deltas

    def completion(self) -> Completion:
        """The whole result. Asked for before the deltas are at their end, it waits for it and skips them."""
        for _ in self:
            pass
        if self._completion is None:
            raise RuntimeError("this stream was left, or ended with an error")
        return self._completion

    def _read(self, talk: _Talk) -> Generator[Delta, None, None]:
        with closing(talk.heard()) as heard:
            for params in heard:
                yield messages.delta(params)
        self._completion = messages.result(talk.reply, Completion)


class ClientBudget:
    """A budget of the daemon's, open as long as its block: `handle` is what calls take as `budget`, `id` its public id.

    Raises LLMError, as the client does.
    """

    def __init__(self, client: Client, params: Mapping[str, Any]) -> None:
        self._client = client
        self._params = params
        self.handle = ""
        self.id = ""

    def __enter__(self) -> Self:
        opened = self._client.call("budget.open", self._params, Opened)
        self.handle, self.id = opened.budget, opened.id
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(LLMError, NoDaemon) if error is not None else nullcontext():
            self.close(cancel=error is not None)

    def budget(self, **params: Unpack[OpenBudgetParams]) -> "ClientBudget":
        """One below this one."""
        return ClientBudget(self._client, {"parent": self.handle, **params})

    def snapshot(self) -> Snapshot:
        """How it stands."""
        return self._client.call("budget.get", {"budget": self.handle}, Snapshot)

    def charge(self, *, force: bool = False, note: str | None = None, **amounts: int | str) -> Snapshot:
        """Post what was spent elsewhere: amounts by unit, `usd` as a decimal string."""
        return self._client.call("budget.charge", messages.charge(self.handle, amounts, force, note), Snapshot)

    def resize(self, **params: Unpack[ResizeBudgetParams]) -> Snapshot:
        """Other limits, guarantees or another lease."""
        return self._client.call("budget.resize", {"budget": self.handle, **params}, Snapshot)

    def close(self, *, cancel: bool = False) -> Statement | None:
        """Close it when its calls have ended, with `cancel` by aborting them; None where it was closed already."""
        try:
            return self._client.call("budget.close", messages.closing(self.handle, cancel), Statement)
        except LLMError as error:
            if error.kind == "budget_closed":
                return None
            raise
