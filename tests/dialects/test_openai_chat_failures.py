"""What is no answer in OpenAI's format: broken off, nonsense, or an error wherever a copy puts it."""

from typing import Any

import msgspec
import pytest

from llmd.chat import Usage
from llmd.core.outcomes import Failure
from tests.dialects.replies import DONE, STREAM, USAGE, answer, chunk, event, failure, joined, read, whole


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"index": 1, "message": {}}]}',
        b"<html>",
        b"\xff",
        b"[" * 10**6,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_body_that_is_no_answer_is_invalid(body: bytes) -> None:
    assert failure(body).kind == "upstream_invalid"


def test_a_body_that_was_cut_is_invalid_even_if_it_parses() -> None:
    assert failure(whole({"content": "x"}), cut=True).kind == "upstream_invalid"


@pytest.mark.parametrize("cut", [False, True], ids=["ended", "broke"])
@pytest.mark.parametrize("events", range(len(STREAM) - 1))
def test_a_stream_that_ends_before_its_end_is_invalid_at_every_event(events: int, cut: bool) -> None:
    outcome, _ = read(STREAM[:events], stream=True, cut=cut)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.billed, outcome.usage) == ("upstream_invalid", "unknown", None)


def test_a_stream_whose_end_mark_alone_is_missing_is_whole() -> None:
    assert answer(STREAM[:-1], stream=True, cut=True) == answer(STREAM, stream=True)


def test_a_stream_of_nothing_but_its_end_mark_is_no_answer() -> None:
    assert failure(DONE, stream=True).kind == "upstream_invalid"
    assert failure([chunk(None, usage=USAGE), DONE], stream=True).kind == "upstream_invalid"


def test_a_chunk_that_is_none_ends_the_stream_and_partial_usage_is_not_taken_for_the_whole() -> None:
    outcome, deltas = read(
        [chunk({"content": "a"}, usage=USAGE), event(b"{nonsense"), chunk({"content": "b"}, "stop"), DONE], stream=True
    )
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.usage) == ("upstream_invalid", None)
    assert joined(deltas) == "a"


def test_an_error_within_a_stream_ends_it_with_that_error() -> None:
    error = event(b'{"error": {"message": "slow down", "code": 429}}')
    failed = failure([chunk({"content": "a"}), error, chunk({"content": "b"}, "stop"), DONE], stream=True)
    assert (failed.kind, failed.billed, failed.provider_text) == ("upstream_rate_limited", "unknown", "slow down")


def test_an_error_in_the_body_of_a_200_is_that_error() -> None:
    failed = failure(b'{"error": {"message": "no provider is up", "code": 502}}')
    assert (failed.kind, failed.billed, failed.http_status) == ("upstream_unavailable", "unknown", 200)


def test_what_an_error_within_a_stream_says_of_its_cost_is_kept() -> None:
    usage = b'{"prompt_tokens": 10, "completion_tokens": 5, "cost": 0.25}'
    error = event(b'{"error": {"code": 400}, "usage": ' + usage + b"}")
    failed = failure([chunk({"content": "a"}), error], stream=True)
    assert failed.usage == Usage(input_tokens=10, output_tokens=5, total_tokens=15)
    assert failed.cost_nano_usd == 250_000_000


ERROR = {"code": 502, "message": "the upstream has hung up", "metadata": {"provider_name": "x"}}


@pytest.mark.parametrize(
    ("said", "kind", "text"),
    [
        ({"error": ERROR}, "upstream_unavailable", "the upstream has hung up"),
        ({"error": {"code": 429, "message": "slow down"}}, "upstream_rate_limited", "slow down"),
        ({}, "upstream_unavailable", None),
    ],
    ids=["an outage", "a rate limit", "nothing more"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_choice_that_ended_in_an_error_is_that_error_and_not_its_half_an_answer(
    stream: bool, said: dict[str, Any], kind: str, text: str | None
) -> None:
    choice = {"index": 0, "delta" if stream else "message": {"content": "b"}, "finish_reason": "error", **said}
    last = msgspec.json.encode({"choices": [choice], "usage": {**USAGE, "cost": 0.25}})
    failed = failure([chunk({"content": "a"}), event(last), DONE], stream=True) if stream else failure(last)
    assert (failed.kind, failed.provider_text, failed.billed) == (kind, text, "unknown")
    assert failed.usage == Usage(input_tokens=11, output_tokens=3, total_tokens=14)
    assert failed.cost_nano_usd == 250_000_000


def test_an_error_says_nothing_of_a_cost_that_an_earlier_chunk_told_of_its_part() -> None:
    failed = failure([chunk({"content": "a"}, usage=USAGE), chunk({}, "error"), DONE], stream=True)
    assert (failed.usage, failed.cost_nano_usd) == (None, None)
