"""A world for the wish test: agents below one small budget who call, retry, cancel, close and resize as they like.

What the provider's own meter has billed is compared with the books at every instant, at every budget, in every unit;
and now and then with the books that a crash at that instant would leave.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from random import Random
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskGroup

from llmd.books import UNITS, OpenParams, StatementParams, TreeParams
from llmd.chat import Ask, Delta
from llmd.core.amounts import lanes
from llmd.core.budget import Budget
from llmd.core.ledger import Ledger
from llmd.core.recovery import recover
from llmd.errors import LLMError
from llmd.executor import Executor
from llmd.treasury import zone
from tests.support.metered import Meter, MeteredProvider, metered_upstreams
from tests.support.treasuries import Bank, context, sum_of

CAP = 4000
CALLS_MAX = 4000
CRASHES = 1 / 100  # of the moments that are looked at
FINAL = ("budget_exceeded", "budget_closed", "budget_unknown")
EXPECTED = {"deadline_exceeded", "budget_contended", "budget_busy", "budget_denied", *FINAL}

Pause = Callable[[float], Awaitable[None]]


class World:
    """One run. Patient callers go on until their budget has nothing left for them; the others come and go.

    guarantees  whether some budgets set theirs aside
    pause       lets time pass
    """

    def __init__(self, bank: Bank, group: TaskGroup, seed: int, pause: Pause, *, patient: bool, guarantees: bool):
        self.rng = Random(seed)
        self.meter = Meter()
        self.budgets: dict[str, Budget] = {}
        self.handles: dict[str, str] = {}
        self.smallest = CAP
        self.calls = 0
        self.looks = 0
        self.ends: dict[str, int] = {}
        self._bank = bank
        self._seed = seed
        self._pause = pause
        self._patient = patient
        self._guarantees = guarantees
        self._numbers = count()
        places = self.rng.choice([None, None, 8])
        self.provider = MeteredProvider(self.meter, self.check, pause, group)
        upstreams = metered_upstreams(self.provider, **({} if places is None else {"max_concurrency": places}))
        self.executor = Executor(lambda: upstreams, bank.payer)

    # -- budgets --------------------------------------------------------------------------------------------------

    async def plant(self) -> None:
        """A, B below A, and C's below B."""
        window = "day" if not self._guarantees and self.rng.random() < 0.2 else None
        await self.open("A", None, limits={"total_tokens": CAP}, window=window)
        await self.open("B", "A", **self._share(3000))
        for number in range(self.rng.randint(1, 4)):
            await self.open(f"C{number}", "B", **self._share(1000))

    def _share(self, most: int) -> dict[str, Any]:
        limit = self.rng.randint(most // 3, most)
        guarantee = self.rng.randint(0, limit // 3) if self._guarantees else 0
        others = self.rng.choice([{}, {"requests": 200}, {"output_tokens": most}, {"nano_usd": most * 300}])
        return {"limits": {"total_tokens": limit, **others}, "guarantee": {"total_tokens": guarantee}}

    async def open(self, name: str, parent: str | None, **params: Any) -> None:
        given = {"parent": None if parent is None else self.handles[parent], "label": name, **params}
        handle = await self._bank.operations.open(msgspec.convert(given, OpenParams), context())
        self.handles[name] = handle.budget
        self.budgets[name] = self._bank.budget(handle.budget)
        self.meter.add(name, parent)

    # -- agents ---------------------------------------------------------------------------------------------------

    async def agents(self, number: int) -> None:
        """So many at once, and whoever disturbs them."""
        async with anyio.create_task_group() as group:
            for one in range(number):
                group.start_soon(self._agent, Random(f"{self._seed}/{one}"))
            if not self._patient:
                for one in range(number // 16):
                    group.start_soon(self._disturb, Random(f"{self._seed}/-{one}"))

    async def _agent(self, rng: Random) -> None:
        name = rng.choice(list(self.handles))
        await self._pause(rng.uniform(0, 3))
        for _ in range(CALLS_MAX if self._patient else 4):
            with anyio.move_on_after(rng.uniform(0, 20) if not self._patient and rng.random() < 0.2 else 1e6):
                if await self.call(name, rng) in FINAL:
                    return
            if not self._patient:
                name = rng.choice(list(self.handles))

    async def call(self, name: str, rng: Random, **params: Any) -> str:
        """How it ended: "ok", or the kind of its error."""
        self.calls += 1
        assert self.calls < 100 * CALLS_MAX, "the cap is never used up"
        said = f"{name} {self._seed}/{next(self._numbers)} {'x' * rng.randrange(40)}"
        asked: dict[str, Any] = {
            "prompt": said,
            "max_tokens": rng.choice([None, rng.randint(1, 300), rng.randint(1, 60)]),
            "fit": rng.choice([None, "clamp", "refuse"]),
            "timeout_ms": 600_000,
            "budget": self.handles[name],
        }
        if not self._patient:
            asked["timeout_ms"] = rng.choice([600_000, rng.randint(1, 20_000)])
            asked["wait_ms"] = rng.choice([None, 0, rng.randint(1, 5000)])
        ask = msgspec.convert({**asked, **params}, Ask)
        if name == "A" and ask.max_tokens is not None:
            # Its bytes and overhead, and the answer: what it holds at least.
            self.smallest = min(self.smallest, len(said) + 40 + 8 + ask.max_tokens)
        try:
            await self.executor.execute(ask, context(), self._emit if rng.random() < 0.5 else None)
            end = "ok"
        except LLMError as error:
            end = error.kind
            if end == "no_route":  # the provider has failed too often: it says when to come back
                await self._pause(error.data["retry_after_ms"] / 1000)
            elif end not in EXPECTED and error.code not in range(1001, 1008):
                raise
        self.ends[end] = self.ends.get(end, 0) + 1
        return end

    async def _emit(self, delta: Delta) -> None:
        await self._pause(0.01)

    async def _disturb(self, rng: Random) -> None:
        await self._pause(rng.uniform(0, 30))
        name = rng.choice(list(self.handles))
        parent = rng.choice(list(self.handles))
        tokens = rng.randint(1, 60)
        try:
            match rng.randrange(5):
                case 0 if name != "A":
                    with anyio.move_on_after(rng.uniform(0, 5)):
                        await self._bank.close(self.handles[name], mode=rng.choice(["drain", "cancel"]))
                case 1:
                    child, limits = self.budgets[name].id, {"total_tokens": rng.randint(0, 3000)}
                    await self._bank.resize(self.handles[parent], child=child, limits=limits)
                case 2:
                    await self.open(f"D{next(self._numbers)}", parent, **self._share(1000))
                case _:
                    amounts = [tokens, 0, 0, 0, 0]
                    await self._bank.charge(self.handles[name], tokens, wait_ms=rng.choice([0, 3000]))
                    self.meter.count(self.meter.billed, name, amounts)
                    self.meter.count(self.meter.told, name, amounts)
        except LLMError as error:
            if error.kind not in {*EXPECTED, "invalid_params"}:  # a limit below the guarantee, that is
                raise

    # -- what must hold -------------------------------------------------------------------------------------------

    def check(self) -> None:
        """At this instant: what is billed is at most settled and held, and nothing is beyond its limit."""
        self.looks += 1
        now = self._bank.clock.now()
        for name, budget in self.budgets.items():
            account = budget.account(now)
            covered = lanes(account.settled + account.held)
            billed = self.meter.billed[name]
            assert all(map(int.__le__, billed, covered)), (name, billed, covered)
            limits = [budget.terms.limits.get(unit, 2**53) for unit in UNITS]
            assert all(map(int.__le__, lanes(account.used), limits)), (name, lanes(account.used), limits)
            assert not account.overrun
        if self.rng.random() < CRASHES:
            self.check_crash()

    def check_crash(self) -> None:
        """A daemon that crashes now, and is started again."""
        image, ledger, now = self._bank.journal.image(), Ledger(), self._bank.clock.now()
        recover(now, lambda prefix: [row for row in sorted(image.items()) if row[0].startswith(prefix)], ledger, zone)
        for name, budget in self.budgets.items():
            recovered = ledger.budgets.get(budget.id)
            assert recovered is not None or budget.state == "closed"
            if recovered is not None:
                settled, billed = lanes(recovered.account(now).settled), self.meter.billed[name]
                assert all(map(int.__le__, billed, settled)), (name, billed, settled)
                assert settled[0] <= budget.terms.limits["total_tokens"] or budget.state == "closed" or name != "A"

    async def check_end(self) -> None:
        """Nothing is held, nobody waits, the books are exact and add up, in the tree as in the statement."""
        bank, now = self._bank, self._bank.clock.now()
        assert bank.is_at_rest()
        self.check()
        for name, budget in self.budgets.items():
            account = budget.account(now)
            assert not account.held
            # What was not told is posted as a bound, and is marked as one.
            assert lanes(account.settled - account.uncertain) == self.meter.told[name], name
        root, params = self.budgets["A"], {"budget": self.handles["A"]}
        told = bank.operations.tree(msgspec.convert(params, TreeParams), context())
        (branch,) = told.budgets
        waiting = [branch]
        for each in waiting:
            below = sum(one.settled.total_tokens for one in each.below)
            own = lanes(bank.treasury.ledger.budgets[each.id].own_settled)[0]
            assert each.settled.total_tokens == own + below
            waiting += each.below
        assert {one.id for one in waiting} == set(bank.treasury.ledger.budgets)
        posted, cursor = 0, None
        while True:
            asked = {**params, "cursor": cursor, "limit": 100}
            page = await bank.operations.statement(msgspec.convert(asked, StatementParams), context())
            posted += sum_of(page.entries, "total_tokens")
            if (cursor := page.cursor) is None:
                break
        assert posted == lanes(root.account(now).settled)[0]
        self.check_crash()

    def check_used(self) -> None:
        """Demand was more than the cap: no more of it is left than the smallest that was asked for."""
        settled = lanes(self.budgets["A"].account(self._bank.clock.now()).settled)[0]
        assert settled >= min(0.95 * CAP, CAP - self.smallest), (settled, self.smallest)

    async def use_up(self) -> None:
        """Close what is below A, and call there until nothing fits: whatever happened before, nothing has leaked."""
        for name in [name for name, budget in self.budgets.items() if name != "A" and budget.state == "open"]:
            if self.budgets[name].state == "open":
                await self._bank.close(self.handles[name])
        rng = Random(f"{self._seed}/last")
        while await self.call("A", rng, max_tokens=1, fit="refuse", wait_ms=None, timeout_ms=600_000) not in FINAL:
            pass


@asynccontextmanager
async def world(bank: Bank, seed: int, pause: Pause, *, patient: bool, guarantees: bool) -> AsyncIterator[World]:
    """Leaves when the provider has billed all that it will."""
    async with anyio.create_task_group() as group:
        made = World(bank, group, seed, pause, patient=patient, guarantees=guarantees)
        await made.plant()
        yield made
    made.check()
