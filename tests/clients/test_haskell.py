"""Haskell programs call the daemon with LLMD.hs: compiled without a warning, in front of a real llama.cpp and a server
that a test scripts."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest

from llmd import paths
from llmd.errors import KINDS
from tests.support.daemon import running_daemon
from tests.support.engine import CONTEXT_TOKENS, MODEL_NAME, Engine
from tests.support.haskell import SOURCES, THREADED, Build, both, prompt, running, saying
from tests.support.upstream import OK, Exchange
from tests.test_readme import blocks

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

TASKS = {
    "planner": "Plan a story about a cat.",
    "writer": "Tell a story about a cat.",
    "critic": "What is wrong with a story about a cat?",
}
SHORTAGE = {"kind": "budget_exceeded", "requested": 20, "available": 10, "max_tokens": 10}


# -- the program of a web application ----------------------------------------------------------------------------------


def told(printed: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the agents report, by name, and how their budget stands."""
    *agents, budget = [json.loads(line) for line in printed.splitlines()]
    return {agent.pop("agent"): agent for agent in agents}, budget


def check_agents(agents: dict[str, Any], budget: dict[str, Any]) -> None:
    assert {name: (len(agent["answers"]), agent["stopped"]) for name, agent in agents.items()} == {
        "planner": (3, None),
        "writer": (3, None),
        "critic": (2, SHORTAGE),
    }
    assert budget == {"requests": 8, "output_tokens": 160}


def test_three_agents_work_under_one_budget_on_a_real_engine_and_one_of_them_runs_out(
    build: Build, engine: Engine, tmp_path: Path
) -> None:
    config = f"""
        [providers.local]
        base_url = "{engine.url}"
        overhead_tokens = 64
        [providers.local.models.{MODEL_NAME}]
        context_tokens = {CONTEXT_TOKENS}
    """
    program = build("Agents")
    with running_daemon(tmp_path, config=config) as daemon:
        done = subprocess.run([program, f"local/{MODEL_NAME}"], capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
        agents, budget = told(done.stdout)
        check_agents(agents, budget)
        for name, task in TASKS.items():
            turns = [{"role": "user", "content": task}]
            own = engine.chat(model=MODEL_NAME, messages=turns, max_tokens=20, temperature=0)
            assert agents[name]["answers"][0] == own["choices"][0]["message"]["content"] != ""
        assert daemon.stop() == 0


async def test_the_agents_are_at_work_at_once(build: Build, tmp_path: Path) -> None:
    async def script(exchange: Exchange) -> None:
        await upstream.until(lambda up: up.peak == 3)
        await exchange.reply(saying("so", 20))

    program = build("Agents")
    async with both(script, tmp_path) as (upstream, _):
        done = await anyio.run_process([str(program), "up/m1"])
    check_agents(*told(done.stdout.decode()))
    assert upstream.peak == 3


# -- one client, many threads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threads", "connections", "words"), [(250, 1, 1), (400, 4, 1), (8, 1, 50_000)])
async def test_as_many_calls_are_in_flight_as_threads_make_and_each_gets_its_own_answer(
    build: Build, tmp_path: Path, threads: int, connections: int, words: int
) -> None:
    async def script(exchange: Exchange) -> None:
        await upstream.until(lambda up: up.peak == threads)
        await exchange.reply(saying(" ".join([prompt(exchange)] * words)))

    program = build("Checks", THREADED)
    many = (program, "many", str(threads), str(connections), str(words))
    async with both(script, tmp_path) as (upstream, _), running(*many) as haskell:
        assert await haskell.line() == "True"
    assert (upstream.peak, len(upstream.requests)) == (threads, threads)


async def test_a_group_of_calls_is_made_at_once_and_one_that_fails_fails_no_other(build: Build, tmp_path: Path) -> None:
    async def script(exchange: Exchange) -> None:
        await upstream.until(lambda up: up.peak == 4)
        await exchange.reply(saying(prompt(exchange)))

    program = build("Checks", THREADED)
    async with both(script, tmp_path) as (upstream, _), running(program, "together", "6") as haskell:
        assert [await haskell.line() for _ in range(6)] == ["1", "2", "NoRoute", "4", "5", "NoRoute"]


# -- streams -----------------------------------------------------------------------------------------------------------


async def test_callbacks_of_streams_at_once_get_each_piece_in_order_and_before_the_answer(
    build: Build, tmp_path: Path
) -> None:
    streams, pieces = 3, 5
    spoken = [0] * pieces
    by_all = [anyio.Event() for _ in range(pieces)]

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for piece in range(pieces):
            await exchange.event({"choices": [{"delta": {"content": f"{prompt(exchange)}.{piece} "}}]})
            spoken[piece] += 1
            if spoken[piece] == streams:
                by_all[piece].set()
            await by_all[piece].wait()  # no stream is ahead of another, so that their pieces come in turns
        await exchange.event({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": OK["usage"]})
        await exchange.end_stream()

    program = build("Checks", THREADED)
    async with both(script, tmp_path) as (upstream, _), running(program, "streams", str(streams)) as haskell:
        for stream in range(1, streams + 1):
            report = json.loads(await haskell.line())
            assert report["seqs"] == list(range(len(report["seqs"])))
            assert "".join(report["texts"]) == report["text"] == "".join(f"{stream}.{n} " for n in range(pieces))
    assert upstream.peak == streams


# -- errors ------------------------------------------------------------------------------------------------------------


async def test_an_error_is_its_kind_whether_to_retry_and_what_else_is_told(build: Build, tmp_path: Path) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply({"error": {"message": "slow down"}}, 400)

    program = build("Checks", THREADED)
    async with both(script, tmp_path), running(program, "errors") as haskell:
        errors = [json.loads(await haskell.line()) for _ in range(6)]
    assert [(error["kind"], error["retryable"], error["code"]) for error in errors] == [
        ("BudgetExceeded", False, 1100),
        ("NoRoute", False, 1010),
        ("InvalidParams", False, -32602),
        ("UpstreamInvalid", False, 1006),
        ("TooLarge", False, -32003),
        ("MethodNotFound", False, -32601),
    ]
    assert errors[0]["data"]["limiting"]["unit"] == "total_tokens"
    assert errors[3]["data"]["http_status"] == 400


def test_every_kind_of_error_has_its_constructor() -> None:
    source = (SOURCES / "LLMD.hs").read_text()
    written = source.partition("data Kind\n")[2].partition("deriving")[0]
    assert re.findall(r"^  [=|] ([A-Z]\w+)$", written, re.M) == [name.title().replace("_", "") for name in KINDS]


# -- where the daemon is -----------------------------------------------------------------------------------------------

PLACES = {
    "named": {"LLMD_SOCKET": "/nowhere/named.sock", "XDG_RUNTIME_DIR": "/nowhere/run"},
    "runtime": {"XDG_RUNTIME_DIR": "/nowhere/run", "HOME": "/nowhere"},
    "usual runtime": {"LLMD_SOCKET": "", "XDG_RUNTIME_DIR": "relative", "HOME": "/nowhere"},
    "state": {"XDG_STATE_HOME": "/nowhere/state", "HOME": "/nowhere"},
    "home": {"XDG_STATE_HOME": "relative", "HOME": "/nowhere"},
    "too long": {"XDG_RUNTIME_DIR": "/nowhere" + "/longer" * 20},
}


@pytest.mark.parametrize("env", PLACES.values(), ids=PLACES.keys())
def test_it_looks_for_the_daemon_where_every_client_does(build: Build, env: dict[str, str]) -> None:
    looked = subprocess.run([build("Checks", THREADED), "where"], env=env, capture_output=True, text=True, timeout=30)
    assert json.loads(looked.stdout) == [str(path) for path in paths.client_sockets(env)]


# -- what is told of it ------------------------------------------------------------------------------------------------


def test_everything_that_the_module_exports_is_documented(build: Build, tmp_path: Path) -> None:
    done = subprocess.run(["haddock", str(SOURCES / "LLMD.hs")], cwd=tmp_path, capture_output=True, text=True)
    assert re.search(r"^ *100% .* in 'LLMD'$", done.stdout, re.M), done.stdout + done.stderr


def test_the_example_in_the_readme_compiles_and_runs_wherever_the_socket_is(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (text,) = blocks("haskell")
    runtime = tmp_path / "wo Käse läuft"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    program = build("Readme", THREADED, text=text)
    with running_daemon(tmp_path):
        done = subprocess.run([program], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("hello\n", "")
