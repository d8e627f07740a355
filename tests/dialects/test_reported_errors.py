"""Errors that people have quoted in public, each read through by hand: what it is, and whether a retry may help."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from llmd.core.outcomes import Failure
from llmd.dialects import DIALECTS
from llmd.errors import KINDS
from tests.support.calls import ask, row

MEANT: dict[str, tuple[str, bool]] = {
    "rep00": ("upstream_unavailable", True),  # 529, overloaded
    "rep01": ("upstream_unavailable", True),
    "rep02": ("upstream_rate_limited", True),
    "rep03": ("upstream_rate_limited", True),
    "rep04": ("context_too_long", False),  # "exceed context limit: 143653 + 64000 > 200000"
    "rep05": ("upstream_rate_limited", True),  # tokens a minute, over in 494 ms
    "rep06": ("upstream_rate_limited", True),  # the same, and where to pay for more
    "rep07": ("upstream_rate_limited", True),  # within a stream of a 200
    "rep08": ("upstream_unavailable", True),
    "rep09": ("upstream_rate_limited", True),  # a list of one error
    "rep10": ("upstream_rate_limited", True),
    "rep11": ("upstream_rate_limited", True),  # no wrapper
    "rep12": ("upstream_rate_limited", True),  # a message and nothing else
    "rep13": ("upstream_rate_limited", True),  # "invalid_request_error", and yet a 429
    "rep14": ("upstream_auth", False),  # 402: out of credit
    "rep15": ("upstream_rate_limited", True),  # "too many tokens" a minute, not in the request
    "rep16": ("context_too_long", False),
    "rep17": ("context_too_long", False),  # as a 500
    "rep18": ("context_too_long", False),
    "rep19": ("upstream_unavailable", True),  # a choice's end and a chunk's error at once
}


def reported() -> list[Any]:
    directory = os.environ.get("LLMD_RECORDINGS")
    if not directory:
        return [pytest.param(None, marks=pytest.mark.skip(reason="LLMD_RECORDINGS is not set"), id="recordings")]
    lines = (Path(directory) / "reported_errors.jsonl").read_text().splitlines()
    return [pytest.param(row, id=row["id"]) for row in map(json.loads, lines)]


def dialect_of(error: dict[str, Any]) -> str:
    if error["provider"] in ("anthropic", "gemini"):
        return str(error["provider"])
    return "openai-responses" if "response.failed" in error["response_body"] else "openai"


@pytest.mark.parametrize("error", reported())
def test_a_reported_error_is_what_it_meant(error: dict[str, Any]) -> None:
    dialect = DIALECTS[dialect_of(error)]
    reader = dialect.reader(dialect.request(ask(), row(), None, True), error["status"], error["response_headers"])
    reader.feed(error["response_body"].encode())
    outcome = reader.end(cut=False)
    assert isinstance(outcome, Failure)
    retryable = KINDS[outcome.kind].retryable if outcome.retryable is None else outcome.retryable
    assert (outcome.kind, retryable) == MEANT[error["id"]]
    assert outcome.http_status == error["status"]


def test_every_reported_error_has_been_read() -> None:
    ids = {parameter.id for parameter in reported()}
    assert ids in ({"recordings"}, MEANT.keys())
