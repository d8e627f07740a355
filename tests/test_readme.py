"""The README's examples do what it says: every console session is run and compared, every configuration is loaded."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llmd import config
from llmd.errors import KINDS
from llmd.rpc import METHODS
from tests.support.daemon import running_daemon
from tests.support.engine import MODEL_NAME, Engine
from tests.transports.test_tcp import free_port

README = (Path(__file__).parent.parent / "README.md").read_text()
PORTS = {"tcp": "9998", "http": "9999"}
TOOLS = ("nc", "socat", "curl")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.S | re.M)


def sessions() -> list[tuple[str, str]]:
    """Each command of the console blocks with what it prints."""
    entries = [entry for block in blocks("console") for entry in re.split(r"^\$ ", block, flags=re.M)[1:]]
    return [(command, output) for command, _, output in (entry.partition("\n") for entry in entries)]


SESSIONS = sessions()


def run(command: str, ports: Mapping[str, int], directory: Path) -> str:
    """What a shell prints for this command, its exit status last unless it is 0."""
    shims = directory / "bin"
    shims.mkdir()
    for name, program in (("llmd", f"{sys.executable} -m llmd"), ("python", sys.executable)):
        (shims / name).write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        (shims / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{shims}:{os.environ['PATH']}"}
    for scheme, port in ports.items():
        command = command.replace(PORTS[scheme], str(port))
    shell = ["bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(shell, env=env, capture_output=True, text=True, timeout=30, check=False)
    status = f"[exit status {done.returncode}]\n" if done.returncode else ""
    printed = done.stdout + done.stderr
    return printed + ("" if printed.endswith("\n") else "\n") + status


def test_there_are_examples() -> None:
    assert len(SESSIONS) >= 10


@pytest.mark.parametrize(("command", "expected"), SESSIONS, ids=[command for command, _ in SESSIONS])
def test_a_console_session_prints_what_the_readme_says(tmp_path: Path, command: str, expected: str) -> None:
    for tool in TOOLS:
        if re.search(rf"(^|\| ){tool} ", command) and shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed here; .ci/run installs it")
    ports = {scheme: free_port() for scheme in PORTS}
    listen = [word for scheme, port in ports.items() for word in ("--listen", f"{scheme}://127.0.0.1:{port}")]
    with running_daemon(tmp_path, *listen):
        printed = run(command, ports, tmp_path)
    pattern = re.escape(expected.replace("<BLANKLINE>\n", "\n")).replace(re.escape("..."), ".*?")
    assert re.fullmatch(pattern, printed.replace("\r\n", "\n")), printed


def test_the_first_command_runs_a_payload_through_a_daemon(tmp_path: Path) -> None:
    command = blocks("sh")[0].strip()
    install, _, call = command.partition(" && ")
    assert install == "pip install ."
    with running_daemon(tmp_path):
        assert run(call, {}, tmp_path).startswith('{"text": "hello", "finish_reason": "stop"')


def served(directory: Path, monkeypatch: pytest.MonkeyPatch, settings: str) -> dict[str, Any]:
    """What the README's server answers to the README's payload, with this configuration."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed here; .ci/run installs it")
    (block,) = (block for block in blocks("sh") if "llmd.server" in block)
    assert "python -m llmd.server --port 9999 &\n" in block
    assert " localhost:9999/execute " in block
    config = directory / "config.toml"
    config.write_text(settings)
    config.chmod(0o600)
    monkeypatch.setenv("LLMD_CONFIG", str(config))
    printed = run(f"trap 'kill $!' EXIT\n{block}", {"http": free_port()}, directory)
    answer: dict[str, Any] = json.JSONDecoder().raw_decode(printed)[0]  # the server's log follows
    return answer


def test_the_server_answers_the_payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served(tmp_path, monkeypatch, 'default_model = "echo/echo"')["text"] == "Why is the sky blue?"


def test_the_server_answers_with_what_a_real_llama_cpp_says(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = f'[providers.work]\nbase_url = "{engine.url}"\n'
    settings += f'[[routing.rules]]\nprefer = [{{ provider = "work", model = "{MODEL_NAME}" }}]\nmax_tokens = 50\n'
    answer = served(tmp_path, monkeypatch, settings)
    assert answer["text"]
    assert answer["usage"]["output_tokens"] == 50


@pytest.mark.parametrize("text", blocks("toml"))
def test_a_configuration_in_the_readme_is_good(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    file.chmod(0o600)
    config.load(os.environ, file)


def test_the_limits_are_told_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(next(text for text in blocks("toml") if "[limits]" in text))
    file.chmod(0o600)
    assert config.load(os.environ, file).settings.limits == config.Settings().limits


def test_every_method_and_every_kind_of_error_that_can_be_met_is_told() -> None:
    for method in METHODS:
        assert re.search(rf"^\| [^|]*`{re.escape(method)}`", README, re.M), method
    for kind in KINDS:
        assert re.search(rf"^\| [^|]* \| [^|]*`{kind}`", README, re.M), kind
