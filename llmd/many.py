"""Calls that run together: as long as the slowest takes, in their own order, none of them failing another."""

import logging
from collections.abc import Awaitable, Callable, Sequence

import anyio
import anyio.lowlevel

from llmd.chat import Completion
from llmd.errors import LLMError, trace

STARTS_A_TURN = 16  # calls that begin before others get a turn of the loop

log = logging.getLogger("llmd.call")

Result = Completion | LLMError


async def together(
    calls: Sequence[Callable[[], Awaitable[Completion]]],
    limit: int | None,
    ended: Callable[[int, Result], Awaitable[None]],
) -> None:
    """Make the calls, `limit` at once (None: all); `ended` is told of each with its number, as it ends."""
    waiting = iter(enumerate(calls))

    async def work() -> None:
        for number, call in waiting:
            result: Result
            try:
                result = await call()
            except LLMError as error:
                result = error
            except Exception as error:
                log.error("one of many calls failed: %s", trace(error))
                result = LLMError("internal_error", "something in llmd is broken; its log says what")
            await ended(number, result)

    async with anyio.create_task_group() as group:
        for number in range(len(calls) if limit is None else min(limit, len(calls))):
            group.start_soon(work)
            if number % STARTS_A_TURN == STARTS_A_TURN - 1:
                await anyio.lowlevel.checkpoint()  # beginning all of them takes a while, in which others wait
