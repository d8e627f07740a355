"""What a provider's refusal means, whichever it is.

Shapes: {"error": {"message", "type", "code"}}, {"error": "text"}, {"code", "error": "text"} (xAI), {"detail"} and
{"object": "error", "message", "type"} (Mistral, vLLM), a list holding one of them (Gemini's compatible endpoint);
Gemini says in `details` when to come back.
Sources: the providers' API references, and llama.cpp's tools/server for `exceed_context_size_error`.
"""

import re
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from llmd.core.outcomes import Billed, Failure
from llmd.dialects.base import Headers

REQUEST_ID_HEADERS = ("x-request-id", "request-id", "apim-request-id", "x-generation-id")
UNBILLED_STATUSES = frozenset({400, 401, 402, 403, 404, 405, 413, 415, 422, 429})
RETRY_AFTER_MAX_S = 86_400.0

_TOO_LONG = re.compile(
    r"context[_ ]length|maximum context|context size|context window|context limit|prompt is too long|too many tokens|"
    r"maximum number of tokens|maximum prompt length|exceed_context_size",
    re.I,
)
_FILTERED = re.compile(r"content_filter|content_policy|responsible_?ai|moderation", re.I)
_NO_MODEL = re.compile(r"model_not_found|model .{0,200}(does not exist|not found)|no such model|unknown_model", re.I)
_BAD_KEY = re.compile(r"invalid_api_key|api_key_invalid|incorrect api key|api key not valid", re.I)
_NO_QUOTA = re.compile(r"insufficient_quota|billing", re.I)
_QUOTA = re.compile(r"billing|credit balance|exceeded your current quota", re.I)
_NO_CREDIT = re.compile(r"credit balance is too low|insufficient balance", re.I)
_STATUS = re.compile(r"[45][0-9]{2}")
_RATE = re.compile(r"rate[ _-]?limit|too_?many_?requests|throttl", re.I)

_STATUSES = (
    (re.compile(r"insufficient_quota|resource_?exhausted", re.I), 429),
    (_RATE, 429),
    (re.compile(r"context_length|exceed_context_size", re.I), 400),
    (re.compile(r"model_not_found|not_?found", re.I), 404),
    (re.compile(r"authentication|unauthenticated|unauthorized|api_key", re.I), 401),
    (re.compile(r"permission", re.I), 403),
    (re.compile(r"content_filter|content_policy|invalid_prompt|invalid_request|invalid_argument", re.I), 400),
    (re.compile(r"overloaded", re.I), 529),
)
"""What an error within a 200 would have been as a status, by its code and type; of several, the first."""


class _Words:
    """The members of an error body that are there, whatever its shape."""

    def __init__(self, body: bytes) -> None:
        try:
            value: Any = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            value = None
        if isinstance(value, list) and value:
            value = value[0]
        outer = value if isinstance(value, dict) else {}
        error = outer.get("error")
        inner = error if isinstance(error, dict) else outer
        message = error if isinstance(error, str) else inner.get("message") or outer.get("detail")
        self.message = message if isinstance(message, str) else None
        self.codes = " ".join(
            str(inner[name]) for name in ("code", "type", "status") if isinstance(inner.get(name), str | int)
        )
        self.all = f"{self.codes} {self.message or ''}"
        said = [str(inner.get(name)) for name in ("code", "status_code", "status")]
        self.status = next((int(number) for number in said if _STATUS.fullmatch(number)), None)
        metadata = inner.get("metadata")
        self.flagged = isinstance(metadata, dict) and "reasons" in metadata  # OpenRouter's moderation
        details = inner.get("details")
        known = [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []
        delays = [_seconds(detail["retryDelay"]) for detail in known if isinstance(detail.get("retryDelay"), str)]
        self.retry_after_s = next(iter(delays), None)


def read_error(status: int, headers: Headers, body: bytes) -> Failure:
    """The Failure that a response with an error status and this body is."""
    words = _Words(body)
    after_s = retry_after_s(headers) or words.retry_after_s
    kind, message, retryable = _classify(status, words, after_s)
    should = headers.get("x-should-retry", "").lower()
    if should in ("true", "false") and kind != "context_too_long":
        retryable = should == "true"
    return Failure(
        kind=kind,
        message=message,
        retryable=retryable,
        billed=billed(status),
        retry_after_s=after_s,
        http_status=status,
        request_id=request_id(headers),
        # What a provider says of a key that it refused may quote the key.
        provider_text=None if kind == "upstream_auth" else words.message,
    )


def read_stream_error(error: Any, headers: Headers) -> Failure:
    """The Failure that an `error` member behind a status 200 is: the provider may have worked until then."""
    words = _Words(msgspec.json.encode({"error": error}))
    kind, message, retryable = _classify(_status(words), words, words.retry_after_s)
    return Failure(
        kind=kind,
        message=message,
        retryable=retryable,
        retry_after_s=words.retry_after_s,
        http_status=200,
        request_id=request_id(headers),
        provider_text=None if kind == "upstream_auth" else words.message,
    )


def _status(words: _Words) -> int:
    """What it would have been as a status."""
    if words.status is not None:
        return words.status
    for pattern, status in _STATUSES:
        if pattern.search(words.codes):
            return status
    return 429 if _RATE.search(words.all) else 400 if _TOO_LONG.search(words.all) else 502


def _classify(status: int, words: _Words, after_s: float | None) -> tuple[str, str, bool | None]:
    """Kind, message, and whether to retry where that differs from what the kind says."""
    if status == 413 and _RATE.search(words.codes):  # Groq's, of what is more than a minute's allowance by itself
        return "upstream_rate_limited", "the request is larger than the provider's rate limit", False
    if status in (400, 404, 413, 422, 500, 502) and _TOO_LONG.search(words.all):
        return "context_too_long", "the request is longer than the model's context window", None
    if words.flagged or (status in (400, 422) and _FILTERED.search(words.codes)):
        return "content_filtered", "the provider's content filter refused the request", None
    if status == 402 or (status == 400 and _NO_CREDIT.search(words.all)):
        return "upstream_auth", "the provider account is out of credit", None
    if status in (401, 403) or (status == 400 and _BAD_KEY.search(words.all)):
        return "upstream_auth", "the provider refused the key, or this use of it", None
    if status == 404 or (status == 400 and _NO_MODEL.search(words.all)):
        return "model_not_found", "the provider knows no such model, or serves nothing at this base_url", None
    if status == 429:
        # Some speak of billing behind every limit: one that ends by itself is no quota that is used up.
        passing = after_s is not None or _RATE.search(words.codes)
        if _NO_QUOTA.search(words.codes) or (_QUOTA.search(words.all) and not passing):
            return "upstream_rate_limited", "the provider account's quota is used up", False
        return "upstream_rate_limited", "the provider's rate limit is reached", None
    if status == 413:
        return "context_too_long", "the request is larger than the provider takes", None
    if status in (408, 409) or status >= 500:
        return "upstream_unavailable", "the provider could not serve the request", None
    if 300 <= status < 400:
        return (
            "upstream_invalid",
            "the provider answered with a redirect: base_url is not where the API is",
            None,
        )
    return "upstream_invalid", "the provider refused the request as invalid", None


def billed(status: int) -> Billed:
    return "no" if status in UNBILLED_STATUSES else "unknown"


def request_id(headers: Headers) -> str | None:
    return next((headers[name][:256] for name in REQUEST_ID_HEADERS if name in headers), None)


def retry_after_s(headers: Headers) -> float | None:
    """Seconds to wait, from `retry-after-ms`, else `retry-after` in seconds or as a date; 0 and nonsense are None."""
    seconds = _number(headers.get("retry-after-ms"))
    if seconds is not None:
        seconds /= 1000
    else:
        value = headers.get("retry-after")
        seconds = _number(value)
        if seconds is None and value is not None and "date" in headers:
            try:
                seconds = (parsedate_to_datetime(value) - parsedate_to_datetime(headers["date"])).total_seconds()
            except (ValueError, TypeError, OverflowError):
                seconds = None
    return _bounded(seconds)


def _seconds(delay: str) -> float | None:
    """Of a duration as Google writes it, "48.5s"."""
    return _bounded(_number(delay.removesuffix("s")))


def _bounded(seconds: float | None) -> float | None:
    return min(seconds, RETRY_AFTER_MAX_S) if seconds is not None and seconds > 0 else None


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None
