"""Budgets of a real daemon, as the tests of the command line open, spend and watch them."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llmd.client import Wire
from tests.support.cli import llmd
from tests.support.daemon import RunningDaemon

CONFIG = """
[providers.slow]
dialect = "echo"
latency_ms = 30000

[ledger]
store = "memory"
"""


def opened(*arguments: str) -> str:
    """The handle of a budget of 4,000 tokens, or of what the arguments say."""
    done = llmd("budget", "open", *(arguments or ("--total", "4000")))
    assert (done.status, done.err) == (0, "")
    return done.out.strip()


def ask(daemon: RunningDaemon, method: str, **params: Any) -> dict[str, Any]:
    with daemon.wire() as wire:
        result: dict[str, Any] = wire.call(method, json.dumps(params))["result"]
        return result


def charge(daemon: RunningDaemon, handle: str, tokens: int) -> dict[str, Any]:
    return ask(daemon, "budget.charge", budget=handle, amounts={"total_tokens": tokens})


def spend_slowly(daemon: RunningDaemon, handle: str) -> Wire:
    """A connection with a call in flight that takes half a minute, and its hold in this budget."""
    wire = daemon.wire()
    params = {"model": "slow/x", "prompt": "x", "budget": handle, "max_tokens": 10}
    wire.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "execute", "params": params}))
    while not ask(daemon, "budget.get", budget=handle)["held"]["requests"]:
        pass
    return wire


@contextmanager
def started(*arguments: str, out: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "llmd", "budget", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has its children ignore interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
