"""Runs the command line as a user does: a process of its own, its input piped in."""

import subprocess
import sys
from dataclasses import dataclass


@dataclass
class Done:
    status: int
    out: str
    err: str


def llmd(*arguments: str, stdin: str | bytes = b"", timeout_s: float = 30) -> Done:
    """`llmd ARGUMENTS` with this standard input, to its end."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    command = [sys.executable, "-m", "llmd", *arguments]
    done = subprocess.run(command, input=data, capture_output=True, timeout=timeout_s, check=False)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())
