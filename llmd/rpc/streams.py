"""The deltas of one token, numbered in the order in which they leave."""

import itertools

from msgspec import UNSET, UnsetType

from llmd.chat import Delta, DeltaParams, DoneParams
from llmd.context import Notify


class DeltaStream:
    """context.Stream by notifications."""

    def __init__(self, token: str, notify: Notify) -> None:
        self._token = token
        self._notify = notify
        self._numbers = itertools.count()

    async def delta(self, delta: Delta, index: int | UnsetType = UNSET) -> None:
        number = next(self._numbers)
        params = DeltaParams(self._token, number, index, delta.text, delta.reasoning, delta.tool_call)
        await self._notify("llmd.delta", params)

    async def done(self, index: int, outcome: str) -> None:
        await self._notify("llmd.done", DoneParams(self._token, index, outcome))
