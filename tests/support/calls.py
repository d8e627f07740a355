"""What tests of providers, dialects and the executor say over and over: a row, a request, a provider at a URL."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec

from llmd.catalog import ProviderRow, provider_row
from llmd.chat import Ask, Delta
from llmd.core.outcomes import Failure, Outcome
from llmd.core.rows import ModelRow
from llmd.dialects import DIALECTS
from llmd.dialects.base import HttpCall
from llmd.keys import Key
from llmd.providers import AiohttpTransport, HttpProvider
from llmd.settings import KeySettings, ProviderSettings
from tests.support.upstream import Script, scripted

DIALECT = DIALECTS["openai"]


def row(base_url: str = "http://127.0.0.1:9/v1", **facts: Any) -> ModelRow:
    return ModelRow(**{"provider": "work", "model": "m1", "dialect": "openai", "base_url": base_url, **facts})


def ask(**params: Any) -> Ask:
    return Ask(**({} if "messages" in params else {"prompt": "hello"}) | params)


def request(
    dialect: str, max_tokens: int | None = None, stream: bool = False, facts: Any = None, **params: Any
) -> HttpCall:
    """A request in this dialect; `facts` are the model's."""
    return DIALECTS[dialect].request(ask(**params), row(**(facts or {})), max_tokens, stream)


def body(dialect: str, *args: Any, **params: Any) -> Any:
    """What a request says."""
    return msgspec.json.decode(request(dialect, *args, **params).body)


def dropped(dialect: str, *args: Any, **params: Any) -> list[str]:
    return request(dialect, *args, **params).dropped


class Caller:
    """One provider at `base_url`, and the deltas of what it was asked for."""

    def __init__(self, provider: HttpProvider, base_url: str) -> None:
        self.provider = provider
        self.base_url = base_url
        self.deltas: list[Delta] = []
        self.first_delta = anyio.Event()

    def call(self, stream: bool = False, **params: Any) -> HttpCall:
        return self.provider.request(ask(**params), row(self.base_url), None, stream)

    async def send(self, stream: bool = False) -> Outcome:
        return await self.provider.send(self.call(stream), self._emit if stream else None)

    async def _emit(self, delta: Delta) -> None:
        self.deltas.append(delta)
        self.first_delta.set()

    @property
    def text(self) -> str:
        return "".join(delta.text or "" for delta in self.deltas)


@asynccontextmanager
async def caller(
    base_url: str, key: KeySettings | None = None, env: Mapping[str, str] | None = None, **settings: Any
) -> AsyncIterator[Caller]:
    made = provider_row("work", ProviderSettings(base_url=base_url, api_key=key, **settings))
    assert isinstance(made, ProviderRow)
    async with AiohttpTransport() as transport:
        yield Caller(HttpProvider(made, Key(key, env or {}), transport), base_url)


def failed(outcome: Outcome, kind: str, billed: str) -> Failure:
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.billed) == (kind, billed), outcome
    assert outcome.usage is None
    return outcome


async def outcome_of(script: Script, stream: bool = False) -> Outcome:
    async with scripted(script) as upstream, caller(upstream.url) as made:
        outcome = await made.send(stream)
        assert len(upstream.requests) == 1, "a POST was sent twice"
        return outcome
