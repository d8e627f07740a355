"""`GET /metrics`: what was counted, and how things stand, as Prometheus reads it."""

from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.openai_upstream import Served, served

pytestmark = pytest.mark.anyio

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


async def scraped(llmd: Served) -> Samples:
    response = await llmd.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(response.text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((f"llmd_{name}", frozenset(labels.items())))


async def test_calls_are_counted_by_method_and_outcome_whatever_they_came_by(tmp_path: Path) -> None:
    async with served(tmp_path) as llmd:
        assert value(await scraped(llmd), "in_flight") == 0
        await llmd.chat()
        await llmd.chat(stream=True)
        await llmd.http.post("/execute", json={"prompt": "hello"})
        await llmd.http.post("/execute", json={})
        with llmd.daemon.wire() as wire:
            wire.call("execute", '{"model": "echo/echo", "prompt": "hello"}')
            wire.call("ping")
            wire.call("x" * 1000)
        found = await scraped(llmd)
        assert value(found, "calls_total", method="execute", outcome="ok") == 4
        assert value(found, "calls_total", method="execute", outcome="invalid_params") == 1
        assert value(found, "calls_total", method="ping", outcome="ok") == 1
        assert value(found, "calls_total", method="other", outcome="method_not_found") == 1
        assert value(found, "call_seconds_count", method="execute") == 5
        assert value(found, "call_seconds_bucket", method="execute", le="+Inf") == 5


async def test_tokens_and_cost_are_by_provider_and_model(tmp_path: Path) -> None:
    async with served(tmp_path) as llmd:
        await llmd.chat()
        await llmd.chat()
        await llmd.chat(model="refused/x")
        found = await scraped(llmd)
        work = {"provider": "work", "model": "m1"}
        assert value(found, "attempts_total", **work, outcome="ok") == 2
        assert value(found, "attempts_total", provider="refused", model="x", outcome="upstream_auth") == 1
        assert value(found, "tokens_total", **work, direction="input") == 10
        assert value(found, "tokens_total", **work, direction="output") == 4
        assert value(found, "cost_usd_total", **work) == pytest.approx(18e-6)
        assert value(found, "model_state", **work, state="ready") == 1
        assert value(found, "model_state", provider="refused", model="x", state="breaker_open") == 1


async def test_overhead_is_what_a_call_takes_beside_its_provider(tmp_path: Path) -> None:
    async with served(tmp_path) as llmd:
        await llmd.chat(model="slow/x")
        found = await scraped(llmd)
        assert value(found, "overhead_seconds_count") == 1
        assert value(found, "call_seconds_bucket", method="execute", le="0.25") == 0
        assert value(found, "overhead_seconds_bucket", le="0.25") == 1


async def test_what_runs_and_what_is_held_is_told_as_it_stands_and_what_was_refused_is_counted(tmp_path: Path) -> None:
    async with served(tmp_path) as llmd:
        pays = {"x-llmd-budget": await llmd.budget(2000)}
        await llmd.chat(headers=pays, max_tokens=3000)
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: llmd.chat("stuck", headers=pays, max_tokens=20))
            await llmd.upstream.until(lambda upstream: upstream.in_flight == 1)
            found = await scraped(llmd)
            assert (value(found, "in_flight"), value(found, "holds")) == (1, 1)
            group.cancel_scope.cancel()
        await llmd.upstream.until(lambda upstream: upstream.in_flight == 0)
        while value(found := await scraped(llmd), "in_flight"):
            pass
        assert value(found, "holds") == 0
        assert value(found, "refusals_total", kind="budget_exceeded") == 1
        assert value(found, "calls_total", method="execute", outcome="cancelled") == 1
        assert value(found, "attempts_total", provider="work", model="m1", outcome="cancelled") == 1


async def test_it_is_for_those_who_may_call(tmp_path: Path) -> None:
    async with served(tmp_path, "--require-token") as llmd:
        assert (await llmd.http.get("/metrics")).status_code == 401
