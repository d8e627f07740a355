"""How many connections there are, and of whom: what their clients hear of it."""

from contextlib import AsyncExitStack

import pytest

from llmd.context import Peer
from llmd.rpc import hub as hub_module
from llmd.settings import Limits
from tests.support.dialogues import Client, call, connected, kinds, pong
from tests.support.sessions import OWN, STRANGER, TOKEN, open_hub

pytestmark = pytest.mark.anyio


async def test_strangers_take_nobody_elses_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "STRANGERS_MAX", 2)
    hub = open_hub(Limits(connections=3))
    async with AsyncExitStack() as stack:

        async def enter(peer: Peer = OWN) -> Client:
            return await stack.enter_async_context(connected(hub, peer, authorized=peer.own))

        stranger, _, third = [await enter(STRANGER) for _ in range(3)]
        assert kinds(await third.stream.answered(1)) == [(None, "busy")]
        await enter()
        own = await enter()
        own.send(call(1))
        assert await own.stream.answered(1) == [pong(1)]
        stranger.send(call(1, "daemon.auth", token=TOKEN))  # one of the known from here on
        assert kinds(await stranger.stream.answered(1)) == [(1, "ok")]
        assert kinds(await (await enter()).stream.answered(1)) == [(None, "busy")]
        late = await enter(STRANGER)
        late.send(call(1, "daemon.auth", token=TOKEN))
        assert kinds(await late.stream.answered(1)) == [(1, "busy")]
        await late.ended.wait()
    async with connected(hub) as client:
        client.send(call(1))
        assert await client.stream.answered(1) == [pong(1)], "who has gone has left a place"
