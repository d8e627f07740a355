"""Who wants to know when a budget has changed: woken once for however much has changed meanwhile."""

import anyio

from llmd.watching import Watchers
from tests.support.treasuries import in_virtual_time, settle_down


@in_virtual_time
async def test_each_one_who_watches_is_woken_once_for_what_has_changed_meanwhile() -> None:
    watchers, woken = Watchers(), [0, 0]

    async def watch(number: int) -> None:
        with watchers.watching("a") as changed:
            while True:
                await changed()
                woken[number] += 1

    async with anyio.create_task_group() as group:
        watchers.stir(["a"])
        group.start_soon(watch, 0)
        group.start_soon(watch, 1)
        await settle_down()
        assert woken == [0, 0], "nothing has changed since they watch"
        watchers.stir(["b", "a"])
        watchers.stir(["a"])
        await settle_down()
        assert woken == [1, 1]
        watchers.stir(["a"])
        await settle_down()
        assert woken == [2, 2]
        watchers.stir(["b"])
        await settle_down()
        assert woken == [2, 2]
        group.cancel_scope.cancel()


@in_virtual_time
async def test_what_changes_while_one_is_busy_is_not_lost() -> None:
    watchers = Watchers()
    with watchers.watching("a") as changed:
        watchers.stir(["a"])
        await changed()
        watchers.stir(["a"])
        with anyio.fail_after(1):
            await changed()


@in_virtual_time
async def test_one_that_watches_no_more_leaves_nothing_behind() -> None:
    watchers = Watchers()
    with watchers.watching("a"), watchers.watching("a"):
        pass
    watchers.stir(["a"])
    assert watchers._watchers == {}
