"""JSON-RPC 2.0: what the bytes of one message say, and the bytes of an answer.

Owns the shape of requests, batches and replies, and how ids are echoed: as the bytes received. Refuses to know methods,
connections and params, which pass through as raw JSON.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

NULL_ID = b"null"
BATCH_MAX = 100


class Call(Struct, frozen=True):
    """A request, or a notification where `id` is None. `id` is the bytes received; so is params, None if absent."""

    id: bytes | None
    method: str
    params: Raw | None


class Invalid(Struct, frozen=True):
    """JSON that is not a request: answered with -32600 under `id`."""

    id: bytes
    reason: str


class Ignored(Struct, frozen=True):
    """A reply, to something that we never asked."""


Item = Call | Invalid | Ignored


class Batch(Struct, frozen=True):
    items: list[Item]


Message = Item | Batch


class _Envelope(Struct):
    jsonrpc: Raw | UnsetType = UNSET
    id: Raw | UnsetType = UNSET
    method: Raw | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


_decode_object = msgspec.json.Decoder(_Envelope).decode
_decode_string = msgspec.json.Decoder(str).decode
_SPACE = b" \t\r\n"


@lru_cache(4)
def _array_decoder(items_max: int) -> msgspec.json.Decoder[Any]:
    """Makes values of so many items and only reads over the others, which may be millions."""
    fields = [(f"item_{number}", Raw | UnsetType, UNSET) for number in range(items_max)]
    return msgspec.json.Decoder(msgspec.defstruct("_Items", fields, array_like=True))


def _decode_array(text: bytes, items_max: int) -> list[Raw]:
    found = msgspec.structs.astuple(_array_decoder(items_max).decode(text))
    return [item for item in found if item is not UNSET]


def parse(text: bytes, batch_max: int = BATCH_MAX) -> Message | None:
    """What one message says; None if it is not JSON (RFC 8259), or JSON that is neither an object nor an array.

    A batch of more than `batch_max` items comes out with one item more than that, whatever the others are.
    """
    try:
        if not text.isascii():
            text.decode()  # msgspec does not look into what it passes through raw
        text = text.strip(_SPACE)
        if text[:1] == b"{":
            return _item(_decode_object(text))
        if text[:1] == b"[":
            items = _decode_array(text, batch_max + 1)
            return Batch([_batch_item(item) for item in items]) if items else Invalid(NULL_ID, "the batch is empty")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    return None


def is_json(text: bytes) -> bool:
    """Whether it is JSON of any kind, by the measure of `parse`."""
    try:
        if not text.isascii():
            text.decode()
        msgspec.json.decode(text, type=Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _batch_item(item: Raw) -> Item:
    if memoryview(item)[0] == ord("{"):
        return _item(_decode_object(item))
    return Invalid(NULL_ID, "a request is an object")


def _item(envelope: _Envelope) -> Item:
    if envelope.method is UNSET and (envelope.result is not UNSET or envelope.error is not UNSET):
        return Ignored()
    identifier = None if envelope.id is UNSET else bytes(envelope.id)
    legal = identifier is None or identifier[:1] in b'"n-0123456789'
    echo = identifier if legal and identifier is not None else NULL_ID
    if not _is_version_2(envelope.jsonrpc):
        return Invalid(echo, '`jsonrpc` must be "2.0"')
    if envelope.method is UNSET or memoryview(envelope.method)[0] != ord('"'):
        return Invalid(echo, "`method` must be a string")
    if not legal:
        return Invalid(NULL_ID, "`id` must be a string, a number or null")
    if envelope.params is UNSET:
        params = None
    elif memoryview(envelope.params)[0] in b"{[":
        params = envelope.params.copy()  # which would keep the whole message otherwise
    else:
        return Invalid(echo, "`params` must be an object or an array")
    return Call(identifier, _decode_string(envelope.method), params)


def _is_version_2(value: Raw | UnsetType) -> bool:
    if value is UNSET:
        return False
    text = bytes(value)
    # The same string may be spelled with escapes.
    return text == b'"2.0"' or (text[:1] == b'"' and _decode_string(text) == "2.0")


def render_reply(identifier: bytes, ok: bool, body: bytes) -> bytes:
    """A reply; `body` is the result, or the error object if not `ok`, as JSON."""
    return b'{"jsonrpc":"2.0","id":%b,"%b":%b}' % (identifier, b"result" if ok else b"error", body)


def render_notification(method: str, params: Struct) -> bytes:
    return b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (
        msgspec.json.encode(method),
        msgspec.json.encode(params),
    )


def render_batch(replies: Iterable[bytes]) -> bytes:
    return b"[%b]" % b",".join(replies)
