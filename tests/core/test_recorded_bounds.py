"""What recorded calls have cost, and what they could have at most: the input of none was above its bound."""

import json
from typing import Any

import pytest

from llmd.catalog import ProviderRow, provider_row
from llmd.core.bounds import bound
from llmd.core.rows import ModelRow
from llmd.known import KNOWN
from llmd.settings import ProviderSettings
from tests.dialects.test_recordings import rows_of
from tests.support.calls import ask, row

# Members of requests that have a provider read what it keeps or finds.
ELSEWHERE = {"cachedContent", "container", "conversation", "mcp_servers", "plugins", "previous_response_id", "prompt"}
OURS = {None, "function", "custom"}  # the types of tools that a caller runs


def is_text(recording: dict[str, Any]) -> bool:
    """Whether all that was read is in the request, and the usage is told."""
    asked, expected = recording["request_json"], recording["expected"] or {}
    if (
        not isinstance(asked, dict)
        or recording["request_truncated"]
        or not (expected.get("norm_usage") or {}).get("input")
    ):
        return False
    if "multimodal" in recording["features"] or asked.keys() & ELSEWHERE:
        return False
    gemini = recording["api"].startswith("gemini")
    tools = asked.get("tools") or []
    return all(tool.keys() == {"functionDeclarations"} if gemini else tool.get("type") in OURS for tool in tools)


def known(recording: dict[str, Any]) -> ModelRow:
    """The row of its model, with the overhead of one that nobody knows."""
    name, model = recording["provider"], recording["model"] or ""
    made = provider_row(name, ProviderSettings(base_url=None if name in KNOWN else "http://127.0.0.1:9/v1"))
    return made.model_row(model) if isinstance(made, ProviderRow) else row()


def cost_and_bound(recording: dict[str, Any]) -> tuple[int, int, bool]:
    """The input of a call, its bound, and whether that is sound."""
    body = json.dumps(recording["request_json"], ensure_ascii=False, separators=(",", ":"))
    made = bound(ask(), body, known(recording), 100)
    return recording["expected"]["norm_usage"]["input"], made.amounts.input_tokens, made.sound


@pytest.mark.parametrize("recording", rows_of(is_text))
def test_no_recorded_call_had_more_input_than_its_bound_where_that_is_sound(recording: dict[str, Any]) -> None:
    cost, most, sound = cost_and_bound(recording)
    assert cost <= most or not sound


def test_nearly_every_recorded_call_is_bounded_and_the_others_went_searching() -> None:
    recordings = [found.values[0] for found in rows_of(is_text)]
    if recordings != [None]:
        assert len(recordings) > 1000
        unsound = [recording for recording in recordings if not cost_and_bound(recording)[2]]
        assert {recording["id"] for recording in unsound} == {"f05e218b0a1d9060", "0e28b3a4178c464b"}
        assert all(cost > most for cost, most, _ in map(cost_and_bound, unsound)), "bytes bound no search"
