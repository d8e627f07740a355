"""Adapters: one call or many at once, from threads, asyncio and trio, in this process by the daemon's own executor."""

import asyncio
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

from llmd import Adapter, BudgetTracker, Completion, ConfigError, LLMError, RoutingPolicy, RunConfig, create_adapter
from tests.support.library import M1, configure, library
from tests.support.upstream import Exchange, Script, Upstream, scripted

both_loops = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
BOUND = RunConfig(max_tokens=50)


def answer_together(count: int) -> Script:
    """Nobody is answered before so many have asked."""
    waiting: list[Exchange] = []
    together = anyio.Event()

    async def script(exchange: Exchange) -> None:
        waiting.append(exchange)
        if len(waiting) == count:
            together.set()
        await together.wait()
        await exchange.reply()

    return script


def test_a_call_from_a_thread() -> None:
    with library():
        made = create_adapter("echo/echo").execute_prompt("hello there", RunConfig(max_tokens=1))
    assert (made.text, made.finish_reason, made.usage.total_tokens) == ("hello", "length", 3)


def test_a_conversation_goes_on_with_the_message_of_an_answer() -> None:
    with library():
        adapter = create_adapter("echo/echo")
        first = adapter.execute_prompt("one")
        again = adapter.execute_prompt([first.message, {"role": "user", "content": "two"}])
    assert (again.text, again.usage.input_tokens) == ("two", 2)


@pytest.mark.anyio
@both_loops
async def test_many_calls_take_as_long_as_the_slowest() -> None:
    made: list[Completion] = []
    async with scripted(answer_together(30)) as upstream:
        with library(M1.format(url=upstream.url)):
            adapters = [create_adapter("work/m1") for _ in range(30)]

            async def call(adapter: Adapter) -> None:
                made.append(await adapter.async_execute_prompt("x", BOUND))

            async with anyio.create_task_group() as group:
                for adapter in adapters:
                    group.start_soon(call, adapter)
    assert [completion.text for completion in made] == ["hello"] * 30
    assert upstream.peak == 30


@pytest.mark.anyio
async def test_threads_call_together_and_connections_stay_warm() -> None:
    async with scripted(answer_together(8)) as upstream:
        with library(M1.format(url=upstream.url)):
            adapter = create_adapter("work/m1")
            async with anyio.create_task_group() as group:
                for _ in range(8):
                    group.start_soon(anyio.to_thread.run_sync, partial(adapter.execute_prompt, "x"))
            assert upstream.peak == 8

            # A loop of its own a call, as in a script: the connection is the engine's.
            def in_a_loop() -> None:
                asyncio.run(adapter.async_execute_prompt("x"))
                trio.run(adapter.async_execute_prompt, "x")

            await anyio.to_thread.run_sync(in_a_loop)
    assert upstream.connections == 8


@pytest.mark.anyio
@both_loops
async def test_a_cancelled_call_is_aborted_upstream() -> None:
    gone = anyio.Event()

    async def script(exchange: Exchange) -> None:
        scope.cancel()
        await exchange.gone()
        gone.set()

    async with scripted(script) as upstream:
        with library(M1.format(url=upstream.url)):
            adapter = create_adapter("work/m1")
            with anyio.CancelScope() as scope:
                await adapter.async_execute_prompt("x")
            assert scope.cancelled_caught
            await gone.wait()


@pytest.mark.anyio
async def test_a_task_of_asyncios_own_is_cancelled_as_well() -> None:
    gone = anyio.Event()

    async def script(exchange: Exchange) -> None:
        calling.cancel()
        await exchange.gone()
        gone.set()

    async with scripted(script) as upstream:
        with library(M1.format(url=upstream.url)):
            calling = asyncio.ensure_future(create_adapter("work/m1").async_execute_prompt("x"))
            with pytest.raises(asyncio.CancelledError):
                await calling
            await gone.wait()


@pytest.mark.anyio
async def test_a_config_may_name_another_model_of_the_adapters_provider() -> None:
    async def model(adapter: Adapter, **config: Any) -> str:
        made = await adapter.async_execute_prompt("x", RunConfig(**config))
        return f"{made.provider}/{made.model} {upstream.requests[-1].json()['model']}"

    async with scripted(answer_together(1)) as upstream:
        with library(M1.format(url=upstream.url)):
            adapter = create_adapter("work/m1")
            assert await model(adapter) == "work/m1 m1"
            assert await model(adapter, model_name="m2") == "work/m2 m2"
            assert await model(adapter, model_name="work/m2") == "work/m2 m2"
            assert await model(adapter, model_name="vendor/m2", provider="work") == "work/vendor/m2 vendor/m2"
            assert await model(create_adapter("work/vendor/m3"), model_name="vendor/m3") == "work/vendor/m3 vendor/m3"
            assert await model(create_adapter("work"), model_name="m2") == "work/m2 m2"
            assert await model(create_adapter(), model_name="work/m2") == "work/m2 m2"


@pytest.mark.parametrize(
    ("target", "config", "path", "told"),
    [
        ("echo/echo", {"model_name": "work/m1"}, "model_name", "the adapter is of 'echo', not of 'work'"),
        ("echo/echo", {"model_name": "m1", "provider": "work"}, "provider", "the adapter is of 'echo'"),
        ("echo", {}, "model_name", "the adapter names only a provider"),
    ],
)
def test_a_config_that_contradicts_its_adapter_is_refused(
    target: str, config: dict[str, Any], path: str, told: str
) -> None:
    with library(), pytest.raises(LLMError, match=told) as caught:
        create_adapter(target).execute_prompt("x", RunConfig(**config))
    assert (caught.value.kind, caught.value.data["path"]) == ("invalid_params", path)


def test_the_config_of_an_adapter_is_that_of_calls_without_one() -> None:
    with library():
        adapter = create_adapter("echo/echo", RunConfig(max_tokens=1))
        assert adapter.execute_prompt("one two").text == "one"
        assert adapter.execute_prompt("one two", RunConfig()).text == "one two"


def test_a_provider_that_is_not_there_is_told_at_once() -> None:
    with library(), pytest.raises(LLMError, match=r"no provider is named 'nobody'; there are: .*echo") as caught:
        create_adapter("nobody/m")
    assert caught.value.kind == "no_route"


def test_a_configuration_that_cannot_be_used_is_told_with_its_problems() -> None:
    with library("default_modle = 1"), pytest.raises(ConfigError, match="default_modle"):
        create_adapter("echo/echo")


@pytest.mark.parametrize("prompt", [5, None, b"x", {"role": "user", "content": "x"}, [5], "\ud800", [{"role": "user"}]])
def test_a_prompt_that_is_none_is_told_before_anything_is_sent(prompt: Any) -> None:
    with library(), pytest.raises(LLMError) as caught:
        create_adapter("echo/echo").execute_prompt(prompt)
    assert caught.value.kind == "invalid_params"


def test_what_is_given_in_the_wrong_place_is_told_where_it_is_given() -> None:
    wrong: Any = {"max_tokens": 1}
    with library():
        adapter = create_adapter("echo/echo")
        for use in (
            lambda: create_adapter("echo/echo", wrong),
            lambda: adapter.execute_prompt("x", wrong),
            lambda: adapter.execute_prompt("x", {}),
            lambda: asyncio.run(adapter.async_execute_prompt("x", wrong)),
        ):
            with pytest.raises(TypeError, match="config: expected a RunConfig, got dict"):
                use()
        with pytest.raises(TypeError, match="target: expected a string"):
            create_adapter(wrong)
        with pytest.raises(TypeError, match="handle: expected a string, got dict"):
            BudgetTracker.attach(wrong)


def test_without_a_key_the_environment_is_what_to_set() -> None:
    with library(), pytest.raises(LLMError, match="set a key in the environment") as caught:
        create_adapter().execute_prompt("x")
    assert "daemon" not in caught.value.message


# -- policies ----------------------------------------------------------------------------------------------------------

RULES: list[dict[str, Any]] = [
    {"match": {"trust": "none"}, "deny": "not with this trust"},
    {
        "task_type": "triage",
        "prefer": [{"provider": "openrouter", "model": "claude-haiku-4-5"}],
        "fallback": {"provider": "echo", "model": "echo"},
    },
]


def broken(upstream: Upstream) -> str:
    return f"""
        [providers.openrouter]
        base_url = "{upstream.url}"
        [[routing.rules]]
        task_type = "triage"
        prefer = [{{ provider = "openrouter", model = "another" }}]
        retry = 0
    """


@pytest.mark.anyio
async def test_a_resolved_adapter_goes_where_its_own_policy_says() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply({"error": {"message": "no"}}, 400)

    async with scripted(script) as upstream:
        with library(broken(upstream)):
            policy = RoutingPolicy(rules=RULES)
            adapter = policy.resolve(task_type="triage")
            configured = create_adapter(config=RunConfig(task_type="triage"))
            with pytest.raises(LLMError):
                await configured.async_execute_prompt("x")
            assert upstream.requests[-1].json()["model"] == "another"
            made = await adapter.async_execute_prompt("x")
            assert upstream.requests[-1].json()["model"] == "anthropic/claude-haiku-4.5"
            assert [attempt.provider for attempt in made.route.attempts] == ["openrouter", "echo"]
            assert (made.route.rule, made.text) == (1, "x")


def test_labels_of_a_resolved_adapter_are_what_rules_read() -> None:
    with library():
        adapter = RoutingPolicy(rules=RULES).resolve(task_type="triage", trust="none")
        with pytest.raises(LLMError, match="not with this trust") as caught:
            adapter.execute_prompt("x")
        assert caught.value.kind == "no_route"
        with pytest.raises(LLMError, match=r"labels.trust: the adapter is bound to 'none'"):
            adapter.execute_prompt("x", RunConfig(labels={"trust": "all"}))
        with pytest.raises(LLMError, match="task_type: the adapter is bound to 'triage'"):
            adapter.execute_prompt("x", RunConfig(task_type="summary"))


def test_a_configuration_is_read_again_with_each_adapter_and_policies_follow() -> None:
    with library('[providers.one]\ndialect = "echo"'):
        rules = [{"prefer": [{"provider": name, "model": "echo"} for name in ("one", "two")]}]
        with pytest.raises(ConfigError, match="there is no provider 'two'"):
            RoutingPolicy(rules)  # which knows those of the configuration
        adapter = RoutingPolicy(rules, providers={"one", "two"}).resolve()
        assert adapter.execute_prompt("x").provider == "one"
        with pytest.raises(LLMError):
            create_adapter("two/echo")
        configure('[providers.two]\ndialect = "echo"')
        assert create_adapter("two/echo").execute_prompt("x").provider == "two"
        assert adapter.execute_prompt("x").provider == "two"


def test_a_resolved_adapter_goes_by_the_configuration_that_is_there_when_it_is_made() -> None:
    with library('[providers.one]\ndialect = "echo"'):
        create_adapter("one/echo")
        configure('[providers.two]\ndialect = "echo"')
        adapter = RoutingPolicy([{"prefer": [{"provider": "two", "model": "echo"}]}]).resolve()
        assert adapter.execute_prompt("x").provider == "two"
        configure("default_modle = 1")
        with pytest.raises(ConfigError, match="default_modle"):
            RoutingPolicy([], providers=()).resolve()


def test_an_adapter_says_what_it_is() -> None:
    with library():
        told = [repr(create_adapter(*given)) for given in (("echo/echo",), (None, None, True))]
    assert told == ["<Adapter echo/echo>", "<Adapter as rules choose, daemon>"]
