"""Scripted providers behind rules: real HTTP upstreams with the executor in front of them, with or without budgets."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import msgspec

from llmd.budgets import Budgets
from llmd.catalog import Catalog
from llmd.chat import Ask, Completion, Delta
from llmd.core.rows import Price
from llmd.core.rules import Rule
from llmd.errors import LLMError
from llmd.executor import Executor
from llmd.meter import Meter
from llmd.providers import AiohttpTransport
from llmd.settings import ModelSettings, ProviderSettings
from llmd.traffic import Traffic
from llmd.upstreams import Upstreams
from tests.support.executing import Recorder, context, provider
from tests.support.upstream import Exchange, Script, Upstream, scripted


class Routed:
    """`at` are the upstreams by the names of their providers, each with a model m1; `deltas` what came of streams."""

    def __init__(self, executor: Executor, traffic: Traffic, at: dict[str, Upstream], meter: Meter) -> None:
        self.executor = executor
        self.meter = meter
        self.traffic = traffic
        self.at = at
        self.deltas: list[Delta] = []
        self.told = anyio.Event()

    @property
    def asked(self) -> dict[str, int]:
        """How many requests each upstream has got."""
        return {name: len(upstream.requests) for name, upstream in self.at.items()}

    @property
    def text(self) -> str:
        return "".join(delta.text or "" for delta in self.deltas)

    async def call(self, stream: bool = False, **params: Any) -> Completion:
        ask = msgspec.convert({"prompt": "hello", "max_tokens": 20, **params}, Ask)
        return await self.executor.execute(ask, context(), self._emit if stream else None)

    async def fails(self, **params: Any) -> LLMError:
        try:
            done = await self.call(**params)
        except LLMError as error:
            return error
        raise AssertionError(f"it has answered: {done}")

    async def _emit(self, delta: Delta) -> None:
        self.deltas.append(delta)
        self.told.set()


def outcomes(told: Completion | LLMError) -> list[tuple[str, str]]:
    """Provider and outcome of each attempt."""
    attempts = told.data["attempts"] if isinstance(told, LLMError) else told.route.attempts
    return [(attempt.provider, attempt.outcome) for attempt in attempts]


@asynccontextmanager
async def routed(
    rules: Sequence[dict[str, Any]],
    budgets: Budgets | None = None,
    prices: dict[str, Price] | None = None,
    settings: dict[str, dict[str, Any]] | None = None,
    **scripts: Script,
) -> AsyncIterator[Routed]:
    """Retries wait for no time of their own. `settings` are the providers', by name."""
    async with AsyncExitStack() as stack:
        at = {name: await stack.enter_async_context(scripted(script)) for name, script in scripts.items()}
        rows = {}
        for name, upstream in at.items():
            models = {"m1": ModelSettings(price=(prices or {}).get(name, Price(input=1, output=10)))}
            own = msgspec.convert((settings or {}).get(name, {}), ProviderSettings)
            given = {key: getattr(own, key) for key in (settings or {}).get(name, {})}
            rows[name] = provider(name, **{"base_url": upstream.url, "models": models, "overhead_tokens": 16, **given})
        transport = await stack.enter_async_context(AiohttpTransport())
        traffic = Traffic()
        catalog = Catalog(providers=rows, default_model=None)
        made = [msgspec.convert(rule, Rule) for rule in rules]
        upstreams = Upstreams(catalog, {}, lambda: transport, made, traffic)
        meter = Meter()
        executor = Executor(lambda: upstreams, budgets or Recorder(), roll=lambda: 0.0, meter=meter)
        yield Routed(executor, traffic, at, meter)


def to(*names: str, **more: Any) -> dict[str, Any]:
    """A rule that prefers these providers' models."""
    return {"prefer": [{"provider": name, "model": "m1"} for name in names], **more}


def then(*scripts: Script) -> Script:
    """One script after the other, and the last for all that follow."""
    waiting = list(scripts)

    async def script(exchange: Exchange) -> None:
        await (waiting.pop(0) if len(waiting) > 1 else waiting[0])(exchange)

    return script


def status(number: int, *headers: str) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.reply({"error": {"message": "no"}}, number, *headers)

    return script


async def ok(exchange: Exchange) -> None:
    await exchange.reply()


async def silent(exchange: Exchange) -> None:
    await exchange.gone()


async def hang_up(exchange: Exchange) -> None:
    exchange.close()
