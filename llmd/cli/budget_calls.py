"""The budget methods as the command line calls them: pages joined, errors as exceptions, changes as they come.

What comes back is decoded JSON in the shapes of llmd.books, perhaps with members that are newer than this client.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from llmd import paths
from llmd.client import Wire
from llmd.handles import PREFIX

Json = dict[str, Any]

POLL_S = 1.0
FRAME_S = 0.1
RESTARTS = 3

_WATCH_TOKEN = "cli"  # noqa: S105 - a name for the notifications, no secret
_GONE = frozenset({"budget_closed", "budget_unknown"})


class Refused(Exception):
    """The daemon answered with an error: its error object, and its kind."""

    def __init__(self, error: Json) -> None:
        super().__init__(error["message"])
        self.error = error
        self.kind: str = error["data"]["kind"]


def ask(wire: Wire, method: str, params: Json) -> Json:
    """The result of one call. Raises Refused, ConnectionLost."""
    reply = wire.call(method, json.dumps(params))
    if "error" in reply:
        raise Refused(reply["error"])
    result: Json = reply["result"]
    return result


def named(budget: str) -> Json:
    """Params for what a user gave: a handle carries its right with it, an id is the operator's way."""
    return {"budget": budget} if budget.startswith(PREFIX) else {"id": budget, "owner": True}


def whole_statement(wire: Wire, budget: str, first: Json | None = None) -> Json:
    """A Statement with all its entries; `first` is its first page where that is known."""
    statement = first or ask(wire, "budget.statement", named(budget))
    entries, cursor = list(statement["entries"]), statement["cursor"]
    while cursor is not None:
        page = ask(wire, "budget.statement", {**named(budget), "cursor": cursor})
        entries += page["entries"]
        cursor = page["cursor"]
    return {**statement, "entries": entries, "cursor": None}


def whole_tree(wire: Wire, params: Json | None) -> Json:
    """A Tree with everything below the one that is `named`, or below all the roots there are."""
    if params is not None:
        return {"budgets": _tree(wire, params), "cursor": None}
    found = []
    for root in _tree(wire, {"owner": True}):
        # One that has just gone is not missed.
        with _unless_gone():
            found += _tree(wire, {"id": root["id"], "owner": True})
    return {"budgets": found, "cursor": None}


def _tree(wire: Wire, params: Json) -> list[Json]:
    for _ in range(RESTARTS):
        try:
            return join(_pages(wire, params))
        except Refused as refused:
            # The budget that the next page begins with may have closed.
            if refused.error["data"].get("path") != "cursor":
                raise
    return join(_pages(wire, params))


def _pages(wire: Wire, params: Json) -> Iterator[list[Json]]:
    cursor = None
    while True:
        page = ask(wire, "budget.tree", params if cursor is None else {**params, "cursor": cursor})
        yield page["budgets"]
        cursor = page["cursor"]
        if cursor is None:
            return


def join(pages: Iterable[list[Json]]) -> list[Json]:
    """The trees of all pages: what tops a later page goes below the parent that it names, where that was seen."""
    roots: list[Json] = []
    seen: dict[str, Json] = {}
    for page in pages:
        for top in page:
            parent = seen.get(top["parent"] or "")
            (roots if parent is None else parent["below"]).append(top)
            waiting = [top]
            while waiting:
                branch = waiting.pop()
                seen[branch["id"]] = branch
                waiting += branch["below"]
    return roots


@contextmanager
def _unless_gone() -> Iterator[None]:
    try:
        yield
    except Refused as refused:
        if refused.kind not in _GONE:
            raise


# -- changes ----------------------------------------------------------------------------------------------------------


@contextmanager
def waiting_for_changes(socket: str | None, budget: str | None) -> Iterator[Callable[[], Json | None]]:
    """A function that waits for something new, a second at most, and returns None where nothing is.

    Of a budget that a handle names the daemon tells: what is returned is its Snapshot. Of others it does not; they may
    have changed whenever one looks, and {} says so. Raises NoDaemon; the function raises Refused, ConnectionLost.
    """
    if budget is None or not budget.startswith(PREFIX):

        def look() -> Json:
            time.sleep(POLL_S)
            return {}

        yield look
        return
    with Wire(paths.client_sockets(os.environ, socket)) as wire:
        wire.settimeout(POLL_S)
        params = {"budget": budget, "watch": _WATCH_TOKEN}
        wire.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "budget.watch", "params": params}))

        def listen() -> Json | None:
            time.sleep(FRAME_S)  # what comes faster than eyes follow is one change
            try:
                message = wire.receive()
            except TimeoutError:
                return None
            if "error" in message:
                raise Refused(message["error"])
            told: Json = message.get("result") or message["params"]
            told.pop("watch", None)
            return told

        yield listen


def frames(wire: Wire, budget: str | None, wait: Callable[[], Json | None]) -> Iterator[Json]:
    """The whole tree, time after time, until the budget that was named has closed. Raises Refused, ConnectionLost."""
    params = None if budget is None else named(budget)
    found = whole_tree(wire, params)
    gone = False
    while True:
        if not gone:
            yield found
        if budget is not None and found["budgets"][0]["state"] == "closed":
            return
        try:
            told = wait()
            if told and told["state"] == "closed":
                found, gone = {"budgets": [{**told, "below": []}], "cursor": None}, False
                continue
            if gone and not told:
                return
            # To look without need would be a use of the budget, and keep it alive.
            if told is not None and not gone:
                found = whole_tree(wire, params)
        except Refused as refused:
            if refused.kind not in _GONE:
                raise
            gone = True  # and its last word may be on its way
