"""The contract with jsonrpcserver, and the one boundary where exceptions become error objects."""

import json
import logging
from typing import Any

import msgspec
import pytest
from jsonrpcserver import Success
from jsonrpcserver.async_dispatcher import call
from jsonrpcserver.dispatcher import get_method
from jsonrpcserver.request import Request
from msgspec import Raw, Struct

from llmd.context import Context
from llmd.errors import LLMError
from llmd.rpc.base import Empty, Method, Service
from llmd.rpc.dispatch import Dispatcher, Reply
from llmd.scalars import Amount

pytestmark = pytest.mark.anyio


class Params(Struct, forbid_unknown_fields=True):
    number: Amount = 0


def now(service: Any, params: Params, ctx: Any) -> Any:
    if params.number == 1:
        raise LLMError("busy", "not now", retry_after_ms=5)
    if params.number == 2:
        raise RuntimeError("can" + "ary")
    return {"number": params.number}


async def run(service: Any, params: Params, ctx: Any) -> Any:
    return now(service, params, ctx)


METHODS = {"now": Method(Params, dict, "", now=now), "run": Method(Params, dict, "", run=run)}
CTX: Any = None


@pytest.fixture
def dispatcher() -> Dispatcher:
    unused: Any = None
    return Dispatcher(
        Service(
            methods=METHODS,
            executor=unused,
            budgets=unused,
            replays=unused,
            upstreams=unused,
            limits=unused,
            reload=unused,
            is_token=unused,
            started=0,
        )
    )


async def both(dispatcher: Dispatcher, params: bytes | None) -> Reply:
    """The reply, which is the same either way."""
    raw = None if params is None else Raw(params)
    waited = await dispatcher.run("run", raw, CTX)
    assert dispatcher.now("now", raw, CTX) == waited
    return waited


def kind(reply: Reply) -> str:
    assert not reply.ok
    found: str = json.loads(reply.body)["data"]["kind"]
    return found


def test_only_a_method_that_may_take_time_waits(dispatcher: Dispatcher) -> None:
    assert dispatcher.waits("run")
    assert not dispatcher.waits("now")
    assert not dispatcher.waits("fly")


@pytest.mark.parametrize("params", [None, b"{}", b"[]", b'{"number":0}'])
async def test_params_may_be_left_out(dispatcher: Dispatcher, params: bytes | None) -> None:
    assert await both(dispatcher, params) == Reply(True, b'{"number":0}')


async def test_params_go_by_name(dispatcher: Dispatcher) -> None:
    assert kind(await both(dispatcher, b"[3]")) == "invalid_params"


@pytest.mark.parametrize(
    "params", [b'{"number":-1}', b'{"number":1e999}', b'{"number":"3"}', b'{"n":1}', b'{"number":9007199254740992}']
)
async def test_params_that_do_not_fit_are_refused_with_their_path(dispatcher: Dispatcher, params: bytes) -> None:
    reply = await both(dispatcher, params)
    assert kind(reply) == "invalid_params"


async def test_an_error_goes_out_as_it_was_meant(dispatcher: Dispatcher) -> None:
    reply = await both(dispatcher, b'{"number":1}')
    assert json.loads(reply.body) == LLMError("busy", "not now", retry_after_ms=5).to_object()


async def test_params_and_result_may_be_structs(dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture) -> None:
    assert await dispatcher.typed("run", Params(3), CTX) == {"number": 3}
    for number, kind in ((1, "busy"), (2, "internal_error")):
        with pytest.raises(LLMError) as caught:
            await dispatcher.typed("run", Params(number), CTX)
        assert (caught.value.kind, caught.value.__cause__) == (kind, None)
    assert "canary" not in caplog.text


async def test_any_other_exception_stays_inside(dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        reply = await both(dispatcher, b'{"number":2}')
    assert kind(reply) == "internal_error"
    assert b"canary" not in reply.body
    assert "RuntimeError" in caplog.text
    assert "canary" not in caplog.text


def test_an_unknown_method_is_named_but_not_at_any_length(dispatcher: Dispatcher) -> None:
    reply = dispatcher.now("x" * 10_000, None, CTX)
    assert kind(reply) == "method_not_found"
    assert len(reply.body) < 500


async def test_jsonrpcserver_hands_context_and_raw_params_through_and_gives_the_result_back() -> None:
    async def method(context: Any, params: Any) -> Any:
        return Success((context, params))

    methods: Any = {"m": method}
    found = get_method(methods, "m")
    result = await call(Request("m", [Raw(b"{}")], None), "context", found._value)
    assert result._value.result == ("context", Raw(b"{}"))
    assert get_method(methods, "other")._error.code == -32601


def test_the_types_of_a_method_can_be_decoded_and_described() -> None:
    assert msgspec.json.decode(b"{}", type=Empty) == Empty()
    assert Context.__struct_fields__ == (
        "peer",
        "request_id",
        "received",
        "connection",
        "stream",
        "posted",
        "partial",
        "method",
    )
