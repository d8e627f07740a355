"""The one path of an execute: plan, then hold, attempt and settle until a target answers. Daemon and library share it.

Anyio-neutral. Every attempt has a hold and a scope of its own: retries, fallbacks and hedges are paid for one by one.
"""

import random
from collections import deque
from collections.abc import Callable
from itertools import count

import anyio
from msgspec.structs import replace

from llmd.attempts import Attempts, Quoter, Tried
from llmd.budgets import Budgets
from llmd.chat import Ask, Completion, Delta, Route
from llmd.completions import completion, upstream_error
from llmd.context import Context
from llmd.core import retry
from llmd.core.outcomes import Answer, Failure
from llmd.core.plans import Plan
from llmd.core.rows import ModelRow
from llmd.dialects.base import Emit
from llmd.errors import LLMError
from llmd.hedging import Race
from llmd.meter import Meter
from llmd.upstreams import Upstreams

OF_A_TARGET = frozenset({"budget_exceeded", "budget_contended", "budget_denied", "unpriced_model"})
"""Budget errors that another target, a cheaper one, may not have."""

NANO = 10**9


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
        with anyio.CancelScope(deadline=deadline):
            upstreams = self._upstreams()
            attempts = Attempts(upstreams, self._budgets, ctx, self._meter)
            plan = await self._plan(upstreams, ask, ctx, emit is not None)
            call = _Call(attempts, self._budgets, ask, ctx, emit, plan, deadline, self._roll)
            return await call.run()
        raise ctx.overdue()

    async def explain(self, ask: Ask, ctx: Context) -> Plan:
        """The plan of this request now, what its budget would pay included. Calls nobody, holds nothing."""
        return await self._plan(self._upstreams(), ask, ctx, ask.stream is not None, dry=True)

    async def _plan(self, upstreams: Upstreams, ask: Ask, ctx: Context, stream: bool, dry: bool = False) -> Plan:
        room = await self._budgets.room(ask)
        policy = upstreams.policy
        # What the operator says of the peer wins over what whoever opened the budget has said.
        fixed = {**(room.labels if room is not None else {}), **(ctx.peer.labels or {})}
        matched = policy.match(ask, fixed)
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
        return policy.plan(
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
        if terms is not None and terms.max_tokens is not None and ask.max_tokens is None:
            ask = replace(ask, max_tokens=terms.max_tokens, fit=ask.fit or "clamp")
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
        for tried_again in count():
            tried = await self._try(row)
            if tried is None or isinstance(tried.outcome, Answer):
                return tried
            failure = tried.outcome
            assert isinstance(failure, Failure)
            self._failure = upstream_error(failure, tried.held.quote.call.row, self._attempts.told)
            if self._told or not retry.may_go_elsewhere(failure):
                raise self._failure
            left_s = self._deadline - anyio.current_time()
            wait_s = retry.wait_s(failure, tried_again, self._retries, left_s, self._roll(), bool(self._steps))
            if wait_s is None:
                return None
            await anyio.sleep(wait_s)
        raise AssertionError("a target is given up at some time")

    async def _try(self, row: ModelRow) -> Tried | None:
        """Once, with the next target beside it if this one says nothing for too long."""
        if self._hedge_s is None or not self._steps:
            return await self._attempts.make(self._ask, row, self._emit, self._timeout_s)
        race = Race(self._emit)
        other = self._steps[0]

        async def first(emit: Emit) -> Tried:
            return await self._attempts.make(self._ask, row, emit, self._timeout_s)

        async def second(emit: Emit) -> Tried:
            self._steps.popleft()
            return await self._attempts.make(replace(self._ask, wait_ms=0), other, emit, self._timeout_s)

        await race.run(first, second, self._hedge_s)
        return race.result()
