"""One parsed call to its method and back: the only file that imports jsonrpcserver.

jsonrpcserver finds the method, calls it and shapes the result. Its parsing, its batches (judged whole), its check of
the arguments (which are always ours, and cost more than the rest together) and its task handling (asyncio.gather
outside our task groups) stay unused, and no exception gets as far as it, since it would put the exception's text on the
wire. Here is the one boundary where exceptions become error objects.
"""

import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, NamedTuple, cast

import msgspec
from jsonrpcserver import Error, Result, Success
from jsonrpcserver.async_dispatcher import call as call_async
from jsonrpcserver.dispatcher import call as call_now
from jsonrpcserver.dispatcher import get_method
from jsonrpcserver.request import Request
from jsonrpcserver.result import ErrorResult, SuccessResult
from msgspec import Raw, Struct
from oslash.either import Left

from llmd.context import Context
from llmd.core import jsonrpc
from llmd.errors import LLMError, trace
from llmd.meter import OTHER
from llmd.rpc.base import Method, Service
from llmd.validation import explain

log = logging.getLogger("llmd.rpc")

_NO_PARAMS = Raw(b"{}")


class Reply(NamedTuple):
    """`body` is the result as JSON, or the error object if not `ok`."""

    ok: bool
    body: bytes


class Dispatcher:
    """Calls methods by name: with params as JSON, and then it never raises, or as their Struct."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._now = {name: _bind_now(service, m) for name, m in service.methods.items() if m.now is not None}
        self._run = {name: _bind_run(service, m) for name, m in service.methods.items() if m.run is not None}

    def waits(self, method: str) -> bool:
        """Whether this method may take time; any other, an unknown one too, is answered with `now`."""
        return method in self._run

    def now(self, method: str, params: Raw | None, ctx: Context) -> Reply:
        found = get_method(self._now, method)
        if not isinstance(found, Left):
            found = call_now(Request(method, [params], None), ctx, found._value)
        self.service.meter.calls[method if method in self._now else OTHER, _outcome(found)] += 1
        return _reply(method, found)

    async def run(self, method: str, params: Raw | None, ctx: Context) -> Reply:
        with self._measured(method) as ended:
            found = get_method(cast(Any, self._run), method)
            if not isinstance(found, Left):
                found = await call_async(Request(method, [params], None), ctx, found._value)
            ended(_outcome(found))
        return _reply(method, found)

    async def typed(self, method: str, params: Struct, ctx: Context) -> Any:
        """The result of a method that `waits`, params and result as their Structs. Raises LLMError and nothing else."""
        run: Callable[[Service, Any, Context], Awaitable[Any]] | None = self.service.methods[method].run
        assert run is not None
        with self._measured(method) as ended:
            try:
                result = await run(self.service, params, ctx)
            except Exception as error:
                own = _own(error)
                ended(own.kind)
                raise own from None
            ended("ok")
            return result

    @contextmanager
    def _measured(self, method: str) -> Iterator[Callable[[str], None]]:
        """Count one call of a method that waits; what is not told how it has ended was cancelled."""
        outcome = "cancelled"

        def ended(told: str) -> None:
            nonlocal outcome
            outcome = told

        meter, began = self.service.meter, perf_counter()
        try:
            yield ended
        finally:
            meter.calls[method, outcome] += 1
            meter.latency[method].observe(perf_counter() - began)


def error_reply(error: LLMError) -> Reply:
    return Reply(False, msgspec.json.encode(error.to_object()))


def error_message(identifier: bytes, error: LLMError) -> bytes:
    """A whole reply that is an error."""
    return jsonrpc.render_reply(identifier, *error_reply(error))


def _reply(method: str, result: Result) -> Reply:
    if not isinstance(result, Left):
        return Reply(True, cast(SuccessResult, result._value).result)
    error = cast(ErrorResult, result._error)
    if isinstance(error.data, LLMError):
        return error_reply(error.data)
    # All that is left for jsonrpcserver to say by itself is that there is no such method.
    return error_reply(LLMError("method_not_found", f"there is no method {method[:64]!r}; rpc.discover lists them"))


def _outcome(result: Result) -> str:
    """ "ok", or the kind of its error."""
    if not isinstance(result, Left):
        return "ok"
    told = cast(ErrorResult, result._error).data
    return told.kind if isinstance(told, LLMError) else "method_not_found"


def _bind_now(service: Service, method: Method) -> Callable[[Context, Raw | None], Result]:
    run = method.now
    assert run is not None
    decoder = msgspec.json.Decoder(method.params)

    def call(ctx: Context, raw: Raw | None) -> Result:
        try:
            return Success(msgspec.json.encode(run(service, _params(decoder, raw), ctx)))
        except Exception as error:
            return _failed(error)

    return call


def _bind_run(service: Service, method: Method) -> Callable[[Context, Raw | None], Coroutine[Any, Any, Result]]:
    run: Callable[[Service, Any, Context], Awaitable[Any]] | None = method.run
    assert run is not None
    decoder = msgspec.json.Decoder(method.params)

    async def call(ctx: Context, raw: Raw | None) -> Result:
        try:
            return Success(msgspec.json.encode(await run(service, _params(decoder, raw), ctx)))
        except Exception as error:
            return _failed(error)

    return call


def _params(decoder: msgspec.json.Decoder[Any], raw: Raw | None) -> Any:
    if raw is None:
        raw = _NO_PARAMS
    elif memoryview(raw)[0] == ord("["):
        if not bytes(raw)[1:].lstrip(b" \t\r\n").startswith(b"]"):
            raise LLMError("invalid_params", "params go by name: send an object")
        raw = _NO_PARAMS
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        problem = explain(error, decoder.type)
        raise LLMError("invalid_params", str(problem), path=problem.path) from None
    except (msgspec.DecodeError, RecursionError):
        raise LLMError("invalid_params", "the params hold a number or a nesting beyond what is read") from None


def _failed(error: Exception) -> Result:
    told = _own(error)
    return Error(told.code, told.message, told)


def _own(error: Exception) -> LLMError:
    """In our words; what was none of ours is in the log."""
    if isinstance(error, LLMError):
        return error
    log.error("a method failed: %s", trace(error))
    return LLMError("internal_error", "something in llmd is broken; its log says what")
