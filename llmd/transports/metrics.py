"""`GET /metrics`: what was counted, and how things stand, in Prometheus's words."""

from collections.abc import Iterable, Iterator
from itertools import accumulate

import anyio
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from llmd.meter import Histogram
from llmd.rpc.hub import Hub

CONTENT_TYPE = CONTENT_TYPE_LATEST
NANO = 10**9

_Buckets = list[tuple[str, float]]


class Metrics:
    """What one daemon tells."""

    def __init__(self, hub: Hub) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Daemon(hub))

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _Daemon(Collector):
    """Reads at the time of asking; nothing is kept here."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def describe(self) -> Iterable[Metric]:
        return ()  # else registering would ask before there is anything to tell

    def collect(self) -> Iterator[Metric]:
        meter = self._hub.dispatcher.service.meter
        yield _counter("llmd_calls", "Calls of methods that have ended.", ["method", "outcome"], meter.calls.items())
        yield _histogram("llmd_call_seconds", "What calls took.", ["method"], meter.latency.items())
        yield _histogram(
            "llmd_overhead_seconds",
            "What executes of one attempt took beyond their time with its provider, waiting for room included.",
            [],
            [("", meter.overhead)],
        )
        attempts = "Requests that were sent to providers and have ended."
        yield _counter("llmd_attempts", attempts, ["provider", "model", "outcome"], meter.attempts.items())
        tokens = "Tokens that providers told."
        yield _counter("llmd_tokens", tokens, ["provider", "model", "direction"], meter.tokens.items())
        costs = [(target, nano_usd / NANO) for target, nano_usd in meter.nano_usd.items()]
        yield _counter("llmd_cost_usd", "What attempts have cost, where that is known.", ["provider", "model"], costs)
        refusals = [((kind,), count) for kind, count in meter.refusals.items()]
        yield _counter("llmd_refusals", "Attempts that a budget did not pay for.", ["kind"], refusals)
        yield from self._now()

    def _now(self) -> Iterator[Metric]:
        service = self._hub.dispatcher.service
        yield GaugeMetricFamily("llmd_in_flight", "Calls that are running.", self._hub.in_flight)
        yield GaugeMetricFamily("llmd_holds", "Amounts that budgets hold for calls.", service.budgets.holds)
        told = "How each model that was called is doing: 1 for the state that it is in."
        states = GaugeMetricFamily("llmd_model_state", told, labels=["provider", "model", "state"])
        for target, state in service.upstreams().traffic.states(anyio.current_time()).items():
            provider, _, model = target.partition("/")
            if service.meter.keeps(provider, model):
                states.add_metric([provider, model, state], 1)
        yield states


def _counter(name: str, told: str, labels: list[str], counts: Iterable[tuple[Iterable[str], float]]) -> Metric:
    family = CounterMetricFamily(name, told, labels=labels)
    for values, count in counts:
        family.add_metric(list(values), count)
    return family


def _histogram(name: str, told: str, labels: list[str], histograms: Iterable[tuple[str, Histogram]]) -> Metric:
    """One for each value of the only label, if there is one."""
    family = HistogramMetricFamily(name, told, labels=labels)
    for value, histogram in histograms:
        bounds = [*map(str, map(float, histogram.bounds)), "+Inf"]
        buckets: _Buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
        family.add_metric([value] if labels else [], buckets, histogram.sum)
    return family
