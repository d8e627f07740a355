"""Deltas of one token are numbered in the order in which they leave."""

from typing import Any

import msgspec
import pytest

from llmd.chat import Delta
from llmd.rpc.streams import DeltaStream


@pytest.mark.anyio
async def test_numbers_have_no_gaps_whichever_call_a_delta_is_of() -> None:
    sent: list[tuple[str, Any]] = []

    async def notify(method: str, params: msgspec.Struct) -> None:
        sent.append((method, msgspec.to_builtins(params)))

    stream = DeltaStream("s", notify)
    await stream.delta(Delta(text="a"))
    await stream.delta(Delta(reasoning="b"), 3)
    await stream.done(3, "ok")
    await stream.delta(Delta(text="c"), 0)
    assert sent == [
        ("llmd.delta", {"stream": "s", "seq": 0, "text": "a"}),
        ("llmd.delta", {"stream": "s", "seq": 1, "index": 3, "reasoning": "b"}),
        ("llmd.done", {"stream": "s", "index": 3, "outcome": "ok"}),
        ("llmd.delta", {"stream": "s", "seq": 2, "index": 0, "text": "c"}),
    ]
