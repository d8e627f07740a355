"""Budgets: open one for an agent, see what is left, close it.

  B=$(llmd budget open --total 4000 --label agents)
  llmd call execute "{\\"prompt\\": \\"hello\\", \\"budget\\": \\"$B\\"}"
  llmd budget tree --watch
  llmd budget close $B

HANDLE|ID is what `open` printed, or an id that `tree` shows: that works for the user whose daemon it is.
"""

import argparse
import io
import json
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, get_args

from llmd.books import UNITS, Enforcement, Window
from llmd.cli.budget_calls import Json, Refused, ask, frames, named, waiting_for_changes, whole_statement, whole_tree
from llmd.cli.call import RESULT, RPC_ERROR, add_json, add_no_spawn, add_socket, complain, connect, guarded, write_utf8
from llmd.scalars import AMOUNT_MAX

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_OPEN_PARAMS = ("limits", "parent", "guarantee", "window", "label", "lease_s", "enforcement")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    def action(name: str, work: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        options = actions.add_parser(
            name, help=text, description=text, formatter_class=parser.formatter_class, allow_abbrev=False
        )
        options.set_defaults(work=work)
        add_socket(options)
        add_json(options)
        return options

    _add_open_arguments(action("open", _open, "open a budget, and print its handle"))
    tree = action("tree", _tree, "show budgets: what is settled, held and free")
    tree.add_argument("budget", metavar="HANDLE|ID", nargs="?", help="default: all there are")
    tree.add_argument("--watch", action="store_true", help="show it again whenever it changes")
    close = action("close", _close, "close a budget and all below it, once what is in flight has ended")
    close.add_argument("budget", metavar="HANDLE|ID")
    close.add_argument("--cancel", action="store_true", help="abort what is in flight")
    close.add_argument("--timeout", metavar="SECONDS", type=_seconds, help="how long to wait; the closing goes on")
    statement = action("statement", _statement, "show what happened to a budget and below it")
    statement.add_argument("budget", metavar="HANDLE|ID")


def _add_open_arguments(options: argparse.ArgumentParser) -> None:
    total = "short for --limit total_tokens=N"
    options.add_argument("--total", metavar="N", dest="limits", type=_total, action=_ByUnit, help=total)
    limit = f"may be given for several units: {', '.join(UNITS)}, and usd, as in usd=0.50"
    options.add_argument("--limit", metavar="UNIT=N", dest="limits", type=_limit, action=_ByUnit, help=limit)
    options.add_argument("--parent", metavar="HANDLE", help="the budget that it is a part of")
    set_aside = "set aside for it in the parent; takes what --limit takes"
    options.add_argument("--guarantee", metavar="UNIT=N", type=_limit, action=_ByUnit, help=set_aside)
    options.add_argument("--window", choices=get_args(Window), help="limits hold for each of these, in UTC")
    options.add_argument("--label", metavar="TEXT", help="a name for people")
    lease = "without use for so long, it closes; default: 3600"
    options.add_argument("--lease", metavar="SECONDS", type=_amount, dest="lease_s", help=lease)
    options.add_argument("--enforcement", choices=get_args(Enforcement), help="what limits mean; default: strict")
    add_no_spawn(options)


class _ByUnit(argparse.Action):
    """Collects (unit, amount) in a dict; a unit that is given twice is a mistake."""

    def __call__(self, parser: object, options: argparse.Namespace, value: Any, flag: object = None) -> None:
        unit, amount = value
        given = getattr(options, self.dest) or {}
        if unit in given:
            raise argparse.ArgumentError(self, f"{unit} is given twice")
        setattr(options, self.dest, {**given, unit: amount})


def _amount(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(AMOUNT_MAX))):
        raise argparse.ArgumentTypeError(f"{text!r} is no amount: a whole number")
    return int(text)


def _total(text: str) -> tuple[str, int]:
    return "total_tokens", _amount(text)


def _limit(text: str) -> tuple[str, int | str]:
    unit, _, amount = text.partition("=")
    unit = "total_tokens" if unit == "total" else unit
    if unit not in (*UNITS, "usd") or not amount:
        raise argparse.ArgumentTypeError(f"{text!r} is not UNIT=N with one of {', '.join((*UNITS, 'usd'))}")
    return unit, amount if unit == "usd" else _amount(amount)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def run(options: argparse.Namespace) -> int:
    if options.json:
        write_utf8()
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return guarded(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    try:
        options.work(options)
    except Refused as refused:
        if not options.json:
            return complain(RPC_ERROR, str(refused))
        print(json.dumps(refused.error, ensure_ascii=False), file=sys.stderr)
        return RPC_ERROR
    sys.stdout.flush()
    return RESULT


# -- open, close, statement -------------------------------------------------------------------------------------------


def _open(options: argparse.Namespace) -> None:
    params = {name: value for name in _OPEN_PARAMS if (value := getattr(options, name)) is not None}
    with connect(options.socket, os.environ, spawn=not options.no_spawn) as wire:
        opened = ask(wire, "budget.open", {"limits": {}, **params})
    if options.json:
        _print_json(opened)
        return
    print(opened["budget"], flush=True)
    if sys.stderr.isatty():
        from llmd.cli.budget_drawing import amounts

        print(f"llmd: opened {opened['id']} with {amounts(opened['limits']) or 'no limit'}", file=sys.stderr)


def _close(options: argparse.Namespace) -> None:
    params = {**named(options.budget), "mode": "cancel" if options.cancel else "drain"}
    if options.timeout is not None:
        params["timeout_ms"] = max(1, round(options.timeout * 1000))
    with connect(options.socket, os.environ, spawn=False) as wire:
        first = ask(wire, "budget.close", params)
        _show_statement(whole_statement(wire, options.budget, first), options)


def _statement(options: argparse.Namespace) -> None:
    with connect(options.socket, os.environ, spawn=False) as wire:
        _show_statement(whole_statement(wire, options.budget), options)


def _show_statement(found: Json, options: argparse.Namespace) -> None:
    if options.json:
        _print_json(found)
        return
    from llmd.cli.budget_drawing import statement

    _print(statement(found["budget"], found["entries"]))


# -- tree -------------------------------------------------------------------------------------------------------------


def _tree(options: argparse.Namespace) -> None:
    show = _print_json if options.json else _print_tree
    with connect(options.socket, os.environ, spawn=False) as wire:
        if not options.watch:
            show(whole_tree(wire, None if options.budget is None else named(options.budget)))
            return
        with waiting_for_changes(options.socket, options.budget) as wait:
            shown = _until_nobody_reads(frames(wire, options.budget, wait))
            if options.json or not _moves():
                _show_changes(shown, show)
            else:
                _show_live(shown)


def _until_nobody_reads(shown: Iterator[Json]) -> Iterator[Json]:
    """Writing tells that a reader has gone, but where nothing changes, nothing is written."""
    output = select.poll()
    output.register(sys.stdout, 0)
    for found in shown:
        if any(happened & select.POLLERR for _, happened in output.poll(0)):
            raise BrokenPipeError
        yield found


def _show_changes(shown: Iterator[Json], show: Callable[[Json], None]) -> None:
    last = None
    for found in shown:
        if found != last:
            show(found)
        last = found


def _show_live(shown: Iterator[Json]) -> None:
    from rich.live import Live

    console = _console()
    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        for found in shown:
            # Drawn again in any case: the terminal may have another width by now.
            live.update(_page(_drawn(found, console.width)), refresh=True)


def _drawn(found: Json, width: int | None) -> "list[Text]":
    from llmd.cli.budget_drawing import glyphs, tree

    return tree(found["budgets"], glyphs(sys.stdout.encoding), width)


# -- output -----------------------------------------------------------------------------------------------------------


def _print_json(found: Json) -> None:
    print(json.dumps(found, ensure_ascii=False), flush=True)


def _print_tree(found: Json) -> None:
    columns = os.environ.get("COLUMNS", "")
    if sys.stdout.isatty():
        _print(_drawn(found, _console().width))
    else:
        _print(_drawn(found, int(columns) if columns.isdecimal() and int(columns) else None))


def _print(lines: "Sequence[Text]") -> None:
    if sys.stdout.isatty():
        # What is too wide the terminal may break, but nothing of it is kept back.
        _console().print(_page(lines), soft_wrap=True)
    else:
        print(*(line.plain for line in lines), sep="\n")
    sys.stdout.flush()


def _moves() -> bool:
    """Whether the cursor can go back to what was drawn."""
    if not sys.stdout.isatty():
        return False
    console = _console()
    return console.is_terminal and not console.is_dumb_terminal


def _console() -> "Console":
    from rich.console import Console

    plain = bool(os.environ.get("NO_COLOR"))
    return Console(color_system=None if plain else "auto", highlight=False, markup=False, emoji=False)


def _page(lines: "Sequence[Text]") -> "Text":
    from rich.text import Text

    return Text("\n", no_wrap=True, overflow="crop").join(lines)
