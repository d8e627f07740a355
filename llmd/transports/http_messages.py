"""What llmd reads from an HTTP request besides its body, and how a reply becomes a response."""

from math import ceil
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from llmd.errors import KINDS, LLMError
from llmd.rpc.dispatch import Reply
from llmd.transports.loopback import is_loopback


def check_origin(request: Request) -> None:
    """A page of any site can have a browser send requests here: they tell the page's origin, or its site as host."""
    origin = request.headers.get("origin")
    if not _is_ours(f"//{request.headers.get('host', '')}") or (origin is not None and not _is_ours(origin)):
        raise LLMError("unauthorized", "call this by a name of this machine, and not from a web page")


def _is_ours(url: str) -> bool:
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def bearer_token(request: Request) -> str:
    """What the request shows as its token; empty if nothing."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def event(name: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


class _Data(msgspec.Struct):
    kind: str
    retry_after_ms: int | None = None


class _ErrorObject(msgspec.Struct):
    data: _Data


_decode_error = msgspec.json.Decoder(_ErrorObject).decode


def response(reply: Reply) -> Response:
    """A result as it is, an error as {"error": ...} with the status of its kind."""
    if reply.ok:
        return Response(reply.body, media_type="application/json")
    data = _decode_error(reply.body).data
    headers = {} if data.retry_after_ms is None else {"retry-after": str(ceil(data.retry_after_ms / 1000))}
    return Response(
        b'{"error":%b}' % reply.body, KINDS[data.kind].http_status, headers=headers, media_type="application/json"
    )
