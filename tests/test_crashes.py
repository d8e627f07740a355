"""A daemon that is killed at any moment: whatever the provider billed is settled, and what was acknowledged is there.

Five points by default, forty where CI is set, two hundred with `--hypothesis-profile deep`.
"""

import os
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from random import Random
from typing import get_args

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from hypothesis import settings

from llmd import paths
from llmd.journal.store_files import lock_of
from tests.support.auditing import Audit, replay
from tests.support.cli import llmd
from tests.support.lives import Life, living
from tests.support.spending import CONFIG, Kind, Meter, Moments, Spending, calling
from tests.support.upstream import scripted

pytestmark = pytest.mark.anyio

DEEP = settings().max_examples > 1_000
POINTS = 200 if DEEP else 40 if os.environ.get("CI") else 5
KINDS: tuple[Kind, ...] = get_args(Kind)


@pytest.mark.parametrize("point", range(POINTS))
async def test_the_ledger_dominates_what_was_billed_wherever_its_daemon_is_killed(point: int, tmp_path: Path) -> None:
    rng = Random(point)
    cap, windowed = rng.choice([12_000, 60_000, 400_000]), point % 3 == 1
    durability = ("full", "process")[point % 2]
    lives: list[Life] = []
    moments = Moments(KINDS[point % len(KINDS)], rng.randint(10, 120), lambda: lives[0].kill())
    meter = Meter(rng, moments)
    with ExitStack() as stack:
        async with scripted(meter.script) as upstream:
            config = CONFIG.format(url=upstream.url, durability=durability, cap=cap)
            lives.append(stack.enter_context(living(tmp_path, config)))
            spending = Spending(rng, moments, (await lives[0].ready()).socket, cap, windowed=windowed)
            await spending.plant()
            await spending.run()
            # What left before the kill still arrives.
            await upstream.until(lambda up: up.open == 0)
        if rng.random() < 0.7:
            await _kill_while_it_recovers(stack.enter_context(living(tmp_path, config)), rng)
        for again in (False, True):
            life = await stack.enter_context(living(tmp_path, config)).ready()
            await _audit(spending, meter, life, again=again)
            life.kill()
        checked = await anyio.to_thread.run_sync(llmd, "ledger", "check", "--config", str(life.config))
        assert (checked.status, checked.err) == (0, "")


async def _kill_while_it_recovers(life: Life, rng: Random) -> None:
    """Once it has the store, in the middle of whatever it does then."""
    with anyio.fail_after(20):
        while f'"pid":{life.process.pid},' not in lock_of(paths.ledger_file(os.environ)).read_text():
            await anyio.lowlevel.checkpoint()
        for _ in range(rng.randrange(2_000)):
            await anyio.lowlevel.checkpoint()
    life.kill()


async def _audit(spending: Spending, meter: Meter, life: Life, *, again: bool) -> None:
    async with AsyncExitStack() as connections:
        caller = await calling(connections, life.socket)
        (await Audit(spending, meter).read(caller)).check()
        if again:
            await replay(spending, caller)
            (await Audit(spending, meter).read(caller)).check()
