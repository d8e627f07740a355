"""AsyncClient: the daemon from tasks of asyncio or trio, many calls in flight on one connection."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import anyio
from anyio.abc import TaskGroup

from llmd.books import Opened, Snapshot, Statement
from llmd.chat import Completion, Delta, ManyCompletions
from llmd.client import messages
from llmd.client.connection import Connection, Exchange, Lost, Unread, connect
from llmd.client.messages import ExecuteParams, ManyParams, OpenBudgetParams, ResizeBudgetParams
from llmd.client.wire import NoDaemon
from llmd.errors import LLMError

RECONNECT_S = 10.0  # how long a call whose connection was lost is asked again
PAUSE_S = 0.05

T = TypeVar("T")


class AsyncClient:
    """A connection to the daemon, within its block; leaving that cancels what runs.

    socket     its path; unset, where this user's daemon listens
    reconnect  send calls with idempotency keys, and when the connection is lost, connect anew and ask again for 10 s:
               the daemon goes on with such a call meanwhile, and none is paid twice

    For the tasks of one loop, all at once. Raises NoDaemon where nobody listens. Methods raise LLMError: the daemon's
    errors, with `kind`, `retryable` and `data`, and outcome_unknown where the connection broke before the answer. A
    call is cancelled by cancelling its task.
    """

    def __init__(self, socket: str | Path | None = None, *, reconnect: bool = False) -> None:
        self._sockets = messages.sockets(socket)
        self.reconnects = reconnect
        self._connection: Connection | None = None
        self._connecting: anyio.Lock
        self._streams = 0
        self._within = False
        self._group: TaskGroup
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._connecting = anyio.Lock()
        self._connection = await connect(self._sockets)
        self._group = await self._stack.enter_async_context(anyio.create_task_group())
        self._group.start_soon(self._connection.run)
        self._within = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._within = False
        self._group.cancel_scope.cancel()
        # What leaves the block goes on as it is: the group would put it into an exception group.
        await self._stack.aclose()

    async def execute(self, **params: Unpack[ExecuteParams]) -> Completion:
        """One LLM call."""
        return await self.call("execute", params, Completion)

    async def execute_many(
        self, calls: Sequence[ExecuteParams | Mapping[str, Any]], **params: Unpack[ManyParams]
    ) -> ManyCompletions:
        """Calls that run together; `results` are in their order, each `ok` or `error`."""
        return await self.call("execute_many", {"calls": list(calls), **params}, ManyCompletions)

    def stream(self, **params: Unpack[ExecuteParams]) -> "AsyncStream":
        """One LLM call whose deltas come as they are made:

        async with client.stream(prompt="...") as stream:
            async for delta in stream: ...
            await stream.completion()

        Leaving the block before the end cancels the call.
        """
        return AsyncStream(self, params)

    def budget(self, **params: Unpack[OpenBudgetParams]) -> "AsyncClientBudget":
        """A budget for a block: opened when it begins, closed behind it."""
        return AsyncClientBudget(self, params)

    async def call(self, method: str, params: Any, kind: type[T]) -> T:
        """Any method, its result read as `kind`."""
        if self.reconnects:
            params = messages.keyed(method, params)
        try:
            return await self._ask(method, params, kind)
        except Lost as lost:
            return await self.again(lost, method, params, kind)

    async def again(self, lost: Lost, method: str, params: Any, kind: type[T]) -> T:
        """What a call was to give that was `lost`, as long as it may be made again; then outcome_unknown."""
        until = anyio.current_time() + RECONNECT_S
        while (self.reconnects or isinstance(lost, Unread)) and anyio.current_time() < until:
            try:
                return await self._ask(method, params, kind)
            except NoDaemon:
                if not self.reconnects:
                    raise
            except Lost as another:
                lost = another
            await anyio.sleep(PAUSE_S)
        raise messages.lost() from None

    async def _ask(self, method: str, params: Any, kind: type[T]) -> T:
        connection = await self.connected()
        return messages.result(await connection.call(method, params), kind)

    async def connected(self) -> Connection:
        """The connection, anew where it was lost. Raises NoDaemon."""
        if not self._within:
            raise RuntimeError("an AsyncClient is used in its block: async with AsyncClient() as client")
        async with self._connecting:
            if self._connection is None or self._connection.lost:
                self._connection = await connect(self._sockets)
                self._group.start_soon(self._connection.run)
            return self._connection

    def token(self) -> str:
        """One that no stream of this client has."""
        self._streams += 1
        return f"client.{self._streams}"


class AsyncStream:
    """A call whose deltas are iterated; then there is its `completion`."""

    def __init__(self, client: AsyncClient, params: Mapping[str, Any]) -> None:
        self._client = client
        self._params = messages.keyed("execute", params) if client.reconnects else params
        self._stack = AsyncExitStack()
        self._exchange: Exchange | None = None
        self._completion: Completion | None = None

    async def __aenter__(self) -> Self:
        connection, token = await self._client.connected(), self._client.token()
        exchange = connection.exchange("execute", {**self._params, "stream": token}, token)
        self._exchange = await self._stack.enter_async_context(exchange)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def __aiter__(self) -> Self:
        """The deltas, each with one of `text`, `reasoning` and `tool_call`. Raises what the call ends with."""
        return self

    async def __anext__(self) -> Delta:
        if self._exchange is None:
            raise RuntimeError("a stream is used in a block: async with client.stream(...) as stream")
        params = await self._exchange.heard()
        if params is None:
            await self.completion()
            raise StopAsyncIteration
        return messages.delta(params)

    async def completion(self) -> Completion:
        """The whole result. Asked for before the deltas are at their end, it waits for it and skips them."""
        if self._exchange is None:
            raise RuntimeError("a stream is used in a block: async with client.stream(...) as stream")
        if self._completion is None:
            try:
                self._completion = messages.result(await self._exchange.reply(), Completion)
            except Lost as lost:
                # What it streams from now on may be of another answer: the completion has it whole.
                self._completion = await self._client.again(lost, "execute", self._params, Completion)
        return self._completion


class AsyncClientBudget:
    """A budget of the daemon's, open as long as its block: `handle` is what calls take as `budget`, `id` its public id.

    Raises LLMError, as the client does.
    """

    def __init__(self, client: AsyncClient, params: Mapping[str, Any]) -> None:
        self._client = client
        self._params = params
        self.handle = ""
        self.id = ""

    async def __aenter__(self) -> Self:
        opened = await self._client.call("budget.open", self._params, Opened)
        self.handle, self.id = opened.budget, opened.id
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True), suppress(LLMError, NoDaemon) if error is not None else nullcontext():
            await self.close(cancel=error is not None)

    def budget(self, **params: Unpack[OpenBudgetParams]) -> "AsyncClientBudget":
        """One below this one."""
        return AsyncClientBudget(self._client, {"parent": self.handle, **params})

    async def snapshot(self) -> Snapshot:
        """How it stands."""
        return await self._client.call("budget.get", {"budget": self.handle}, Snapshot)

    async def charge(self, *, force: bool = False, note: str | None = None, **amounts: int | str) -> Snapshot:
        """Post what was spent elsewhere: amounts by unit, `usd` as a decimal string."""
        return await self._client.call("budget.charge", messages.charge(self.handle, amounts, force, note), Snapshot)

    async def resize(self, **params: Unpack[ResizeBudgetParams]) -> Snapshot:
        """Other limits, guarantees or another lease."""
        return await self._client.call("budget.resize", {"budget": self.handle, **params}, Snapshot)

    async def close(self, *, cancel: bool = False) -> Statement | None:
        """Close it when its calls have ended, with `cancel` by aborting them; None where it was closed already."""
        try:
            return await self._client.call("budget.close", messages.closing(self.handle, cancel), Statement)
        except LLMError as error:
            if error.kind == "budget_closed":
                return None
            raise
