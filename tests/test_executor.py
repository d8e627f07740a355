"""The path of an execute: every attempt has one hold, resolved exactly once and with the right posting."""

from typing import Any

import msgspec
import pytest

from llmd.books import Amounts
from llmd.budgets import Posting
from llmd.chat import Completion, Delta, Message, TextPart, ToolCallPart
from llmd.errors import LLMError
from llmd.executor import Executor
from llmd.scalars import AMOUNT_MAX
from llmd.settings import KeySettings
from tests.support.calls import ask
from tests.support.executing import Recorder, answering, context, executing, executor, provider
from tests.support.upstream import OK, Exchange, Refusing, Script

pytestmark = pytest.mark.anyio


async def failing(made: Executor, **params: Any) -> LLMError:
    with pytest.raises(LLMError) as caught:
        await made.execute(ask(**{"model": "work/m1", **params}), context())
    return caught.value


# -- what comes of it ------------------------------------------------------------------------------------------------


async def test_an_answer_is_a_completion_with_every_member_and_posts_what_it_used() -> None:
    budgets = Recorder()
    async with executing(answering(OK), budgets) as made:
        done = await made.execute(ask(model="work/m1", budget="b1", max_tokens=9), context())
    assert (done.text, done.finish_reason, done.provider, done.model) == ("hello", "stop", "work", "m1")
    assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.total_tokens) == (5, 2, 7)
    assert done.cost
    assert done.cost.nano_usd == 25_000
    assert done.provider_request_id == "req-7"
    assert done.message == Message("assistant", "hello")
    assert [(a.provider, a.model, a.outcome) for a in done.route.attempts] == [("work", "m1", "ok")]
    assert set(msgspec.to_builtins(done)) == set(Completion.__struct_fields__)
    spent = Amounts(total_tokens=7, input_tokens=5, output_tokens=2, requests=1, nano_usd=25_000)
    assert budgets.only() == Posting(spent)
    handle, bound = budgets.holds[0]
    assert (handle, bound.max_tokens) == ("b1", 9)
    for unit in ("total_tokens", "input_tokens", "output_tokens", "requests", "nano_usd"):
        assert getattr(spent, unit) <= getattr(bound.amounts, unit) <= AMOUNT_MAX


async def test_an_answer_without_usage_posts_its_bound_as_uncertain_and_says_that_it_is_not_exact() -> None:
    budgets = Recorder()
    async with executing(answering({"choices": OK["choices"]}), budgets) as made:
        done = await made.execute(ask(model="work/m1"), context())
    assert (done.usage.exact, done.cost) == (False, None)
    assert budgets.posted_its_bound()


async def test_tool_calls_make_a_message_that_can_be_sent_back() -> None:
    call = {"id": "c1", "function": {"name": "f", "arguments": '{"x": 1}'}}
    said = {"content": "let me see", "tool_calls": [call]}
    body = {"choices": [{"message": said, "finish_reason": "tool_calls"}]}
    async with executing(answering(body), Recorder()) as made:
        done = await made.execute(ask(model="work/m1"), context())
    assert done.message == Message("assistant", [TextPart("let me see"), ToolCallPart("c1", "f", {"x": 1})])
    assert done.finish_reason == "tool_calls"


async def test_a_stream_is_asked_for_exactly_where_the_caller_wants_deltas() -> None:
    asked = []

    async def script(exchange: Exchange) -> None:
        asked.append(exchange.request.json().get("stream", False))
        await exchange.reply()

    deltas: list[Delta] = []

    async def emit(delta: Delta) -> None:
        deltas.append(delta)

    async with executing(script, Recorder()) as made:
        await made.execute(ask(model="work/m1"), context())
        await made.execute(ask(model="work/m1"), context(), emit)
    assert asked == [False, True]
    assert [delta.text for delta in deltas] == ["hello"]


# -- what fails ------------------------------------------------------------------------------------------------------


async def hang_up(exchange: Exchange) -> None:
    exchange.close()


async def break_off(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 1000")
    await exchange.send(b'{"choices": [')
    exchange.close()


@pytest.mark.parametrize(
    ("script", "kind", "certain", "tries"),
    [
        (answering({"error": {"message": "slow down"}}, 429), "upstream_rate_limited", True, 3),
        (answering({"error": {"message": "no", "code": "model_not_found"}}, 404), "model_not_found", True, 1),
        (answering({"error": {"message": "oh"}}, 500), "upstream_unavailable", False, 3),
        (answering(b"what?"), "upstream_invalid", False, 1),
        (hang_up, "upstream_unavailable", False, 3),
        (break_off, "upstream_invalid", False, 3),
    ],
    ids=["refused", "no model", "broken", "garbage", "hung up", "broken off"],
)
async def test_each_try_that_fails_posts_nothing_if_it_was_certainly_free_and_else_its_bound(
    script: Script, kind: str, certain: bool, tries: int
) -> None:
    budgets = Recorder()
    async with executing(script, budgets) as made:
        error = await failing(made)
    assert error.kind == kind
    assert (error.data["provider"], error.data["model"]) == ("work", "m1")
    assert [attempt.outcome for attempt in error.data["attempts"]] == [kind] * tries
    bounds = [Posting(bound.amounts, uncertain=True) for _, bound in budgets.holds]
    assert budgets.postings == ([Posting(None)] * tries if certain else bounds)
    assert (len(budgets.holds), budgets.open) == (tries, set())


async def test_nobody_listening_posts_nothing() -> None:
    budgets = Recorder()
    with Refusing() as url:
        async with executor(budgets, provider(base_url=url)) as made:
            assert (await failing(made)).kind == "upstream_unavailable"
    assert budgets.postings == [Posting(None)] * 3


async def test_a_missing_key_takes_no_hold_and_is_named() -> None:
    budgets = Recorder()
    row = provider(base_url="http://127.0.0.1:9/v1", api_key=KeySettings(env="NONE"))
    async with executor(budgets, row) as made:
        error = await failing(made)
    assert (error.kind, error.message) == ("no_route", "work/m1: the daemon's environment has no NONE")
    assert budgets.holds == []


async def test_a_key_that_cannot_be_had_after_all_posts_nothing() -> None:
    budgets = Recorder()
    row = provider(base_url="http://127.0.0.1:9/v1", api_key=KeySettings(command=["/bin/false"]))
    async with executor(budgets, row) as made:
        assert (await failing(made)).kind == "upstream_auth"
    assert budgets.only() == Posting(None)


async def test_usage_that_comes_with_a_failure_is_posted() -> None:
    calls = [{"id": "c", "function": {"name": "f", "arguments": "no json"}}]
    body = {"choices": [{"message": {"tool_calls": calls}}], "usage": OK["usage"]}
    budgets = Recorder()
    async with executing(answering(body), budgets) as made:
        assert (await failing(made)).kind == "upstream_invalid"
    posting = budgets.only()
    assert posting.amounts
    assert (posting.amounts.total_tokens, posting.amounts.nano_usd, posting.uncertain) == (7, 25_000, False)


async def test_a_budget_that_refuses_keeps_the_request_from_leaving() -> None:
    async def never(exchange: Exchange) -> None:
        raise AssertionError("a request left without a hold")

    budgets = Recorder(LLMError("budget_exceeded", "no"))
    async with executing(never, budgets) as made:
        assert (await failing(made)).kind == "budget_exceeded"
    assert budgets.postings == []


async def test_a_request_without_a_route_takes_no_hold() -> None:
    budgets = Recorder()
    async with executor(budgets) as made:
        assert (await failing(made, model="nobody/m")).kind == "no_route"
        assert (await failing(made, model=None)).kind == "no_route"
    assert (budgets.holds, budgets.postings) == ([], [])


async def test_rate_limits_say_when_to_come_back() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply({"error": {"message": "slow"}}, 429, "retry-after: 1.5")

    async with executing(script, Recorder()) as made:
        error = await failing(made)
    assert (error.retryable, error.data["retry_after_ms"], error.data["http_status"]) == (True, 1500, 429)
