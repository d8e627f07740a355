"""`llmd` itself: help that teaches, usage errors, and only what a command needs is loaded."""

import subprocess
import sys

import llmd as package
from tests.support.cli import llmd


def test_help_shows_the_first_call_and_the_exit_statuses() -> None:
    done = llmd("--help")
    assert done.status == 0
    assert "llmd call execute" in done.out
    assert "130 interrupted" in done.out
    for command in ("call", "serve", "reload", "config", "schema"):
        assert llmd(command, "--help").out.startswith(f"usage: llmd {command} ")


def test_the_first_call_of_the_help_works_as_it_stands() -> None:
    command = next(line.strip() for line in llmd("--help").out.splitlines() if "| llmd call execute" in line)
    payload = command.removeprefix("echo '").partition("'")[0]
    done = llmd("call", "execute", "--no-spawn", stdin=payload)
    assert done.status == 3  # a payload that parses, and nobody there


def test_no_command_shows_the_help_and_is_a_usage_error() -> None:
    done = llmd()
    assert (done.status, done.out) == (2, "")
    assert "llmd call execute" in done.err


def test_an_unknown_command_or_option_is_a_usage_error() -> None:
    assert llmd("fly").status == 2
    assert llmd("call", "ping", "--fast").status == 2
    assert llmd("call").status == 2


def test_the_version_is_the_packages() -> None:
    assert llmd("--version").out == f"llmd {package.__version__}\n"


def test_a_call_loads_no_other_command() -> None:
    code = "import sys; from llmd.cli import main; main(['call', 'ping', '--no-spawn']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "llmd.cli.call" in loaded
    assert {"llmd.cli.serve", "llmd.config", "msgspec", "anyio", "subprocess", "asyncio"}.isdisjoint(loaded)
