"""`models.list`: what could be called."""

import anyio
from msgspec import Struct

from llmd.catalog import Health
from llmd.context import Context
from llmd.core.health import Reason
from llmd.core.rows import Price
from llmd.rpc.base import Empty, Method, Service


class Model(Struct, frozen=True, kw_only=True):
    """`model` is what `execute` takes; `health` its provider's, or this model's trouble. Unknown facts are null."""

    model: str
    provider: str
    dialect: str
    price: Price | None
    context_tokens: int | None
    max_output_tokens: int | None
    default: bool
    health: Health | Reason


class Models(Struct, frozen=True):
    """`providers` tells of each whether it could be called, of those as well that no model is known of."""

    models: list[Model]
    providers: dict[str, Health]


async def _list(service: Service, params: Empty, ctx: Context) -> Models:
    upstreams = service.upstreams()
    catalog = upstreams.catalog
    models, now = [], anyio.current_time()
    offers = await upstreams.offers()
    for provider, (health, models_of) in offers.items():
        for offered in models_of:
            row = catalog.providers[provider].model_row(offered.id)
            trouble = upstreams.traffic.trouble(row, now) if health == "ready" else None
            models.append(
                Model(
                    model=row.target,
                    provider=provider,
                    dialect=row.dialect,
                    price=row.price,
                    context_tokens=row.context_tokens or offered.context_tokens,
                    max_output_tokens=row.max_output_tokens or offered.max_output_tokens,
                    default=row.target == catalog.default_model,
                    health=health if trouble is None else trouble.reason,
                )
            )
    return Models(models, {provider: health for provider, (health, _) in offers.items()})


LIST = Method(Empty, Models, "List the models that this daemon knows, with prices, limits and health.", run=_list)
