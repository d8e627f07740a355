"""A daemon that answers HTTP, with a scripted provider behind it that answers, calls tools, fails and breaks off."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.support.daemon import RunningDaemon, running_daemon
from tests.support.upstream import DELTA, LAST, OK, Exchange, Upstream, scripted
from tests.transports.test_tcp import free_port

CONFIG = """
default_model = "work/m1"

[listen]
http = "http://127.0.0.1:{port}"

[providers.work]
base_url = "{url}"
overhead_tokens = 8
[providers.work.models.m1]
price = {{ input = 1.0, output = 2.0 }}

[providers.broken]
dialect = "echo"
fail = "upstream_unavailable"

[providers.refused]
dialect = "echo"
fail = "upstream_auth"

[providers.slow]
dialect = "echo"
latency_ms = 500

[providers.closed]
base_url = "https://nowhere.example"
api_key = {{ env = "NO_SUCH_KEY" }}
default_model = "m9"

[limits]
drain_ms = 200
"""

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"x":1}'}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


async def script(exchange: Exchange) -> None:
    """What the last message says is what becomes of the call."""
    sent = exchange.request.json() if exchange.request.body else {}
    wanted = sent["messages"][-1]["content"] if "messages" in sent else "models"
    match wanted, bool(sent.get("stream")):
        case "models", _:
            await exchange.reply({"data": [{"id": "m1"}, {"id": "m2"}]})
        case "stuck", _:
            await exchange.gone()
        case "add", False:
            message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
            await exchange.reply({**OK, "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})
        case "add", True:
            await exchange.begin_stream()
            for piece in (
                {**CALL, "function": {"name": "add", "arguments": ""}},
                {"function": {"arguments": '{"x":1}'}},
            ):
                await exchange.event({"choices": [{"delta": {"tool_calls": [{"index": 0, **piece}]}}]})
            await exchange.event({"choices": [{"delta": {}, "finish_reason": "tool_calls"}], "usage": OK["usage"]})
            await exchange.end_stream()
        case "break off", _:
            await exchange.begin_stream()
            await exchange.event(DELTA)
            exchange.reset()
        case "pause", _:
            await exchange.begin_stream()
            await exchange.event(DELTA)
            await exchange.gone()
        case _, True:
            await exchange.begin_stream()
            await exchange.event(DELTA)
            await exchange.event(LAST)
            await exchange.end_stream()
        case _:
            await exchange.reply()


class Served(NamedTuple):
    """A daemon, its provider `work`, and a client of its HTTP."""

    daemon: RunningDaemon
    upstream: Upstream
    http: httpx.AsyncClient

    @property
    def url(self) -> str:
        return str(self.http.base_url).rstrip("/") + "/v1"

    async def chat(self, said: str = "hello", **more: Any) -> httpx.Response:
        headers = more.pop("headers", None)
        body = {"model": "auto", "messages": [{"role": "user", "content": said}], **more}
        return await self.http.post("/v1/chat/completions", json=body, headers=headers)

    async def budget(self, total: int) -> str:
        """The handle of a new one."""
        message = {"jsonrpc": "2.0", "id": 1, "method": "budget.open", "params": {"total": total}}
        handle: str = (await self.http.post("/rpc", json=message)).json()["result"]["budget"]
        return handle


@asynccontextmanager
async def served(directory: Path, *arguments: str) -> AsyncIterator[Served]:
    port = free_port()
    async with scripted(script) as upstream:
        config = CONFIG.format(port=port, url=upstream.url)
        with running_daemon(directory, *arguments, config=config) as daemon:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as http:
                yield Served(daemon, upstream, http)
