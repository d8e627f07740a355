"""Two tries of one call at once: the second starts when the first has sent nothing for a while, and one wins."""

from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel

from llmd.attempts import KeptBack, Tried
from llmd.chat import Delta
from llmd.core.outcomes import Answer
from llmd.dialects.base import Emit
from llmd.errors import LLMError

Try = Callable[[Emit], Awaitable[Tried | KeptBack]]


class Race:
    """The first to send anything wins, and the other is cancelled; one that fails leaves the race to the other."""

    def __init__(self, emit: Emit | None) -> None:
        self.ended: list[Tried | KeptBack | LLMError | None] = [None, None]
        self._emit = emit
        self._scopes = [anyio.CancelScope(), anyio.CancelScope()]
        self._winner: int | None = None
        self._decided = anyio.Event()  # or the first has ended

    async def run(self, first: Try, second: Try, hedge_s: float) -> None:
        """Both to their ends, which are in `ended`: None of one that was cancelled or never began."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._run, 0, first)
            with anyio.move_on_after(hedge_s):
                await self._decided.wait()
            if not self._decided.is_set():
                group.start_soon(self._run, 1, second)

    def result(self) -> Tried | KeptBack:
        """The answer, if there is one; else what became of the first, or of the one that had won. Raises the budget's
        errors."""
        ended = [one for one in self.ended if one is not None]
        answers = (one for one in ended if isinstance(one, Tried) and isinstance(one.outcome, Answer))
        result = next(answers, ended[0])
        if isinstance(result, LLMError):
            raise result
        return result

    async def _run(self, number: int, attempt: Try) -> None:
        async def emit(delta: Delta) -> None:
            self._win(number)
            await anyio.lowlevel.checkpoint_if_cancelled()
            if self._emit is not None:
                await self._emit(delta)

        with self._scopes[number]:
            try:
                self.ended[number] = tried = await attempt(emit)
                if isinstance(tried, Tried) and isinstance(tried.outcome, Answer):
                    self._win(number)
            except LLMError as error:
                self.ended[number] = error
        self._decided.set()

    def _win(self, number: int) -> None:
        if self._winner is None:
            self._winner = number
            self._scopes[1 - number].cancel()
            self._decided.set()
