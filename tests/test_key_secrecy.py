"""A key is sent to its provider and shown nowhere else: in no log, error or store, no crash, and no object's repr."""

import gc
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest

from llmd.catalog import ProviderRow
from llmd.core.outcomes import Failure
from llmd.core.rows import ModelRow
from llmd.dialects import DIALECTS
from llmd.dialects.base import HttpCall
from llmd.settings import KeySettings, ProviderSettings
from tests.support.calls import caller
from tests.support.daemon import RunningDaemon, running_daemon
from tests.support.upstream import Exchange, scripted

pytestmark = pytest.mark.anyio

CANARY = "sk-canary-7f3a9b2c-0123456789abcdef"
STATUSES = (200, 400, 401, 402, 403, 404, 413, 422, 429, 500, 503, 529)

CONFIG = """
[providers.{dialect}]
dialect = "{dialect}"
base_url = "{url}"
api_key = {{ env = "CANARY_KEY" }}
headers = {{ x-status = "{status}" }}
[providers.{dialect}.models.m]
context_tokens = 100000
max_output_tokens = 100
[[routing.rules]]
prefer = [{{ provider = "{dialect}", model = "m" }}]
retry = 0
"""


async def tell_tale(exchange: Exchange) -> None:
    """Says back all that it was sent, the key in its header among it, behind the status that it was asked for."""
    request = exchange.request
    sent = json.dumps(request.headers)
    assert CANARY in sent
    status = int(request.headers["x-status"])
    if status == 200 and (b'"stream":true' in request.body or "stream" in request.target):
        await exchange.begin_stream()
        await exchange.event({"error": {"message": sent, "type": "api_error", "code": 500}})
        await exchange.end_stream()
        return
    body = {"type": "error", "error": {"message": sent, "type": "x", "code": "x", "status": sent}, "detail": sent}
    await exchange.reply(body, status, f"x-request-id: r-{status}")


def execute(daemon: RunningDaemon, stream: bool) -> str:
    """Every message that comes back for one call under a budget."""
    with daemon.wire() as wire:
        budget = wire.call("budget.open", '{"total": 100000}')["result"]["budget"]
        params: dict[str, Any] = {"prompt": "hello", "budget": budget, "idempotency_key": "k"}
        said: list[Any] = []
        if stream:
            params["stream"] = "s"
        said.append(wire.call("execute", json.dumps(params), lambda method, told: said.append(told)))
        assert "error" in said[-1], said
        said += [wire.call("budget.close", json.dumps({"budget": budget})), wire.call("models.list")]
        return json.dumps(said)


@pytest.mark.deadline(120)
@pytest.mark.parametrize("dialect", sorted(DIALECTS))
async def test_no_error_log_or_store_of_a_daemon_holds_a_key(
    tmp_path: Path, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_KEY", CANARY)
    async with scripted(tell_tale) as upstream:
        config = CONFIG.format(dialect=dialect, url=upstream.url, status=200)
        with running_daemon(tmp_path, "--log-level", "debug", config=config) as daemon:
            for status in STATUSES:
                file = tmp_path / "config.toml"
                file.write_text(CONFIG.format(dialect=dialect, url=upstream.url, status=status))
                await anyio.to_thread.run_sync(reload, daemon)
                for stream in (False, True):
                    said = await anyio.to_thread.run_sync(execute, daemon, stream)
                    assert CANARY not in said
            daemon.stop(signal.SIGABRT)
        assert len(upstream.requests) >= 2 * len(STATUSES)
        assert all(CANARY in json.dumps(request.headers) for request in upstream.requests)
    check_files(tmp_path, Path(os.environ["XDG_STATE_HOME"]))


def check_files(*directories: Path) -> None:
    written = [path for directory in directories for path in directory.rglob("*") if path.is_file()]
    assert {"ledger.db", "daemon.stderr"} <= {path.name for path in written}
    for path in written:
        assert CANARY.encode() not in path.read_bytes(), path


def reload(daemon: RunningDaemon) -> None:
    with daemon.wire() as wire:
        assert "result" in wire.call("daemon.reload")


def structs(*roots: Any) -> list[msgspec.Struct]:
    """Every Struct that is alive and known to the garbage collector, or that these lead to.

    The collector does not list a Struct that holds no containers, as one with a key and nothing else would be.
    """
    waiting = [*roots, *(found for found in gc.get_objects() if isinstance(found, msgspec.Struct))]
    seen: dict[int, Any] = {}
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one
        if isinstance(one, msgspec.Struct):
            waiting += [getattr(one, name) for name in one.__struct_fields__]
        elif isinstance(one, Mapping):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set | frozenset):
            waiting += one
        elif type(one).__module__.split(".")[0] in ("llmd", "tests"):
            waiting += vars(one).values() if hasattr(one, "__dict__") else []
    return [found for found in seen.values() if isinstance(found, msgspec.Struct)]


class Bare(msgspec.Struct):
    text: str


def test_a_struct_that_the_collector_does_not_list_is_found_through_what_holds_it() -> None:
    holder = SimpleNamespace(inner={"a": [Bare(CANARY)]})
    assert [found for found in structs() if isinstance(found, Bare)] == []
    assert Bare(CANARY) in structs(vars(holder))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", sorted(DIALECTS))
async def test_no_struct_shows_a_key_while_a_call_is_on_its_way_or_behind_it(dialect: str, stream: bool) -> None:
    shown: list[str] = []
    kinds: set[type] = set()

    def look(*roots: Any) -> None:
        found = structs(*roots)
        kinds.update(type(one) for one in found)
        shown.extend(repr(one) for one in found)

    async def tell(exchange: Exchange) -> None:
        look(made, settings)
        await tell_tale(exchange)

    settings = ProviderSettings(api_key=KeySettings(env="K"), headers={"x-status": "400"})
    async with (
        scripted(tell) as upstream,
        caller(upstream.url, settings.api_key, {"K": CANARY}, dialect=dialect, headers={"x-status": "400"}) as made,
    ):
        call = made.call(stream)
        outcome = await made.send(stream)
        look(made, settings, call, outcome)
        shown.append(repr(vars(made.provider)))
    assert kinds >= {ProviderSettings, KeySettings, ProviderRow, ModelRow, HttpCall, Failure}
    assert [text for text in shown if CANARY in text] == []


async def test_a_crash_within_a_call_shows_no_key(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the interpreter prints of an exception that nobody caught has lines of code, and no values."""

    def fall(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(DIALECTS["openai"], "reader", fall)
    async with (
        scripted(tell_tale) as upstream,
        caller(upstream.url, KeySettings(env="K"), {"K": CANARY}, headers={"x-status": "400"}) as made,
    ):
        with pytest.raises(ZeroDivisionError) as caught:
            await made.send()
    sys.excepthook(type(caught.value), caught.value, caught.tb)
    told = capfd.readouterr().err
    assert "ZeroDivisionError" in told
    assert "in _send_once" in told
    assert CANARY not in told
