"""JSON-RPC's shapes: rows of text and what they say, and any text at all against Python's own JSON reader."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw, Struct

from llmd.core.jsonrpc import (
    Batch,
    Call,
    Ignored,
    Invalid,
    is_json,
    parse,
    render_batch,
    render_notification,
    render_reply,
)

HEAD = '{"jsonrpc":"2.0",'
PING = Call(b"1", "ping", None)
NO_VERSION = '`jsonrpc` must be "2.0"'
NO_METHOD = "`method` must be a string"
NO_ID = "`id` must be a string, a number or null"
NO_PARAMS = "`params` must be an object or an array"

ROWS: dict[str, Any] = {
    '{"jsonrpc":"2.0","id":1,"method":"ping"}': PING,
    ' \t\r\n{ "method" : "ping" , "id" : 1 , "jsonrpc" : "2.0" } \r\n': PING,
    HEAD + '"id":1,"method":"ping","more":{"id":2}}': PING,
    HEAD + '"id":1,"method":"ping","result":1}': PING,
    HEAD + '"method":"ping"}': Call(None, "ping", None),
    HEAD + '"id":null,"method":"ping"}': Call(b"null", "ping", None),
    HEAD + r'"id":"\u0031","method":"p\u0069ng"}': Call(rb'"\u0031"', "ping", None),
    HEAD + '"id":-1.50e+3,"method":""}': Call(b"-1.50e+3", "", None),
    HEAD + '"id":1,"method":"ping","params":{ }}': Call(b"1", "ping", Raw(b"{ }")),
    HEAD + '"id":1,"method":"ping","params":[ 1]}': Call(b"1", "ping", Raw(b"[ 1]")),
    r'{"jsonrpc":"\u0032.0","id":1,"method":"ping"}': PING,
    "{}": Invalid(b"null", NO_VERSION),
    '{"id":1,"method":"ping"}': Invalid(b"1", NO_VERSION),
    '{"jsonrpc":2.0,"id":1,"method":"ping"}': Invalid(b"1", NO_VERSION),
    '{"jsonrpc":"2","id":"a","method":"ping"}': Invalid(b'"a"', NO_VERSION),
    '{"jsonrpc":"2","id":[1],"method":"ping"}': Invalid(b"null", NO_VERSION),
    HEAD + '"id":1}': Invalid(b"1", NO_METHOD),
    HEAD + '"id":1,"method":1}': Invalid(b"1", NO_METHOD),
    HEAD + '"id":1,"method":{}}': Invalid(b"1", NO_METHOD),
    HEAD + '"id":true,"method":"ping"}': Invalid(b"null", NO_ID),
    HEAD + '"id":[1],"method":"ping"}': Invalid(b"null", NO_ID),
    HEAD + '"id":1,"method":"ping","params":null}': Invalid(b"1", NO_PARAMS),
    HEAD + '"id":1,"method":"ping","params":"a"}': Invalid(b"1", NO_PARAMS),
    HEAD + '"method":"ping","params":1}': Invalid(b"null", NO_PARAMS),
    '{"result":1}': Ignored(),
    '{"error":null}': Ignored(),
    HEAD + '"id":1,"result":1,"error":{}}': Ignored(),
    "[]": Invalid(b"null", "the batch is empty"),
    "[1, {}]": Batch([Invalid(b"null", "a request is an object"), Invalid(b"null", NO_VERSION)]),
    f'[{HEAD}"id":1,"method":"ping"}},[],{{"result":1}}]': Batch(
        [PING, Invalid(b"null", "a request is an object"), Ignored()]
    ),
    "": None,
    "1": None,
    '"a"': None,
    "null": None,
    "{": None,
    "{}{}": None,
    "[1,]": None,
    '{"x":NaN}': None,
    '{"x":1}x': None,
    r'{"x":"\ud800"}': None,
    r'[{"x":"\ud800"}]': None,
    '{"x":"\t"}': None,
    "[" * 100_000 + "]" * 100_000: None,
}


@pytest.mark.parametrize("text", ROWS, ids=lambda text: text[:60])
def test_a_text_says(text: str) -> None:
    assert parse(text.encode()) == ROWS[text]


@pytest.mark.parametrize(
    "text", [b'{"x":"\xff"}', b'{"\xed\xa0\x80":1}', b'["\xc0\xaf"]', b'[{"x":"\xf5"}]', b"\xef\xbb\xbf{}"]
)
def test_what_is_no_utf_8_is_no_json(text: bytes) -> None:
    assert parse(text) is None


# -- any text -----------------------------------------------------------------------------------------------------


def _refuse(name: str) -> float:
    raise ValueError(name)


def is_message(text: bytes) -> bool:
    """Whether Python's own reader takes it, as strictly as the protocol says."""
    try:
        value = json.loads(
            text.decode(), parse_constant=_refuse, parse_int=str, object_pairs_hook=lambda pairs: (pairs,)
        )
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return text.strip(b" \t\r\n")[:1] in (b"{", b"[")


PIECES = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"',
    "\\",
    " ",
    "\n",
    "1",
    "-",
    ".5",
    "e9",
    "0",
    "true",
    "null",
    "NaN",
    "\0",
    "é",
]
WORDS = [
    '"jsonrpc":"2.0"',
    '"id":1',
    '"id":"a"',
    '"method":"ping"',
    '"params":{}',
    '"result":1',
    r'"\ud83d\ude00"',
    r'"\udead"',
]
requests: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", 2.0, None]),
        "id": st.sampled_from([1, "a", None, True, 1.5, {}]),
        "method": st.sampled_from(["ping", 1, None]),
        "params": st.sampled_from([{}, [1], None, "a"]),
        "result": st.none(),
        "error": st.none(),
    },
)
texts = st.one_of(
    st.binary(),
    st.lists(st.sampled_from(PIECES) | st.sampled_from(WORDS)).map(lambda parts: "".join(parts).encode()),
    st.one_of(requests, st.lists(requests)).map(lambda value: json.dumps(value).encode()),
)


@given(text=texts)
@example(text=b'{"a":01}')
@example(text=b'{"a":"\x7f"}')
@example(text=b'["\\u12"]')
def test_exactly_what_is_json_is_read_and_nothing_is_raised(text: bytes) -> None:
    assert (parse(text) is not None) == is_message(text)


@given(text=texts.filter(lambda text: len(text) > 0), data=st.data())
def test_a_byte_that_changes_is_no_reason_to_fail(text: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.binary(max_size=2)) + text[at + 1 :]
    assert (parse(changed) is not None) == is_message(changed)


@given(request=requests)
def test_a_request_is_judged_alone_as_in_a_batch(request: dict[str, Any]) -> None:
    text = json.dumps(request).encode()
    alone = parse(text)
    assert not isinstance(alone, Batch | None)
    assert parse(b"[%b, 1,%b]" % (text, text)) == Batch([alone, Invalid(b"null", "a request is an object"), alone])


@given(request=requests)
def test_what_is_not_invalid_is_what_the_specification_asks_for(request: dict[str, Any]) -> None:
    is_reply = "method" not in request and ("result" in request or "error" in request)
    valid = (
        request.get("jsonrpc") == "2.0"
        and isinstance(request.get("method"), str)
        and (request.get("id") is None or type(request["id"]) in (int, float, str))
        and ("params" not in request or isinstance(request["params"], dict | list))
    )
    expected: type = Ignored if is_reply else Call if valid else Invalid
    assert type(parse(json.dumps(request).encode())) is expected


# -- answers ------------------------------------------------------------------------------------------------------


class _Params(Struct):
    a: str


@pytest.mark.parametrize(
    ("rendered", "expected"),
    [
        (render_reply(b"1.0", True, b"{}"), b'{"jsonrpc":"2.0","id":1.0,"result":{}}'),
        (render_reply(b'"\\u0061"', False, b'{"code":1}'), b'{"jsonrpc":"2.0","id":"\\u0061","error":{"code":1}}'),
        (render_notification("x.y", _Params('"')), b'{"jsonrpc":"2.0","method":"x.y","params":{"a":"\\""}}'),
        (render_batch([b"1", b"2"]), b"[1,2]"),
    ],
)
def test_an_answer_is_rendered(rendered: bytes, expected: bytes) -> None:
    assert rendered == expected


@given(identifier=st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.none())
def test_an_id_comes_back_as_the_bytes_received(identifier: object) -> None:
    for sent in (json.dumps(identifier), json.dumps(identifier, ensure_ascii=False)):
        call = parse(f'{HEAD}"method":"m","id": {sent} }}'.encode())
        assert call == Call(sent.encode(), "m", None)
        assert isinstance(call, Call)
        assert call.id is not None
        assert f'"id":{sent},'.encode() in render_reply(call.id, True, b"0")
        assert msgspec.json.decode(render_reply(call.id, True, b"0"))["result"] == 0


def test_an_array_of_millions_is_read_over_and_not_made() -> None:
    found = parse(b"[" + b"{}," * 1_000_000 + b"{}]", batch_max=3)
    assert isinstance(found, Batch)
    assert len(found.items) == 4
    assert parse(b"[" + b"{}," * 1000 + b"nonsense]", batch_max=3) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b' {"a": "\xc3\xa4"} ', True),
        (b"1", True),
        (b"", False),
        (b"{", False),
        (b'{"a": "\xff"}', False),
        (b"[" * 100_000, False),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_json_is_told_from_what_is_none(text: bytes, expected: bool) -> None:
    assert is_json(text) == expected
