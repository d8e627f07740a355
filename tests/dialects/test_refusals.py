"""What a refusal means: its kind, whether to try again, when, and what it cost."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.dialects.refusals import RETRY_AFTER_MAX_S, read_error, read_stream_error, request_id, retry_after_s
from llmd.errors import KINDS


def openai(message: str = "no", **more: Any) -> Any:
    return {"error": {"message": message, **more}}


RATE = "upstream_rate_limited"
QUOTA = "You exceeded your current quota, please check your plan and billing details"

TABLE: list[tuple[int, Any, str, bool | None]] = [
    # OpenAI
    (401, openai("Incorrect API key provided: sk-1", code="invalid_api_key"), "upstream_auth", None),
    (403, openai("Country not supported"), "upstream_auth", None),
    (404, openai("The model `x` does not exist", code="model_not_found"), "model_not_found", None),
    (400, openai("The requested model 'x' does not exist.", code="model_not_found"), "model_not_found", None),
    (400, openai("maximum context length is 8192 tokens", code="context_length_exceeded"), "context_too_long", None),
    (400, openai("Unsupported parameter: 'stop'", code="unsupported_parameter"), "upstream_invalid", None),
    (400, openai("filtered", code="content_filter"), "content_filtered", None),
    (400, openai("no", code="content_policy_violation"), "content_filtered", None),
    (429, openai("slow down", code="rate_limit_exceeded"), "upstream_rate_limited", None),
    (429, openai("You exceeded your current quota", code="insufficient_quota"), "upstream_rate_limited", False),
    (500, openai("The server had an error"), "upstream_unavailable", None),
    (503, openai("overloaded"), "upstream_unavailable", None),
    # Anthropic
    (
        529,
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        "upstream_unavailable",
        None,
    ),
    (400, openai("prompt is too long: 210000 tokens > 200000 maximum"), "context_too_long", None),
    (400, openai("input length and `max_tokens` exceed context limit: 9 + 9 > 10"), "context_too_long", None),
    (400, openai("Your credit balance is too low"), "upstream_auth", None),
    (413, {"type": "error", "error": {"type": "request_too_large"}}, "context_too_long", None),
    # Gemini, which says it in a list too
    (
        400,
        [openai("API key not valid. Please pass a valid API key.", status="INVALID_ARGUMENT")],
        "upstream_auth",
        None,
    ),
    (429, [openai("quota", status="RESOURCE_EXHAUSTED")], "upstream_rate_limited", None),
    (429, openai(QUOTA, status="RESOURCE_EXHAUSTED"), "upstream_rate_limited", False),
    (429, openai(QUOTA, status="RESOURCE_EXHAUSTED", details=[{"retryDelay": "48s"}]), "upstream_rate_limited", None),
    (400, openai("The input token count (9) exceeds the maximum number of tokens allowed"), "context_too_long", None),
    # OpenRouter
    (402, openai("Insufficient credits", code=402), "upstream_auth", None),
    (403, openai("Your input was flagged", metadata={"reasons": ["violence"]}), "content_filtered", None),
    # Groq, whose limits speak of upgrades; the last of what no waiting makes small enough
    (429, openai("Rate limit reached: see billing", type="tokens", code="rate_limit_exceeded"), RATE, None),
    (413, openai("Request too large on tokens per minute", type="tokens", code="rate_limit_exceeded"), RATE, False),
    # llama.cpp, vLLM
    (400, openai("request (9 tokens) exceeds", type="exceed_context_size_error"), "context_too_long", None),
    (500, openai("the request exceeds the available context size"), "context_too_long", None),
    (400, {"object": "error", "message": "This model's maximum context length is 10"}, "context_too_long", None),
    # Mistral, xAI, Ollama
    (422, {"detail": [{"loc": ["body"], "msg": "Field required"}]}, "upstream_invalid", None),
    (404, {"detail": "Not Found"}, "model_not_found", None),
    (
        400,
        {"code": "Client specified an invalid argument", "error": "Incorrect API key provided"},
        "upstream_auth",
        None,
    ),
    (400, {"code": "x", "error": "This model's maximum prompt length is 9 but it has 10"}, "context_too_long", None),
    (404, {"error": "model 'x' not found"}, "model_not_found", None),
    # nobody's
    (408, None, "upstream_unavailable", None),
    (409, None, "upstream_unavailable", None),
    (418, None, "upstream_invalid", None),
    (302, None, "upstream_invalid", None),
    (204, None, "upstream_invalid", None),
    (502, "<html>bad gateway</html>", "upstream_unavailable", None),
]


@pytest.mark.parametrize(("status", "body", "kind", "retryable"), TABLE, ids=lambda value: str(value)[:60])
def test_a_refusal_is_of_this_kind(status: int, body: Any, kind: str, retryable: bool | None) -> None:
    failed = read_error(status, {}, json.dumps(body).encode())
    assert (failed.kind, failed.retryable, failed.http_status) == (kind, retryable, status)
    assert failed.kind in KINDS


@pytest.mark.parametrize(
    ("status", "billed"),
    [(code, "no") for code in (400, 401, 402, 403, 404, 413, 422, 429)]
    + [(code, "unknown") for code in (302, 408, 409, 499, 500, 502, 503, 504, 529)],
)
def test_only_a_request_that_was_refused_is_certainly_free(status: int, billed: str) -> None:
    assert read_error(status, {}, b"{}").billed == billed


def test_an_error_behind_a_200_may_have_cost_something_whatever_it_says() -> None:
    failed = read_stream_error({"code": 401, "message": "no"}, {})
    assert (failed.kind, failed.billed, failed.http_status) == ("upstream_auth", "unknown", 200)


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        # in numbers, under any of their names
        ({"code": 429, "message": "slow down"}, RATE, None),
        ({"code": "429", "message": "slow down"}, RATE, None),
        ({"status_code": 400, "message": "no"}, "upstream_invalid", None),
        ({"status": 503, "message": "no"}, "upstream_unavailable", None),
        ({"code": 1300, "status_code": 404}, "model_not_found", None),
        # in words
        ({"code": "rate_limit_exceeded", "message": "Requests have exceeded token rate limit"}, RATE, None),
        ({"type": "rate_limit_error", "message": "x"}, RATE, None),
        ({"code": "insufficient_quota", "message": "x"}, RATE, False),
        ({"status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "48s"}]}, RATE, None),
        ({"code": "context_length_exceeded", "message": "x"}, "context_too_long", None),
        ({"type": "invalid_request_error", "message": "x"}, "upstream_invalid", None),
        ({"type": "invalid_request_error", "message": "prompt is too long: 9 tokens"}, "context_too_long", None),
        ({"code": "invalid_prompt", "message": "x"}, "upstream_invalid", None),
        ({"code": "content_filter", "message": "x"}, "content_filtered", None),
        ({"type": "authentication_error", "message": "x"}, "upstream_auth", None),
        ({"type": "invalid_request_error", "code": "invalid_api_key"}, "upstream_auth", None),
        ({"type": "permission_error", "message": "x"}, "upstream_auth", None),
        ({"type": "not_found_error", "message": "x"}, "model_not_found", None),
        ({"type": "overloaded_error", "message": "Overloaded"}, "upstream_unavailable", None),
        ({"code": "server_error", "message": "x"}, "upstream_unavailable", None),
        # in the message alone
        ({"message": "the request exceeds the available context size"}, "context_too_long", None),
        ({"code": 500, "type": "server_error", "message": "Context size has been exceeded."}, "context_too_long", None),
        ({"code": 502, "message": "maximum context length is 10 tokens"}, "context_too_long", None),
        ("Rate limit reached, too many tokens a minute", RATE, None),
        ("overloaded", "upstream_unavailable", None),
        (None, "upstream_unavailable", None),
    ],
    ids=str,
)
def test_an_error_behind_a_200_is_what_its_code_or_its_type_says(error: Any, kind: str, retryable: bool | None) -> None:
    failed = read_stream_error(error, {})
    assert (failed.kind, failed.retryable, failed.billed) == (kind, retryable, "unknown")
    assert KINDS["context_too_long"].retryable is False


def test_when_to_come_back_is_told_within_a_stream_too() -> None:
    assert read_stream_error({"code": 429, "details": [{"retryDelay": "48s"}]}, {}).retry_after_s == 48.0


def test_a_quota_that_has_a_time_to_come_back_is_not_used_up() -> None:
    body = json.dumps(openai(QUOTA)).encode()
    assert read_error(429, {}, body).retryable is False
    assert read_error(429, {"retry-after": "3"}, body).retryable is None
    final = json.dumps(openai(QUOTA, code="insufficient_quota")).encode()
    assert read_error(429, {"retry-after": "3"}, final).retryable is False


@pytest.mark.parametrize(
    ("status", "message", "said", "retryable"),
    [
        (500, "x", "false", False),
        (429, "x", "FALSE", False),
        (400, "x", "true", True),
        (500, "x", "perhaps", None),
        (400, "prompt is too long", "true", None),  # it will be as long the next time
    ],
)
def test_a_provider_that_says_whether_to_try_again_is_believed(
    status: int, message: str, said: str, retryable: bool | None
) -> None:
    failed = read_error(status, {"x-should-retry": said}, json.dumps(openai(message)).encode())
    assert failed.retryable is retryable


def test_the_providers_words_are_passed_on_but_not_about_keys() -> None:
    assert read_error(400, {}, json.dumps(openai("bad stop")).encode()).provider_text == "bad stop"
    assert read_error(400, {}, b'{"error": "in a word"}').provider_text == "in a word"
    assert read_error(422, {}, b'{"detail": "in detail"}').provider_text == "in detail"
    refused = read_error(401, {}, json.dumps(openai("key sk-123 is bad")).encode())
    assert refused.provider_text is None
    assert "sk-123" not in repr(refused)
    assert read_stream_error({"code": 401, "message": "key sk-123"}, {}).provider_text is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "nonsense", "retry-after": "9"}, 9.0),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1e30"}, RETRY_AFTER_MAX_S),
        ({"retry-after": "Mon, 01 Jan 2024 00:01:00 GMT", "date": "Mon, 01 Jan 2024 00:00:00 GMT"}, 60.0),
        ({"retry-after": "Mon, 01 Jan 2024 00:00:00 GMT", "date": "Mon, 01 Jan 2024 00:01:00 GMT"}, None),
        ({"retry-after": "Mon, 01 Jan 2024 00:01:00 GMT"}, None),
        ({"retry-after": "Mon, 01 Jan 2024 00:01:00", "date": "Mon, 01 Jan 2024 00:00:00 GMT"}, None),
        (
            {"retry-after": "Mon, 01 Jan 2024 00:01:00 +9999999999999999", "date": "Mon, 01 Jan 2024 00:00:00 GMT"},
            None,
        ),
    ],
    ids=str,
)
def test_when_to_come_back(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


@pytest.mark.parametrize("name", ["x-request-id", "request-id", "apim-request-id", "x-generation-id"])
def test_a_requests_id_is_found_and_kept_short(name: str) -> None:
    assert request_id({name: "r" * 1000}) == "r" * 256
    assert request_id({}) is None


@given(st.integers(100, 599), st.binary(max_size=200), st.text(max_size=40), st.text(max_size=40))
def test_any_error_is_a_failure(status: int, body: bytes, after: str, date: str) -> None:
    headers = {"retry-after": after, "date": date, "retry-after-ms": after}
    assert read_error(status, headers, body).kind in KINDS


@given(st.integers(-(10**20), 10**20), st.integers(0, 10**12), st.integers(-(10**30), 10**30))
def test_any_date_is_some_seconds_or_none(day: int, year: int, zone: int) -> None:
    headers = {"retry-after": f"Mon, {day} Jan {year} 00:00:00 {zone:+}", "date": "Mon, 01 Jan 2024 00:00:00 GMT"}
    seconds = retry_after_s(headers)
    assert seconds is None or 0 < seconds <= RETRY_AFTER_MAX_S
