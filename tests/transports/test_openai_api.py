"""`/v1` over plain HTTP: whole and streamed answers, tools, budgets, errors and whether to try again, models."""

import json
import os
import re
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from llmd import paths
from tests.support.openai_upstream import CALL, TOOL, served

pytestmark = pytest.mark.anyio

USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 2,
    "total_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}


def chunks(response: httpx.Response) -> list[Any]:
    """The data of each event, the last of which is [DONE]."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [event.removeprefix("data: ") for event in response.text.strip().split("\n\n")]
    return [json.loads(event) if event != "[DONE]" else event for event in events]


async def test_a_chat_completion_is_answered_in_openais_words(tmp_path: Path) -> None:
    async with served(tmp_path) as llmd:
        answer = (await llmd.chat()).json()
        assert re.fullmatch("chatcmpl-[0-9a-f]{24}", answer["id"])
        assert (answer["object"], answer["model"], answer["usage"]) == ("chat.completion", "work/m1", USAGE)
        (choice,) = answer["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("hello", "stop")
        assert answer["llmd"]["cost"] == {"nano_usd": 9000}


async def test_a_stream_is_chunks_and_ends_with_done(tmp_path: Path) -> None:
    async with served(tmp_path) as llmd:
        *told, last, done = chunks(await llmd.chat(stream=True))
        assert done == "[DONE]"
        assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in told) == "one two"
        assert told[0]["choices"][0]["delta"]["role"] == "assistant"
        assert (last["choices"][0]["finish_reason"], last["model"]) == ("stop", "work/m1")
        assert {chunk["id"] for chunk in told} == {last["id"]}
        assert "usage" not in last
        *_, usage, _ = chunks(await llmd.chat(stream=True, stream_options={"include_usage": True}))
        assert (usage["choices"], usage["usage"]) == ([], USAGE)


async def test_tools_go_there_and_calls_come_back_whole_and_streamed(tmp_path: Path) -> None:
    async with served(tmp_path) as llmd:
        (choice,) = (await llmd.chat("add", tools=[TOOL], tool_choice="required")).json()["choices"]
        assert (choice["message"]["content"], choice["message"]["tool_calls"]) == (None, [CALL])
        assert choice["finish_reason"] == "tool_calls"
        sent = llmd.upstream.requests[0].json()
        assert (sent["tools"], sent["tool_choice"]) == ([TOOL], "required")
        *told, last, _ = chunks(await llmd.chat("add", tools=[TOOL], stream=True))
        pieces = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in told]
        assert (pieces[0]["id"], pieces[0]["function"]["name"]) == ("c1", "add")
        assert "".join(piece["function"]["arguments"] for piece in pieces) == '{"x":1}'
        assert last["choices"][0]["finish_reason"] == "tool_calls"
        turns = [{"role": "assistant", "content": None, "tool_calls": [CALL]}]
        turns += [{"role": "tool", "tool_call_id": "c1", "content": "2"}, {"role": "user", "content": "so?"}]
        assert (await llmd.chat(messages=turns)).status_code == 200
        assert llmd.upstream.requests[-1].json()["messages"] == turns


async def test_a_model_is_named_or_left_to_the_rules(tmp_path: Path) -> None:
    async with served(tmp_path) as llmd:
        assert (await llmd.chat(model="echo/echo")).json()["model"] == "echo/echo"
        assert (await llmd.chat(model="auto")).json()["model"] == "work/m1"
        unknown = await llmd.chat(model="gpt-9")
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (400, "invalid_params")


async def test_what_llmd_has_no_word_for_goes_to_who_knows_it_and_is_told_elsewhere(tmp_path: Path) -> None:
    async with served(tmp_path) as llmd:
        known = await llmd.chat(logit_bias={"7": 1}, user="u1")
        assert known.json()["llmd"]["dropped"] == []
        sent = llmd.upstream.requests[0].json()
        assert (sent["logit_bias"], sent["user"]) == ({"7": 1}, "u1")
        foreign = {"model": "echo/echo", "logit_bias": {"7": 1}, "seed": 3}
        assert (await llmd.chat(**foreign)).json()["llmd"]["dropped"] == ["seed", "logit_bias"]
        *_, last, _ = chunks(await llmd.chat(**foreign, stream=True))
        assert last["llmd"]["dropped"] == ["seed", "logit_bias"]


async def test_a_budget_named_in_a_header_pays(tmp_path: Path) -> None:
    async with served(tmp_path) as llmd:
        pays = {"x-llmd-budget": await llmd.budget(2000)}
        answer = await llmd.chat(headers=pays, max_tokens=20)
        assert answer.json()["llmd"]["budget"]["settled"]["total_tokens"] == 7
        beyond = await llmd.chat(headers=pays, max_tokens=3000)
        assert (beyond.status_code, beyond.headers["x-should-retry"]) == (402, "false")
        error = beyond.json()["error"]
        assert (error["type"], error["code"]) == ("insufficient_quota", "budget_exceeded")
        assert error["data"]["limiting"]["unit"] == "total_tokens"
        for nobodys in ("b_nobodys", ""):
            refused = await llmd.chat(headers={"x-llmd-budget": nobodys})
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "budget_unknown")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("params", "status", "code", "again", "param"),
    [
        ({"n": 2}, 400, "invalid_params", "false", "n"),
        ({"temperature": -1}, 400, "invalid_params", "false", "temperature"),
        ({"model": "refused/x"}, 502, "upstream_auth", "false", None),
        ({"model": "broken/x"}, 503, "upstream_unavailable", "true", None),
    ],
    ids=repr,
)
async def test_an_error_before_the_answer_has_its_status_and_says_whether_to_try_again(
    tmp_path: Path, params: dict[str, Any], status: int, code: str, again: str, param: str | None, stream: bool
) -> None:
    async with served(tmp_path) as llmd:
        response = await llmd.chat(**params, stream=stream)
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (status, code, param)
        assert response.headers["x-should-retry"] == again


async def test_one_that_is_to_come_back_later_is_told_when(tmp_path: Path) -> None:
    async with served(tmp_path) as llmd:
        while (response := await llmd.chat(model="broken/x")).json()["error"]["code"] != "no_route":
            pass  # until its breaker opens
        assert 0 < int(response.headers["retry-after-ms"]) <= 5000
        assert 0 < int(response.headers["retry-after"]) <= 5


async def test_an_error_behind_the_first_words_is_the_end_of_the_stream(tmp_path: Path) -> None:
    async with served(tmp_path) as llmd:
        first, last = chunks(await llmd.chat("break off", stream=True))
        assert first["choices"][0]["delta"]["content"] == "one "
        assert last["error"]["code"] == "upstream_invalid"


async def test_what_is_refused_at_the_door_is_told_in_openais_shape(tmp_path: Path) -> None:
    async with served(tmp_path, "--require-token") as llmd:
        error = (await llmd.chat()).json()["error"]
        assert (error["type"], error["code"]) == ("authentication_error", "unauthorized")
        assert (await llmd.http.get("/v1/models")).status_code == 401
        lost = await llmd.http.get("/v1/fly")
        assert (lost.status_code, lost.json()["error"]["code"]) == (404, "method_not_found")
        token = {"authorization": f"Bearer {paths.token_file(os.environ).read_text().strip()}"}
        assert (await llmd.chat(headers=token)).status_code == 200


async def test_models_are_those_that_could_be_called(tmp_path: Path) -> None:
    async with served(tmp_path) as llmd:
        listed = (await llmd.http.get("/v1/models")).json()
        assert listed["object"] == "list"
        owners = {model["id"]: model["owned_by"] for model in listed["data"]}
        assert owners.items() >= {"auto": "llmd", "work/m1": "work", "work/m2": "work", "echo/echo": "echo"}.items()
        assert "closed/m9" not in owners
        there, elsewhere = "work/m2", "work/m3"
        one = await llmd.http.get(f"/v1/models/{there}")
        assert one.json() == {"id": "work/m2", "object": "model", "created": 0, "owned_by": "work"}
        none = await llmd.http.get(f"/v1/models/{elsewhere}")
        assert (none.status_code, none.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("said", ["stuck", "pause"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_client_that_goes_away_aborts_the_request_upstream(tmp_path: Path, said: str, stream: bool) -> None:
    async with served(tmp_path) as llmd:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: llmd.chat(said, stream=stream))
            await llmd.upstream.until(lambda upstream: upstream.in_flight == 1)
            group.cancel_scope.cancel()
        await llmd.upstream.until(lambda upstream: upstream.in_flight == 0)
        assert (await llmd.chat()).status_code == 200
    assert "Traceback" not in llmd.daemon.log.read_text()


async def test_a_stream_that_a_stop_cuts_is_told_as_cut(tmp_path: Path) -> None:
    async with served(tmp_path) as llmd:
        body = {"stream": True, "messages": [{"role": "user", "content": "pause"}]}
        async with llmd.http.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.aiter_lines()
            assert "one " in await anext(lines)
            assert await anyio.to_thread.run_sync(llmd.daemon.stop) == 0
            rest = "".join([line async for line in lines])
        assert json.loads(rest.removeprefix("data: "))["error"]["code"] == "cancelled"
