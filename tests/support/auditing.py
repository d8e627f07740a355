"""What must be true of a ledger after its daemon was killed, by what callers and the provider know.

The provider's meter and the callers' memory are the truth; the ledger is asked over the socket, as anybody would.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.support.spending import INPUT_NANO, OUTPUT_NANO, Asked, Caller, Meter, Spending

Amounts = dict[str, int]
Told = dict[str, Any]


class Audit:
    """The ledger of a daemon that was started again, as it tells itself. `read` it first."""

    def __init__(self, spending: Spending, meter: Meter) -> None:
        self.spending = spending
        self.meter = meter
        self.entries: list[Told] = []
        self.tree: dict[str, Told] = {}

    async def read(self, caller: Caller) -> "Audit":
        root = self.spending.nodes[self.spending.root]
        reply = await caller.call("budget.tree", budget=root.handle)
        (top,) = reply["result"]["budgets"]
        self.tree = {branch["id"]: branch for branch in _branches(top)}
        self.entries, cursor = [], {}
        while cursor is not None:
            page = (await caller.call("budget.statement", budget=root.handle, **cursor))["result"]
            self.entries += page["entries"]
            cursor = None if page["cursor"] is None else {"cursor": page["cursor"]}
        self._above = {entry["budget"]: None for entry in self.entries}
        self._above |= {branch["id"]: branch["parent"] for branch in self.tree.values()}
        nodes = self.spending.nodes
        self._above |= {node.id: nodes[node.parent].id for node in nodes.values() if node.parent is not None}
        return self

    def check(self) -> None:
        self._check_books()
        self._check_caps()
        self._check_dominance()
        self._check_calls()
        self._check_charges()
        self._check_opens_and_closes()
        self._check_resizes()

    # -- parts ----------------------------------------------------------------------------------------------------

    def _lineage(self, identifier: str | None) -> Iterator[str]:
        while identifier is not None:
            yield identifier
            identifier = self._above.get(identifier)

    def _check_books(self) -> None:
        """Nothing is held, nothing has overrun, and every balance is the sum of its history."""
        settled: dict[str, Counter[str]] = {identifier: Counter() for identifier in self.tree}
        uncertain: dict[str, Counter[str]] = {identifier: Counter() for identifier in self.tree}
        for entry in self.entries:
            sign = {"settle": 1, "charge": 1, "undo": -1}.get(entry["kind"], 0)
            for identifier in self._lineage(entry["budget"]) if sign else ():
                for unit, amount in entry["amounts"].items() if identifier in self.tree else ():
                    settled[identifier][unit] += sign * amount
                    uncertain[identifier][unit] += amount if entry.get("uncertain") else 0
        for branch in self.tree.values():
            assert not any(branch["held"].values()), "no hold is left over"
            assert not any(branch["overrun"].values()), "the bounds were sound"
            assert branch["state"] in ("open", "closed"), "what drained holds nothing, so it has closed"
            assert _positive(branch["settled"]) == _positive(settled[branch["id"]]), branch
            assert _positive(branch["uncertain"]) == _positive(uncertain[branch["id"]]), branch

    def _check_caps(self) -> None:
        """No limit is passed, and the root has exactly the rest to give."""
        for branch in self.tree.values():
            assert (used := _used(branch)) <= branch["limits"]["total_tokens"], branch
            if branch["parent"] is None:
                assert branch["available"]["total_tokens"] == branch["limits"]["total_tokens"] - used

    def _check_dominance(self) -> None:
        """What was billed in a subtree is at most what is settled there."""
        billed: dict[str, Counter[str]] = {identifier: Counter() for identifier in self.tree}
        for number, (tokens_in, tokens_out) in self.meter.billed.items():
            for identifier in self._lineage(self.spending.nodes[self.meter.budgets[number]].id):
                if identifier in self.tree:
                    billed[identifier].update(_amounts(tokens_in, tokens_out))
        for identifier, branch in self.tree.items():
            for unit, amount in billed[identifier].items():
                assert amount <= branch["settled"][unit], (unit, branch)

    def _check_calls(self) -> None:
        """Every call resolved once; what was told before something else became durable is told the same for ever."""
        entries: dict[int, Told] = {}
        for entry in self.entries:
            if entry["kind"] in ("settle", "void"):
                number = entry["held"]["output_tokens"]
                assert number not in entries, "a hold resolves once"
                entries[number] = entry
        calls = {asked.params["max_tokens"]: asked for asked in self._asked("execute")}
        assert entries.keys() <= calls.keys()
        assert self.meter.arrived.keys() <= entries.keys(), "nothing reached the provider without a durable hold"
        fence = self._last_durable()
        for number, entry in entries.items():
            asked = calls[number]
            assert entry["budget"] == self._node_of(asked.params["budget"])
            if entry.get("uncertain"):
                assert entry["amounts"] == entry["held"], "nobody knows: the bound"
            elif entry["kind"] == "settle":
                assert entry["amounts"] == _amounts(*self.meter.billed[number])
            if asked.answered is not None and asked.answered < fence and asked.result is not None:
                usage = asked.result["usage"]
                told = _amounts(usage["input_tokens"], usage["output_tokens"])
                assert (entry["amounts"], entry.get("uncertain", False)) == (told, False), "it was told, and forgotten"

    def _check_charges(self) -> None:
        posted = Counter(entry["note"] for entry in self.entries if entry["kind"] == "charge")
        assert not any(entry["kind"] == "undo" for entry in self.entries)
        for asked in self._asked("budget.charge"):
            count = posted.pop(asked.params["note"], 0)
            assert count <= 1, "posted twice"
            if asked.answered is not None:
                assert count == (asked.result is not None), (count, asked)
        assert not posted, "charges of nobody"

    def _check_opens_and_closes(self) -> None:
        opened = Counter(entry["budget"] for entry in self.entries if entry["kind"] == "open")
        closed = {entry["budget"] for entry in self.entries if entry["kind"] == "close"}
        assert set(opened.values()) <= {1}
        for asked in self._asked("budget.open"):
            if asked.result is not None:
                assert opened[asked.result["id"]] == 1
        for asked in self._asked("budget.close"):
            identifier = self._node_of(asked.params["budget"])
            if asked.result is not None:
                assert identifier in closed
                told = asked.result["budget"]["settled"]["total_tokens"]
                assert told == sum(_total(entry) for entry in self.entries if entry["budget"] == identifier)
        sent = {self._node_of(asked.params["budget"]) for asked in self._asked("budget.close")}
        assert closed <= sent, "nothing closes that nobody closed"
        for identifier in opened.keys() - closed:
            assert self.tree[identifier]["state"] == "open"

    def _check_resizes(self) -> None:
        """The limits are those of the last resize that was acknowledged, or of one that came after it."""
        possible: dict[str, list[Amounts]] = {}
        for asked in self._asked("budget.resize"):
            if asked.result is not None:
                possible[asked.params["child"]] = [asked.params["limits"]]
            elif asked.answered is None and asked.params["child"] in possible:
                possible[asked.params["child"]].append(asked.params["limits"])
        for identifier, limits in possible.items():
            assert self.tree[identifier]["limits"] in limits

    def _asked(self, method: str) -> list[Asked]:
        return [asked for asked in self.spending.asked if asked.method == method]

    def _node_of(self, handle: str) -> str:
        return next(node.id for node in self.spending.nodes.values() if node.handle == handle)

    def _last_durable(self) -> int:
        """When the last thing was sent of which it is known that it became durable: all before it did, too."""
        known = [asked for asked in self.spending.asked if asked.result is not None and not asked.replayed]
        sent = [asked.sent for asked in known if asked.method != "execute"]
        sent += [asked.sent for asked in self._asked("execute") if asked.params["max_tokens"] in self.meter.arrived]
        return max(sent, default=0)


async def replay(spending: Spending, caller: Caller) -> None:
    """What came with a key comes again: what was acknowledged gets the same answer."""
    for asked in list(spending.asked):
        if "idempotency_key" in asked.params:
            again = await caller.call(asked.method, **asked.params)
            if asked.result is None:
                asked.answered, asked.reply, asked.replayed = asked.sent, again, True
            elif "error" in again:
                assert again["error"]["data"]["kind"] == "budget_closed", (asked, again)
            else:
                assert again["result"] == asked.result


def _branches(top: Told) -> Iterator[Told]:
    waiting = [top]
    for branch in waiting:
        yield branch
        waiting += branch["below"]


def _used(branch: Told) -> int:
    """By its definition: what is settled at itself, and what its children draw."""
    own: int = branch["settled"]["total_tokens"] - sum(child["settled"]["total_tokens"] for child in branch["below"])
    return own + sum(_drawn(child) for child in branch["below"])


def _drawn(branch: Told) -> int:
    guarantee = branch["guarantee"].get("total_tokens", 0) if branch["state"] == "open" else 0
    return max(guarantee, _used(branch))


def _total(entry: Told) -> int:
    return entry["amounts"].get("total_tokens", 0) if entry["kind"] in ("settle", "charge") else 0


def _amounts(tokens_in: int, tokens_out: int) -> Amounts:
    return {
        "total_tokens": tokens_in + tokens_out,
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
        "requests": 1,
        "nano_usd": tokens_in * INPUT_NANO + tokens_out * OUTPUT_NANO,
    }


def _positive(amounts: Amounts) -> Amounts:
    return {unit: amount for unit, amount in amounts.items() if amount}
