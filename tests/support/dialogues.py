"""A client that talks with a session step by step, and a provider that answers when it is told to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec

from llmd.catalog import ProviderRow
from llmd.context import Peer
from llmd.core.outcomes import Outcome
from llmd.dialects.base import Emit, HttpCall
from llmd.echo import EchoProvider
from llmd.rpc.hub import Hub
from llmd.rpc.session import Session
from llmd.settings import Limits
from tests.support.sessions import DEADLINE_S, OWN, MemoryStream, catalog, open_hub


class Client:
    """A connection that is being served; `ended` once the session is over."""

    def __init__(self, hub: Hub, peer: Peer, authorized: bool) -> None:
        self.stream = MemoryStream()
        self.session = Session(hub, self.stream, peer, authorized=authorized)
        self.ended = anyio.Event()

    async def serve(self) -> None:
        await self.session.run()
        self.ended.set()

    def send(self, *messages: bytes) -> None:
        self.stream.feed(b"".join(message + b"\n" for message in messages))


@asynccontextmanager
async def connected(hub: Hub, peer: Peer = OWN, *, authorized: bool = True) -> AsyncIterator[Client]:
    client = Client(hub, peer, authorized)
    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as group:
            group.start_soon(client.serve)
            yield client
            client.stream.resume()
            client.stream.close()
            await client.ended.wait()


def call(number: int, method: str = "ping", **params: Any) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def execute(number: int, prompt: str = "p", **params: Any) -> bytes:
    return call(number, "execute", prompt=prompt, **params)


def cancel(number: int) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": number}})


def pong(number: int) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "result": {}}


def kinds(replies: list[Any]) -> list[tuple[Any, str]]:
    """Of each reply its id, and the kind of its error, or "ok"."""
    return [(reply["id"], reply["error"]["data"]["kind"] if "error" in reply else "ok") for reply in replies]


class Gated(EchoProvider):
    """Echo that waits: `running` calls are in it, and none answers before `release`."""

    def __init__(self, row: ProviderRow) -> None:
        super().__init__(row)
        self.running = 0
        self.aborted = 0
        self.release = anyio.Event()
        self.entered = anyio.Event()

    async def send(self, call: HttpCall, emit: Emit | None) -> Outcome:
        self.running += 1
        self.entered.set()
        try:
            await self.release.wait()
        except BaseException:
            self.aborted += 1
            raise
        finally:
            self.running -= 1
        return await super().send(call, emit)


def gate() -> Gated:
    return Gated(catalog().providers["echo"])


def gated_hub(gated: Gated, **limits: int) -> Hub:
    return open_hub(Limits(**limits), echo=gated)
