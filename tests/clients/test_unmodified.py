"""JSON-RPC clients that nobody here wrote, unmodified: they get answers, streams, errors and cancels as they expect.

LLMD_CLIENTS names a Python with web3, aiorpcx and python-lsp-jsonrpc, LLMD_NODE_MODULES a node_modules with
vscode-jsonrpc, ethers, jayson and viem.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import running_daemon
from tests.transports.test_tcp import free_port

pytestmark = pytest.mark.ci

HERE = Path(__file__).parent
CONFIG = """
[providers.held]
dialect = "echo"
latency_ms = 600000
"""
MANY = " ".join(f"p{number}" for number in range(20))

EXPECTED: dict[str, Any] = {
    "python/web3_ipc.py": [{}, {}, {}, "hello there", -32602],
    "python/aiorpcx_tcp.py": [True, {}, "in a batch", -32602],
    "python/pylsp.py": ["hello there", "hello there", [-32800, -32601], {}],
    "node/vscode.mjs": ["hello there", "hello there", -32800, MANY, -32601],
    "node/ethers.mjs": [{}, " ".join(f"p{number}" for number in range(10))],
    "node/jayson.mjs": ["hello there", ["pong", "in a batch"], -32601],
    "node/viem.mjs": [{}, "hello there", -32601],
}
OVER_TCP = {"python/aiorpcx_tcp.py", "node/jayson.mjs"}


def interpreter(script: str) -> list[str]:
    if script.startswith("node/"):
        package = script.removeprefix("node/").removesuffix(".mjs").replace("vscode", "vscode-jsonrpc")
        modules = os.environ.get("LLMD_NODE_MODULES")
        if not modules or not (Path(modules) / package).exists():
            pytest.skip(f"LLMD_NODE_MODULES does not name a node_modules with {package}; .ci/run installs it")
        return ["node"]
    if not (python := os.environ.get("LLMD_CLIENTS")):
        pytest.skip("LLMD_CLIENTS does not name a Python with the clients; .ci/run installs them")
    return [python]


@pytest.mark.parametrize("script", EXPECTED)
def test_an_unmodified_client_is_answered_as_it_expects(script: str, tmp_path: Path) -> None:
    command = interpreter(script)
    port = free_port()
    with running_daemon(tmp_path, "--listen", f"tcp://127.0.0.1:{port}", config=CONFIG) as daemon:
        where = str(port) if script in OVER_TCP else str(daemon.socket)
        done = subprocess.run(
            [*command, str(HERE / script), where], capture_output=True, text=True, timeout=50, check=False
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1]) == EXPECTED[script]
        with daemon.wire() as wire:
            assert wire.call("ping")["result"] == {}
