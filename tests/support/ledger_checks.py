"""What is asserted of a ledger beside its recount: every counter, every answer, and that a refusal changes nothing."""

from collections.abc import Mapping
from typing import Any

import msgspec

from llmd.books import UNITS, Amounts, Entry, Snapshot, Tree, Unit
from llmd.clock import Now
from llmd.core.accounts import Account
from llmd.core.amounts import lanes
from llmd.core.ledger import Ledger
from llmd.core.ledger_rows import BUDGET, GONE, HOLD, WINDOW
from llmd.core.refusals import Refusal
from llmd.core.snapshots import snapshot, tree
from llmd.errors import LLMError
from llmd.journal import Batch
from tests.support.bookkeeping import Books, Outcome
from tests.support.recount import NOTHING, UNLIMITED, Figure, Refused, Units, Within

SNAPSHOTS = 3  # of the oldest budgets and of the newest, at each step
SUMS: tuple[Figure, ...] = ("held", "settled", "uncertain", "overrun")


def handle(name: str) -> str:
    return f"handle of {name}"


def told(packed: int) -> Units:
    return dict(zip(UNITS, lanes(packed), strict=True))


def state(ledger: Ledger) -> dict[str, Any]:
    """All that an operation could have changed."""
    return {
        "budgets": {budget.id: _budget(budget) for budget in ledger.budgets.values()},
        "handles": list(ledger.handles),
        "holds": {hold.id: (hold.amounts, hold.dispatched) for hold in ledger.holds.values()},
        "uncertain": {hold.id: hold.posted for hold in ledger.uncertain.values()},
        "gone": dict(ledger.gone),
        "finished": list(ledger.finished),
        "passed": list(ledger.passed),
        "last_hold": ledger.last_hold,
        "rows": dict(ledger.changes._rows),
        "entries": list(ledger.changes._entries),
    }


def _budget(budget: Any) -> tuple[Any, ...]:
    accounts = [budget.life, *(account for account in budget.windows.values() if account.used or account.settled)]
    return (
        budget.terms,
        budget.state,
        budget.closed_ms,
        budget.touched,
        list(budget.children),
        (budget.own_settled, budget.own_uncertain, budget.own_overrun),
        [[getattr(account, name) for name in Account.__slots__ if name != "budget"] for account in accounts],
    )


def check_outcome(got: Any, expected: Outcome, books: Books, now: Now) -> None:
    if isinstance(expected, str):
        assert isinstance(got, LLMError)
        assert got.kind == expected
    elif isinstance(expected, Refused):
        assert isinstance(got, Refusal)
        check_refusal(got, expected, books, now)
    elif expected is not None:
        assert isinstance(got, LLMError)
        assert got.kind == expected[got.data["limiting"].unit]
    else:
        assert not isinstance(got, Exception | Refusal), got


def check_refusal(refusal: Refusal, expected: Refused, books: Books, now: Now) -> None:
    place = (refusal.limiting.id, refusal.limiting.unit)
    assert place in expected.limiting
    assert (refusal.contended, refusal.budget) == (expected.contended, expected.budget)
    assert refusal.at.budget.id == refusal.limiting.id
    unit = place[1]
    assert refusal.requested == expected.requested[unit]
    assert refusal.available == expected.available[unit] < refusal.requested
    assert refusal.max_fit == expected.max_fit[unit]
    assert refusal.contended == (refusal.max_fit >= refusal.requested)
    if refusal.contended:
        assert refusal.retry_after_ms
    else:
        assert refusal.retry_after_ms == books.retry_after_ms(expected, now.wall_ms)
    error = refusal.error()
    assert error.kind == ("budget_contended" if expected.contended else "budget_exceeded")
    assert error.retryable == expected.contended


def check_books(ledger: Ledger, books: Books, now: Now) -> None:
    """Every counter, and every budget as it is told."""
    assert set(ledger.budgets) == set(books.nodes)
    for name, node in books.nodes.items():
        budget = ledger.budgets[name]
        assert ledger.handles[handle(name)] is budget
        assert (budget.state, budget.closed_ms or 0, budget.touched) == (node.state, node.closed_ms, node.touched)
        assert set(budget.children) == set(books.children(name))
        assert [told(own) for own in (budget.own_settled, budget.own_uncertain, budget.own_overrun)] == [
            books.own(name, figure, None) for figure in ("settled", "uncertain", "overrun")
        ]
        if node.window is None:
            _check_account(budget.life, books, name, None)
        else:
            spans = {line.windows[name] for line in books.lines if name in line.windows}
            accounts = {account.window.start_ms: account for account in budget.windows.values() if account.window}
            for span in spans | set(accounts):
                _check_account(accounts.get(span), books, name, (name, span))
    for name in [*books.nodes][:SNAPSHOTS] + [*books.nodes][-SNAPSHOTS:]:
        assert snapshot(now, ledger.budgets[name]) == _snapshot(books, now, name)
    assert set(ledger.closed) == {name for name, node in books.nodes.items() if node.state == "closed"}
    open_lines = {line.number: line for line in books.open_lines()}
    assert {number: (told(hold.amounts), hold.dispatched) for number, hold in ledger.holds.items()} == {
        number: (line.asked, line.dispatched) for number, line in open_lines.items()
    }
    assert {number: told(hold.posted or 0) for number, hold in ledger.uncertain.items()} == {
        line.number: line.settled for line in books.lines if line.uncertain and not line.forgotten
    }
    assert ledger.gone == {handle(name): closed_ms for name, closed_ms in books.gone.items()}


def _snapshot(books: Books, now: Now, name: str) -> Snapshot:
    node, within = books.nodes[name], books.within(name, now.wall_ms)
    could = books.could(name, now.wall_ms)

    def figure(what: Figure) -> Amounts:
        return Amounts(**{unit: min(amount, UNLIMITED) for unit, amount in books.total(name, what, within).items()})

    return Snapshot(
        id=name,
        parent=node.parent,
        label=node.label,
        state=node.state,
        limits=node.limits,
        guarantee=node.guarantee,
        window=node.window,
        settled=figure("settled"),
        held=figure("held"),
        uncertain=figure("uncertain"),
        overrun=figure("overrun"),
        available={
            unit: None if not limited(books, name, unit) else could[unit] if node.state == "open" else 0
            for unit in UNITS
        },
        children=len(books.children(name)),
        lease_s=None,
        enforcement=node.enforcement,
        allow=None,
    )


def _check_account(account: Account | None, books: Books, name: str, within: Within) -> None:
    expected: dict[str, Units] = {figure: books.total(name, figure, within) for figure in SUMS}
    expected |= {"used": books.used(name, within, False), "firm": books.used(name, within, True)}
    for counter, amounts in expected.items():
        assert (NOTHING if account is None else told(getattr(account, counter))) == amounts, (name, within, counter)
    for unit in UNITS:
        limit = books.nodes[name].limit(unit)
        assert expected["used"][unit] <= limit or (name, unit) in books.excused, "the cap is kept"
    below = [books.nodes[node] for node in books.subtree(name)[1:]]
    if expected["held"] == NOTHING and all(node.state != "open" for node in below):
        assert expected["used"] == expected["settled"], "nothing leaks"


def check_dominance(before: Books, after: Books) -> None:
    """What a restart finds is at least what was settled and what may have left."""
    for name in before.nodes:
        below = set(before.subtree(name))
        for unit in UNITS:
            lines = [line for line in before.lines if line.node in below]
            billed = sum(line.settled[unit] + line.held[unit] * line.dispatched for line in lines)
            found = [line for line in after.lines if line.node in below]
            assert sum(line.settled[unit] for line in found) >= billed


def check_entries(batch: Batch, books: Books) -> None:
    """The journal has heard of everything once, below the right budgets; then the log begins anew."""
    entries = [(entry.path, msgspec.json.decode(entry.data, type=Entry)) for entry in batch.entries]
    assert all(path.split("/")[-1] == entry.budget for path, entry in entries)
    noted = [(entry.kind, path, entry.amounts, entry.held, entry.uncertain) for path, entry in entries]
    assert sorted(map(_key, noted)) == sorted(map(_key, books.log))
    books.log.clear()


def check_rows(image: Mapping[str, bytes], books: Books) -> None:
    """There is a row for everything that a restart has to know, and none of what is gone."""
    found: dict[str, set[str]] = {BUDGET: set(), WINDOW: set(), HOLD: set(), GONE: set()}
    for key, row in image.items():
        found[key[:2]].add(key[2:] if key[:2] != HOLD else str(msgspec.json.decode(row)["id"]))
    assert found[BUDGET] == set(books.nodes)
    assert found[GONE] == {handle(name) for name in books.gone}
    known = [line for line in books.lines if line.is_open or (line.uncertain and not line.forgotten)]
    assert found[HOLD] == {str(line.number) for line in known}
    assert {key.split("/")[0] for key in found[WINDOW]} <= set(books.nodes)


def _key(entry: tuple[Any, ...]) -> str:
    return repr([sorted(part.items()) if isinstance(part, Mapping) else part for part in entry])


def check_passed(ledger: Ledger, books: Books) -> None:
    """What a person may want to know has been told, once."""
    passed = [(event.budget, event.unit, event.percent) for event in ledger.passed]
    assert sorted(passed, key=str) == sorted(books.told, key=str)
    ledger.passed, books.told = [], []


def check_finished(ledger: Ledger, books: Books) -> list[str]:
    """The closed ones are handed over, children before their parents. Returns them."""
    finished, ledger.finished = ledger.finished, []
    for number, budget in enumerate(finished):
        assert books.nodes[budget.id].state == "closed"
        assert not any(later.is_within(budget) for later in finished[number + 1 :]), f"{budget.id} came too early"
    return [budget.id for budget in finished]


def check_pages(ledger: Ledger, books: Books, now: Now, size: int) -> None:
    """Page by page, a tree has every budget once, depth first."""
    roots = [budget for budget in ledger.budgets.values() if budget.parent is None]
    found: list[str] = []
    cursor: str | None = None
    for _ in range(len(ledger.budgets) + 1):
        page = tree(now, roots, cursor, size)
        names = _names(page)
        assert len(names) <= size
        found += names
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(found) == sorted(books.nodes)
    assert all(books.subtree(name)[-1] in found[at:] for at, name in enumerate(found))


def _names(page: Tree) -> list[str]:
    names, waiting = [], page.budgets[::-1]
    while waiting:
        branch = waiting.pop()
        names.append(branch.id)
        waiting += branch.below[::-1]
    return names


def limited(books: Books, name: str, unit: Unit) -> bool:
    return any(node.limit(unit) < UNLIMITED for node in books.lineage(name))
