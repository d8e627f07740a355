"""The wish: any number of agents, calls, retries and crashes below a budget, and it is never overspent.

How many seeds run is the profile's: 24 by default, 1,000 in CI, 10,000 with --hypothesis-profile=deep. Over real HTTP
it is tests/test_wish_http.py.
"""

from functools import partial

import pytest
import trio
from hypothesis import settings
from trio.testing import MockClock

from llmd.core import health
from tests.support.treasuries import bank, pass_time
from tests.support.wish import Pause, world

SEEDS = {"quick": 24, "ci": 1_000, "deep": 10_000}
COUNT = SEEDS.get(settings.get_current_profile_name(), SEEDS["quick"])


def agents(seed: int) -> int:
    """How many call at once."""
    return 1000 if seed % 50 in (7, 20) else 256 if seed % 7 == 4 else 64


async def run(seed: int, pause: Pause = pass_time) -> None:
    patient, guarantees = seed % 2 == 0, seed % 4 < 2
    async with bank() as opened:
        async with world(opened, seed, pause, patient=patient, guarantees=guarantees) as made:
            await made.agents(agents(seed))
            if patient and not guarantees:
                made.check_used()
            await made.use_up()
            made.check_used()
        await made.check_end()
        # They were there at the same time, and what was looked for could have been found.
        assert made.provider.peak >= 2
        assert made.ends["ok"] >= 2
        assert made.ends["budget_exceeded"] >= 1
        assert made.looks > 10


@pytest.mark.parametrize("seed", range(COUNT))
def test_a_cap_is_never_overspent_and_always_used(seed: int) -> None:
    # Tasks that could go on at the same time do so in an order of the seed's.
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True
    trio._core._run._r.seed(seed)
    trio.run(partial(run, seed), clock=MockClock(autojump_threshold=0))


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(4))
async def test_a_cap_is_never_overspent_on_the_daemons_own_loop(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPEN_S", "OPEN_MAX_S"):  # real seconds, in which nothing would be sent
        monkeypatch.setattr(health, name, 0.001)

    async def pause(seconds: float) -> None:
        await pass_time(seconds / 1000)

    await run(seed, pause)
