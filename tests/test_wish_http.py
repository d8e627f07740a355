"""The wish over real HTTP: a real daemon, a provider that bills by a meter of its own, agents on many connections.

The rest of the wish, in virtual time, is tests/test_wish.py's.
"""

import json
import sys
from itertools import count
from pathlib import Path
from random import Random
from subprocess import DEVNULL
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from tests.support.daemon import RunningDaemon, running_daemon
from tests.support.metered import Meter
from tests.support.treasuries import pass_time
from tests.support.upstream import Upstream, scripted
from tests.support.wish_http import CONFIG, MeteredUpstream, Peer, branches, check_branch, connected

pytestmark = pytest.mark.anyio

CAP = 4000
SMALLEST = 200
"""More than any call for one token holds: its bytes, the overhead, and the token."""
CONNECTIONS = 8
FINAL = ("budget_exceeded", "budget_closed", "budget_unknown")


class Agents:
    """Those who call below one budget, and what the meter must say meanwhile."""

    def __init__(self, daemon: RunningDaemon, meter: Meter, seed: int) -> None:
        self.handles: dict[str, str] = {}
        self.looks = 0
        self.over = False
        self._daemon = daemon
        self._meter = meter
        self._seed = seed
        self._numbers = count()

    async def open(self, peer: Peer, name: str, parent: str | None, **params: Any) -> None:
        above = {} if parent is None else {"parent": self.handles[parent]}
        opened = await peer.call("budget.open", label=name, **above, **params)
        self.handles[name] = opened["budget"]
        self._meter.add(name, parent)

    async def agent(self, number: int, peers: list[Peer], group: TaskGroup) -> None:
        """Calls until nothing fits any more; now and then it cancels, or its connection goes."""
        rng = Random(f"{self._seed}/{number}")
        name = rng.choice([name for name in self.handles if name != "killed"])
        while True:
            if rng.random() < 0.05:
                async with connected(self._daemon.socket, group) as own:
                    with anyio.move_on_after(rng.uniform(0, 0.1)):
                        await self.call(own, name, rng)
                continue
            cancel_after = rng.uniform(0, 0.1) if rng.random() < 0.1 else None
            if await self.call(rng.choice(peers), name, rng, cancel_after=cancel_after) in FINAL:
                return

    async def use_up(self, peer: Peer) -> None:
        """Small calls at the top, until nothing is left of the cap."""
        rng = Random(f"{self._seed}/last")
        while await self.call(peer, "A", rng, max_tokens=1, fit="refuse") not in FINAL:
            pass

    async def call(self, peer: Peer, name: str, rng: Random, **more: Any) -> str | None:
        params: dict[str, Any] = {
            "prompt": f"{name} {self._seed}/{next(self._numbers)} {'x' * rng.randrange(20)}",
            "budget": self.handles[name],
            "fit": rng.choice(["clamp", "refuse"]),
        }
        if rng.random() < 0.7:
            params["max_tokens"] = rng.randint(1, 200)
        if rng.random() < 0.5:
            params["stream"] = params["prompt"].split(" ")[1]
        told = await peer.call("execute", **{**params, **more})
        data = {} if told is None else told.get("data", {})
        if data.get("kind") == "no_route":  # the provider has failed too often: it says when to come back
            await pass_time(data["retry_after_ms"] / 1000)
        return None if told is None else data.get("kind", "ok")

    async def look(self, peer: Peer) -> None:
        """Again and again: what was billed before the question is covered by its answer."""
        while not self.over:
            billed = dict(self._meter.billed)
            tree = await peer.call("budget.tree", budget=self.handles["A"])
            for branch in branches(tree):
                check_branch(branch, billed[branch["label"]], branch["limits"].get("total_tokens"))
            self.looks += 1
            await pass_time(0.005)

    async def kill_a_client(self, upstream: Upstream) -> None:
        """A process that is killed while its call is out."""
        params = {"prompt": f"killed {self._seed}/k", "budget": self.handles["killed"], "max_tokens": 50}
        command = [sys.executable, "-m", "llmd", "call", "--socket", str(self._daemon.socket), "execute"]
        async with await anyio.open_process([*command, json.dumps(params)], stdin=DEVNULL) as process:
            await upstream.until(lambda up: any(b"killed " in request.body for request in up.requests))
            process.kill()

    async def settled(self, peer: Peer) -> dict[str, Any]:
        """The tree by labels, when nothing is held any more."""
        while True:
            tree = await peer.call("budget.tree", budget=self.handles["A"])
            found = {branch["label"]: branch for branch in branches(tree)}
            if not any(found["A"]["held"].values()):
                return found


@pytest.mark.parametrize(("callers", "seed"), [(64, 1), (64, 2), (256, 3)])
async def test_over_http_a_cap_is_never_overspent_and_always_used(tmp_path: Path, callers: int, seed: int) -> None:
    meter = Meter()
    async with scripted(MeteredUpstream(meter)) as upstream, anyio.create_task_group() as group:
        with running_daemon(tmp_path, config=CONFIG.format(url=upstream.url)) as daemon:
            agents = Agents(daemon, meter, seed)
            async with anyio.create_task_group() as readers:
                sockets = [connected(daemon.socket, readers) for _ in range(CONNECTIONS)]
                peers = [await socket.__aenter__() for socket in sockets]
                await agents.open(peers[0], "A", None, total=CAP)
                await agents.open(peers[0], "B", "A", total=3000)
                await agents.open(peers[0], "C0", "B", total=2000, guarantee={"total_tokens": 500})
                await agents.open(peers[0], "C1", "B", total=2000)
                await agents.open(peers[0], "killed", "A", total=400, guarantee={"total_tokens": 400})
                group.start_soon(agents.look, peers[0])
                async with anyio.create_task_group() as calling:
                    calling.start_soon(agents.kill_a_client, upstream)
                    for number in range(callers):
                        calling.start_soon(agents.agent, number, peers[1:], readers)
                for name in ("B", "killed"):
                    await peers[0].call("budget.close", budget=agents.handles[name])
                await agents.use_up(peers[1])
                agents.over = True
                found = await agents.settled(peers[0])
                for name, branch in found.items():
                    check_branch(branch, meter.billed[name], branch["limits"]["total_tokens"])
                    certain = branch["settled"]["total_tokens"] - branch["uncertain"]["total_tokens"]
                    assert certain <= meter.billed[name][0]
                assert found["A"]["settled"]["total_tokens"] >= min(0.95 * CAP, CAP - SMALLEST)
                assert meter.billed["killed"][0] > 0
                assert agents.looks > 10
                for peer in peers:
                    await peer.close()
        group.cancel_scope.cancel()
