"""What the clients say: keys where they are wanted, errors with their kind, and nothing that is no JSON."""

from typing import Any

import msgspec
import pytest

from llmd.client import messages
from llmd.errors import LLMBudgetExceededError, LLMError


def answered(**error: Any) -> LLMError:
    line = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "no", "data": error}})
    with pytest.raises(LLMError) as caught:
        messages.result(messages.decode(line), dict)
    return caught.value


def test_an_error_of_the_daemons_is_raised_with_its_kind_and_data() -> None:
    error = answered(kind="no_route", retryable=True, targets=[])
    assert (error.kind, error.message, error.retryable, error.data) == ("no_route", "no", True, {"targets": []})
    assert type(error) is LLMError


@pytest.mark.parametrize("kind", ["budget_exceeded", "budget_contended"])
def test_what_a_budget_does_not_pay_for_has_a_class_of_its_own(kind: str) -> None:
    error = answered(kind=kind, retryable=kind == "budget_contended", requested=5)
    assert type(error) is LLMBudgetExceededError
    assert (error.kind, error.data) == (kind, {"requested": 5})


def test_a_kind_that_only_a_newer_daemon_has_is_an_error_all_the_same() -> None:
    error = answered(kind="too_tired", retryable=True, message="a member")
    assert (error.kind, error.retryable, error.data) == ("internal_error", True, {"told_kind": "too_tired"})


def test_keys_go_where_a_method_takes_them_and_one_that_is_given_stays() -> None:
    made = messages.keyed("execute", {"prompt": "x"})
    assert len(made["idempotency_key"]) == 32
    assert messages.keyed("execute", {"idempotency_key": "mine"}) == {"idempotency_key": "mine"}
    assert messages.keyed("budget.close", {"budget": "b"}) == {"budget": "b"}
    calls = messages.keyed("execute_many", {"calls": [{"prompt": "x"}, {"prompt": "y"}]})["calls"]
    assert len({call["idempotency_key"] for call in calls}) == 2


def test_what_json_has_no_words_for_is_refused_before_it_is_sent() -> None:
    with pytest.raises(LLMError, match="JSON") as caught:
        messages.request(1, "execute", {"prompt": object()})
    assert caught.value.kind == "invalid_params"


def test_what_is_no_result_or_no_delta_leaves_the_outcome_unknown() -> None:
    for read in (
        lambda: messages.result(messages.decode(b'{"id":1,"result":"x"}'), dict),
        lambda: messages.delta(b'{"text":"\xff"}'),
    ):
        with pytest.raises(LLMError, match="makes no sense") as caught:
            read()
        assert caught.value.kind == "outcome_unknown"
