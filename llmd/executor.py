"""The one path of an execute: plan, then hold, attempt and settle until a target answers. Daemon and library share it.

Anyio-neutral. Every attempt has a hold and a scope of its own: retries, fallbacks and hedges are paid for one by one.
"""

import random
from collections import deque
from collections.abc import Callable

import anyio
from msgspec.structs import replace

from llmd.attempts import Attempts, KeptBack, Quoter, Tried
from llmd.budgets import Budgets
from llmd.chat import Ask, Completion, Delta, Route
from llmd.completions import completion, upstream_error
from llmd.context import Context
from llmd.core import retry
from llmd.core.outcomes import Answer, Failure
from llmd.core.plans import Out, Plan
from llmd.core.rows import ModelRow
from llmd.dialects.base import Emit
from llmd.errors import LLMError
from llmd.hedging import Race
from llmd.meter import Meter
from llmd.upstreams import Upstreams

OF_A_TARGET = frozenset({"budget_exceeded", "budget_contended", "budget_denied", "unpriced_model"})
"""Budget errors that another target, a cheaper one, may not have."""

NANO = 10**9
MOMENT_S = 0.001  # a timer may ring a little early


class Executor:
    """Executes requests on the upstreams that `upstreams()` gives at the time, so that a reload swaps them whole.

    roll   a random number from 0 to 1, which spreads retries
    meter  counts the attempts
    """

    def __init__(
        self,
        upstreams: Callable[[], Upstreams],
        budgets: Budgets,
        roll: Callable[[], float] = random.random,
        meter: Meter | None = None,
    ) -> None:
        self._upstreams = upstreams
        self._budgets = budgets
        self._roll = roll
        self._meter = meter or Meter()

    async def execute(self, ask: Ask, ctx: Context, emit: Emit | None = None) -> Completion:
        """One request to its completion. Raises LLMError; cancelled, it aborts the attempt and settles it."""
        deadline = ctx.received + ask.timeout_ms / 1000
        upstreams = self._upstreams()
        attempts = Attempts(upstreams, self._budgets, ctx, self._meter)
        try:
            with anyio.CancelScope(deadline=deadline):
                asked, plan = await self._plan(upstreams, ask, ctx, emit is not None)
                call = _Call(attempts, self._budgets, asked, ctx, emit, plan, deadline, self._roll)
                return await call.run()
            raise ctx.overdue()
        except LLMError as error:
            attempts.tell_unsent(error)
            raise

    async def explain(self, ask: Ask, ctx: Context) -> Plan:
        """The plan of this request now, what its budget would pay included. Calls nobody, holds nothing."""
        _, plan = await self._plan(self._upstreams(), ask, ctx, ask.stream is not None, dry=True)
        return plan

    async def _plan(
        self, upstreams: Upstreams, ask: Ask, ctx: Context, stream: bool, dry: bool = False
    ) -> tuple[Ask, Plan]:
        """The request on the terms of the rule that plans it, and where it goes."""
        room = await self._budgets.room(ask)
        policy = upstreams.policy
        # What the operator says of the peer wins over what whoever opened the budget has said.
        fixed = {**(room.labels if room is not None else {}), **(ctx.peer.labels or {})}
        matched = policy.match(ask, fixed)
        ask = matched.ask
        open_choice = matched.rule is None and ask.model is None
        facts = await upstreams.facts(open_choice, ask_engines=not dry)

        def quoter(row: ModelRow) -> Quoter:
            return Quoter(upstreams.provider(row.provider), ask, row, stream)

        def most_usd(row: ModelRow) -> float | None:
            return None if row.price is None else quoter(row)(ask.max_tokens).bound.amounts.nano_usd / NANO

        def refusal(row: ModelRow) -> LLMError | None:
            assert room is not None
            return room.refuses(ask, row, quoter(row)) if dry else room.denies(row)

        now = anyio.current_time()
        plan = policy.plan(
            matched,
            replace(
                facts,
                most_usd=most_usd,
                refusal=None if room is None else refusal,
                trouble=lambda row: upstreams.traffic.trouble(row, now),
                pace=lambda row: upstreams.traffic.pace(row, stream),
            ),
            stream,
        )
        return ask, plan


class _Call:
    """One call on its way through the steps of its plan."""

    def __init__(
        self,
        attempts: Attempts,
        budgets: Budgets,
        ask: Ask,
        ctx: Context,
        emit: Emit | None,
        plan: Plan,
        deadline: float,
        roll: Callable[[], float],
    ) -> None:
        terms = plan.terms
        self._budgets = budgets
        self._attempts = attempts
        self._ask = ask
        self._ctx = ctx
        self._plan = plan
        self._steps = deque(plan.steps)
        self._deadline = deadline
        self._roll = roll
        self._emit = None if emit is None else self._telling(emit)
        self._told = False
        self._retries = retry.RETRIES if terms is None or terms.retry is None else terms.retry
        self._timeout_s = None if terms is None or terms.timeout_ms is None else terms.timeout_ms / 1000
        self._hedge_s = None if terms is None or terms.hedge_ms is None else terms.hedge_ms / 1000
        self._failure: LLMError | None = None  # an upstream's, the latest
        self._refusal: LLMError | None = None  # the budget's

    async def run(self) -> Completion:
        if not self._steps:
            self._steps.append(await self._first_to_return())
        while self._steps:
            row = self._steps.popleft()
            try:
                tried = await self._exhaust(row)
            except LLMError as error:
                if error.kind not in OF_A_TARGET:
                    raise
                self._refusal = error
                # It has waited for room once.
                self._ask = replace(self._ask, wait_ms=0)
                continue
            if tried is not None and isinstance(tried.outcome, Answer):
                route = Route(self._plan.rule, self._attempts.told)
                latency_ms = round((anyio.current_time() - self._ctx.received) * 1000)
                self._attempts.count_overhead()
                return completion(tried, tried.outcome, route, latency_ms, self._budgets.snapshot(tried.held))
        failed = self._failure or self._refusal
        assert failed is not None, "a call without an answer has failed"
        raise failed

    def _telling(self, emit: Emit) -> Emit:
        async def tell(delta: Delta) -> None:
            self._told = True
            await emit(delta)

        return tell

    async def _first_to_return(self) -> ModelRow:
        """The target that is ready soonest, once it is; no breaker is waited for. Raises the plan's error."""
        now = anyio.current_time()
        waits = [
            (out.until, out.row)
            for out in self._plan.out
            if out.until is not None and out.row is not None and out.reason != "breaker_open"
        ]
        until, row = min(waits, key=lambda wait: wait[0], default=(now, None))
        if row is None or until - now > min(retry.PATIENCE_S, self._deadline - now):
            raise self._plan.error(now)
        if any(out.row is row and out.reason == "rate_limited" for out in self._plan.out):
            await anyio.sleep(until - now)
        return row

    async def _exhaust(self, row: ModelRow) -> Tried | None:
        """Try this target until it answers or is given up. Raises LLMError where no other is to be tried."""
        failed = 0
        while True:
            tried = await self._try(row)
            if isinstance(tried, KeptBack):
                wait_s = self._patience_s(tried)
            elif isinstance(failure := tried.outcome, Failure):
                self._failure = upstream_error(failure, tried.held.quote.call.row, self._attempts.told)
                if self._told or not retry.may_go_elsewhere(failure):
                    raise self._failure
                left_s = self._deadline - anyio.current_time()
                wait_s = retry.wait_s(failure, failed, self._retries, left_s, self._roll(), bool(self._steps))
                failed += 1
            else:
                return tried
            if wait_s is None:
                return None
            await anyio.sleep(wait_s)

    def _patience_s(self, kept: KeptBack) -> float | None:
        """Seconds to wait for a target that keeps calls back, None where it is given up: a breaker is not waited for,
        and nothing is where there is another target."""
        (reason, until, _), now = kept.trouble, anyio.current_time()
        if self._failure is None:
            self._failure = Plan(out=[Out(kept.row.target, kept.row, reason, until=until)]).error(now)
        wait_s = until - now + MOMENT_S
        longest = min(retry.PATIENCE_S, self._deadline - now)
        return None if self._steps or reason == "breaker_open" or wait_s > longest else wait_s

    async def _try(self, row: ModelRow) -> Tried | KeptBack:
        """Once, with the next target beside it if this one says nothing for too long."""
        if self._hedge_s is None or not self._steps:
            return await self._attempt(row, self._emit, self._ask)
        race = Race(self._emit)
        other = self._steps[0]

        async def first(emit: Emit) -> Tried | KeptBack:
            return await self._attempt(row, emit, self._ask)

        async def second(emit: Emit) -> Tried | KeptBack:
            self._steps.popleft()
            return await self._attempt(other, emit, replace(self._ask, wait_ms=0))

        await race.run(first, second, self._hedge_s)
        return race.result()

    async def _attempt(self, row: ModelRow, emit: Emit | None, ask: Ask) -> Tried | KeptBack:
        # In a race each is asked for a stream, if it can: its first piece decides.
        silent = self._emit is None and "stream" in row.refuses
        return await self._attempts.make(ask, row, None if silent else emit, self._timeout_s, patient=not self._steps)
