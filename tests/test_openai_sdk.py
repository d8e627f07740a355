"""The official openai SDK pointed at llmd, as its users write it.

LLMD_OPENAI names a Python that has the SDK.
"""

import json
import os
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.daemon import running_daemon
from tests.support.engine import MODEL_NAME, Engine
from tests.support.openai_upstream import TOOL, served
from tests.transports.test_tcp import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

PRELUDE = """
import json, os, sys
import openai
given = json.loads(sys.argv[2])
client = openai.OpenAI(base_url=sys.argv[1], api_key="any", max_retries=given.get("max_retries", 2))
def chat(said="hello", **more):
    messages = [{"role": "user", "content": said}]
    return client.chat.completions.create(**{"model": "auto", "messages": messages, **more})
def tell(value):
    print(json.dumps(value), flush=True)
"""


def command(url: str, code: str, given: dict[str, Any]) -> list[str]:
    python = os.environ.get("LLMD_OPENAI")
    if not python:
        pytest.skip("LLMD_OPENAI does not name a Python that has the openai SDK; .ci/run installs it")
    return [python, "-c", PRELUDE + textwrap.dedent(code), url, json.dumps(given)]


async def sdk(url: str, code: str, **given: Any) -> Any:
    """What `code` tells, run with the SDK."""
    done = await anyio.run_process(command(url, code, given), check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


async def test_a_chat_completion(tmp_path: Path) -> None:
    code = """
        made = chat(max_tokens=20, temperature=0)
        tell([made.model, made.choices[0].message.content, made.choices[0].finish_reason, made.usage.total_tokens,
              made.model_extra["llmd"]["cost"]["nano_usd"]])
    """
    async with served(tmp_path) as llmd:
        assert await sdk(llmd.url, code) == ["work/m1", "hello", "stop", 7, 9000]
        sent = llmd.upstream.requests[0].json()
        assert (sent["max_tokens"], sent["temperature"]) == (20, 0)


async def test_a_stream_with_its_usage(tmp_path: Path) -> None:
    code = """
        chunks = list(chat(stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        tell([text, chunks[-2].choices[0].finish_reason, chunks[-1].usage.total_tokens])
    """
    async with served(tmp_path) as llmd:
        assert await sdk(llmd.url, code) == ["one two", "stop", 7]


async def test_tools_whole_and_streamed_by_the_sdks_own_accumulator(tmp_path: Path) -> None:
    code = """
        tools = given["tools"]
        whole = chat("add", tools=tools).choices[0]
        messages = [{"role": "user", "content": "add"}]
        with client.chat.completions.stream(model="auto", messages=messages, tools=tools) as stream:
            seen = {event.type for event in stream}
            streamed = stream.get_final_completion().choices[0]
        done = "tool_calls.function.arguments.done" in seen
        messages += [streamed.message.model_dump(exclude_none=True)]
        messages += [{"role": "tool", "tool_call_id": streamed.message.tool_calls[0].id, "content": "2"}]
        after = client.chat.completions.create(model="auto", messages=messages, tools=tools)
        def call(choice):
            one = choice.message.tool_calls[0]
            return [choice.finish_reason, one.id, one.function.name, json.loads(one.function.arguments)]
        tell([call(whole), call(streamed), done, after.choices[0].finish_reason])
    """
    called = ["tool_calls", "c1", "add", {"x": 1}]
    strict = {**TOOL, "function": {**TOOL["function"], "strict": True}}
    async with served(tmp_path) as llmd:
        assert await sdk(llmd.url, code, tools=[strict]) == [called, called, True, "stop"]


@pytest.mark.parametrize(
    ("params", "raised"),
    [
        ({"n": 2}, "BadRequestError"),
        ({"model": "work/m1", "max_tokens": 10**9, "budget": True}, "APIStatusError"),
        ({"model": "refused/x"}, "InternalServerError"),
    ],
    ids=repr,
)
async def test_an_error_that_is_final_is_raised_at_once(tmp_path: Path, params: dict[str, Any], raised: str) -> None:
    code = """
        if given.pop("budget", False):
            given["extra_headers"] = {"X-LLMD-Budget": given.pop("handle")}
        else:
            given.pop("handle")
        try:
            chat(**given)
        except openai.APIStatusError as error:
            request = error.response.request
            tell([type(error).__name__, request.headers["x-stainless-retry-count"]])
    """
    async with served(tmp_path) as llmd:
        assert await sdk(llmd.url, code, **params, handle=await llmd.budget(1000)) == [raised, "0"]


async def test_an_error_that_may_pass_is_tried_again_after_as_long_as_llmd_says(tmp_path: Path) -> None:
    code = """
        try:
            chat(model="broken/x")
        except openai.InternalServerError as error:
            tell([error.code, error.response.request.headers["x-stainless-retry-count"]])
    """
    async with served(tmp_path) as llmd:
        assert await sdk(llmd.url, code, max_retries=1) == ["upstream_unavailable", "1"]


async def test_an_error_within_a_stream_is_raised(tmp_path: Path) -> None:
    code = """
        said = ""
        try:
            for chunk in chat("break off", stream=True):
                said += chunk.choices[0].delta.content
        except openai.APIError as error:
            tell([said, error.code])
    """
    async with served(tmp_path) as llmd:
        assert await sdk(llmd.url, code) == ["one ", "upstream_invalid"]


async def test_a_budget_in_a_header_pays(tmp_path: Path) -> None:
    code = """
        payer = client.with_options(default_headers={"X-LLMD-Budget": given["handle"]})
        made = payer.chat.completions.create(model="auto", messages=[{"role": "user", "content": "hello"}])
        tell(made.model_extra["llmd"]["budget"]["settled"]["total_tokens"])
    """
    async with served(tmp_path) as llmd:
        assert await sdk(llmd.url, code, handle=await llmd.budget(2000)) == 7


async def test_models_are_listed_and_found(tmp_path: Path) -> None:
    code = """
        listed = [model.id for model in client.models.list()]
        tell([listed, client.models.retrieve("work/m2").owned_by])
    """
    async with served(tmp_path) as llmd:
        listed, owner = await sdk(llmd.url, code)
        assert set(listed) >= {"auto", "work/m1", "work/m2", "echo/echo"}
        assert owner == "work"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_client_that_dies_aborts_the_request_upstream(tmp_path: Path, stream: bool) -> None:
    code = 'list(chat("pause" if given["stream"] else "stuck", stream=given["stream"]))'
    async with served(tmp_path) as llmd:
        process = await anyio.open_process(
            command(llmd.url, code, {"stream": stream}), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        async with process:
            await llmd.upstream.until(lambda upstream: upstream.in_flight == 1)
            process.kill()
        await llmd.upstream.until(lambda upstream: upstream.in_flight == 0)


async def test_a_real_engine_says_the_same_through_llmd_as_without_it(engine: Engine, tmp_path: Path) -> None:
    code = """
        asked = {"model": given["model"], "messages": [{"role": "user", "content": "Once upon a time"}],
                 "max_tokens": 20, "temperature": 0, "seed": 7}
        def whole(client):
            made = client.chat.completions.create(**asked)
            return [made.choices[0].message.content, made.choices[0].finish_reason, made.usage.completion_tokens]
        def streamed(client):
            chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
            choices = [choice for chunk in chunks for choice in chunk.choices]
            text = "".join(choice.delta.content or "" for choice in choices)
            return [text, choices[-1].finish_reason, chunks[-1].usage.completion_tokens]
        engine = openai.OpenAI(base_url=given["engine"], api_key="none")
        tell([whole(engine), whole(client), streamed(client)])
    """
    port = free_port()
    config = f'[listen]\nhttp = "http://127.0.0.1:{port}"\n[providers.{MODEL_NAME}]\nbase_url = "{engine.url}"\n'
    url = f"http://127.0.0.1:{port}/v1"
    with running_daemon(tmp_path, config=config):
        own, whole, streamed = await sdk(url, code, model=f"{MODEL_NAME}/{MODEL_NAME}", engine=engine.url)
    assert own[0]
    assert own == whole == streamed
