"""Call METHOD with PARAMS, a JSON object; without it, params are read from standard input where the method needs some.

  llmd call execute < payload.json
  llmd call execute '{"model": "echo/echo", "prompt": "hello"}' --stream
  llmd call models.list

The result is printed as JSON on standard output; an error as JSON on standard error.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from llmd import fingerprint, paths
from llmd.client import ConnectionLost, NoDaemon, Wire

TYPE_CHECKING = False  # typing takes 3 ms to load, and every call pays for it
if TYPE_CHECKING:
    from typing import Any, NoReturn

RESULT, RPC_ERROR, USAGE, NO_DAEMON, LOST, INTERRUPTED = 0, 1, 2, 3, 4, 130

WITHOUT_PARAMS = frozenset({"ping", "daemon.info", "daemon.reload", "models.list", "rpc.discover"})
"""Methods that need no params: for these, standard input is left alone."""

_KEYLESS = frozenset({"no_route", "upstream_auth"})
"""Errors that a key which the daemon has not may be behind."""

_STREAM_TOKEN = "cli"  # noqa: S105 - a name for the deltas, no secret


class BadPayload(Exception):
    """What was given as params cannot be sent; the message is one line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", metavar="METHOD", help="as in execute, models.list, ping; rpc.discover lists all")
    parser.add_argument("params", metavar="PARAMS", nargs="?", help="a JSON object; default: standard input")
    add_socket(parser)
    parser.add_argument("--stream", action="store_true", help="print the text of calls as it comes, and only it")
    add_no_spawn(parser)


def add_socket(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--socket", metavar="PATH", help="the daemon's socket; default: $LLMD_SOCKET, else this user's")


def add_no_spawn(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-spawn", action="store_true", help="start no daemon if none runs")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print what the daemon answers")


def run(options: argparse.Namespace) -> int:
    write_utf8()
    return guarded(lambda: _run(options))


def write_utf8() -> None:
    """JSON between programs is UTF-8 whatever the locale says (RFC 8259, section 8.1)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def guarded(work: Callable[[], int]) -> int:
    """The exit status of `work`, which talks to the daemon and prints: what cuts it short is one line, no traceback."""
    try:
        return work()
    except NoDaemon as error:
        return complain(NO_DAEMON, str(error))
    except ConnectionLost:
        return complain(LOST, "the daemon closed the connection before it answered: the outcome is unknown")
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone. What is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return RPC_ERROR
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return complain(RPC_ERROR, f"cannot write to standard output: {error.strerror}")


def _run(options: argparse.Namespace) -> int:
    try:
        text, params = payload(options.method, options.params)
    except BadPayload as error:
        return complain(USAGE, str(error))
    calls = params.get("calls") if options.method == "execute_many" else None
    with ExitStack() as stack:
        heard: Callable[[str, dict[str, Any]], None] | None = None
        if options.stream:
            heard = stack.enter_context(_Texts()).heard
        elif isinstance(calls, list) and sys.stderr.isatty():
            from llmd.cli.progress import Progress

            heard = stack.enter_context(Progress(len(calls))).heard
        if heard is not None:
            text = _with_stream(text, params)
        with connect(options.socket, os.environ, spawn=not options.no_spawn) as wire:
            reply = wire.call(options.method, text, heard)
        if _kind(reply) == "shutting_down" and not options.no_spawn and _is_on_demand(wire.path, options.socket):
            with _spawned(wire.path, os.environ) as wire:
                reply = wire.call(options.method, text, heard)
        if _kind(reply) in _KEYLESS:
            _tell_lacking(wire.path, os.environ)
    return _end(reply, options.stream, many=options.method == "execute_many")


def _kind(reply: Mapping[str, Any]) -> str | None:
    """What kind of an error it is; of `shutting_down` it is known that nothing was done."""
    return reply["error"]["data"].get("kind") if "error" in reply else None


def _is_on_demand(socket: Path, flag: str | None) -> bool:
    """Whether calls start the daemon there."""
    running = fingerprint.read(fingerprint.lock_file(socket))
    return paths.named_socket(os.environ, flag) is None and running is not None and running.spawned


def _tell_lacking(socket: Path, env: Mapping[str, str]) -> None:
    """A daemon that somebody started on purpose keeps its environment: say what it has not of this shell's."""
    running = fingerprint.read(fingerprint.lock_file(socket))
    if running is not None and not running.spawned and (lacking := running.news_of_keys(env)):
        told = ", ".join(lacking)
        print(f"llmd: the daemon is a service, and has not this shell's {told}: give it the key", file=sys.stderr)


def _end(reply: Mapping[str, Any], stream: bool, many: bool) -> int:
    if "error" in reply:
        print(json.dumps(reply["error"], ensure_ascii=False), file=sys.stderr)
        return RPC_ERROR
    if many and stream:
        for number, result in enumerate(reply["result"]["results"]):
            if "error" in result:
                print(f"[{number}] {json.dumps(result['error'], ensure_ascii=False)}", file=sys.stderr)
    if not stream:
        print(json.dumps(reply["result"], ensure_ascii=False), flush=True)
    return RPC_ERROR if many and any("error" in result for result in reply["result"]["results"]) else RESULT


class _Texts:
    """Prints the texts of deltas as they come; of many calls, each piece behind the number of its call."""

    def __init__(self) -> None:
        self._index: int | None = None
        self._printed = False

    def __enter__(self) -> _Texts:
        return self

    def __exit__(self, *_: object) -> None:
        if self._printed:
            print(flush=True)

    def heard(self, method: str, params: Mapping[str, Any]) -> None:
        if method != "llmd.delta" or not (text := params.get("text")):
            return
        if (index := params.get("index")) != self._index:
            sys.stdout.write(f"{chr(10) if self._printed else ''}[{index}] ")
        self._index, self._printed = index, True
        sys.stdout.write(text)
        sys.stdout.flush()


def connect(flag: str | None, env: Mapping[str, str], *, spawn: bool) -> Wire:
    """A connection to the daemon. Raises NoDaemon.

    With `spawn` one is started where none runs, and where the one that was spawned lacks what this shell has.
    """
    sockets = paths.client_sockets(env, flag)
    if spawn and paths.named_socket(env, flag) is None:
        running = fingerprint.read(fingerprint.lock_file(sockets[0]))
        if running is not None and running.spawned and running.news(env):
            return _spawned(sockets[0], env)
    try:
        return Wire(sockets)
    except NoDaemon as error:
        if not spawn or paths.named_socket(env, flag) is not None or error.forbidden == sockets[0]:
            raise
    return _spawned(sockets[0], env)


def _spawned(socket: Path, env: Mapping[str, str]) -> Wire:
    """A connection to a daemon that is started. Once more where that fails: another's may have come in between."""
    from llmd.spawn import SpawnFailed, spawn

    try:
        spawn(socket, env)
        return Wire([socket])
    except (SpawnFailed, NoDaemon):
        pass
    try:
        spawn(socket, env)
    except SpawnFailed as error:
        print(f"llmd: {error}", file=sys.stderr)
    return Wire([socket])


def payload(method: str, argument: str | None) -> tuple[str, dict[str, Any]]:
    """The params as JSON text on one line, and as they were read."""
    if argument is None and method in WITHOUT_PARAMS:
        return "{}", {}
    if argument is None:
        if sys.stdin is not None and sys.stdin.isatty():
            print(f"llmd: reading the params of {method} from the terminal; end with Ctrl-D", file=sys.stderr)
        source, data = "standard input", b"" if sys.stdin is None else sys.stdin.buffer.read()
    else:
        source, data = "PARAMS", os.fsencode(argument)
    if not data.strip():
        example = ', as in {"prompt": "hello"}' if method == "execute" else "; rpc.discover lists what it may hold"
        raise BadPayload(f"{source} is empty: {method} takes a JSON object{example}")
    try:
        text = data.decode()
        params = json.loads(text, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise BadPayload(f"{source} is not UTF-8 at byte {error.start + 1}") from None
    except RecursionError:
        raise BadPayload(f"{source} is nested too deep") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        what = f"{error.msg[:1].lower()}{error.msg[1:]}".removesuffix(" at").partition(" (")[0]
        raise BadPayload(f"{source} is not JSON: {what} at {place}") from None
    except _NoConstant as error:
        raise BadPayload(f"{source} is not JSON: {error}") from None
    except ValueError:
        raise BadPayload(f"{source} holds a number that is too long") from None
    if not isinstance(params, dict):
        raise BadPayload(f"{source} must be a JSON object")
    # A message ends at a newline, and outside of strings, where JSON has none, a space means the same.
    return text.replace("\n", " ").replace("\r", " ").strip(), params


class _NoConstant(ValueError):
    """What Python's reader takes, and JSON has not."""


def _no_constant(name: str) -> NoReturn:
    raise _NoConstant(f"it has no {name}")


def _with_stream(text: str, params: dict[str, Any]) -> str:
    if "stream" in params:
        return text
    return f'{{"stream": "{_STREAM_TOKEN}"{", " if params else ""}{text[1:].lstrip()}'


def complain(status: int, message: str) -> int:
    print(f"llmd: {message}", file=sys.stderr)
    return status
