"""List the models that can be called: prices in USD per million tokens, limits in tokens, and their provider's health.

llmd models
llmd models claude
llmd models --json

Providers are asked for their models with their keys, those beyond this machine once in five minutes. A * stands behind
the model of requests that name none. What reading and writing caches costs, calls and long inputs, is told with --json.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from llmd.cli.budget_calls import Refused, ask
from llmd.cli.call import RESULT, RPC_ERROR, add_json, add_no_spawn, add_socket, complain, connect, guarded, write_utf8
from llmd.cli.printable import tame

HEADS = ("model", "input", "output", "context", "answer", "health")
UNKNOWN = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", metavar="TEXT", nargs="*", help="only models with all of these in their names")
    add_json(parser)
    add_socket(parser)
    add_no_spawn(parser)


def run(options: argparse.Namespace) -> int:
    write_utf8()
    return guarded(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    try:
        with connect(options.socket, os.environ, spawn=not options.no_spawn) as wire:
            models = ask(wire, "models.list", {})["models"]
    except Refused as refused:
        return complain(RPC_ERROR, str(refused))
    found = [model for model in models if all(text.lower() in model["model"].lower() for text in options.text)]
    if options.json:
        print(json.dumps({"models": found}, ensure_ascii=False))
    elif found:
        print(*table([HEADS, *map(row, found)]), sep="\n")
    else:
        print("llmd: no model has that in its name" if options.text else "llmd: there are no models", file=sys.stderr)
    sys.stdout.flush()
    return RESULT


def row(model: dict[str, Any]) -> tuple[str, ...]:
    """One model as it is shown; `model` is one of models.list, perhaps with members that are newer than this."""
    price = model["price"] or {}
    return (
        tame(model["model"]) + (" *" if model["default"] else ""),
        rate(price.get("input")),
        rate(price.get("output")),
        _tokens(model["context_tokens"]),
        _tokens(model["max_output_tokens"]),
        model["health"].replace("_", " "),
    )


def rate(usd: float | None) -> str:
    """A price as it is shown."""
    return UNKNOWN if usd is None else f"{usd:.4f}".rstrip("0").rstrip(".") or "0"


def _tokens(count: int | None) -> str:
    return UNKNOWN if count is None else f"{count:,}"


def table(rows: Sequence[Sequence[str]], left: Sequence[str] = ("model", "health")) -> list[str]:
    """Aligned: the columns whose heads are `left` to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if head in left else cell.rjust(width)
            for head, cell, width in zip(rows[0], cells, widths, strict=True)
        ).rstrip()
        for cells in rows
    ]
