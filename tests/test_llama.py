"""A real daemon in front of a real llama.cpp: what a user of both gets, to the token."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmd.chat import Message
from llmd.core.outcomes import Answer
from tests.support.calls import ask, caller, row
from tests.support.daemon import RunningDaemon, running_daemon
from tests.support.engine import CONTEXT_TOKENS, MODEL_NAME, Engine, running

USUAL_PORT = 8080


def config(engine: Engine) -> str:
    return f"""
        [providers.local]
        base_url = "{engine.url}"
        overhead_tokens = 64
        [providers.local.models.{MODEL_NAME}]
        price = {{ input = 1.0, output = 2.0 }}
        context_tokens = {CONTEXT_TOKENS}

        [providers.messages]
        dialect = "anthropic"
        base_url = "{engine.url}"
        counts = "exact"
        overhead_tokens = 64
        [providers.responses]
        dialect = "openai-responses"
        base_url = "{engine.url}"
        counts = "exact"
        overhead_tokens = 64
    """


@pytest.fixture
def daemon(engine: Engine, tmp_path: Path) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path, config=config(engine)) as started:
        yield started


def command(daemon: RunningDaemon, *arguments: str, **params: Any) -> "subprocess.CompletedProcess[str]":
    """`llmd call execute` with this payload on its standard input."""
    payload = {"model": f"local/{MODEL_NAME}", "temperature": 0, "seed": 7, **params}
    line = [sys.executable, "-m", "llmd", "call", "execute", "--socket", str(daemon.socket), *arguments]
    return subprocess.run(line, input=json.dumps(payload), capture_output=True, text=True, timeout=30)


def execute(daemon: RunningDaemon, **params: Any) -> dict[str, Any]:
    done = command(daemon, **params)
    assert done.returncode == 0, done.stderr
    completion: dict[str, Any] = json.loads(done.stdout)
    return completion


def test_an_answer_is_the_engines_own_with_the_engines_own_token_counts(engine: Engine, daemon: RunningDaemon) -> None:
    made = execute(daemon, prompt="Once upon a time", max_tokens=20)
    turns = [{"role": "user", "content": "Once upon a time"}]
    own = engine.chat(model=MODEL_NAME, messages=turns, max_tokens=20, temperature=0, seed=7)
    assert made["text"] == own["choices"][0]["message"]["content"] != ""
    counts = own["usage"]
    usage = made["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (counts["prompt_tokens"], counts["completion_tokens"])
    assert (usage["total_tokens"], usage["exact"]) == (counts["total_tokens"], True)
    assert made["cost"] == {"nano_usd": usage["input_tokens"] * 1000 + usage["output_tokens"] * 2000}
    assert (made["provider"], made["model"], made["dropped"]) == ("local", MODEL_NAME, [])
    assert made["route"]["attempts"][0]["outcome"] == "ok"


def test_max_tokens_ends_an_answer_exactly_there(daemon: RunningDaemon) -> None:
    made = execute(daemon, prompt="Once", max_tokens=7)
    assert (made["finish_reason"], made["usage"]["output_tokens"]) == ("length", 7)


def test_a_stop_text_ends_an_answer_before_it(daemon: RunningDaemon) -> None:
    whole = execute(daemon, prompt="Once", max_tokens=60)["text"]
    stop = whole[len(whole) // 2 :][:3]
    made = execute(daemon, prompt="Once", max_tokens=60, stop=[stop])
    assert made["finish_reason"] == "stop"
    assert made["text"] == whole[: whole.index(stop)]


def test_a_system_prompt_reaches_the_engine(daemon: RunningDaemon) -> None:
    without = execute(daemon, prompt="Once", max_tokens=5)
    made = execute(daemon, prompt="Once", system="You are a very sleepy dog", max_tokens=5)
    assert made["usage"]["input_tokens"] > without["usage"]["input_tokens"] + 5


def test_a_conversation_goes_on_with_the_message_that_an_answer_gives(daemon: RunningDaemon) -> None:
    asked = {"role": "user", "content": "Once"}
    first = execute(daemon, messages=[asked], max_tokens=5)
    turns = [asked, first["message"], {"role": "user", "content": "and then?"}]
    assert execute(daemon, messages=turns, max_tokens=5)["usage"]["input_tokens"] > first["usage"]["total_tokens"]


def test_a_stream_is_the_same_text_and_the_same_usage(daemon: RunningDaemon) -> None:
    whole = execute(daemon, prompt="Once upon", max_tokens=40)
    printed = command(daemon, "--stream", prompt="Once upon", max_tokens=40)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout == whole["text"] + "\n"
    deltas: list[dict[str, Any]] = []
    asked = {"prompt": "Once upon", "max_tokens": 40, "temperature": 0, "seed": 7, "stream": "s1"}
    with daemon.wire() as wire:
        reply = wire.call(
            "execute", json.dumps({"model": f"local/{MODEL_NAME}", **asked}), lambda method, told: deltas.append(told)
        )
    assert "".join(delta.get("text", "") for delta in deltas) == reply["result"]["text"] == whole["text"]
    assert [delta["seq"] for delta in deltas] == list(range(len(deltas)))
    assert len(deltas) > 10
    counted = ("input_tokens", "output_tokens", "total_tokens", "exact")
    assert [reply["result"]["usage"][name] for name in counted] == [whole["usage"][name] for name in counted]


@pytest.mark.parametrize("other", ["messages", "responses"])
def test_in_another_dialect_the_same_engine_says_the_same_and_counts_the_same(
    daemon: RunningDaemon, other: str
) -> None:
    asked: dict[str, Any] = {"prompt": "Once there was", "max_tokens": 12, "seed": None}
    execute(daemon, **asked)  # from here on the prompt is in the engine's cache, whoever asks
    made = execute(daemon, **asked)
    again = execute(daemon, model=f"{other}/{MODEL_NAME}", **asked)
    printed = command(daemon, "--stream", model=f"{other}/{MODEL_NAME}", **asked)
    assert again["text"] == made["text"] != ""
    assert again["usage"] == made["usage"]
    assert (printed.returncode, printed.stdout) == (0, made["text"] + "\n")
    deltas: list[dict[str, Any]] = []
    params = {**asked, "model": f"{other}/{MODEL_NAME}", "temperature": 0, "stream": "s1"}
    with daemon.wire() as wire:
        reply = wire.call("execute", json.dumps(params), lambda method, told: deltas.append(told))
    assert "".join(delta.get("text", "") for delta in deltas) == reply["result"]["text"] == made["text"]
    assert reply["result"]["usage"] == made["usage"]


@pytest.mark.parametrize("provider", ["local", "messages", "responses"])
def test_a_prompt_beyond_the_engines_context_is_context_too_long(daemon: RunningDaemon, provider: str) -> None:
    done = command(daemon, model=f"{provider}/{MODEL_NAME}", prompt="word " * CONTEXT_TOKENS, max_tokens=5)
    assert done.returncode == 1
    data = json.loads(done.stderr)["data"]
    assert (data["kind"], data["retryable"], data["http_status"]) == ("context_too_long", False, 400)


@pytest.mark.parametrize("provider", ["messages", "responses"])
def test_a_prompt_of_6_kb_is_paid_for_by_a_budget_of_4000_tokens_because_the_engine_counts_it(
    daemon: RunningDaemon, provider: str
) -> None:
    prompt = "the dog saw a cat and the cat ran home and was happy then " * 105
    with daemon.wire() as wire:
        opened = [wire.call("budget.open", json.dumps({"total": 4000}))["result"] for _ in range(2)]
    asked: dict[str, Any] = {"prompt": prompt, "max_tokens": 10, "budget": opened[0]["budget"], "seed": None}
    uncounted = command(daemon, **asked)
    assert json.loads(uncounted.stderr)["data"]["kind"] == "budget_exceeded"
    made = execute(daemon, model=f"{provider}/{MODEL_NAME}", **asked)
    assert 1500 < made["usage"]["input_tokens"] < 4000
    assert made["budget"]["settled"]["total_tokens"] == made["usage"]["total_tokens"]
    assert made["budget"]["overrun"]["total_tokens"] == 0


SHAPE = {
    "type": "object",
    "properties": {"kind": {"enum": ["cat", "dog"]}, "legs": {"enum": [2, 4]}, "tame": {"type": "boolean"}},
    "required": ["kind", "legs", "tame"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", [7, 8])
def test_an_answer_has_the_shape_of_the_schema_that_was_asked_for(
    engine_model: Path, tmp_path: Path, seed: int
) -> None:
    form = {"type": "json_schema", "name": "animal", "schema": SHAPE}
    asked: dict[str, Any] = {"prompt": "Once", "max_tokens": 100, "temperature": 1, "seed": seed}
    with running(engine_model, shaped=True) as engine, running_daemon(tmp_path, config=config(engine)) as daemon:
        made = execute(daemon, **asked, response_format=form)
        printed = command(daemon, "--stream", **asked, response_format=form)
        free = execute(daemon, **asked)
    animal = json.loads(made["text"])
    assert animal.keys() == {"kind", "legs", "tame"}
    assert animal["kind"] in ("cat", "dog")
    assert animal["legs"] in (2, 4)
    assert isinstance(animal["tame"], bool)
    assert (made["finish_reason"], made["dropped"]) == ("stop", [])
    assert (printed.returncode, printed.stdout) == (0, made["text"] + "\n")
    assert not free["text"].startswith("{")


@pytest.mark.anyio
@pytest.mark.parametrize("dialect", ["anthropic", "openai-responses"])
@pytest.mark.parametrize(
    "params",
    [
        {"prompt": "Once there was"},
        {"prompt": "Once there was a dog and a cat. " * 50},
        {"system": "You are kind", "messages": [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]},
    ],
    ids=["short", "long", "a conversation"],
)
async def test_what_an_engine_counts_before_a_call_is_what_the_call_uses(
    engine: Engine, dialect: str, params: dict[str, Any]
) -> None:
    async with caller(engine.url, dialect=dialect) as made:
        call = made.provider.request(ask(**params), row(engine.url, model=MODEL_NAME), 3, False)
        counted = await made.provider.count(call)
        answer = await made.provider.send(call, None)
    assert isinstance(answer, Answer)
    assert answer.usage
    assert counted == answer.usage.input_tokens


def test_a_model_that_the_engine_cannot_be_asked_for_is_still_answered_by_the_one_it_has(
    daemon: RunningDaemon,
) -> None:
    assert execute(daemon, model="local/anything", prompt="Once", max_tokens=3)["model"] == "anything"


def test_a_cancel_frees_the_engines_slot(engine: Engine, daemon: RunningDaemon) -> None:
    long = {"model": f"local/{MODEL_NAME}", "prompt": "Once", "max_tokens": CONTEXT_TOKENS - 200, "stream": "s1"}
    with daemon.wire() as wire:
        wire.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "execute", "params": long}))
        assert wire.receive()["method"] == "llmd.delta"
        assert engine.slot()["is_processing"]
        wire.send('{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":1}}')
        while "method" in (reply := wire.receive()):
            pass
        assert reply["error"]["code"] == -32800
    assert engine.said_when_free() < CONTEXT_TOKENS / 2
    assert execute(daemon, prompt="Once", max_tokens=3)["usage"]["output_tokens"] == 3


def test_a_deadline_frees_the_engines_slot(engine: Engine, daemon: RunningDaemon) -> None:
    done = command(daemon, "--stream", prompt="Once", max_tokens=CONTEXT_TOKENS - 200, timeout_ms=100)
    assert json.loads(done.stderr)["data"]["kind"] == "deadline_exceeded"
    assert engine.said_when_free() < CONTEXT_TOKENS / 2


# -- without any configuration ---------------------------------------------------------------------------------------


@pytest.fixture
def at_its_usual_port(engine_model: Path, usual_ports: None) -> Iterator[Engine]:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", USUAL_PORT))
        except OSError:
            pytest.skip(f"port {USUAL_PORT} is taken")
    with running(engine_model, USUAL_PORT) as started:
        yield started


def test_a_llama_cpp_at_its_usual_port_is_found_and_answers_without_a_configuration(
    at_its_usual_port: Engine, tmp_path: Path
) -> None:
    with running_daemon(tmp_path) as daemon:
        with daemon.wire() as wire:
            models = wire.call("models.list")["result"]["models"]
        (found,) = [model for model in models if model["provider"] == "llamacpp"]
        assert (found["model"], found["health"]) == (f"llamacpp/{MODEL_NAME}", "ready")
        assert found["price"] == {"input": 0.0, "output": 0.0}
        named = execute(daemon, model=found["model"], prompt="Once", max_tokens=3)
        assert (named["usage"]["output_tokens"], named["cost"]) == (3, {"nano_usd": 0})
        if not any(model["provider"] == "ollama" for model in models):
            made = execute(daemon, model=None, prompt="Once", max_tokens=3)
            assert made["text"] == named["text"]
