"""An executor for a test: its provider is a script, and its budgets record what is held and posted."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import anyio.lowlevel

from llmd.budgets import Budgets, Held, Posting, Quoter
from llmd.catalog import Catalog, ProviderRow, provider_row
from llmd.chat import Ask
from llmd.context import Context, Peer
from llmd.core.bounds import Bound
from llmd.core.rows import ModelRow, Price
from llmd.core.rules import Rule
from llmd.errors import LLMError
from llmd.executor import Executor
from llmd.providers import AiohttpTransport
from llmd.settings import ModelSettings, ProviderSettings
from llmd.upstreams import Upstreams
from tests.support.upstream import Exchange, Script, scripted

PRICE = Price(input=1, output=10)


class Recorder:
    """Budgets that grant everything and keep what was posted; a hold that is resolved twice fails the test."""

    def __init__(self, refusal: LLMError | None = None, undispatched: LLMError | None = None) -> None:
        self.holds: list[tuple[str | None, Bound]] = []
        self.postings: list[Posting] = []
        self.open: set[int] = set()
        self.resolved = anyio.Event()
        self._refusal = refusal
        self.undispatched = undispatched

    async def room(self, ask: Ask) -> None:
        return None

    def learned(self, row: ModelRow) -> ModelRow:
        return row

    async def hold(self, ctx: Context, ask: Ask, row: ModelRow, quote: Quoter, abort: anyio.CancelScope) -> Held:
        await anyio.lowlevel.checkpoint()
        if self._refusal is not None:
            raise self._refusal
        quoted = quote(ask.max_tokens)
        self.holds.append((ask.budget, quoted.bound))
        held = Held(quoted, quoted.bound.amounts)
        self.open.add(id(held))
        return held

    async def dispatch(self, held: Held) -> None:
        await anyio.lowlevel.checkpoint()
        if self.undispatched is not None:
            raise self.undispatched

    async def resolve(self, held: Held, posting: Posting) -> None:
        self.open.remove(id(held))
        self.postings.append(posting)
        self.resolved.set()
        await anyio.lowlevel.checkpoint()  # where a cancelled caller ends

    def snapshot(self, held: Held) -> None:
        return None

    def only(self) -> Posting:
        """What the one hold there was has posted."""
        assert len(self.holds) == len(self.postings) == 1
        assert not self.open
        return self.postings[0]

    def posted_its_bound(self) -> bool:
        return self.only() == Posting(self.holds[0][1].amounts, uncertain=True)


class NoConnection:
    """The executor uses nothing of a connection."""

    @contextmanager
    def stream(self, token: str) -> Any:
        raise AssertionError("the executor opens no streams")
        yield

    def watch(self, token: str, run: Any) -> None:
        raise AssertionError("the executor watches nothing")

    def unwatch(self, token: str) -> bool:
        raise AssertionError("the executor watches nothing")

    ended = False

    def at_end(self, callback: Any) -> None:
        raise AssertionError("the executor waits for no end")


def context() -> Context:
    return Context(Peer("unix", 0, 0, True), "request-1", anyio.current_time(), NoConnection())


def provider(name: str = "work", **settings: Any) -> ProviderRow:
    row = provider_row(name, ProviderSettings(**settings))
    assert isinstance(row, ProviderRow)
    return row


@asynccontextmanager
async def executor(budgets: Budgets, *rows: ProviderRow, rules: Sequence[Rule] = ()) -> AsyncIterator[Executor]:
    catalog = Catalog(providers={row.name: row for row in (*rows, provider("echo"))}, default_model=None)
    async with AiohttpTransport() as transport:
        upstreams = Upstreams(catalog, {}, lambda: transport, rules)
        yield Executor(lambda: upstreams, budgets, roll=lambda: 0.0)


@asynccontextmanager
async def executing(script: Script, budgets: Budgets, **settings: Any) -> AsyncIterator[Executor]:
    """An executor whose provider `work` is this script, and has a price."""
    async with scripted(script) as upstream:
        models = {"m1": ModelSettings(price=PRICE, max_output_tokens=100)}
        async with executor(budgets, provider(base_url=upstream.url, models=models, **settings)) as made:
            yield made


def answering(body: Any, status: int = 200) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(body, status, "x-request-id: req-7")

    return script
