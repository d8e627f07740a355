"""`daemon.*` and `ping`: the daemon about itself."""

from msgspec import Struct

from llmd.context import Context
from llmd.errors import LLMError
from llmd.rpc.base import Empty, Method, Service
from llmd.scalars import Token
from llmd.settings import Limits
from llmd.version import VERSION

PROTOCOL = 1
CAPABILITIES = ["batch", "budgets", "cancel", "content-length", "streaming"]


class Info(Struct, frozen=True, kw_only=True):
    """`started` is in seconds since the epoch; `limits` are the ones in force; `in_flight` counts running calls."""

    version: str
    protocol: int
    capabilities: list[str]
    limits: Limits
    started: int
    in_flight: int


class Reloaded(Struct, frozen=True):
    """`after_restart` names the settings that are changed and come into force only with a restart."""

    after_restart: list[str]


class AuthParams(Struct, frozen=True, forbid_unknown_fields=True):
    token: Token

    def __repr__(self) -> str:
        return "AuthParams()"


def _ping(service: Service, params: Empty, ctx: Context) -> Empty:
    return Empty()


def _info(service: Service, params: Empty, ctx: Context) -> Info:
    return Info(
        version=VERSION,
        protocol=PROTOCOL,
        capabilities=CAPABILITIES,
        limits=service.limits(),
        started=int(service.started),
        in_flight=service.in_flight(),
    )


def _auth(service: Service, params: AuthParams, ctx: Context) -> Empty:
    # On the Unix socket the kernel has said who this is: who is served needs no token, and no token helps another.
    peer = ctx.peer
    served = peer.own or peer.labels is not None
    if not (served if peer.transport == "unix" else service.is_token(params.token)):
        raise LLMError("unauthorized", "this is not the daemon's token")
    return Empty()


async def _reload(service: Service, params: Empty, ctx: Context) -> Reloaded:
    if ctx.peer.transport != "unix" or not ctx.peer.own:
        raise LLMError("unauthorized", "only the daemon's own user reloads it, on the Unix socket")
    return Reloaded(await service.reload())


PING = Method(Empty, Empty, "Answer at once.", now=_ping)
INFO = Method(Empty, Info, "Tell version, protocol, capabilities and limits.", now=_info)
AUTH = Method(AuthParams, Empty, "Show the bearer token: the first call on a TCP connection that needs one.", now=_auth)
RELOAD = Method(Empty, Reloaded, "Read the configuration again; one that is wrong changes nothing.", run=_reload)
