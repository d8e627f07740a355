"""The daemon as a place of the library's calls: one connection of this process, on the engine, many calls at once."""

import logging

import anyio
from anyio.abc import TaskStatus

from llmd.books import Opened, OpenParams, Snapshot, Statement
from llmd.chat import Ask, Completion
from llmd.client import messages
from llmd.client.asynchronous import AsyncClient
from llmd.engine import Engine
from llmd.errors import trace
from llmd.places import DAEMON
from llmd.policy import RoutingPolicy

log = logging.getLogger("llmd.library")


class Remote:
    """Calls over `client`, which connects anew for the next call where the connection was lost."""

    home: object = DAEMON

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def execute(self, ask: Ask, policy: RoutingPolicy | None = None) -> Completion:
        assert policy is None, "the daemon has rules of its own"
        return await self._client.call("execute", ask, Completion)

    async def open(self, params: OpenParams) -> Opened:
        return await self._client.call("budget.open", params, Opened)

    async def get(self, budget: str) -> Snapshot:
        return await self._client.call("budget.get", {"budget": budget}, Snapshot)

    async def close(self, budget: str, cancel: bool) -> Snapshot:
        return (await self._client.call("budget.close", messages.closing(budget, cancel), Statement)).budget


async def remote(engine: Engine) -> Remote:
    """The one of this engine. Raises NoDaemon."""
    async with engine.places.setdefault("connecting", anyio.Lock()):
        if "remote" not in engine.places:
            await engine.lasting.start(_connect, engine)
    found: Remote = engine.places["remote"]
    return found


async def _connect(engine: Engine, *, task_status: TaskStatus[None]) -> None:
    begun = False
    try:
        async with AsyncClient() as client:
            engine.places["remote"] = Remote(client)
            begun = True
            task_status.started()
            await anyio.sleep_forever()
    except Exception as error:
        if not begun:
            raise
        # Raised among what lasts, it would end the engine and every budget that is in this process.
        del engine.places["remote"]
        log.error("the connection to the daemon failed: %s", trace(error))
