"""The README's Python runs word for word, with a real llama.cpp behind it and with fakes that answer together."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from tests.support.daemon import running_daemon
from tests.support.engine import Engine
from tests.support.upstream import Exchange, scripted
from tests.test_readme import blocks

CONFIG = """
[providers.openrouter]
base_url = "{url}"
api_key = {{ env = "OPENROUTER_API_KEY" }}

[providers.gemini]
dialect = "openai"
base_url = "{url}"
api_key = {{ env = "GEMINI_API_KEY" }}
"""
"""Both of the README's providers, at one place."""

GATHER = r"openrouter: '.+', {tokens} tokens\ngemini: '.+', {tokens} tokens\n"
POLICY = r"Route\(rule=0, attempts=\[Attempt\(provider='openrouter', model='\S+', outcome='ok', ms=\d+\)\]\)\n"
BUDGET = r"budget_exceeded: 1000 left\n1 call, True\n"
CLIENT = r"one two three \(6 tokens, 3994 left\)\nno_route False\n"
TASKS = r"\['one', 'two'\]\nthree four \(4 tokens\)\n"

PROGRAMS = dict(zip(("gather", "policy", "budget", "client", "tasks"), blocks("python"), strict=True))
PRINTED = {"gather": GATHER, "policy": POLICY, "budget": BUDGET, "client": CLIENT, "tasks": TASKS}


def program(name: str, directory: Path, url: str) -> Callable[[], "subprocess.CompletedProcess[str]"]:
    """Runs it as a user does, in a file of its own, with keys in its environment."""
    config, file = directory / "config.toml", directory / f"{name}.py"
    config.write_text(CONFIG.format(url=url))
    config.chmod(0o600)
    file.write_text(PROGRAMS[name])
    keys = {"OPENROUTER_API_KEY": "k1", "GEMINI_API_KEY": "k2", "LLMD_CONFIG": str(config), "PYTHONWARNINGS": "error"}
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **keys}

    def run() -> "subprocess.CompletedProcess[str]":
        line = [sys.executable, str(file)]
        return subprocess.run(line, env=env, cwd=directory, capture_output=True, text=True, timeout=40, check=False)

    return run


def check(name: str, done: "subprocess.CompletedProcess[str]", tokens: int = 20) -> None:
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(PRINTED[name].replace("{tokens}", str(tokens)), done.stdout), done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_does_what_it_says_with_a_real_llama_cpp(engine: Engine, tmp_path: Path, name: str) -> None:
    run = program(name, tmp_path, engine.url)
    with running_daemon(tmp_path):
        check(name, run())


@pytest.mark.anyio
@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_program_does_what_it_says_with_fakes(tmp_path: Path, name: str) -> None:
    together = anyio.Event()

    async def script(exchange: Exchange) -> None:
        if upstream.in_flight == 2 or name != "gather":
            together.set()
        await together.wait()
        await exchange.reply()

    async with scripted(script) as upstream:
        with running_daemon(tmp_path):
            check(name, await anyio.to_thread.run_sync(program(name, tmp_path, upstream.url)), tokens=2)
    assert upstream.peak == {"gather": 2, "client": 0, "tasks": 0}.get(name, 1)
