"""What a type checker makes of a program that uses llmd: mypy, strict, finds what is wrong in it, and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio
from collections.abc import Sequence

import llmd
from llmd import (
    Adapter, AsyncClient, BudgetTracker, Client, Completion, LLMBudgetExceededError, LLMError, RoutingPolicy, RunConfig,
    Snapshot, create_adapter,
)

tracker: BudgetTracker = BudgetTracker(total=4000)
config: RunConfig = RunConfig(model_name="echo/echo", stop=["x"], labels={"a": "b"}, budget_tracker=tracker)
shorter: RunConfig = config.replace(max_tokens=5)
adapter: Adapter = create_adapter("echo/echo", config=None, daemon=False)
policy = RoutingPolicy(rules=[{"task_type": "triage", "prefer": [{"provider": "echo", "model": "echo"}]}])
chosen: Adapter = policy.resolve(task_type="triage", trust="review")
version: str = llmd.__version__


async def gather(adapters: Sequence[Adapter]) -> list[Completion]:
    return await asyncio.gather(*[a.async_execute_prompt("x", config) for a in adapters])


def call() -> tuple[str, int, int | None]:
    try:
        made = adapter.execute_prompt("x", config)
    except LLMBudgetExceededError as error:
        raise RuntimeError(error.kind, error.retryable, error.data) from error
    return made.text, made.usage.total_tokens, None if made.cost is None else made.cost.nano_usd


def talk() -> Completion:
    with Client() as client, client.budget(total=4000) as budget:
        snapshot: Snapshot = budget.snapshot()
        with client.stream(prompt="x", budget=budget.handle, max_tokens=5) as stream:
            for delta in stream:
                print(delta.text, snapshot.available["total_tokens"])
        return stream.completion()


async def talk_at_once() -> Completion:
    async with AsyncClient(reconnect=True) as client, client.stream(prompt="x") as stream:
        async for delta in stream:
            print(delta.text)
        return await stream.completion()


def wrong(error: LLMError) -> None:
    RunConfig(max_tokens="5")  # wrong
    Client().execute(promt="x")  # wrong
    adapter.execute_prompt(5)  # wrong
    number: int = error.kind  # wrong
    BudgetTracker("4000")  # wrong
"""


def test_a_users_program_is_checked_and_what_is_wrong_is_found(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context"]
    cache = ["--cache-dir", str(tmp_path / "cache"), "--config-file", "", str(file)]
    env = {**os.environ, "MYPYPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([*command, *cache], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    found = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    wrong = {number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# wrong")}
    assert found == wrong, done.stdout + done.stderr
