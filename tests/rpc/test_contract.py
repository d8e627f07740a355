"""What a client may rely on, as one table: a class of input, and what it is answered.

Each row runs on a connection of its own, arriving whole, byte by byte, and cut at random, and behind each row comes a
ping, which is answered exactly if the row leaves the connection alive. Every reply is checked against the generated
schemas. Codes and texts here are the contract's own, and not imported from what is tested.
"""

import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from msgspec import UNSET, Raw, Struct, UnsetType

from llmd.chat import DeltaParams
from llmd.context import Peer
from llmd.schemas import documents
from llmd.settings import Limits
from tests.support.sessions import STRANGER, TOKEN, Runner, Terms, cut

CODES = {
    "parse_error": -32700,
    "invalid_request": -32600,
    "method_not_found": -32601,
    "invalid_params": -32602,
    "shutting_down": -32000,
    "busy": -32001,
    "deadline_exceeded": -32002,
    "too_large": -32003,
    "unauthorized": -32004,
    "cancelled": -32800,
    "model_not_found": 1007,
    "no_route": 1010,
    "budget_unknown": 1103,
    "config_invalid": 1200,
}
RETRYABLE = {"shutting_down", "busy"}


# -- what can be answered -----------------------------------------------------------------------------------------


class Error(NamedTuple):
    """`id` as the JSON that stands on the wire; `data` members, among others that may be there."""

    id: str
    kind: str
    data: dict[str, Any]


class Result(NamedTuple):
    """The result of `method`, with these members among others."""

    id: str
    method: str
    members: dict[str, Any]


class Delta(NamedTuple):
    stream: str
    seq: int
    text: str


class Array(NamedTuple):
    """One batch's replies, in any order."""

    answers: tuple[Error | Result, ...]


Answer = Error | Result | Delta | Array


def error(id: str, kind: str, **data: Any) -> Error:
    return Error(id, kind, data)


def pong(id: str = "1") -> Result:
    return Result(id, "ping", {})


def said(id: str, text: str, **members: Any) -> Result:
    return Result(id, "execute", {"text": text, **members})


def array(*answers: Error | Result) -> Array:
    return Array(answers)


PARSE_ERROR = error("null", "parse_error")
INVALID = error("null", "invalid_request")


# -- what can be sent ---------------------------------------------------------------------------------------------


def call(id: str, method: str = "ping", params: str | None = None) -> str:
    """A request as text: its parts are JSON already."""
    return f'{{"jsonrpc":"2.0","id":{id},"method":"{method}"{_params(params)}}}'


def notify(method: str, params: str | None = None) -> str:
    return f'{{"jsonrpc":"2.0","method":"{method}"{_params(params)}}}'


def _params(params: str | None) -> str:
    return "" if params is None else f',"params":{params}'


def execute(id: str, params: str) -> str:
    return call(id, "execute", f"{{{params}}}")


def slow(id: str, more: str = "") -> str:
    """A call that ends only by a cancel or its deadline."""
    return execute(id, f'"prompt":"p","model":"slow/echo"{more}')


def cancel(id: str) -> str:
    return notify("$/cancelRequest", f'{{"id":{id}}}')


def batch(*items: str) -> str:
    return f"[{','.join(items)}]"


def lines(*messages: str | bytes) -> bytes:
    return b"".join(_bytes(message) + b"\n" for message in messages)


def headed(*bodies: str | bytes) -> bytes:
    return b"".join(b"Content-Length: %d\r\n\r\n%b" % (len(_bytes(body)), _bytes(body)) for body in bodies)


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


class Row(NamedTuple):
    """`then`: the connection lives on, is closed by the daemon, or the client's end is part of the input."""

    says: str
    sent: bytes
    answers: list[Answer]
    then: Literal["lives", "closes", "ends"] = "lives"
    ordered: bool = False
    headers: bool = False
    terms: Terms = Terms()


PING = call("1")
PING_IN_LINES = b'{\n  "jsonrpc": "2.0",\n  "id": 1,\n  "method": "ping"\n}\n'

# -- the table ----------------------------------------------------------------------------------------------------

PARSE = [
    Row(
        "the specification's call with invalid JSON",
        lines('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]'),
        [PARSE_ERROR],
    ),
    Row(
        "the specification's batch with invalid JSON is one error, not one an item",
        headed(
            '[\n  {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},\n  {"jsonrpc": "2.0", "method"\n]'
        ),
        [PARSE_ERROR],
        headers=True,
    ),
    Row(
        "a batch that breaks off on its line",
        lines(f'[{PING},{{"jsonrpc": "2.0", "method"]', PING),
        [PARSE_ERROR, pong()],
    ),
    Row("NaN is no number", lines(execute("1", '"prompt":"p","top_p":NaN')), [PARSE_ERROR]),
    Row("nor is Infinity, even where nobody looks", lines('{"jsonrpc":"2.0","x":-Infinity}'), [PARSE_ERROR]),
    Row("a number with a leading zero", lines(call("01")), [PARSE_ERROR]),
    Row("a lone surrogate, escaped, in params", lines(execute("1", r'"prompt":"\ud800"')), [PARSE_ERROR]),
    Row("a lone surrogate in an id", lines(call(r'"\udc00"')), [PARSE_ERROR]),
    Row("a lone surrogate in a method's name", lines(call("1", r"\ud83dping")), [PARSE_ERROR]),
    Row("a lone surrogate as a member's name", lines(call("1", "ping", r'{"\ud800":1}')), [PARSE_ERROR]),
    Row("surrogates the wrong way round", lines(execute("1", r'"prompt":"\ude00\ud83d"')), [PARSE_ERROR]),
    Row("a surrogate in UTF-8", lines(b'{"jsonrpc":"2.0","id":"\xed\xa0\x80","method":"ping"}'), [PARSE_ERROR]),
    Row("invalid UTF-8 in what is read", lines(b'{"jsonrpc":"2.0","id":1,"method":"\xff"}'), [PARSE_ERROR]),
    Row(
        "invalid UTF-8 in a member that nobody reads",
        lines(b'{"jsonrpc":"2.0","id":1,"method":"ping","x":"\xc3("}'),
        [PARSE_ERROR],
    ),
    Row("an overlong encoding", lines(b'{"jsonrpc":"2.0","id":"\xc0\xaf","method":"ping"}'), [PARSE_ERROR]),
    Row("100,000 nested brackets", lines("[" * 100_000 + "]" * 100_000), [PARSE_ERROR]),
    Row("100,000 brackets that never close", lines("[" * 100_000), [PARSE_ERROR]),
    Row("100,000 nested brackets in params", lines(call("1", "ping", "[" * 100_000 + "]" * 100_000)), [PARSE_ERROR]),
    Row("a comma too many", lines('{"jsonrpc":"2.0","id":1,"method":"ping",}'), [PARSE_ERROR]),
    Row("a comma too few", lines('{"jsonrpc":"2.0" "id":1,"method":"ping"}'), [PARSE_ERROR]),
    Row("names without quotes", lines("{jsonrpc:2,id:1}"), [PARSE_ERROR]),
    Row("quotes of another language", lines("{'jsonrpc':'2.0','id':1,'method':'ping'}"), [PARSE_ERROR]),
    Row("a comment", lines('{"jsonrpc":"2.0",/* one */"id":1,"method":"ping"}'), [PARSE_ERROR]),
    Row("a control character in a string", lines(call('"\t"')), [PARSE_ERROR]),
    Row("an escape that JSON does not have", lines(call(r'"\x41"')), [PARSE_ERROR]),
    Row("a NUL byte within a value", lines('{"jsonrpc":"2.0",\0"id":1,"method":"ping"}'), [PARSE_ERROR]),
    Row("a literal that is none", lines(call("nul")), [PARSE_ERROR]),
    Row("brackets of two kinds", lines('{"jsonrpc":"2.0","id":1,"method":"ping"]'), [PARSE_ERROR]),
    Row("behind a value that closes but is wrong, reading goes on", lines('{"a":}' + PING), [PARSE_ERROR, pong()]),
    Row("a value open at a newline is over there", lines('{"jsonrpc":"2.0",', PING), [PARSE_ERROR, pong()]),
    Row("a string open at a newline is over there", lines('{"jsonrpc":"2.', PING), [PARSE_ERROR, pong()]),
    Row("an escaped newline is a newline", lines('{"jsonrpc":"\\', PING), [PARSE_ERROR, pong()]),
    Row("a value that is neither object nor array", lines(PING, "17", PING), [pong(), PARSE_ERROR, pong()]),
    Row("two broken lines are two errors", lines('{"a"}', "[}"), [PARSE_ERROR, PARSE_ERROR]),
    Row("a value that the client's end leaves open", PING.encode()[:-1], [PARSE_ERROR], then="ends"),
]

SHAPE = [
    Row(
        "the specification's call with an invalid Request object",
        lines('{"jsonrpc": "2.0", "method": 1, "params": "bar"}'),
        [INVALID],
    ),
    Row("the specification's empty array is one error, no array", lines("[]"), [INVALID]),
    Row("the specification's invalid batch, not empty", lines("[1]"), [array(INVALID)]),
    Row("the specification's invalid batch of three", lines("[1,2,3]"), [array(INVALID, INVALID, INVALID)]),
    Row(
        "the specification's mixed batch: each item is judged alone",
        lines(
            batch(
                execute('"1"', '"prompt":"7"'),
                notify("notify_hello", "[7]"),
                call('"2"', "ping", "{}"),
                '{"foo": "boo"}',
                call('"5"', "foo.get", '{"name": "myself"}'),
                call('"9"', "models.list"),
            )
        ),
        [
            array(
                said('"1"', "7"),
                pong('"2"'),
                INVALID,
                error('"5"', "method_not_found"),
                Result('"9"', "models.list", {}),
            )
        ],
    ),
    Row("an object without members", lines("{}"), [INVALID]),
    Row("a request without a version, by its id", lines('{"id":7,"method":"ping"}'), [error("7", "invalid_request")]),
    Row("a version that is a number", lines('{"jsonrpc":2.0,"id":7,"method":"ping"}'), [error("7", "invalid_request")]),
    Row("another version", lines('{"jsonrpc":"1.0","id":"a","method":"ping"}'), [error('"a"', "invalid_request")]),
    Row("a version spelled with an escape", lines(r'{"jsonrpc":"2\u002e0","id":1,"method":"ping"}'), [pong()]),
    Row("no method, by its id", lines('{"jsonrpc":"2.0","id":1}'), [error("1", "invalid_request")]),
    Row("a method that is null", lines('{"jsonrpc":"2.0","id":1,"method":null}'), [error("1", "invalid_request")]),
    Row("params that are a string", lines(call("1", "ping", '"a"')), [error("1", "invalid_request")]),
    Row("params that are null", lines(call("1", "ping", "null")), [error("1", "invalid_request")]),
    Row("an id that is true", lines(call("true")), [INVALID]),
    Row("an id that is an array", lines(call('["a"]')), [INVALID]),
    Row("an id that is an object", lines(call("{}")), [INVALID]),
    Row("an invalid notification is told nevertheless", lines('{"jsonrpc":"2.0","method":["ping"]}'), [INVALID]),
    Row("a result that nobody asked for is ignored", lines('{"jsonrpc":"2.0","id":1,"result":{}}'), []),
    Row("an error that nobody asked for is ignored", lines('{"jsonrpc":"2.0","id":null,"error":{"code":1}}'), []),
    Row("a reply of no version is ignored too", lines('{"result":1}'), []),
    Row("a batch of replies gets no bytes", lines('[{"id":1,"result":1},{"id":2,"error":{}}]'), []),
    Row("a reply within a batch takes no place", lines(batch('{"result":1}', PING)), [array(pong())]),
    Row("a method makes a request of what has a result", lines(PING[:-1] + ',"result":1}'), [pong()]),
    Row("members of no meaning are passed over", lines(PING[:-1] + ',"trace":[{}]}'), [pong()]),
    Row("members come in any order", lines('{"params":{},"method":"ping","id":1,"jsonrpc":"2.0"}'), [pong()]),
    Row("a member's name may be escaped", lines(r'{"jsonrpc":"2.0","\u0069d":1,"method":"ping"}'), [pong()]),
    Row("a batch within a batch is an item that is no object", lines(f"[[{PING}],{PING}]"), [array(INVALID, pong())]),
    Row(
        "one bad item does not spoil the others",
        lines(batch(call("1"), "null", '{"jsonrpc":"2.0","id":"x","method":2}', call("2"))),
        [array(pong("1"), INVALID, error('"x"', "invalid_request"), pong("2"))],
    ),
    Row("a batch of one is answered by an array", lines(batch(PING)), [array(pong())]),
]

METHODS = [
    Row("ping", lines(PING), [pong()]),
    Row(
        "the specification's method that is not there", lines(call('"1"', "foobar")), [error('"1"', "method_not_found")]
    ),
    Row("a name reserved by the specification", lines(call("1", "rpc.nothing")), [error("1", "method_not_found")]),
    Row("a name without a letter", lines(call("1", "")), [error("1", "method_not_found")]),
    Row("names are told apart by case", lines(call("1", "Ping")), [error("1", "method_not_found")]),
    Row("a name may be escaped", lines(call("1", r"p\u0069ng")), [pong()]),
    Row("a name of 100,000 letters", lines(call("1", "é" * 50_000)), [error("1", "method_not_found")]),
    Row(
        "daemon.info tells the limits in force",
        lines(call("1", "daemon.info")),
        [Result("1", "daemon.info", {"protocol": 1, "limits": {**msgspec.to_builtins(Limits()), "batch": 7}})],
        terms=Terms(Limits(batch=7)),
    ),
    Row(
        "rpc.discover describes the methods",
        lines(call("1", "rpc.discover")),
        [Result("1", "rpc.discover", {"openrpc": "1.3.2"})],
    ),
    Row(
        "daemon.auth has nothing to ask on the Unix socket",
        lines(call("1", "daemon.auth", '{"token":"t"}')),
        [Result("1", "daemon.auth", {})],
    ),
    Row(
        "a reload that fails says why",
        lines(call("1", "daemon.reload")),
        [error("1", "config_invalid", problems=["is not TOML"])],
    ),
    Row(
        "a reload is for the daemon's own user on the Unix socket",
        lines(call("1", "daemon.reload")),
        [error("1", "unauthorized")],
        terms=Terms(peer=STRANGER),
    ),
    Row(
        "a cancel is a notification, and no method to call",
        lines(call("1", "$/cancelRequest", '{"id":1}')),
        [error("1", "method_not_found")],
    ),
    Row(
        "a daemon that stops takes no call, but still answers a ping",
        lines(execute("1", '"prompt":"p"'), call("2")),
        [error("1", "shutting_down"), pong("2")],
        terms=Terms(draining=True),
    ),
]

NOTIFICATIONS = [
    Row("the specification's notification gets no bytes", lines(notify("ping")), []),
    Row("nor one to a method that is not there", lines(notify("foobar", "[1,2,3]")), []),
    Row("nor one with params that are wrong", lines(notify("execute", '{"prompt":5}')), []),
    Row("nor one that is carried out", lines(notify("execute", '{"prompt":"p"}')), []),
    Row("the specification's batch of notifications gets no bytes", lines(batch(notify("ping"), notify("x"))), []),
    Row("a notification in a batch takes no place", lines(batch(notify("ping"), PING)), [array(pong())]),
    Row(
        "a notification that asks for a stream gets its deltas and no reply",
        lines(notify("execute", '{"prompt":"a b","stream":"s"}')),
        [Delta("s", 0, "a"), Delta("s", 1, " b")],
        ordered=True,
    ),
    Row("a cancel as LSP says it", lines(slow("1"), cancel("1")), [error("1", "cancelled", reason="client")]),
    Row(
        "a cancel as MCP says it",
        lines(slow('"a"'), notify("notifications/cancelled", '{"requestId":"a","reason":"no need"}')),
        [error('"a"', "cancelled", reason="client")],
    ),
    Row("two cancels, one reply", lines(slow("1"), cancel("1"), cancel("1")), [error("1", "cancelled")]),
    Row("a cancel of what is not there", lines(cancel("1"), cancel('"x"')), []),
    Row("a cancel behind the answer", lines(PING, cancel("1"), PING), [pong(), pong()]),
    Row(
        "a cancel that says nothing, or what is no id",
        lines(notify("$/cancelRequest"), notify("$/cancelRequest", "[1]"), notify("$/cancelRequest", '{"id":{}}')),
        [],
    ),
    Row(
        "a cancel of one call leaves the others",
        lines(slow("1"), slow("2", ',"timeout_ms":1'), cancel("1")),
        [error("1", "cancelled"), error("2", "deadline_exceeded")],
    ),
    Row(
        "a cancel compares ids as bytes",
        lines(slow("1"), cancel("1.0"), cancel('"1"'), PING, cancel("1")),
        [INVALID, error("1", "cancelled")],
    ),
    Row(
        "a cancel behind its call in one batch",
        lines(batch(slow("1"), cancel("1"), call("2"))),
        [array(error("1", "cancelled"), pong("2"))],
    ),
    Row(
        "a call in a batch is cancelled from outside",
        lines(batch(slow("1")), cancel("1")),
        [array(error("1", "cancelled"))],
    ),
]

IDS = [
    Row("2^63", lines(call("9223372036854775808")), [pong("9223372036854775808")]),
    Row("a fraction", lines(call("1.5")), [pong("1.5")]),
    Row("a number beyond every machine's", lines(call("-1.0E+999")), [pong("-1.0E+999")]),
    Row("a string without a letter", lines(call('""')), [pong('""')]),
    Row("null is an id, and gets a reply", lines(call("null")), [pong("null")]),
    Row("escapes come back as they were", lines(call(r'"\u0061\/\n"')), [pong(r'"\u0061\/\n"')]),
    Row("letters of any language come back as they were", lines(call('"é\u2028😀"')), [pong('"é\u2028😀"')]),
    Row("an id of 10,000 letters", lines(call('"' + "a" * 10_000 + '"')), [pong('"' + "a" * 10_000 + '"')]),
    Row("white space around it is not part of it", lines(call(" \t7 ")), [pong("7")]),
    Row("an id may be used again behind its reply", lines(PING, PING), [pong(), pong()]),
    Row(
        "an id that is in flight is refused under null, and the call goes on",
        lines(slow("1"), execute("1", '"prompt":"p"'), cancel("1")),
        [INVALID, error("1", "cancelled")],
    ),
    Row(
        "even for what is answered at once",
        lines(slow("1"), PING, cancel("1")),
        [INVALID, error("1", "cancelled")],
    ),
    Row(
        '1, 1.0 and "1" are three ids',
        lines(slow("1"), slow("1.0"), slow('"1"'), cancel("1"), cancel("1.0"), cancel('"1"')),
        [error("1", "cancelled"), error("1.0", "cancelled"), error('"1"', "cancelled")],
    ),
    Row(
        "two spellings of one string are two ids",
        lines(slow('"a"'), slow(r'"\u0061"'), cancel('"a"'), cancel(r'"\u0061"')),
        [error('"a"', "cancelled"), error(r'"\u0061"', "cancelled")],
    ),
    Row(
        "null may repeat",
        lines(slow("null", ',"timeout_ms":1'), slow("null", ',"timeout_ms":1')),
        [error("null", "deadline_exceeded"), error("null", "deadline_exceeded")],
    ),
    Row(
        "within one batch both of two are answered",
        lines(batch(slow("1", ',"timeout_ms":1'), slow("1", ',"timeout_ms":1'))),
        [array(error("1", "deadline_exceeded"), error("1", "deadline_exceeded"))],
    ),
    Row(
        "a batch's item with the id of a call in flight is refused in its place",
        lines(slow("1"), batch(PING, call("2")), cancel("1")),
        [array(INVALID, pong("2")), error("1", "cancelled")],
    ),
    Row(
        "a reply that carries the id of a call in flight is ignored",
        lines(slow("1"), '{"jsonrpc":"2.0","id":1,"result":{}}', cancel("1")),
        [error("1", "cancelled")],
    ),
]


def refused(says: str, params: str, path: str) -> Row:
    """Params of `execute` that are wrong at `path`."""
    return Row(says, lines(execute("1", params)), [error("1", "invalid_params", path=path)])


PARAMS = [
    Row(
        "the specification's params by position are refused",
        lines(call("1", "execute", "[42, 23]")),
        [error("1", "invalid_params")],
    ),
    Row("no params by position are no params", lines(call("1", "ping", "[]")), [pong()]),
    Row(
        "a method without params refuses any",
        lines(call("1", "ping", '{"a":1}')),
        [error("1", "invalid_params", path="a")],
    ),
    refused("a member that is unknown", '"prompt":"p","promt":1', "promt"),
    refused("an unknown member of a message", '"messages":[{"role":"user","content":"a","x":1}]', "messages[0].x"),
    refused(
        "a member that is missing", '"messages":[{"role":"user","content":"a"},{"role":"user"}]', "messages[1].content"
    ),
    refused("a member of another type", '"prompt":["p"]', "prompt"),
    refused("both prompt and messages", '"prompt":"p","messages":[{"role":"user","content":"a"}]', ""),
    refused("neither prompt nor messages", "", ""),
    refused("no message at all", '"messages":[]', "messages"),
    refused("a role that there is not", '"messages":[{"role":"robot","content":"a"}]', "messages[0].role"),
    refused(
        "a part of an unknown type",
        '"messages":[{"role":"user","content":[{"type":"zip"}]}]',
        "messages[0].content[0].type",
    ),
    refused("an amount above 2^53-1", '"prompt":"p","max_tokens":9007199254740992', "max_tokens"),
    refused("an amount below zero", '"prompt":"p","wait_ms":-1', "wait_ms"),
    refused("an amount with a fraction", '"prompt":"p","timeout_ms":1.5', "timeout_ms"),
    refused("an amount written as a fraction", '"prompt":"p","timeout_ms":1.0', "timeout_ms"),
    refused("an amount in quotes", '"prompt":"p","timeout_ms":"1"', "timeout_ms"),
    refused("an answer of no tokens", '"prompt":"p","max_tokens":0', "max_tokens"),
    refused("a number that no machine holds", '"prompt":"p","temperature":1e999', "temperature"),
    refused("a number out of its range", '"prompt":"p","top_p":1.01', "top_p"),
    refused("a choice that there is not", '"prompt":"p","fit":"squeeze"', "fit"),
    refused("two ways to say one thing", '"prompt":"p","reasoning":{"effort":"low","tokens":1}', "reasoning"),
    refused("a provider without a model", '"prompt":"p","provider":"echo"', ""),
    refused("a model without its provider", '"prompt":"p","model":"echo"', "model"),
    refused("a stream without a name", '"prompt":"p","stream":""', "stream"),
    refused("a stream's name that is too long", f'"prompt":"p","stream":"{"s" * 129}"', "stream"),
    Row("null is as good as nothing", lines(execute("1", '"prompt":"p","system":null')), [said("1", "p")]),
    Row(
        "a stream's token that is in use",
        lines(slow("1", ',"stream":"s"'), execute("2", '"prompt":"p","stream":"s"'), cancel("1")),
        [error("2", "invalid_params", path="stream"), error("1", "cancelled")],
    ),
    Row(
        "a provider that there is not",
        lines(execute("1", '"prompt":"p","model":"nobody/m"')),
        [error("1", "no_route", targets=[{"provider": "nobody", "model": "m", "reason": "unknown_provider"}])],
    ),
    Row("a budget that there is not", lines(execute("1", '"prompt":"p","budget":"b"')), [error("1", "budget_unknown")]),
]


def usage(asked: int, answered: int) -> dict[str, int]:
    return {"input_tokens": asked, "output_tokens": answered, "total_tokens": asked + answered}


RESULTS = [
    Row(
        "a prompt comes back to the byte, with the turn to append",
        lines(execute("1", r'"prompt":" two \n words\t"')),
        [
            said(
                "1",
                " two \n words\t",
                finish_reason="stop",
                usage=usage(2, 2),
                message={"role": "assistant", "content": " two \n words\t"},
            )
        ],
    ),
    Row("a prompt without a word", lines(execute("1", '"prompt":""')), [said("1", "", usage=usage(0, 0))]),
    Row(
        "letters of any language, escaped or not",
        lines(execute("1", r'"prompt":"é\u00e9😀\ud83d\ude00"')),
        [said("1", "éé😀😀")],
    ),
    Row(
        "what ends a line elsewhere ends none here",
        lines(execute("1", '"prompt":"a\u2028b\u0085c"')),
        [said("1", "a\u2028b\u0085c")],
    ),
    Row(
        "of many messages the last of the user, and all are counted",
        lines(
            execute(
                "1",
                '"system":"be kind","messages":[{"role":"user","content":"one"},'
                '{"role":"assistant","content":"two three"},'
                '{"role":"user","content":"four"},{"role":"tool","content":"five"}]',
            )
        ),
        [said("1", "four", usage=usage(7, 1))],
    ),
    Row(
        "parts of every type",
        lines(
            execute(
                "1",
                '"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image","media_type":"image/png","data":"AA=="},'
                '{"type":"file","media_type":"text/plain","data":""},{"type":"text","text":"b"}]},{"role":"assistant","content":['
                '{"type":"tool_call","id":"c","name":"n","arguments":{}},{"type":"state","provider":"echo","data":[1]}]},'
                '{"role":"tool","content":[{"type":"tool_result","id":"c","content":"r","error":true}]}]',
            )
        ),
        [said("1", "a\nb")],
    ),
    Row(
        "max_tokens cuts",
        lines(execute("1", '"prompt":"a b  c","max_tokens":2')),
        [said("1", "a b", finish_reason="length", usage=usage(3, 2))],
    ),
    Row(
        "max_tokens that is enough",
        lines(execute("1", '"prompt":"a b ","max_tokens":2')),
        [said("1", "a b ", finish_reason="stop")],
    ),
    Row(
        "the default model",
        lines(execute("1", '"prompt":"p"')),
        [said("1", "p", provider="echo", model="echo", cost={"nano_usd": 0})],
    ),
    Row(
        "a model is split at its first slash",
        lines(execute("1", '"prompt":"p","model":"echo/a/b"')),
        [said("1", "p", provider="echo", model="a/b")],
    ),
    Row(
        "a provider and its model's own name",
        lines(execute("1", '"prompt":"p","provider":"echo","model":"a/b"')),
        [said("1", "p", provider="echo", model="a/b")],
    ),
    Row(
        "a price makes a cost",
        lines(execute("1", '"prompt":"a b c","model":"priced/echo"')),
        [said("1", "a b c", cost={"nano_usd": 9000})],
    ),
    Row(
        "what the target cannot express is told",
        lines(execute("1", '"prompt":"p","seed":1,"stop":"x","tools":[{"name":"t","parameters":{}}]')),
        [said("1", "p", dropped=["stop", "seed", "tools"])],
    ),
    Row(
        "what is for the caller alone changes nothing",
        lines(execute("1", '"prompt":"p","metadata":{"a":[1e5]},"labels":{"b":"c"},"task_type":"t"')),
        [said("1", "p", dropped=[])],
    ),
    Row(
        "an upstream that fails is named, with what was tried",
        lines(execute("1", '"prompt":"p","model":"broken/echo","stream":"s"')),
        [error("1", "model_not_found", provider="broken", model="echo")],
    ),
    Row("a deadline", lines(slow("1", ',"timeout_ms":1')), [error("1", "deadline_exceeded")]),
    Row(
        "a stream's deltas come before its reply, which is complete",
        lines(execute("1", r'"prompt":"a  b\nc ","stream":"s"')),
        [Delta("s", 0, "a"), Delta("s", 1, "  b"), Delta("s", 2, "\nc "), said("1", "a  b\nc ")],
        ordered=True,
    ),
    Row(
        "a stream that max_tokens cuts",
        lines(execute("1", '"prompt":"a b c","max_tokens":1,"stream":"s"')),
        [Delta("s", 0, "a"), said("1", "a", finish_reason="length")],
        ordered=True,
    ),
    Row("a stream with nothing to say", lines(execute("1", '"prompt":"","stream":"s"')), [said("1", "")]),
    Row(
        "two streams count each for itself, in a batch too",
        lines(batch(execute("1", '"prompt":"a b","stream":"s"'), execute("2", '"prompt":"c d","stream":"t"'))),
        [
            Delta("s", 0, "a"),
            Delta("s", 1, " b"),
            Delta("t", 0, "c"),
            Delta("t", 1, " d"),
            array(said("1", "a b"), said("2", "c d")),
        ],
    ),
    Row("the end of the input ends no call", lines(execute("1", '"prompt":"p"')), [said("1", "p")], then="ends"),
]

TIGHT = Terms(Limits(frame_bytes=64))
AUTH = call("0", "daemon.auth", f'{{"token":"{TOKEN}"}}')
AUTHORIZED = Result("0", "daemon.auth", {})
NEW = Terms(Limits(auth_bytes=120), STRANGER, authorized=False)

TRANSPORT = [
    Row("nothing", b"", [], then="ends"),
    Row("white space alone", b" \r\n\t\n", [], then="ends"),
    Row("values without a newline", (PING + call("2")).encode(), [pong("1"), pong("2")]),
    Row("two values on a line", f"{PING} \t{call('2')}\n".encode(), [pong("1"), pong("2")]),
    Row("a batch and a request on a line", lines(batch(call("2")) + PING), [array(pong("2")), pong()]),
    Row("blank lines, leading space and CRLF", f"\r\n \n\n  {PING}\r\n\r\n".encode(), [pong()]),
    Row("a batch as the first of all", lines(batch(PING), PING), [array(pong()), pong()]),
    Row("a value does not span lines: each line of one is an error", PING_IN_LINES, [PARSE_ERROR] * 5),
    Row(
        "brackets, quotes and backslashes within strings",
        lines(call(r'"}]{[\"\\"') + PING),
        [pong(r'"}]{[\"\\"'), pong()],
    ),
    Row(
        "garbage behind a value is one error to the end of its line",
        lines(PING + "} {[", PING),
        [pong(), PARSE_ERROR, pong()],
    ),
    Row("garbage between two values on a line takes the second", lines(f"{PING},{call('2')}"), [pong(), PARSE_ERROR]),
    Row(
        "a line of 100,000 bytes of garbage is one error",
        lines(PING, "x" * 100_000, PING),
        [pong(), PARSE_ERROR, pong()],
    ),
    Row(
        "headers where JSON was before are garbage",
        lines(PING, "Content-Length: 2", PING),
        [pong(), PARSE_ERROR, pong()],
    ),
    Row("a NUL byte between lines", lines(PING, "\0", PING), [pong(), PARSE_ERROR, pong()]),
    Row("first of all a byte that begins nothing", lines("hello"), [PARSE_ERROR], then="closes"),
    Row("first of all a byte order mark", lines("\ufeff" + PING), [PARSE_ERROR], then="closes"),
    Row("first of all HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", [PARSE_ERROR], then="closes"),
    Row("first of all a request for a proxy", b"CONNECT a:1 HTTP/1.1\r\n\r\n", [PARSE_ERROR], "closes", headers=True),
    Row(
        "a frame above the limit",
        lines(call("1", "a" * 40)),
        [error("null", "too_large", limit=64)],
        "closes",
        terms=TIGHT,
    ),
    Row("a frame at the limit", lines(call("1", "a" * 28)), [error("1", "method_not_found")], terms=TIGHT),
    Row("white space does not count", lines(" " * 99, PING + " " * 99 + PING), [pong(), pong()], terms=TIGHT),
    Row(
        "a frame above the limit that never ends", b"[" + b" " * 64, [error("null", "too_large")], "closes", terms=TIGHT
    ),
    Row(
        "what came before a frame above the limit is answered",
        lines(PING, "[" * 65),
        [pong(), error("null", "too_large")],
        "closes",
        terms=TIGHT,
    ),
    Row(
        "a broken line may be longer than the limit",
        lines(PING, "x" * 65, PING),
        [pong(), PARSE_ERROR, pong()],
        terms=TIGHT,
    ),
    Row(
        "a batch above its limit, and nothing of it is done",
        lines(batch(*[PING] * 3)),
        [error("null", "too_large", limit=2)],
        terms=Terms(Limits(batch=2)),
    ),
    Row("a batch at its limit", lines(batch(PING, "1")), [array(pong(), INVALID)], terms=Terms(Limits(batch=2))),
    Row(
        "above the calls in flight busy, a ping is answered, and a cancel gets in",
        lines(slow("1"), slow("2"), call("3"), cancel("1")),
        [error("2", "busy"), pong("3"), error("1", "cancelled")],
        terms=Terms(Limits(in_flight=1)),
    ),
    Row(
        "the calls of a batch count each",
        lines(batch(slow("1"), slow("2"), slow("3")), cancel("1"), cancel("2")),
        [array(error("1", "cancelled"), error("2", "cancelled"), error("3", "busy"))],
        terms=Terms(Limits(in_flight=2)),
    ),
    Row("headers are answered in headers", headed(PING), [pong()], headers=True),
    Row(
        "headers in any case, and others beside",
        f"x-a:b\r\ncontent-LENGTH:{len(PING)}\r\n\r\n{PING}".replace("x-a:b", "Content-Type: a; b").encode(),
        [pong()],
        headers=True,
    ),
    Row("white space before the first header", b"\r\n " + headed(PING), [pong()], headers=True),
    Row("a body may have lines", headed(PING_IN_LINES), [pong()], headers=True),
    Row("a length counts bytes", headed(call('"é😀"')), [pong('"é😀"')], headers=True),
    Row("a batch in a body", headed(batch(PING, "2")), [array(pong(), INVALID)], headers=True),
    Row(
        "deltas go in headers too",
        headed(execute("1", '"prompt":"a","stream":"s"')),
        [Delta("s", 0, "a"), said("1", "a")],
        ordered=True,
        headers=True,
    ),
    Row("a body that is not JSON", headed("{]", PING), [PARSE_ERROR, pong()], headers=True),
    Row("a body that holds two values", headed(PING + PING, PING), [PARSE_ERROR, pong()], headers=True),
    Row("a body of nothing", headed("", PING), [PARSE_ERROR, pong()], headers=True),
    Row("a body of invalid UTF-8", headed(b'{"\xff":1}', PING), [PARSE_ERROR, pong()], headers=True),
    Row("one length, said twice", f"Content-Length: {len(PING)}\r\n".encode() + headed(PING), [pong()], headers=True),
    Row("two lengths", b"Content-Length: 1\r\n" + headed(PING), [PARSE_ERROR], "closes", headers=True),
    Row("headers without a length", b"Content-Type: a\r\n\r\n", [PARSE_ERROR], "closes", headers=True),
    Row("a length that is no number", b"Content-Length: -2\r\n\r\n{}", [PARSE_ERROR], "closes", headers=True),
    Row("a header without a colon", b"Content-Length 2\r\n\r\n{}", [PARSE_ERROR], "closes", headers=True),
    Row("headers that end in bare newlines", b"Content-Length: 2\n\n{}", [PARSE_ERROR], "closes", headers=True),
    Row("headers that never end", b"Content-Type: " + b"a" * 5000, [PARSE_ERROR], "closes", headers=True),
    Row("JSON where a header should be", headed(PING) + lines(PING), [pong(), PARSE_ERROR], "closes", headers=True),
    Row(
        "a length above the limit, before any of it comes",
        b"Content-Length: 65\r\n\r\n",
        [error("null", "too_large", limit=64)],
        "closes",
        headers=True,
        terms=TIGHT,
    ),
    Row("a body that the client's end cuts", headed(PING)[:-1], [PARSE_ERROR], "ends", headers=True),
    Row("a body that the client's end forgets", b"Content-Length: 2\r\n\r\n", [PARSE_ERROR], "ends", headers=True),
    Row("a stranger shows the token, and may call at once", lines(AUTH, PING), [AUTHORIZED, pong()], terms=NEW),
    Row(
        "behind the token the usual limits hold",
        lines(AUTH + call('"' + "a" * 500 + '"')),
        [AUTHORIZED, pong('"' + "a" * 500 + '"')],
        terms=NEW,
    ),
    Row("a wrong token", lines(AUTH.replace(TOKEN, TOKEN[:-1])), [error("0", "unauthorized")], "closes", terms=NEW),
    Row(
        "no token where it belongs", lines(call("0", "daemon.auth")), [error("0", "unauthorized")], "closes", terms=NEW
    ),
    Row(
        "another user's token on the Unix socket, where none helps",
        lines(AUTH),
        [error("0", "unauthorized")],
        "closes",
        terms=Terms(peer=Peer("unix", 1001, 2, own=False), authorized=False),
    ),
    Row("a stranger's call before the token", lines(PING, AUTH), [error("1", "unauthorized")], "closes", terms=NEW),
    Row("a stranger's token in a batch", lines(batch(AUTH)), [error("null", "unauthorized")], "closes", terms=NEW),
    Row("a stranger's reply", lines('{"result":1}', AUTH), [error("null", "unauthorized")], "closes", terms=NEW),
    Row("a stranger's broken line", lines("{]", AUTH), [PARSE_ERROR], "closes", terms=NEW),
    Row(
        "a stranger's long frame",
        lines(call('"' + "a" * 99 + '"')),
        [error("null", "too_large", limit=120)],
        "closes",
        terms=NEW,
    ),
]

TABLE = {
    "parse": PARSE,
    "shape": SHAPE,
    "methods": METHODS,
    "notifications": NOTIFICATIONS,
    "ids": IDS,
    "params": PARAMS,
    "results": RESULTS,
    "transport": TRANSPORT,
}


# -- running a row ------------------------------------------------------------------------------------------------


class _Reply(Struct, forbid_unknown_fields=True, kw_only=True):
    jsonrpc: Literal["2.0"]
    id: Raw | UnsetType = UNSET
    result: Any = UNSET
    error: Any = UNSET
    method: str | UnsetType = UNSET
    params: Any = UNSET


SCHEMAS = {name: Draft202012Validator(document) for name, document in documents().items()}
DELTA = Draft202012Validator(msgspec.json.schema(DeltaParams))
ERRORS = {row["message"]: row["code"] for row in documents()["openrpc.json"]["components"]["errors"].values()}
ERROR = Draft202012Validator(
    {
        "type": "object",
        "required": ["code", "message", "data"],
        "additionalProperties": False,
        "properties": {
            "code": {"type": "integer"},
            "message": {"type": "string", "minLength": 1, "maxLength": 1000},
            "data": {
                "type": "object",
                "required": ["kind", "retryable"],
                "properties": {
                    "kind": {"enum": list(ERRORS)},
                    "retryable": {"type": "boolean"},
                    "path": {"type": "string"},
                    "retry_after_ms": {"type": "integer", "minimum": 0},
                    "elapsed_ms": {"type": "integer", "minimum": 0},
                    "limit": {"type": "integer", "minimum": 1},
                },
            },
        },
    }
)
AFTER = call('"after"')
EXAMPLES = max(10, settings().max_examples // 10)  # of each row: there are many rows
EDGE_BYTES = 5_000  # of a very long row, the part at either end that arrives byte by byte


def _messages(written: bytes, headers: bool) -> Iterator[bytes]:
    """The messages of an answer, each framed as it should be."""
    while written:
        if headers:
            head = re.match(rb"Content-Length: ([0-9]+)\r\n\r\n", written)
            assert head, f"not framed by headers: {written[:80]!r}"
            body = written[head.end() : head.end() + int(head[1])]
            assert len(body) == int(head[1])
            written = written[head.end() + len(body) :]
        else:
            body, newline, written = written.partition(b"\n")
            assert newline, "a line ends"
        yield body


def _matches(message: bytes, answer: Answer) -> bool:
    if isinstance(answer, Array):
        if not message.startswith(b"["):
            return False
        items = msgspec.json.decode(message, type=list[Raw])
        return _all_match([bytes(item) for item in items], list(answer.answers), ordered=False)
    if message.startswith(b"["):
        return False
    reply = msgspec.json.decode(message, type=_Reply)
    if isinstance(answer, Delta):
        return reply.method == "llmd.delta" and reply.params == answer._asdict()
    if reply.id is UNSET or bytes(reply.id) != answer.id.encode():
        return False
    if isinstance(answer, Error):
        return reply.error is not UNSET and _is_error(reply.error, answer)
    return reply.result is not UNSET and _is_result(reply.result, answer)


def _is_error(found: Any, wanted: Error) -> bool:
    return (
        found["code"] == CODES[wanted.kind]
        and found["data"]["kind"] == wanted.kind
        and found["data"]["retryable"] is (wanted.kind in RETRYABLE)
        and _holds(found["data"], wanted.data)
    )


def _is_result(found: Any, wanted: Result) -> bool:
    if not _holds(found, wanted.members):
        return False
    SCHEMAS[f"{wanted.method}.result.schema.json"].validate(found)
    return True


def _holds(found: Any, wanted: Any) -> bool:
    """Equal, but that an object may have further members."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(name in found and _holds(found[name], wanted[name]) for name in wanted)
    return type(found) is type(wanted) and bool(found == wanted)


def _all_match(messages: list[bytes], answers: list[Answer], ordered: bool) -> bool:
    """Each message is one of the answers, and each answer is there once."""
    left = list(answers)
    for message in messages:
        found = next((answer for answer in left[: 1 if ordered else None] if _matches(message, answer)), None)
        if found is None:
            return False
        left.remove(found)
    return not left


def _check_schemas(message: bytes) -> None:
    """What holds of every message, whatever it answers; results are checked where their method is known."""
    items = msgspec.json.decode(message, type=list[Raw]) if message.startswith(b"[") else [Raw(message)]
    assert items, "no batch is answered by an empty array"
    for item in items:
        reply = msgspec.json.decode(item, type=_Reply)
        if reply.method is not UNSET:
            assert (reply.id, reply.result, reply.error) == (UNSET, UNSET, UNSET)
            DELTA.validate(reply.params)
        else:
            assert reply.id is not UNSET
            assert (reply.result is UNSET) != (reply.error is UNSET)
            assert reply.params is UNSET
        if reply.error is not UNSET:
            ERROR.validate(reply.error)
            assert ERRORS[reply.error["data"]["kind"]] == reply.error["code"]


def _check(runner: Runner, row: Row, chunks: list[bytes], at_once: int | None = None) -> None:
    written, cut_off = runner.converse(chunks, row.terms, at_once)
    messages = list(_messages(written, row.headers))
    for message in messages:
        _check_schemas(message)
    numbers: dict[str, int] = {}
    for message in messages:
        if message.startswith(b'{"jsonrpc":"2.0","method"'):
            params = msgspec.json.decode(message)["params"]
            assert params["seq"] == numbers.get(params["stream"], 0), "deltas count from 0 without a gap"
            numbers[params["stream"]] = params["seq"] + 1
    assert row.then == "ends" or cut_off == (row.then == "closes")
    after = [pong('"after"')] if row.then == "lives" else []
    if row.ordered:  # among themselves: the ping need not wait for them
        messages.sort(key=lambda message: b'"id":"after"' in message)
    assert _all_match(messages, [*row.answers, *after], row.ordered), b"\n".join(messages).decode()


def _whole(row: Row) -> bytes:
    """The row with the ping behind it, which tells whether the connection lives."""
    return row.sent if row.then == "ends" else row.sent + (headed(AFTER) if row.headers else lines(AFTER))


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as opened:
        yield opened


rows = pytest.mark.parametrize("row", [pytest.param(row, id=f"{g}: {row.says}") for g in TABLE for row in TABLE[g]])


@rows
def test_a_row_that_arrives_whole(runner: Runner, row: Row) -> None:
    _check(runner, row, [_whole(row)])


@rows
def test_a_row_that_arrives_byte_by_byte(runner: Runner, row: Row) -> None:
    sent = _whole(row)
    places = [at for at in range(len(sent)) if at < EDGE_BYTES or at > len(sent) - EDGE_BYTES or not at % 997]
    _check(runner, row, cut(sent, places), at_once=0)


@rows
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_a_row_that_arrives_cut_at_random(runner: Runner, row: Row, data: st.DataObject) -> None:
    sent = _whole(row)
    places = data.draw(st.lists(st.integers(0, len(sent)), max_size=12))
    _check(runner, row, cut(sent, places), at_once=data.draw(st.integers(0, 100)))


def test_no_two_rows_are_one() -> None:
    every = [row for group in TABLE.values() for row in group]
    assert len({row.says for row in every}) == len(every)
    assert len({(row.sent, row.then, row.terms) for row in every}) == len(every)


def test_every_kind_of_error_that_a_row_expects_is_one_of_the_daemon() -> None:
    assert CODES.items() <= ERRORS.items()
