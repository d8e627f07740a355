"""Everything that can be called: the catalog's rows with the providers that carry them, and which of them are ready."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import anyio

from llmd.catalog import ECHO, Catalog, ProviderRow
from llmd.core.routing import Facts
from llmd.dialects import DIALECTS
from llmd.dialects.base import Provider
from llmd.echo import EchoProvider
from llmd.keys import Key

if TYPE_CHECKING:
    from llmd.providers import AiohttpTransport, HttpProvider

HEALTH_MAX_AGE_S = 5.0

Health = Literal["ready", "no_key", "unreachable"]


class Upstreams:
    """One configuration's providers. A reload makes a new one; the transport, and its connections, outlive it.

    transport  opens, once and inside the running loop, what carries HTTP: loaded only when a provider needs it
    """

    def __init__(self, catalog: Catalog, env: Mapping[str, str], transport: Callable[[], "AiohttpTransport"]) -> None:
        self.catalog = catalog
        self._keys = {name: Key(row.key, env) for name, row in catalog.providers.items()}
        self._transport = transport
        self._default_models = {name: row.default_model for name, row in catalog.providers.items()}
        self._providers: dict[str, Provider] = {}
        self._asking = anyio.Lock()
        self._asked: tuple[float, dict[str, tuple[Health, list[str]]]] | None = None

    def provider(self, name: str) -> Provider:
        """The provider of this name, which must be in the catalog."""
        if name not in self._providers:
            row = self.catalog.providers[name]
            self._providers[name] = EchoProvider(row) if row.dialect == ECHO else self._http(row)
        return self._providers[name]

    def _http(self, row: ProviderRow) -> "HttpProvider":
        from llmd.providers import HttpProvider

        return HttpProvider(
            DIALECTS[row.dialect], self._keys[row.name], self._transport(), row.base_url, row.max_concurrency
        )

    async def facts(self, ask_names_target: bool) -> Facts:
        """What routing may know. Local engines are asked only when the request leaves the choice open."""
        usable: dict[str, str] = {}
        unusable: dict[str, str] = {}
        if not ask_names_target and self.catalog.default_model is None:
            for name, (state, models) in (await self._recent_health()).items():
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
        return Facts(self._default_models, self.catalog.default_model, usable, unusable)

    async def _recent_health(self) -> dict[str, tuple[Health, list[str]]]:
        """`health` as it was some seconds ago at most: one that asks engines on every call would slow every call."""
        async with self._asking:
            if self._asked is None or anyio.current_time() - self._asked[0] > HEALTH_MAX_AGE_S:
                self._asked = anyio.current_time(), await self.health()
            return self._asked[1]

    async def health(self) -> dict[str, tuple[Health, list[str]]]:
        """Of each provider, whether it could be called, and the models that it is known to have."""
        found: dict[str, tuple[Health, list[str]]] = {}

        async def ask(row: ProviderRow) -> None:
            models = await self._http(row).models()
            found[row.name] = ("unreachable", []) if models is None else ("ready", models)

        async with anyio.create_task_group() as group:
            for name, row in self.catalog.providers.items():
                if row.local:
                    group.start_soon(ask, row)
                else:
                    known = dict.fromkeys([*([row.default_model] if row.default_model else []), *row.models])
                    found[name] = ("ready" if self._keys[name].present else "no_key", list(known))
        return {name: found[name] for name in self.catalog.providers}
