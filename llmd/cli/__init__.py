"""The command line. This file and cli/call.py import only the standard library: they are on the path of every call."""

import argparse
import os
import sys
from importlib import import_module

from llmd.version import VERSION

USAGE_EXIT = 2

_DESCRIPTION = "LLM calls for every program on this machine, through one local daemon."
_EPILOG = """\
first call, no key and no network needed:
  echo '{"model": "echo/echo", "prompt": "hello"}' | llmd call execute

with a key in the environment (OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY, ...), or a llama.cpp or Ollama
running on this machine:
  echo '{"prompt": "Why is the sky blue?"}' | llmd call execute --stream

exit status: 0 result, 1 the daemon answered with an error, 2 usage or bad JSON, 3 no daemon,
4 connection lost with the outcome unknown, 130 interrupted
"""

_COMMANDS = {
    # name: (module, help)
    "call": ("llmd.cli.call", "call a method of the daemon; starts one if none runs"),
    "serve": ("llmd.cli.serve", "run the daemon in the foreground"),
    "budget": ("llmd.cli.budget", "open, show, watch and close budgets"),
    "route": ("llmd.cli.route", "explain where a request would go, and why not elsewhere"),
    "models": ("llmd.cli.models", "list the models that can be called, with prices, limits and health"),
    "ledger": ("llmd.cli.ledger", "check the file that budgets are kept in, and accept what it has lost"),
    "reload": ("llmd.cli.reload", "have the running daemon read its configuration again"),
    "stop": ("llmd.cli.stop", "stop the running daemon, once its calls in flight have ended"),
    "config": ("llmd.cli.config", "check the configuration"),
    "status": ("llmd.cli.status", "tell whether the daemon is up, what it is doing, its providers and budgets"),
    "doctor": ("llmd.cli.doctor", "look for what keeps llmd from working; each line is ok or says what to do"),
    "systemd": ("llmd.cli.systemd", "have systemd run the daemon: install, uninstall or show its units"),
    "schema": ("llmd.cli.schema", "print or write the JSON Schemas and the OpenRPC document"),
}


_WITH_ACTIONS = frozenset({"budget"})
"""Commands whose actions have options of their own: argparse cannot mix these with positionals in any order."""


def _formatter(prog: str) -> argparse.HelpFormatter:
    """argparse asks shutil for the width of every parser that it makes, and shutil takes 3 ms to load."""
    try:
        columns = int(os.environ.get("COLUMNS", 0)) or os.get_terminal_size(1).columns or 80
    except (ValueError, OSError):
        columns = 80
    return argparse.RawDescriptionHelpFormatter(prog, width=columns - 2)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    # Only the command that is asked for is loaded: the others would cost more than a call takes.
    if given and given[0] in _COMMANDS:
        module = import_module(_COMMANDS[given[0]][0])
        parser = argparse.ArgumentParser(
            prog=f"llmd {given[0]}",
            description=module.__doc__,
            formatter_class=_formatter,
            allow_abbrev=False,
        )
        module.add_arguments(parser)
        parse = parser.parse_args if given[0] in _WITH_ACTIONS else parser.parse_intermixed_args
        status: int = module.run(parse(given[1:]))
        return status
    parser = argparse.ArgumentParser(
        prog="llmd",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=_formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"llmd {VERSION}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (_, text) in _COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    parser.parse_args(given)
    parser.print_help(sys.stderr)
    return USAGE_EXIT
