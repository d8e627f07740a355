"""A plan over 100 rules and 200 targets, and an execute through the daemon with rules and without.

The floor of a plan is what none can leave out: a look at each target, in Python.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import msgspec

from llmd.chat import Ask
from llmd.core.plans import Facts
from llmd.core.routing import Policy
from llmd.core.rows import ModelRow, Price
from llmd.core.rules import Rule
from tests.bench.client import Lines
from tests.bench.measure import Lane, Row, cpu_s, difference, interleaved
from tests.bench.servers import daemon as started
from tests.bench.servers import running

TARGETS = 200
RULES = 100
TIMES = 500
MANY = 2_000
IN_FLIGHT = 32

_PRICE = Price(input=1, output=2)
_CONFIG = '[providers.up]\ndialect = "openai"\nbase_url = "http://127.0.0.1:{port}/v1"\n'
_RULE = """
[[routing.rules]]
task_type = "t{number}"
prefer = [{{ provider = "up", model = "m" }}]
max_cost_usd = 1
fallback = {{ provider = "echo", model = "m{number}", max_cost_usd = 2 }}

[[routing.rules]]
match = {{ action = "a{number}", trust = "none" }}
deny = "not here"
"""
_PRICED = 'models.m.price = { input = 1, output = 2 }\n[ledger]\nstore = "memory"\n'


def run(directory: Path, rounds: int) -> list[Row]:
    policy, facts = _policy()
    last = Ask(
        prompt="Say hello to everybody.", task_type="last", labels={"action": "x", "trust": "auto"}, max_tokens=100
    )
    few = msgspec.structs.replace(last, task_type="t7")
    samples = interleaved(
        [_floor, partial(_plan, "200", policy, facts, last), partial(_plan, "2", policy, facts, few)], rounds
    )
    many = f"{RULES} rules"
    return [
        Row(f"plan, {many}: a look at each of {TARGETS} targets", "us", samples["floor"]),
        Row(f"plan, {many}: {TARGETS} targets", "us", samples["200"], samples["floor"], "50 us"),
        Row(f"plan, {many}: 2 targets", "us", samples["2"]),
        *_executes(directory, rounds),
    ]


def _policy() -> tuple[Policy, Facts]:
    def find(provider: str, model: str | None) -> ModelRow:
        return ModelRow(
            provider=provider,
            model=model or "m",
            dialect="openai",
            base_url="http://127.0.0.1:9/v1",
            price=_PRICE,
            context_tokens=128_000,
        )

    targets = [{"provider": f"p{number % 20}", "model": f"m{number}"} for number in range(TARGETS)]
    rules: list[dict[str, Any]] = [
        *({"task_type": f"t{n}", "match": {"trust": "auto"}, "prefer": targets[2 * n : 2 * n + 2]} for n in range(60)),
        *({"match": {"action": f"a{n}"}, "deny": "not here"} for n in range(RULES - 62)),
        {"never": {"model": "m7"}},
        {"prefer": targets, "max_cost_per_1k": 0.5},
    ]
    facts = Facts(find=find, providers={}, trouble=lambda row: None)
    return Policy(msgspec.convert(rules, list[Rule]), find), facts


def _floor() -> Mapping[str, float]:
    rows = [object() for _ in range(TARGETS)]
    excluded: dict[object, str] = {}
    began = process_time()
    for _ in range(TIMES):
        kept = []
        for row in rows:
            if row not in excluded:
                kept.append(row)
        assert len(kept) == TARGETS
    return {"floor": (process_time() - began) / TIMES}


def _plan(name: str, policy: Policy, facts: Facts, ask: Ask) -> Mapping[str, float]:
    began = process_time()
    for _ in range(TIMES):
        plan = policy.plan(policy.match(ask, {}), facts)
    took = (process_time() - began) / TIMES
    assert len(plan.steps) + len(plan.out) == int(name)
    return {name: took}


def _executes(directory: Path, rounds: int) -> list[Row]:
    rules = "".join(_RULE.format(number=number) for number in range(RULES // 2))
    (directory / "ruled").mkdir()
    (directory / "plain").mkdir()
    with running("upstream", "0") as upstream:
        config = _CONFIG.format(port=upstream.address) + _PRICED
        with (
            started(directory / "ruled", "--socket", str(directory / "ruled.sock"), config=config + rules) as ruled,
            started(directory / "plain", "--socket", str(directory / "plain.sock"), config=config) as plain,
            Lines(directory / "ruled.sock") as by_rule,
            Lines(directory / "plain.sock") as by_name,
        ):
            samples = interleaved(
                [
                    _lane("ruled", by_rule, ruled.process.pid, b'"task_type":"t49","labels":{"trust":"auto"}'),
                    _lane("plain", by_name, plain.process.pid, b'"provider":"up","model":"m"'),
                ],
                rounds,
            )
    return [
        Row(f"execute, {IN_FLIGHT} in flight: CPU, its model named", "us", samples["plain"]),
        Row(f"execute, {IN_FLIGHT} in flight: CPU, planned by a rule", "us", samples["ruled"], samples["plain"]),
        Row("execute: what a rule with a ceiling adds", "us", difference(samples["ruled"], samples["plain"])),
    ]


def _lane(name: str, connection: Lines, pid: int, params: bytes) -> Lane:
    request = b'{"jsonrpc":"2.0","id":%d,"method":"execute","params":{%b,"prompt":"Say hello.","max_tokens":50}}\n'
    requests = [request % (number, params) for number in range(MANY)]
    assert b'"Hello there."' in connection.one(requests[0])

    def measure() -> Mapping[str, float]:
        cpu = cpu_s(pid)
        connection.pipelined(requests, IN_FLIGHT)
        return {name: (cpu_s(pid) - cpu) / MANY}

    return measure
