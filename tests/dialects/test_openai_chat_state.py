"""What a provider that speaks OpenAI's words wants back: kept of its answer, and given back in the next request."""

from typing import Any

import msgspec
import pytest

from llmd.chat import Message, StatePart, TextPart, ToolCallPart
from llmd.core.outcomes import Answer
from tests.dialects.replies import DONE, answer, chunk, whole
from tests.support.calls import DIALECT, ask, row

SIGNATURE = {"google": {"thought_signature": "sealed"}}


def call(number: int, **more: Any) -> dict[str, Any]:
    return {"index": number, "id": f"c{number}", "function": {"name": "f", "arguments": "{}"}, **more}


def given_back(made: Answer, provider: str = "work") -> Any:
    """The assistant's message of the next request."""
    calls = [ToolCallPart(one.id, one.name, one.arguments) for one in made.tool_calls]
    state = [] if made.state is None else [StatePart(provider, made.state)]
    turn = Message("assistant", [TextPart(made.text), *calls, *state])
    body = DIALECT.request(ask(messages=[Message("user", "a"), turn]), row(), None, False).body
    return msgspec.json.decode(body)["messages"][1]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "said",
    [
        {"content": "a", "reasoning": "hm", "reasoning_details": [{"type": "reasoning.encrypted", "data": "sealed"}]},
        {"content": "a", "reasoning_content": "hm", "tool_calls": [call(0)]},
        {"content": "a", "tool_calls": [call(0), call(1, extra_content=SIGNATURE), call(2, extra_content={})]},
        {"content": "a", "extra_content": SIGNATURE},
    ],
    ids=["OpenRouter", "DeepSeek", "Gemini's calls", "Gemini's text"],
)
def test_what_it_wants_back_goes_back_as_it_came(said: dict[str, Any], stream: bool) -> None:
    made = answer([chunk(said), chunk({}, "stop"), DONE], stream=True) if stream else answer(whole(said))
    back = given_back(made)
    for name in ("reasoning_details", "reasoning_content", "extra_content"):
        assert back.get(name) == said.get(name)
    extras = [one.get("extra_content") for one in back.get("tool_calls", [])]
    assert extras == [one.get("extra_content") for one in said.get("tool_calls", [])]
    assert "reasoning" not in back


def test_nothing_is_kept_where_nothing_is_wanted_back() -> None:
    assert answer(whole({"content": "a", "reasoning": "hm", "tool_calls": [call(0)]})).state is None
    assert answer(whole({"content": "a", "reasoning_content": "hm"})).state is None  # DeepSeek's, without tools
    assert answer(whole({"content": "a", "reasoning_details": [], "extra_content": None})).state is None


def test_pieces_of_thoughts_are_put_together_by_their_index() -> None:
    def thought(**piece: Any) -> bytes:
        return chunk({"reasoning_details": [piece]})

    text = {"type": "reasoning.text", "index": 0}
    stream = [
        thought(**text, text="let ", signature=None, format="f"),
        thought(**text, text="me see", signature=None),
        thought(**text, text="", signature="s1"),
        thought(type="reasoning.encrypted", index=1, data="x"),
        thought(type="reasoning.encrypted", index=1, data="y"),
        thought(type="reasoning.summary", index=2, summary="in "),
        thought(type="reasoning.summary", index=2, summary="short"),
        thought(**{**text, "index": 3}, text="more"),
    ]
    made = answer([*stream, chunk({"content": "a"}), chunk({}, "stop"), DONE], stream=True)
    assert made.state == {
        "reasoning_details": [
            {**text, "text": "let me see", "signature": "s1", "format": "f"},
            {"type": "reasoning.encrypted", "index": 1, "data": "x"},
            {"type": "reasoning.encrypted", "index": 1, "data": "y"},
            {"type": "reasoning.summary", "index": 2, "summary": "in short"},
            {**text, "index": 3, "text": "more"},
        ]
    }


@pytest.mark.parametrize(
    "state",
    [None, [], "x", {"tool_calls": 3}, {"tool_calls": [3, {}]}, {"tool_calls": [{"id": []}]}, {"role": "system"}],
    ids=repr,
)
def test_a_state_of_another_shape_changes_nothing(state: Any) -> None:
    turn = Message("assistant", [TextPart("a"), ToolCallPart("c0", "f", {}), StatePart("work", state)])
    plain = Message("assistant", [TextPart("a"), ToolCallPart("c0", "f", {})])
    made, without = (DIALECT.request(ask(messages=[one]), row(), None, False).body for one in (turn, plain))
    assert made == without


def test_another_providers_state_is_not_sent() -> None:
    made = answer(whole({"content": "a", "reasoning_details": [{"type": "reasoning.text", "text": "x"}]}))
    assert given_back(made, "another") == {"role": "assistant", "content": "a"}
