"""The budget that grants everything keeps to the protocol of holds, and knows no handle."""

from typing import Any

import pytest

from llmd.budgets import Posting, Unlimited
from llmd.core.amounts import Amounts
from llmd.core.bounds import Bound
from llmd.errors import LLMError

pytestmark = pytest.mark.anyio

BOUND = Bound(Amounts(total_tokens=10, requests=1), max_tokens=5, sound=True)
CTX: Any = None


async def test_without_a_handle_everything_is_granted_as_it_was_asked() -> None:
    budgets = Unlimited()
    hold = await budgets.hold(CTX, None, BOUND)
    assert hold.bound == BOUND
    await budgets.resolve(hold, Posting(None))


async def test_a_handle_is_unknown_since_none_was_ever_given_out() -> None:
    with pytest.raises(LLMError) as caught:
        await Unlimited().hold(CTX, "handle", BOUND)
    assert caught.value.kind == "budget_unknown"
