"""Explain where a request would go: its targets in the order in which they are tried, and why the others are out.

  llmd route explain < payload.json
  llmd route explain '{"task_type": "triage", "prompt": "hello"}'
  llmd route explain --json < payload.json

Takes what `llmd call execute` takes; calls nobody and holds nothing. Prices are in USD per million tokens.
"""

import argparse
import json
import os
import sys
from typing import Any

from llmd.cli.budget_calls import Refused
from llmd.cli.call import (
    RESULT,
    RPC_ERROR,
    USAGE,
    BadPayload,
    add_json,
    add_no_spawn,
    add_socket,
    complain,
    connect,
    guarded,
    payload,
    write_utf8,
)
from llmd.cli.models import rate, table
from llmd.cli.printable import tame

HEADS = ("", "target", "input", "output", "why")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["explain"], metavar="explain", help="the only action there is")
    parser.add_argument("params", metavar="PARAMS", nargs="?", help="a JSON object; default: standard input")
    add_json(parser)
    add_socket(parser)
    add_no_spawn(parser)


def run(options: argparse.Namespace) -> int:
    write_utf8()
    return guarded(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    try:
        text, _ = payload("execute", options.params)
        with connect(options.socket, os.environ, spawn=not options.no_spawn) as wire:
            reply = wire.call("route.explain", text)
        if "error" in reply:
            raise Refused(reply["error"])
    except BadPayload as error:
        return complain(USAGE, str(error))
    except Refused as refused:
        return complain(RPC_ERROR, str(refused))
    explained = reply["result"]
    print(json.dumps(explained, ensure_ascii=False) if options.json else "\n".join(shown(explained)))
    sys.stdout.flush()
    return RESULT if explained["error"] is None else RPC_ERROR


def shown(explained: dict[str, Any]) -> list[str]:
    """Lines for a person; `explained` is a result of route.explain, perhaps with members that are newer than this."""
    rule, guards, error = explained["rule"], explained["guards"], explained["error"]
    lines = ["no rule plans this" if rule is None else f"rule {rule} plans this"]
    if guards:
        lines[0] += f", guarded by {', '.join(f'rule {guard}' for guard in guards)}"
    rows = [_row(number, target) for number, target in enumerate(explained["targets"], 1)]
    lines += table([HEADS, *rows], left=("target", "why")) if rows else []
    return lines if error is None else [*lines, f"refused: {tame(error['message'])}"]


def _row(number: int, target: dict[str, Any]) -> tuple[str, ...]:
    price, model = target["price"] or {}, target["model"]
    name = target["provider"] if model is None else f"{target['provider']}/{model}"
    why = "ready" if target["in"] else tame(target["detail"] or target["reason"])
    if target["retry_after_ms"] is not None:
        why += f", for {target['retry_after_ms'] / 1000:.1f} s"
    return str(number) if target["in"] else "-", tame(name), rate(price.get("input")), rate(price.get("output")), why
