"""The library in a test's own process: its configuration, and an engine that is ended behind the test."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from llmd import engine, paths

M1 = """
[providers.work]
base_url = "{url}"
overhead_tokens = 64
[providers.work.models.m1]
price = {{ input = 1.0, output = 2.0 }}
context_tokens = 4096
"""
"""A provider `work` at `url` with one model, m1."""


@contextmanager
def library(config: str | None = None) -> Iterator[None]:
    """With this configuration file, the library of this process begins and ends inside the block."""
    if config is not None:
        configure(config)
    engine.close()
    try:
        yield
    finally:
        engine.close()


def run_alone(code: str) -> str:
    """What an interpreter of its own prints; it ends by itself, and complains of nothing."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def configure(config: str) -> None:
    """Write the configuration file that the library and a daemon of this test read."""
    file = paths.config_file(os.environ)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(config)
    file.chmod(0o600)
