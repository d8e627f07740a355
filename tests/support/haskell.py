"""Haskell programs for a test: compiled with Debian's GHC and its libraries, run beside the test, a line at a time.

They find a daemon before a server that the test scripts: its provider `up`, with the model `m1`.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.support.daemon import RunningDaemon, running_daemon
from tests.support.upstream import OK, Exchange, Script, Upstream, scripted

SOURCES = Path(__file__).parent.parent / "clients" / "haskell"
PACKAGES = ("aeson", "network")
THREADED = "-threaded"
LINE_BYTES = 1 << 20

Build = Callable[..., Path]


def _need_ghc() -> None:
    found = shutil.which("ghc") and shutil.which("ghc-pkg")
    if found and all(
        subprocess.run(["ghc-pkg", "latest", name], capture_output=True).returncode == 0 for name in PACKAGES
    ):
        return
    lacking = "there is no ghc with aeson and network here; .ci/run installs them"
    if "CI" in os.environ:
        pytest.fail(lacking)
    pytest.skip(lacking)


def compiler(base: Path) -> Build:
    """Compiles a program of SOURCES, or one of this text, without a warning; one worker does it for all.

    `base` is where the session's temporary files are. Skips where there is no compiler.
    """
    _need_ghc()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "haskell"
    root.mkdir(exist_ok=True)

    def compiled(name: str, *flags: str, text: str | None = None) -> Path:
        directory = root / name
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (directory / name).exists():
                directory.mkdir(exist_ok=True)
                source = SOURCES / f"{name}.hs"
                if text is not None:
                    source = directory / "Main.hs"
                    source.write_text(text)
                ghc = ["ghc", "-O0", "-Wall", "-Werror", *flags, f"-i{SOURCES}", "-outputdir", str(directory)]
                done = subprocess.run([*ghc, "-o", str(directory / name), str(source)], capture_output=True, text=True)
                assert done.returncode == 0, done.stderr
        return directory / name

    return compiled


class Program:
    """A program that runs."""

    def __init__(self, process: anyio.abc.Process) -> None:
        assert process.stdin
        assert process.stdout
        self._stdin = process.stdin
        self._lines = BufferedByteReceiveStream(process.stdout)
        self.process = process

    async def line(self) -> str:
        """The next one that it prints."""
        return (await self._lines.receive_until(b"\n", LINE_BYTES)).decode()

    async def go_on(self) -> None:
        """It has waited for a line."""
        await self._stdin.send(b"\n")


@asynccontextmanager
async def running(*command: str | Path) -> AsyncIterator[Program]:
    """A program, which has to end by itself with status 0, and is killed if the test fails."""
    process = await anyio.open_process([str(word) for word in command], stderr=None)
    try:
        yield Program(process)
        assert await process.wait() == 0
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.aclose()


def prompt(exchange: Exchange) -> str:
    """What the last turn of the request says."""
    text: str = exchange.request.json()["messages"][-1]["content"]
    return text


def saying(text: str, tokens: int = 2) -> dict[str, Any]:
    """A chat completion of this text, and of so many tokens."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens}
    return {**OK, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}


@contextmanager
def daemon_before(url: str, directory: Path) -> Iterator[RunningDaemon]:
    config = f"""
        [ledger]
        store = "memory"
        [providers.up]
        base_url = "{url}"
        overhead_tokens = 64
        [providers.up.models.m1]
        price = {{ input = 1.0, output = 2.0 }}
        context_tokens = 100000000
    """
    with running_daemon(directory, config=config) as daemon:
        yield daemon


@asynccontextmanager
async def both(script: Script, directory: Path) -> AsyncIterator[tuple[Upstream, RunningDaemon]]:
    """A scripted server, and a daemon before it whose provider `up` it is."""
    async with scripted(script) as upstream:
        with daemon_before(upstream.url, directory) as daemon:
            yield upstream, daemon
