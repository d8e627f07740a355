"""`python -m llmd.server --port 9999`: the wish as it was written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from llmd import paths, server
from llmd.client import Wire
from tests.transports.test_tcp import free_port

PAYLOAD = {"model": "echo/echo", "prompt": "hello"}


def test_a_port_serves_the_payload_of_the_command_line_and_the_socket_too(tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "config.toml"
    config.write_text(f'[listen]\nhttp = "http://127.0.0.1:{port}"\n')  # saying it twice does no harm
    ready, report = os.pipe()
    command = [sys.executable, "-m", "llmd.server", "--port", str(port), "--config", str(config)]
    command += ["--ready-fd", str(report)]
    process = subprocess.Popen(command, pass_fds=[report], stderr=subprocess.DEVNULL)
    try:
        os.close(report)
        assert os.read(ready, 1)
        over_http = httpx.post(f"http://localhost:{port}/execute", json=PAYLOAD, timeout=20, trust_env=False)
        assert (over_http.status_code, over_http.json()["text"]) == (200, "hello")
        with Wire([paths.default_socket(os.environ)], 20) as wire:
            assert wire.call("execute", json.dumps(PAYLOAD))["result"]["text"] == "hello"
        process.terminate()
        assert process.wait(20) == 0
    finally:
        os.close(ready)
        process.kill()
        process.wait()


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_is_none_is_told_in_one_line(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert server.main([f"--port={port}"]) == 1
    assert capsys.readouterr().err.startswith(f"llmd: configuration: 'http://127.0.0.1:{port}' is no address")
