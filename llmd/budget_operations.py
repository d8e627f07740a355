"""What `budget.*` does: opens, charges, closes, resizes and tells, for who holds a handle and for the operator.

A handle reaches its own subtree. What it may make smaller or larger is known to `resizing`.
"""

import anyio
import msgspec
from msgspec.structs import asdict, replace

from llmd.books import (
    BudgetParams,
    BudgetUpdate,
    ChargeParams,
    CloseParams,
    Enforcement,
    Entry,
    GivenAmounts,
    Opened,
    OpenParams,
    ResizeParams,
    Snapshot,
    Statement,
    StatementParams,
    Tree,
    TreeParams,
    WatchParams,
)
from llmd.context import Context, Notify
from llmd.core.accounts import Path
from llmd.core.amounts import Packed, pack
from llmd.core.budget import Budget, Terms
from llmd.core.ledger_rows import CLOSED, ClosedRow
from llmd.core.refusals import Refusal
from llmd.core.snapshots import snapshot, tree
from llmd.errors import LLMError
from llmd.handles import hash_of, new_id
from llmd.replays import Keep, Replays
from llmd.resizing import Resizing
from llmd.scalars import AMOUNT_MAX
from llmd.treasury import Treasury

STRICTNESS: tuple[Enforcement, ...] = ("track", "estimate", "strict")


class BudgetOperations:
    """The operations on `treasury`; each returns when what it tells is durable."""

    def __init__(self, treasury: Treasury, replays: Replays) -> None:
        self._treasury = treasury
        self._replays = replays
        self._resizing = Resizing(treasury)

    @property
    def holds(self) -> int:
        """How many amounts are held now, at all budgets."""
        return len(self._treasury.ledger.holds)

    async def open(self, params: OpenParams, ctx: Context) -> Opened:
        treasury = await self._writable()

        async def run(keep: Keep) -> Opened:
            parent = treasury.default() if params.parent is None else treasury.named(params.parent)
            budget = self._new(parent, params)
            if budget.connection:
                treasury.tie(budget, ctx.connection)
            now = treasury.clock.now()
            try:
                _raise(treasury.ledger.open(now, budget))
            except LLMError:
                treasury.untie(budget)
                raise
            told = Opened(**asdict(snapshot(now, budget)), budget="")
            keep(told)
            treasury.leases.begin(budget)
            treasury.after(now, budget.path(now))
            try:
                await treasury.flusher.settled()
            except LLMError:
                treasury.close_budget(treasury.clock.now(), budget, cancel=True)
                raise
            return told

        scope = (ctx.peer.uid, "budget.open", params.parent, params.idempotency_key)
        opened = await self._replays.once(scope, params, run, Opened)
        # The handle is not kept: it is made again.
        return replace(opened, budget=treasury.handle_of(opened.id))

    async def charge(self, params: ChargeParams, ctx: Context) -> Snapshot:
        treasury = await self._writable()
        amounts = pack(params.amounts.by_unit())

        async def run(keep: Keep) -> Snapshot:
            budget = treasury.named(params.budget)
            told: list[Snapshot] = []
            charged: list[Path] = []

            def attempt() -> Refusal | None:
                now = treasury.clock.now()
                refused = treasury.ledger.charge(now, budget, amounts, force=params.force, note=params.note)
                if refused is None:
                    told.append(snapshot(now, budget))
                    charged.append(budget.path(now))
                    keep(told[0])
                return refused

            def wants() -> tuple[Path, Packed]:
                return budget.path(treasury.clock.now()), amounts

            try:
                # What is forced takes its room from whoever waits for it.
                _raise(attempt() if params.force else await treasury.queues.wait(wants, attempt, params.wait_ms / 1000))
            finally:
                if charged:  # also where it was cancelled meanwhile: then it stands
                    treasury.after(treasury.clock.now(), charged[0])
            try:
                await treasury.flusher.settled()
            except LLMError:
                treasury.ledger.undo(treasury.clock.now(), charged[0], amounts)
                treasury.after(treasury.clock.now(), charged[0])
                raise
            return told[0]

        # By its handle: what was charged is still told when the budget has closed since.
        scope = (ctx.peer.uid, "budget.charge", params.budget, params.idempotency_key)
        return await self._replays.once(scope, replace(params, wait_ms=0), run, Snapshot)

    async def resize(self, params: ResizeParams) -> Snapshot:
        await self._writable()
        return await self._resizing.resize(params)

    async def close(self, params: CloseParams, ctx: Context) -> Statement:
        treasury = await self._writable()
        budget = self.found(params, ctx)
        if budget.state == "closed":
            raise LLMError("budget_closed", "this budget is closed", budget=budget.id)
        if budget.terms.configured:
            reason = f"{budget.id} is configured: take it out of the configuration, and it closes"
            raise LLMError("budget_denied", reason, budget=budget.id)
        closing = treasury.close_budget(treasury.clock.now(), budget, cancel=params.mode == "cancel")
        with anyio.move_on_after(params.timeout_ms / 1000):
            await closing.closed.wait()
            assert closing.snapshot is not None
            await treasury.flusher.settled()
            return await self._page(closing.snapshot, budget.trail, budget.since, 1000)
        raise ctx.overdue("calls below this budget are still in flight; it goes on closing", budget=budget.id)

    async def statement(self, params: StatementParams, ctx: Context) -> Statement:
        treasury = self._treasury
        await treasury.ready()
        if params.cursor is not None and not (params.cursor.isascii() and params.cursor.isdecimal()):
            raise _no_cursor()
        after = int(params.cursor or 0)
        if after > AMOUNT_MAX:
            raise _no_cursor()
        if treasury.journal.read_only is None:
            await treasury.flusher.flushed()
        try:
            budget = self.found(params, ctx)
        except LLMError as error:
            if error.kind not in ("budget_closed", "budget_unknown"):
                raise
            # Who has missed the answer of its close, or the rest of it, can still read what it was.
            if (closed := await self._closed(params)) is None:
                raise
            return await self._page(closed.told, closed.trail, max(after, closed.since), params.limit)
        told = snapshot(treasury.clock.now(), budget)
        return await self._page(told, budget.trail, max(after, budget.since), params.limit)

    def get(self, params: BudgetParams, ctx: Context) -> Snapshot:
        return snapshot(self._treasury.clock.now(), self.found(params, ctx))

    def tree(self, params: TreeParams, ctx: Context) -> Tree:
        treasury = self._treasury
        now = treasury.clock.now()
        if params.budget is None and params.id is None:
            _check_owner(ctx)
            treasury.check_opened()
            roots = [budget for budget in treasury.ledger.budgets.values() if budget.parent is None]
            return tree(now, roots, params.cursor, params.limit, deep=False)
        return tree(now, [self.found(params, ctx)], params.cursor, params.limit)

    def watch(self, params: WatchParams, ctx: Context) -> Snapshot:
        treasury = self._treasury
        treasury.check_opened()
        budget = treasury.named(params.budget)

        first = snapshot(treasury.clock.now(), budget)

        async def tell(notify: Notify) -> None:
            told = first
            with treasury.watchers.watching(budget.id) as changed:
                while told.state != "closed":
                    # It may have changed before this began to run.
                    if told is not first or snapshot(treasury.clock.now(), budget) == first:
                        await changed()
                    told = snapshot(treasury.clock.now(), budget)
                    await notify("llmd.budget", BudgetUpdate(**asdict(told), watch=params.watch))

        ctx.connection.watch(params.watch, tell)
        return first

    # -- parts ----------------------------------------------------------------------------------------------------

    def found(self, params: BudgetParams, ctx: Context) -> Budget:
        """The budget that is meant; being asked for by its handle is a use of it."""
        treasury = self._treasury
        treasury.check_opened()
        if params.budget is not None:
            budget = treasury.named(params.budget)
            treasury.ledger.touch(treasury.clock.now(), budget)
            return budget
        _check_owner(ctx)
        found = treasury.ledger.budgets.get(params.id or "")
        if found is None:
            raise LLMError("budget_unknown", "there is no budget with this id", path="id")
        return found

    async def _writable(self) -> Treasury:
        await self._treasury.ready()
        self._treasury.check()
        return self._treasury

    def _new(self, parent: Budget | None, params: OpenParams) -> Budget:
        treasury = self._treasury
        above: Enforcement = "track" if parent is None else parent.terms.enforcement
        limits = params.limits or GivenAmounts(total_tokens=params.total)
        strict = parent is None or (above == "track" and limits.by_unit())  # limits that nothing keeps are not meant
        enforcement = params.enforcement or ("strict" if strict else above)
        if STRICTNESS.index(enforcement) < STRICTNESS.index(above):
            reason = f"below a budget that is {above}, none can be {enforcement}"
            raise LLMError("invalid_params", reason, path="enforcement")
        if parent is not None and params.allow is not None:
            fixed = parent.fixed_labels()
            for name, value in params.allow.labels.items():
                if fixed.get(name, value) != value:
                    raise LLMError("budget_denied", "a label that is fixed above stays", path=f"allow.labels.{name}")
        terms = Terms(
            limits=limits.by_unit(),
            guarantee=params.guarantee.by_unit(),
            window=params.window,
            label=params.label,
            enforcement=enforcement,
            allow=params.allow,
            lease_s=None if params.scope == "connection" else params.lease_s,
        )
        identifier = new_id()
        while identifier in treasury.ledger.budgets:
            identifier = new_id()
        budget = Budget(identifier, parent, terms, hash_of(treasury.handle_of(identifier)))
        budget.connection = params.scope == "connection"
        budget.since = treasury.journal.last
        return budget

    async def _closed(self, params: BudgetParams) -> ClosedRow | None:
        """What is still known of a budget that has closed."""
        handle = params.budget or self._treasury.handle_of(params.id or "")
        row = await self._treasury.journal.row(CLOSED + hash_of(handle))
        return None if row is None else msgspec.json.decode(row, type=ClosedRow)

    async def _page(self, told: Snapshot, trail: str, after: int, limit: int) -> Statement:
        found = await self._treasury.journal.entries(trail, after, limit + 1)
        entries = [msgspec.json.decode(entry.data, type=Entry) for _, entry in found[:limit]]
        return Statement(budget=told, entries=entries, cursor=str(found[limit - 1][0]) if len(found) > limit else None)


def _raise(refused: Refusal | None) -> None:
    if refused is not None:
        raise refused.error()


def _check_owner(ctx: Context) -> None:
    if not ctx.peer.own:
        raise LLMError("unauthorized", "only the daemon's own user sees budgets without their handles", path="owner")


def _no_cursor() -> LLMError:
    return LLMError("invalid_params", "this cursor leads nowhere any more: begin again", path="cursor")
