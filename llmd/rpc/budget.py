"""`budget.*`: thin over budget_operations, which says what they do."""

from llmd.books import (
    BudgetParams,
    ChargeParams,
    CloseParams,
    Opened,
    OpenParams,
    ResizeParams,
    Snapshot,
    Statement,
    StatementParams,
    Tree,
    TreeParams,
    UnwatchParams,
    WatchParams,
)
from llmd.context import Context
from llmd.errors import LLMError
from llmd.rpc.base import Empty, Method, Service


async def _open(service: Service, params: OpenParams, ctx: Context) -> Opened:
    return await service.budgets.open(params, ctx)


async def _charge(service: Service, params: ChargeParams, ctx: Context) -> Snapshot:
    return await service.budgets.charge(params, ctx)


async def _close(service: Service, params: CloseParams, ctx: Context) -> Statement:
    return await service.budgets.close(params, ctx)


async def _resize(service: Service, params: ResizeParams, ctx: Context) -> Snapshot:
    return await service.budgets.resize(params)


async def _statement(service: Service, params: StatementParams, ctx: Context) -> Statement:
    return await service.budgets.statement(params, ctx)


def _get(service: Service, params: BudgetParams, ctx: Context) -> Snapshot:
    return service.budgets.get(params, ctx)


def _tree(service: Service, params: TreeParams, ctx: Context) -> Tree:
    return service.budgets.tree(params, ctx)


def _watch(service: Service, params: WatchParams, ctx: Context) -> Snapshot:
    return service.budgets.watch(params, ctx)


def _unwatch(service: Service, params: UnwatchParams, ctx: Context) -> Empty:
    if not ctx.connection.unwatch(params.watch):
        raise LLMError("invalid_params", "nothing is watched under this token", path="watch")
    return Empty()


OPEN = Method(OpenParams, Opened, "Open a budget, a root or below another one.", run=_open)
CHARGE = Method(ChargeParams, Snapshot, "Post what was spent elsewhere.", run=_charge)
CLOSE = Method(CloseParams, Statement, "Close a budget and all below it; answers when nothing is held.", run=_close)
RESIZE = Method(ResizeParams, Snapshot, "Give a budget other limits, guarantees or another lease.", run=_resize)
STATEMENT = Method(StatementParams, Statement, "Tell what happened to a budget and below it.", run=_statement)
GET = Method(BudgetParams, Snapshot, "Tell how a budget stands.", now=_get)
TREE = Method(TreeParams, Tree, "Tell how a budget and all below it stand.", now=_tree)
WATCH = Method(WatchParams, Snapshot, "Be notified whenever a budget has changed.", now=_watch)
UNWATCH = Method(UnwatchParams, Empty, "Be notified no more.", now=_unwatch)
