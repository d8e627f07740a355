"""A provider in the test's own process, with a meter of its own: what it bills is known to nobody else.

It bills at random up to what it was sent, fails, streams, says nothing of its usage, and bills what it likes of a call
that is cut, also long after.
"""

from collections.abc import Awaitable, Callable, Iterable
from random import Random
from typing import Any, get_args

import msgspec
from anyio.abc import TaskGroup

from llmd.catalog import Catalog, provider_row
from llmd.chat import Chat, Delta, Usage
from llmd.core.outcomes import Answer, Failure, Outcome
from llmd.core.rows import ModelRow
from llmd.dialects.base import Emit, HttpCall, Provider
from llmd.settings import FailureKind, ProviderSettings
from llmd.upstreams import Upstreams

OVERHEAD = 8
NANO_INPUT, NANO_OUTPUT = 100, 400
SETTINGS = {
    "dialect": "openai",
    "base_url": "http://127.0.0.1:9/v1",
    "overhead_tokens": OVERHEAD,
    "models": {
        "m": {"price": {"input": NANO_INPUT / 1000, "output": NANO_OUTPUT / 1000}, "max_output_tokens": 100_000},
    },
}
KINDS = get_args(FailureKind)

Bill = list[int]
"""One integer a unit, in the order of UNITS."""


def bill(inputs: int, outputs: int, requests: int) -> Bill:
    return [inputs + outputs, inputs, outputs, requests, inputs * NANO_INPUT + outputs * NANO_OUTPUT]


class Meter:
    """What was billed, by name and at every name above it; `told` without what was billed behind the caller's back."""

    def __init__(self) -> None:
        self.above: dict[str, tuple[str, ...]] = {}
        self.billed: dict[str, Bill] = {}
        self.told: dict[str, Bill] = {}

    def add(self, name: str, parent: str | None) -> None:
        self.above[name] = (name, *(() if parent is None else self.above[parent]))
        self.billed[name] = [0] * 5
        self.told[name] = [0] * 5

    def count(self, counts: dict[str, Bill], name: str, amounts: Iterable[int]) -> None:
        amounts = list(amounts)
        for node in self.above[name]:
            counts[node] = [have + more for have, more in zip(counts[node], amounts, strict=True)]


class Sent(msgspec.Struct):
    """The body of a call, as this provider reads it. `said` is the prompt: "NAME SEED"."""

    said: str
    max_tokens: int | None


class MeteredProvider:
    """`check` is called whenever it has billed something. `pause` is how it takes its time, in seconds."""

    def __init__(
        self,
        meter: Meter,
        check: Callable[[], None],
        pause: Callable[[float], Awaitable[None]],
        group: TaskGroup,
    ) -> None:
        self.in_flight = 0
        self.peak = 0
        self._meter = meter
        self._check = check
        self._pause = pause
        self._group = group

    def request(self, chat: Chat, row: ModelRow, max_tokens: int | None, stream: bool) -> HttpCall:
        body = msgspec.json.encode(Sent(chat.prompt or "", max_tokens))
        return HttpCall(row=row, url="metered:", headers={}, body=body, stream=stream, dropped=[])

    async def send(self, call: HttpCall, emit: Emit | None) -> Outcome:
        sent = msgspec.json.decode(call.body, type=Sent)
        name, seed = sent.said.split(" ")[:2]
        work = _Work(self, name, Random(seed), len(call.body) + OVERHEAD, sent.max_tokens or 0)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            return await work.answer(emit)
        except BaseException:
            self._bill_behind(work)
            raise
        finally:
            self.in_flight -= 1

    def bill(self, name: str, amounts: Bill) -> None:
        self._meter.count(self._meter.billed, name, amounts)
        self._check()

    def tell(self, name: str, amounts: Bill) -> None:
        self._meter.count(self._meter.told, name, amounts)

    async def pause(self, seconds: float) -> None:
        await self._pause(seconds)

    def _bill_behind(self, work: "_Work") -> None:
        """It may bill the rest of a call that was cut: at once, or when nobody remembers it."""
        if work.rng.random() < 0.5:
            work.bill_some()
        if work.rng.random() < 0.5:
            self._group.start_soon(self._bill_later, work)

    async def _bill_later(self, work: "_Work") -> None:
        await self._pause(work.rng.uniform(0, 100))
        work.bill_some()

    def leave(self, work: "_Work") -> None:
        """The call has ended, and what it has cost is not told."""
        self._bill_behind(work)


class _Work:
    """One call at the provider: what it has billed of it, and the most that it may."""

    def __init__(self, provider: MeteredProvider, name: str, rng: Random, inputs: int, outputs: int) -> None:
        self.rng = rng
        self._provider = provider
        self._name = name
        self._most = (inputs, outputs)
        self._inputs = 0
        self._outputs = 0
        self._begun = False

    async def answer(self, emit: Emit | None) -> Outcome:
        rng = self.rng
        await self._wait()
        if rng.random() < 0.1:
            return Failure(kind=rng.choice(KINDS), message="no", billed="no")
        self._bill(self._up_to(self._most[0]), 0)
        for _ in range(rng.randrange(4)):
            await self._wait()
            self._bill(self._inputs, self._outputs + self._up_to(self._most[1] - self._outputs))
            if emit is not None:
                await emit(Delta(text="word "))
        fate = rng.random()
        if fate < 0.1:
            self._provider.leave(self)
            return Failure(kind=rng.choice(KINDS), message="broke off")
        if fate < 0.2:
            self._provider.leave(self)
            return Answer(text="", finish_reason="stop", usage=rng.choice([None, Usage()]))
        self._bill(self._inputs, max(self._outputs, int(self._inputs == 0)))
        usage = Usage(input_tokens=self._inputs, output_tokens=self._outputs, total_tokens=self._inputs + self._outputs)
        self._provider.tell(self._name, bill(self._inputs, self._outputs, 1))
        if fate < 0.3:
            return Failure(kind=rng.choice(KINDS), message="broke off", usage=usage)
        return Answer(text="", finish_reason="stop", usage=usage)

    def bill_some(self) -> None:
        """More of it, or all that it may cost."""
        inputs = self._inputs + self._up_to(self._most[0] - self._inputs)
        self._bill(inputs, self._outputs + self._up_to(self._most[1] - self._outputs))

    def _bill(self, inputs: int, outputs: int) -> None:
        before = bill(self._inputs, self._outputs, 1 if self._begun else 0)
        self._begun, self._inputs, self._outputs = True, inputs, outputs
        after = bill(inputs, outputs, 1)
        self._provider.bill(self._name, [new - old for new, old in zip(after, before, strict=True)])

    def _up_to(self, most: int) -> int:
        return most if self.rng.random() < 0.2 else self.rng.randint(0, most)

    async def _wait(self) -> None:
        slow = self.rng.random() < 0.02
        await self._provider.pause(40.0 if slow else self.rng.expovariate(1.0))


def metered_upstreams(provider: Provider, name: str = "metered", **settings: Any) -> Upstreams:
    """The upstreams of an executor: this one provider."""
    row: Any = provider_row(name, msgspec.convert(SETTINGS | settings, ProviderSettings))
    return _Upstreams(Catalog(providers={name: row}, default_model=f"{name}/m"), provider)


class _Upstreams(Upstreams):
    def __init__(self, catalog: Catalog, provider: Provider) -> None:
        super().__init__(catalog, {}, _no_transport)
        self._only = provider

    def provider(self, name: str) -> Provider:
        return self._only


def _no_transport() -> Any:
    raise AssertionError("this provider needs no network")
