"""One table of errors: its codes are the contract's, and what reaches a client is what was meant for it."""

import copy
import pickle

import pytest

from llmd.errors import KINDS, LLMBudgetExceededError, LLMError


def test_codes_are_unique_and_in_their_ranges() -> None:
    codes = [row.code for row in KINDS.values()]
    assert len(set(codes)) == len(codes)
    assert all(-32800 <= code <= -32000 or 1000 <= code < 1300 for code in codes)


def test_the_codes_of_the_contract_are_kept() -> None:
    kept = {
        "parse_error": -32700,
        "invalid_request": -32600,
        "method_not_found": -32601,
        "invalid_params": -32602,
        "internal_error": -32603,
        "shutting_down": -32000,
        "busy": -32001,
        "deadline_exceeded": -32002,
        "too_large": -32003,
        "unauthorized": -32004,
        "idempotency_conflict": -32005,
        "cancelled": -32800,
        "upstream_rate_limited": 1001,
        "upstream_invalid": 1006,
        "no_route": 1010,
        "budget_exceeded": 1100,
        "ledger_unavailable": 1108,
    }
    assert {kind: KINDS[kind].code for kind in kept} == kept


def test_an_error_object_has_kind_retryable_and_what_is_known() -> None:
    error = LLMError("busy", "later", retry_after_ms=100, reason=None)
    assert error.to_object() == {
        "code": -32001,
        "message": "later",
        "data": {"kind": "busy", "retryable": True, "retry_after_ms": 100},
    }


def test_an_error_may_know_better_than_its_kind_whether_to_retry() -> None:
    assert not LLMError("upstream_rate_limited", "no credit", retryable=False).to_object()["data"]["retryable"]


@pytest.mark.parametrize("kind", [LLMError, LLMBudgetExceededError])
def test_an_error_comes_whole_out_of_another_process(kind: type[LLMError]) -> None:
    error = kind("budget_contended", "held", retryable=False, requested=5)
    for made in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(made) is kind
        assert (str(made), made.to_object()) == ("held", error.to_object())
