"""`route.explain`: where a request would go, and why not elsewhere."""

from typing import Any

import anyio
from msgspec import Struct, field

from llmd.chat import Ask
from llmd.context import Context
from llmd.core.plans import Out
from llmd.core.rows import ModelRow, Price
from llmd.rpc.base import Method, Service


class ExplainedTarget(Struct, frozen=True, kw_only=True):
    """One target: those that are `in` come first, in the order in which they are tried.

    reason          of one that is out, a word for programs; of one that is in, null
    detail          the same in a sentence
    retry_after_ms  until it may be in again, where its health stands in the way
    """

    provider: str
    model: str | None
    is_in: bool = field(name="in")
    reason: str | None = None
    detail: str | None = None
    price: Price | None = None
    retry_after_ms: int | None = None


class Explained(Struct, frozen=True, kw_only=True):
    """What `execute` would do with these params now.

    rule    the index of the routing rule that plans, null where none does
    guards  the indexes of the rules whose `only`, `never` and `deny` hold
    error   the error object of a request that has no target, else null
    """

    rule: int | None
    guards: list[int]
    targets: list[ExplainedTarget]
    error: dict[str, Any] | None


async def _explain(service: Service, ask: Ask, ctx: Context) -> Explained:
    plan = await service.executor.explain(ask, ctx)
    now = anyio.current_time()
    return Explained(
        rule=plan.rule,
        guards=list(plan.guards),
        targets=[*map(_in, plan.steps), *(_out(out, now) for out in plan.out)],
        error=None if plan.steps else plan.error(now).to_object(),
    )


def _in(row: ModelRow) -> ExplainedTarget:
    return ExplainedTarget(provider=row.provider, model=row.model, is_in=True, price=row.price)


def _out(out: Out, now: float) -> ExplainedTarget:
    told = out.told()
    return ExplainedTarget(
        provider=told["provider"],
        model=told["model"],
        is_in=False,
        reason=out.reason,
        detail=out.words,
        price=None if out.row is None else out.row.price,
        retry_after_ms=None if out.until is None else max(0, round((out.until - now) * 1000)),
    )


EXPLAIN = Method(Ask, Explained, "Tell where a request would go and why not elsewhere; calls nobody.", run=_explain)
