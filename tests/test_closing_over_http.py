"""A budget that closes with cancel takes its calls along, up to the provider's end of their connections."""

import anyio
import anyio.lowlevel
import pytest

from tests.support.calls import ask
from tests.support.executing import executing
from tests.support.treasuries import bank, context, refused
from tests.support.upstream import DELTA, Exchange

pytestmark = [pytest.mark.anyio, pytest.mark.deadline(20)]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_provider_loses_the_connection_when_the_budget_closes_with_cancel_and_not_before(
    stream: bool,
) -> None:
    reached, gone, ended = anyio.Event(), anyio.Event(), anyio.Event()

    async def script(exchange: Exchange) -> None:
        if stream:
            await exchange.begin_stream()
            await exchange.event(DELTA)
        reached.set()
        await exchange.gone()
        gone.set()

    async with bank() as opened, executing(script, opened.payer) as executor, anyio.create_task_group() as group:
        root = await opened.open(10_000)
        below = await opened.open(10_000, parent=root)

        async def call() -> None:
            with refused("budget_closed"):
                await executor.execute(ask(model="work/m1", budget=below, max_tokens=100), context(), emit)
            ended.set()

        emit = (lambda delta: anyio.lowlevel.checkpoint()) if stream else None
        group.start_soon(call)
        await reached.wait()
        with refused("deadline_exceeded"):
            await opened.close(root, timeout_ms=50)
        assert not gone.is_set(), "a drain lets it finish"
        statement = await opened.close(root, mode="cancel")
        await gone.wait()
        await ended.wait()
        assert statement.budget.settled == statement.budget.uncertain
        assert statement.budget.settled.output_tokens == 100
