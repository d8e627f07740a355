"""Places at a provider: how many at once, how many a minute, who is next; in virtual time."""

from collections.abc import Hashable
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from llmd.catalog import ProviderRow, provider_row
from llmd.core.outcomes import Failure
from llmd.core.rows import ModelRow
from llmd.settings import ProviderSettings
from llmd.traffic import TARGETS_MAX, Gate, Traffic, WindowFull
from tests.support.calls import row
from tests.support.treasuries import in_virtual_time, pass_time, settle_down


def limits(**settings: Any) -> ProviderRow:
    made = provider_row("work", ProviderSettings(base_url="http://127.0.0.1:9/v1", **settings))
    assert isinstance(made, ProviderRow)
    return made


class Visitors:
    """Calls at a gate: `inside` are in flight, `entered` says in which order they got in."""

    def __init__(self, group: TaskGroup, **settings: Any) -> None:
        self.gate = Gate()
        self.gate.limit(limits(**settings))
        self.entered: list[str] = []
        self.inside: dict[str, anyio.Event] = {}
        self.scopes: dict[str, anyio.CancelScope] = {}
        self._group = group

    async def come(self, *names: str, caller: Hashable = "one", tokens: int = 1) -> None:
        for name in names:
            self.scopes[name] = anyio.CancelScope()
            self._group.start_soon(self._visit, name, caller, tokens)
            await settle_down()

    async def _visit(self, name: str, caller: Hashable, tokens: int) -> None:
        with self.scopes[name]:
            async with self.gate.place(caller, tokens) as place:
                place.sent = True
                self.entered.append(name)
                self.inside[name] = anyio.Event()
                try:
                    await self.inside[name].wait()
                finally:
                    del self.inside[name]

    async def leave(self, *names: str) -> None:
        for name in names:
            self.inside[name].set()
            await settle_down()


@in_virtual_time
async def test_no_more_are_in_flight_than_may_be_and_the_next_gets_in_when_one_leaves() -> None:
    async with anyio.create_task_group() as group:
        visitors = Visitors(group, max_concurrency=2)
        await visitors.come("a", "b", "c", "d")
        assert list(visitors.inside) == ["a", "b"]
        await visitors.leave("b")
        assert list(visitors.inside) == ["a", "c"]
        await visitors.leave("a", "c", "d")
        assert visitors.entered == ["a", "b", "c", "d"]


@in_virtual_time
async def test_without_limits_nobody_waits() -> None:
    async with anyio.create_task_group() as group:
        visitors = Visitors(group)
        names = [str(number) for number in range(200)]
        await visitors.come(*names)
        assert list(visitors.inside) == names
        group.cancel_scope.cancel()


@in_virtual_time
async def test_callers_take_turns_so_that_one_with_many_calls_does_not_keep_another_waiting() -> None:
    async with anyio.create_task_group() as group:
        visitors = Visitors(group, max_concurrency=1)
        await visitors.come("a1", "a2", "a3", "a4", caller="a")
        await visitors.come("b1", "b2", caller="b")
        await visitors.come("c1", caller="c")
        for _ in range(7):
            await visitors.leave(*visitors.inside)
        assert visitors.entered == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]


@in_virtual_time
async def test_who_is_cancelled_while_waiting_gives_the_turn_to_the_next() -> None:
    async with anyio.create_task_group() as group:
        visitors = Visitors(group, max_concurrency=1)
        await visitors.come("a", "b", "c")
        visitors.scopes["b"].cancel()
        await visitors.leave("a")
        assert list(visitors.inside) == ["c"]
        visitors.scopes["c"].cancel()
        await settle_down()
        await visitors.come("d")
        assert list(visitors.inside) == ["d"]
        await visitors.leave("d")


@in_virtual_time
async def test_a_minute_takes_so_many_requests_and_the_rest_go_when_it_has_passed() -> None:
    async with anyio.create_task_group() as group:
        visitors = Visitors(group, requests_per_minute=2)
        await visitors.come("a", "b", "c", "d", "e")
        assert list(visitors.inside) == ["a", "b"]
        assert visitors.gate.full_until(anyio.current_time()) == anyio.current_time() + 60
        await pass_time(59)
        assert list(visitors.inside) == ["a", "b"]
        await pass_time(2)
        assert visitors.entered == ["a", "b", "c", "d"]
        await pass_time(60)
        assert visitors.entered == ["a", "b", "c", "d", "e"]
        assert visitors.gate.full_until(anyio.current_time()) is None
        group.cancel_scope.cancel()


@in_virtual_time
async def test_a_minute_takes_so_many_tokens_and_what_a_call_did_not_take_is_free_again() -> None:
    async with anyio.create_task_group() as group:
        visitors = Visitors(group, tokens_per_minute=100)
        await visitors.come("small", tokens=10)
        async with visitors.gate.place("one", 80) as place:
            await visitors.come("waits", tokens=60)
            await visitors.come("behind it", tokens=1)
            assert list(visitors.inside) == ["small"]
            place.sent, place.used = True, 20
        await settle_down()
        assert visitors.entered == ["small", "waits", "behind it"]
        group.cancel_scope.cancel()


@in_virtual_time
async def test_a_place_that_nothing_was_sent_from_takes_nothing_of_the_minute() -> None:
    gate = Gate()
    gate.limit(limits(requests_per_minute=1, tokens_per_minute=10))
    for _ in range(3):
        async with gate.place("one", 10):
            pass
    assert gate.full_until(anyio.current_time()) is None


@in_virtual_time
async def test_who_can_go_elsewhere_waits_for_a_place_but_for_no_minute() -> None:
    gate = Gate()
    gate.limit(limits(requests_per_minute=1))
    async with gate.place("one", 1, patient=False) as place:
        place.sent = True
    with pytest.raises(WindowFull) as caught:
        async with gate.place("one", 1, patient=False):
            raise AssertionError("it got in")
    assert caught.value.trouble == ("rate_window_full", anyio.current_time() + 60, "")


@in_virtual_time
async def test_a_caller_whose_calls_are_cancelled_while_they_wait_loses_no_turn() -> None:
    async with anyio.create_task_group() as group:
        visitors = Visitors(group, max_concurrency=1)
        await visitors.come("in", "a1", "a2", caller="a")
        await visitors.come("b1", caller="b")
        visitors.scopes["a1"].cancel()
        await settle_down()
        await visitors.leave("in", "a2", "b1")
        assert visitors.entered == ["in", "a2", "b1"]


@in_virtual_time
async def test_limits_that_change_hold_from_then_on_also_for_those_who_wait() -> None:
    async with anyio.create_task_group() as group:
        visitors = Visitors(group, max_concurrency=1)
        await visitors.come("a", "b", "c")
        visitors.gate.limit(limits(max_concurrency=3))
        await settle_down()
        assert list(visitors.inside) == ["a", "b", "c"]
        visitors.gate.limit(limits(max_concurrency=1))
        await visitors.come("d")
        await visitors.leave("a", "b")
        assert list(visitors.inside) == ["c"]
        await visitors.leave("c", "d")


@in_virtual_time
async def test_a_reload_forgets_what_was_held_against_a_model_but_not_what_was_sent_this_minute() -> None:
    traffic, model = Traffic(), row()
    traffic.configure({"work": limits(requests_per_minute=1)})
    now = anyio.current_time()
    health, held = traffic.health(model), traffic.health(row(model="held"))
    health.leave(now, Failure(kind="upstream_auth", message=""), health.enter())
    held.leave(now, Failure(kind="upstream_rate_limited", message="", retry_after_s=70.0), held.enter())
    held.took(2.0, None)
    trouble = traffic.trouble(model, now)
    assert trouble is not None
    assert (trouble.reason, trouble.failure) == ("breaker_open", "upstream_auth")
    async with traffic.gate("work").place("one", 1) as place:
        place.sent = True
    traffic.configure({"work": limits(requests_per_minute=1), "home": limits()})
    assert traffic.trouble(model, now) == ("rate_window_full", now + 60, "")
    assert traffic.trouble(model, now + 60) is None
    # What it asked for itself still holds, and how long it took is still known.
    assert traffic.trouble(row(model="held"), now + 60) == ("rate_limited", now + 70, "")
    assert traffic.pace(row(model="held"), streams=False) == 2.0


def test_of_models_that_nobody_uses_any_more_nothing_is_remembered() -> None:
    traffic = Traffic()

    def model(number: int) -> ModelRow:
        return row(model=f"m{number}")

    traffic.health(model(0)).took(1.0, 0.5)
    traffic.health(model(1)).took(1.0, 0.5)
    assert (traffic.pace(model(0), streams=False), traffic.pace(model(0), streams=True)) == (1.0, 0.5)
    for number in range(2, TARGETS_MAX):
        traffic.health(model(number))
    traffic.health(model(0))
    traffic.health(model(TARGETS_MAX))
    assert traffic.pace(model(0), streams=False) == 1.0
    assert traffic.pace(model(1), streams=False) is None


def test_of_each_model_that_was_called_its_state_is_told() -> None:
    traffic = Traffic()
    for model in ("m1", "m2"):
        traffic.health(row(model=model))
    traffic.health(row(model="m2")).leave(0.0, Failure(kind="upstream_auth", message=""), probe=False)
    assert traffic.states(1.0) == {"work/m1": "ready", "work/m2": "breaker_open"}
