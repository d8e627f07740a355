"""Two simulators of providers that nobody here wrote answer in every dialect they know, and break in the ways they can.

LLMD_NODE_MODULES names a node_modules with @copilotkit/aimock, LLMD_LLMOCK the command of the llmock package.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from llmd import providers
from llmd.core.outcomes import Answer, Failure, Outcome
from llmd.settings import KeySettings
from tests.support.calls import caller
from tests.transports.test_tcp import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

SAID = "Simulated answers are long enough to come in several pieces, as this one does."
START_S = 30.0


@contextmanager
def running(command: list[str], url: str, path: str) -> Iterator[str]:
    """The address of a server, once it answers; it is killed behind the tests."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        with anyio.from_thread.start_blocking_portal() as portal:
            portal.call(_answering, url + path, process)
        yield url
    finally:
        process.kill()
        process.wait()


async def _answering(url: str, process: "subprocess.Popen[bytes]") -> None:
    with anyio.fail_after(START_S):
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                try:
                    await client.get(url)
                except httpx.TransportError:
                    assert process.poll() is None, "the simulator has ended"
                    with anyio.move_on_after(0.05):
                        await anyio.sleep_forever()
                else:
                    return


@pytest.fixture(scope="session")
def aimock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    modules = os.environ.get("LLMD_NODE_MODULES", "")
    script = Path(modules) / ".bin" / "llmock"
    if not modules or not script.exists():
        pytest.skip("LLMD_NODE_MODULES does not name a node_modules with @copilotkit/aimock; .ci/run installs it")
    fixtures = tmp_path_factory.mktemp("fixtures")
    rule = {"match": {"userMessage": "hello"}, "response": {"content": SAID}}
    (fixtures / "hello.json").write_text(json.dumps({"fixtures": [rule]}))
    port = free_port()
    with running(["node", str(script), "-p", str(port), "-f", str(fixtures)], f"http://127.0.0.1:{port}", "/") as url:
        yield url


@pytest.fixture(scope="session")
def llmock() -> Iterator[str]:
    command = os.environ.get("LLMD_LLMOCK")
    if not command:
        pytest.skip("LLMD_LLMOCK does not name the command of llmock; .ci/run installs it")
    port = free_port()
    serve = [command, "serve", "--port", str(port), "--response-style", "echo"]
    with running(serve, f"http://127.0.0.1:{port}", "/health") as url:
        yield url


PATHS = {
    "aimock": {"openai": "/v1", "openai-responses": "/v1", "anthropic": "/v1", "gemini": "/v1beta", "ollama": ""},
    "llmock": {
        "openai": "/v1",
        "openai-responses": "/v1",
        "anthropic": "/anthropic/v1",
        "gemini": "/gemini/v1beta",
    },
}


async def outcome(url: str, simulator: str, dialect: str, stream: bool, **headers: str) -> tuple[Outcome, str]:
    """What becomes of one call, and the text of its deltas."""
    key = KeySettings(env="KEY")
    base_url = url + PATHS[simulator][dialect]
    async with caller(base_url, key, {"KEY": "k"}, dialect=dialect, headers=headers) as made:
        return await made.send(stream), made.text


def dialects(simulator: str) -> Any:
    return pytest.mark.parametrize("dialect", PATHS[simulator])


STREAM = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@STREAM
@dialects("aimock")
async def test_aimock_answers(aimock: str, dialect: str, stream: bool) -> None:
    answer, told = await outcome(aimock, "aimock", dialect, stream)
    assert isinstance(answer, Answer), answer
    assert (answer.text, answer.finish_reason) == (SAID, "stop")
    assert told == (SAID if stream else "")


@STREAM
@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        ("drop", {"upstream_unavailable"}),
        ("malformed", {"upstream_invalid"}),
        ("disconnect", {"upstream_unavailable"}),
        ("ratelimit", {"upstream_rate_limited"}),
    ],
)
@dialects("aimock")
async def test_aimocks_faults_are_failures(
    aimock: str, dialect: str, fault: str, kinds: set[str], stream: bool
) -> None:
    failed, told = await outcome(aimock, "aimock", dialect, stream, **{f"x-aimock-chaos-{fault}": "1"})
    assert isinstance(failed, Failure), failed
    assert (failed.kind in kinds, told) == (True, ""), failed


@STREAM
@dialects("llmock")
async def test_llmock_answers_with_its_usage(llmock: str, dialect: str, stream: bool) -> None:
    answer, told = await outcome(llmock, "llmock", dialect, stream)
    assert isinstance(answer, Answer), answer
    assert "hello" in answer.text
    assert told == (answer.text if stream else "")
    assert answer.usage is not None
    assert answer.usage.input_tokens > 0 < answer.usage.output_tokens


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, "upstream_auth"), (404, "model_not_found"), (429, "upstream_rate_limited"), (503, "upstream_unavailable")],
)
@dialects("llmock")
async def test_llmocks_errors_are_failures(llmock: str, dialect: str, status: int, kind: str) -> None:
    failed, _ = await outcome(llmock, "llmock", dialect, False, **{"x-llmock-force-status": str(status)})
    assert isinstance(failed, Failure), failed
    assert (failed.kind, failed.http_status) == (kind, status)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("truncate", "upstream_invalid"),
        ("disconnect", "upstream_invalid"),
        ("malformed", "upstream_invalid"),
        ("stall", "upstream_unavailable"),
    ],
)
@dialects("llmock")
async def test_a_stream_that_llmock_breaks_is_never_a_short_success(
    llmock: str, dialect: str, fault: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "IDLE_TIMEOUT_S", 0.3)
    broken = {"type": "stream_fault", "kind": fault, "after_chunks": 2, "stall_seconds": 2.0}
    async with httpx.AsyncClient(trust_env=False) as client:
        queued = await client.post(f"{llmock}/_llmock/scenario", json={"behaviors": [broken]})
    assert queued.status_code == 201, queued.text
    failed, _ = await outcome(llmock, "llmock", dialect, True)
    assert isinstance(failed, Failure), failed
    assert failed.kind == kind
