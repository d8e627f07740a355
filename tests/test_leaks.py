"""Clients that are killed in the middle of their calls, again and again, leave nothing behind in the daemon.

A thousand calls after five hundred by default, 20,000 after 5,000 where CI is set, 100,000 with
--hypothesis-profile=deep.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import settings

from tests.support.budgeting import Caller
from tests.support.daemon import RunningDaemon, running_daemon

PROFILES = {"mutants": (500, 1_000), "quick": (500, 1_000), "ci": (5_000, 20_000), "deep": (5_000, 100_000)}
WARM_UP, CALLS = PROFILES[settings.get_current_profile_name()]
A_CLIENT = 100  # calls of one, half of them in flight when it is killed
GROWTH_BYTES = 2 * 2**20

CONFIG = """
[providers.held]
dialect = "echo"
latency_ms = 600000
[ledger]
store = "memory"
"""

CLIENT = """
import json, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
calls = []
for number in range(int(sys.argv[2])):
    params = {"model": ("echo/echo", "held/m")[number % 2], "prompt": "p" * 500, "stream": f"s{number}"}
    calls.append({"jsonrpc": "2.0", "id": number, "method": "execute", "params": params})
calls[-1]["params"]["budget"] = sys.argv[3]
last = {"jsonrpc": "2.0", "id": "last", "method": "budget.charge"}
last["params"] = {"budget": sys.argv[3], "amounts": {"total_tokens": 1}}
answers = b""
for messages, answered in ((calls, len(calls) // 2), ([last], len(calls) // 2 + 1)):
    connection.sendall("".join(json.dumps(message) + "\\n" for message in messages).encode())
    while answers.count(b'"result"') < answered:
        answers += connection.recv(1 << 20)
# A charge that is written is written behind the hold of the call before it, whose bytes have left since.
print("ready", flush=True)
connection.recv(1)
"""


def kill_clients(daemon: RunningDaemon, budget: str, calls: int) -> None:
    """So many calls, of clients that are killed when half of theirs are answered."""
    for _ in range(calls // A_CLIENT):
        command = [sys.executable, "-S", "-c", CLIENT, str(daemon.socket), str(A_CLIENT), budget]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == b"ready\n"
            client.kill()


def settle_down(caller: Caller, daemon: RunningDaemon, budget: str, descriptors: int | None) -> None:
    """When the last of the killed clients is noticed: nothing is held, no descriptor is open."""
    while caller("budget.get", budget=budget)["held"]["requests"] or (
        descriptors is not None and daemon.descriptors() > descriptors
    ):
        pass


@pytest.mark.deadline(300)
def test_clients_that_are_killed_in_mid_call_leave_nothing_behind(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=CONFIG) as daemon, daemon.wire() as wire:
        caller = Caller(wire)
        budget = caller.open(limits={"requests": 2**40})["budget"]
        caller("models.list")  # answered when what it loads by itself is there
        before = daemon.descriptors()
        kill_clients(daemon, budget, WARM_UP)
        settle_down(caller, daemon, budget, before)
        threads = len(os.listdir(f"/proc/{daemon.process.pid}/task"))
        warm = daemon.rss_bytes()
        kill_clients(daemon, budget, CALLS)
        settle_down(caller, daemon, budget, before)
        assert daemon.rss_bytes() - warm < GROWTH_BYTES
        assert len(os.listdir(f"/proc/{daemon.process.pid}/task")) <= threads
        told = caller("budget.get", budget=budget)
        assert told["settled"]["requests"] == (WARM_UP + CALLS) // A_CLIENT
        wire.send(json.dumps({"jsonrpc": "2.0", "id": 9, "method": "ping"}))
        assert wire.receive()["id"] == 9
        # A call that nobody cancelled would hold up the stop.
        began = perf_counter()
        assert daemon.stop() == 0
        assert perf_counter() - began < 5
