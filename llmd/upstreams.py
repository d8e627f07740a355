"""Everything that can be called: the catalog's rows with the providers that carry them, and which of them are ready."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING

import anyio

from llmd.catalog import Catalog, Health, ProviderRow
from llmd.core.plans import Facts
from llmd.core.routing import Policy
from llmd.core.rows import ModelRow
from llmd.core.rules import Rule
from llmd.dialects.base import Offered, Provider
from llmd.echo import EchoProvider
from llmd.keys import Key
from llmd.known import ECHO
from llmd.traffic import Traffic

if TYPE_CHECKING:
    from llmd.providers import AiohttpTransport, HttpProvider

HEALTH_MAX_AGE_S = 5.0
OFFERS_MAX_AGE_S = 300.0


class Carrier:
    """What carries HTTP to all providers: loaded and opened with its first use, inside the running loop."""

    def __init__(self) -> None:
        self._transport: AiohttpTransport | None = None

    def open(self) -> "AiohttpTransport":
        if self._transport is None:
            from llmd.providers import AiohttpTransport

            self._transport = AiohttpTransport()
        return self._transport

    async def aclose(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()


class Upstreams:
    """One configuration's providers and rules. A reload makes a new one; the transport and the traffic outlive it.

    transport  opens, once and inside the running loop, what carries HTTP: loaded only when a provider needs it
    """

    def __init__(
        self,
        catalog: Catalog,
        env: Mapping[str, str],
        transport: Callable[[], "AiohttpTransport"],
        rules: Sequence[Rule] = (),
        traffic: Traffic | None = None,
    ) -> None:
        self.catalog = catalog
        self.policy = Policy(rules, self._row)
        self.traffic = traffic or Traffic()
        self.traffic.configure(catalog.providers)
        self._keys = {name: Key(row.key, env) for name, row in catalog.providers.items()}
        self._transport = transport
        self._default_models = {name: row.default_model for name, row in catalog.providers.items()}
        self._providers: dict[str, Provider] = {}
        self._asking = anyio.Lock()
        self._offers: dict[str, tuple[float, tuple[Health, list[Offered]]]] = {}
        self._asked: tuple[float, dict[str, tuple[Health, list[str]]]] | None = None

    def by(self, rules: Sequence[Rule]) -> "Upstreams":
        """The same, chosen by other rules."""
        other = copy(self)
        other.policy = Policy(rules, self._row)
        return other

    def provider(self, name: str) -> Provider:
        """The provider of this name, which must be in the catalog."""
        if name not in self._providers:
            row = self.catalog.providers[name]
            self._providers[name] = EchoProvider(row) if row.dialect == ECHO else self._http(row)
        return self._providers[name]

    def _http(self, row: ProviderRow) -> "HttpProvider":
        from llmd.providers import HttpProvider

        return HttpProvider(row, self._keys[row.name], self._transport())

    async def facts(self, open_choice: bool, ask_engines: bool = True) -> Facts:
        """What routing may know. Local engines are asked, if at all, only when nothing else decides."""
        usable: dict[str, str] = {}
        unusable: dict[str, str] = {}
        if open_choice and self.catalog.default_model is None:
            for name, (state, models) in (await self._recent_health(ask_engines)).items():
                row = self.catalog.providers[name]
                model = row.default_model or next(iter(models), None)
                if row.dialect == ECHO:
                    unusable[name] = "only_when_named"
                elif state != "ready":
                    unusable[name] = state
                elif model is None:
                    unusable[name] = "no_default_model"
                else:
                    usable[name] = model
        return Facts(
            find=self._row,
            providers=self._default_models,
            default_model=self.catalog.default_model,
            usable=usable,
            unusable=unusable,
            absent=self.catalog.absent,
            missing_key=lambda provider: self._keys[provider].missing,
        )

    def _row(self, provider: str, model: str | None) -> ModelRow | None:
        row = self.catalog.providers.get(provider)
        model = model or (row.default_model if row is not None else None)
        return None if row is None or model is None else row.model_row(model)

    async def _recent_health(self, ask_engines: bool) -> dict[str, tuple[Health, list[str]]]:
        """`health` as it was some seconds ago at most: one that asks engines on every call would slow every call."""
        if not ask_engines:
            return self._asked[1] if self._asked is not None else await self.health(ask_engines=False)
        async with self._asking:
            if self._asked is None or anyio.current_time() - self._asked[0] > HEALTH_MAX_AGE_S:
                self._asked = anyio.current_time(), await self.health()
            return self._asked[1]

    async def health(self, ask_engines: bool = True) -> dict[str, tuple[Health, list[str]]]:
        """Of each provider, whether it could be called, and models that it has; local engines alone are asked."""
        found: dict[str, tuple[Health, list[str]]] = {}

        async def ask(row: ProviderRow) -> None:
            health, offered = await self._http(row).models()
            found[row.name] = health, [model.id for model in offered or []]

        async with anyio.create_task_group() as group:
            for name, row in self.catalog.providers.items():
                if row.local and ask_engines:
                    group.start_soon(ask, row)
                else:
                    found[name] = ("ready" if self._keys[name].present else "no_key"), _named(row)
        return {name: found[name] for name in self.catalog.providers}

    async def offers(self) -> dict[str, tuple[Health, list[Offered]]]:
        """Of each provider, whether it answers, and the models that it says it has beside those that are named here.

        All are asked at once, those beyond this machine once in five minutes.
        """
        found: dict[str, tuple[Health, list[Offered]]] = {}

        async def ask(row: ProviderRow) -> None:
            health, offered = await self._http(row).models()
            told = {model.id: model for model in offered or []}
            found[row.name] = health, list(({name: Offered(name) for name in _named(row)} | told).values())
            if health == "ready" and not row.local:
                self._offers[row.name] = anyio.current_time(), found[row.name]

        async with anyio.create_task_group() as group:
            for name, row in self.catalog.providers.items():
                told = self._offers.get(name)
                if row.dialect == ECHO or not (row.local or self._keys[name].present):
                    health: Health = "ready" if row.dialect == ECHO else "no_key"
                    found[name] = health, [Offered(model) for model in _named(row)]
                elif told is not None and anyio.current_time() - told[0] < OFFERS_MAX_AGE_S:
                    found[name] = told[1]
                else:
                    group.start_soon(ask, row)
        return {name: found[name] for name in self.catalog.providers}


def _named(row: ProviderRow) -> list[str]:
    return list(dict.fromkeys([*([row.default_model] if row.default_model else []), *row.models]))
