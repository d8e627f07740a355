"""What calls there were, as plain numbers: counted where calls are made, read by whoever shows them.

Names of models come from callers, so only so many are kept apart.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence

from llmd.chat import Usage
from llmd.core.rows import ModelRow

TARGETS_MAX = 256
OTHER = "other"

LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
OVERHEAD_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)


class Histogram:
    """`counts` has one more than `bounds`: what lies beyond the last."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


def _latency() -> Histogram:
    return Histogram(LATENCY_S)


class Meter:
    """Since the daemon began. An outcome is "ok" or the kind of an error.

    calls     by method and outcome
    latency   of the methods that may take time, in seconds
    attempts  by provider, model and outcome
    tokens    by provider, model and "input" or "output", as far as providers told
    nano_usd  by provider and model, as far as it is known
    refusals  of budgets, by kind
    overhead  of calls that took one attempt, the seconds that they did not spend with its provider
    """

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self.latency: defaultdict[str, Histogram] = defaultdict(_latency)
        self.attempts: Counter[tuple[str, str, str]] = Counter()
        self.tokens: Counter[tuple[str, str, str]] = Counter()
        self.nano_usd: Counter[tuple[str, str]] = Counter()
        self.refusals: Counter[str] = Counter()
        self.overhead = Histogram(OVERHEAD_S)
        self._targets: set[tuple[str, str]] = set()

    def attempted(self, row: ModelRow, outcome: str, usage: Usage | None, nano_usd: int | None) -> None:
        """An attempt whose bytes have left has ended."""
        provider, model = self._target(row)
        self.attempts[provider, model, outcome] += 1
        if usage is not None:
            self.tokens[provider, model, "input"] += usage.input_tokens
            self.tokens[provider, model, "output"] += usage.output_tokens
        if nano_usd is not None:
            self.nano_usd[provider, model] += nano_usd

    def keeps(self, provider: str, model: str) -> bool:
        """Whether this model is kept apart from others."""
        return (provider, model) in self._targets

    def _target(self, row: ModelRow) -> tuple[str, str]:
        target = row.provider, row.model
        if target not in self._targets:
            if len(self._targets) >= TARGETS_MAX:
                return row.provider, OTHER
            self._targets.add(target)
        return target
