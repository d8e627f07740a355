"""Those who wait in the queues of a ledger, for a test: each wants to hold some tokens, and may give them back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from llmd.books import Unit
from llmd.clock import Now
from llmd.core.accounts import Path, fits
from llmd.core.amounts import Packed, pack
from llmd.core.budget import Budget, Terms
from llmd.core.holds import Call, Hold
from llmd.core.ledger import Ledger
from llmd.core.refusals import Refusal
from llmd.errors import LLMError
from llmd.queueing import Queues, needed
from tests.support.treasuries import settle_down

NOW = Now(1.0, 1_795_000_000_000)
UNIT: Unit = "total_tokens"


class Wait:
    """Somebody who wants to hold `tokens`. `refusal` and `error`: why they do not."""

    def __init__(self, line: "Line", budget: Budget, tokens: int) -> None:
        self.line = line
        self.budget = budget
        self.amounts = pack({UNIT: tokens})
        self.held: Hold | None = None
        self.refusal: Refusal | None = None
        self.error: LLMError | None = None
        self.over = False
        self.scope = anyio.CancelScope()

    def attempt(self) -> Refusal | None:
        found = self.line.ledger.reserve(NOW, self.budget, self.amounts, Call())
        if isinstance(found, Refusal):
            return found
        assert self.held is None, "held twice"
        self.held = found
        return None

    def wants(self) -> tuple[Path, Packed]:
        return self.budget.path(NOW), self.amounts

    def needs(self) -> list[Budget]:
        return needed(*self.wants())

    async def run(self, wait_s: float) -> None:
        with self.scope:
            try:
                self.refusal = await self.line.queues.wait(self.wants, self.attempt, wait_s)
            except LLMError as error:
                self.error = error
        self.over = True

    def give_back(self) -> None:
        assert self.held is not None
        self.line.ledger.void(NOW, self.held)
        self.line.queues.wake(self.held.path)


class Line:
    """A ledger, and who waits in it; those run in `group`."""

    def __init__(self, group: TaskGroup) -> None:
        self.ledger = Ledger()
        self.queues = Queues()
        self.group = group

    def open(self, name: str, limit: int, parent: Budget | None = None, guarantee: int = 0) -> Budget:
        budget = Budget(name, parent, Terms(limits={UNIT: limit}, guarantee={UNIT: guarantee}), None)
        assert self.ledger.open(NOW, budget) is None
        return budget

    async def want(self, budget: Budget, tokens: int, wait_s: float = 1000.0) -> Wait:
        """Somebody who wants so many, when they have them or wait."""
        wait = Wait(self, budget, tokens)
        self.group.start_soon(wait.run, wait_s)
        await settle_down()
        return wait


@asynccontextmanager
async def line() -> AsyncIterator[Line]:
    async with anyio.create_task_group() as group:
        made = Line(group)
        yield made
        group.cancel_scope.cancel()
    assert not len(made.queues)


async def moved(made: Line) -> tuple[Wait, Wait, Wait, Wait, Wait]:
    """Who had waited at Y and now waits at the root; one at X; one who came last, at the root; who holds it; who X.

    All want 8. X is full, and the root has 2 left.
    """
    root = made.open("root", 20)
    x, y = made.open("x", 10, root), made.open("y", 10, root)
    full, own = await made.want(x, 10), await made.want(y, 10)
    first, second = await made.want(y, 8), await made.want(x, 8)
    last = await made.want(root, 8)
    # Y has room now, but the root is taken before anybody who waits is asked.
    assert own.held
    made.ledger.void(NOW, own.held)
    taker = Wait(made, root, 8)
    assert taker.attempt() is None
    made.queues.wake(own.held.path)
    assert not any(wait.held for wait in (first, second, last))
    assert full.held
    return first, second, last, taker, full


def check(made: Line, waiting: list[Wait]) -> None:
    """Of those who wait, in order of arrival: nobody whom no other one precedes has room."""
    assert len(made.queues) == len(waiting)
    for number, wait in enumerate(waiting):
        ahead = {account for other in waiting[:number] for account in other.needs()}
        if not ahead & set(wait.needs()):
            assert not fits(wait.budget.path(NOW), wait.amounts), "nobody is ahead, and there is room"
