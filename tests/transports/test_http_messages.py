"""Replies become responses: the status comes from the table of errors."""

import json

import pytest

from llmd.errors import KINDS, LLMError
from llmd.rpc.dispatch import Reply, error_reply
from llmd.transports.http_messages import event, response


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_error_has_a_status_of_the_contract(kind: str) -> None:
    made = response(error_reply(LLMError(kind, "why")))
    assert made.status_code == KINDS[kind].http_status
    assert made.status_code in {400, 401, 402, 404, 409, 413, 429, 499, 500, 502, 503, 504}
    assert json.loads(bytes(made.body))["error"]["data"]["kind"] == kind


def test_when_to_come_back_is_a_header_too() -> None:
    made = response(error_reply(LLMError("busy", "later", retry_after_ms=1100)))
    assert made.headers["retry-after"] == "2"


def test_a_result_is_the_body() -> None:
    assert bytes(response(Reply(True, b'{"a":1}')).body) == b'{"a":1}'


def test_an_event_is_a_name_and_one_line() -> None:
    assert event("delta", b"{}") == b"event: delta\ndata: {}\n\n"
