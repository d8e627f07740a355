"""The shapes of the contract: what is refused on the way in, and that all members are there on the way out."""

import msgspec
import pytest

from llmd.chat import Ask, Completion, DeltaParams, Ended, ErrorObject, Message, TextPart, ToolCallDelta, ToolCallPart
from llmd.scalars import AMOUNT_MAX
from llmd.validation import explain


def ask(**members: object) -> Ask:
    return msgspec.convert({"prompt": "hi", **members}, Ask)


@pytest.mark.parametrize(
    "members",
    [
        {"messages": [{"role": "user", "content": "x"}]},  # beside the prompt
        {"prompt": None},
        {"max_tokens": 0},
        {"max_tokens": AMOUNT_MAX + 1},
        {"temperature": -0.1},
        {"top_p": 1.5},
        {"timeout_ms": 0},
        {"wait_ms": -1},
        {"seed": 2**63},
        {"stream": ""},
        {"stream": "x" * 129},
        {"provider": "echo"},  # without a model
        {"reasoning": {"effort": "low", "tokens": 1}},
        {"tools": [{"name": "", "parameters": {}}]},
        {"labels": {"a": None}},
        {"budgets": "x"},
    ],
    ids=str,
)
def test_params_that_make_no_sense_are_refused(members: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        ask(**members)


@pytest.mark.parametrize("role", ["user", "system", "tool"])
def test_a_providers_own_words_go_back_only_where_they_came_from(role: str) -> None:
    state = [{"type": "text", "text": "a"}, {"type": "state", "provider": "gemini", "data": []}]
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": state},
        {"role": role, "content": state},
    ]
    msgspec.convert({"messages": turns[:2]}, Ask)
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"messages": turns}, Ask)
    assert explain(caught.value, Ask).path == "messages[2]"


def test_the_system_text_comes_first() -> None:
    turns = ask(system="be brief").turns
    assert [(turn.role, turn.text) for turn in turns] == [("system", "be brief"), ("user", "hi")]


def test_the_text_of_a_message_is_that_of_its_text_parts() -> None:
    message = Message("assistant", [TextPart("a"), ToolCallPart("1", "f", {}), TextPart("b")])
    assert message.text == "a\nb"


def test_every_member_of_a_completion_is_always_written() -> None:
    assert Completion.__struct_config__.omit_defaults is False
    assert len(Completion.__struct_fields__) == 16


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (Ended(error=ErrorObject(1, "m", {})), '{"error":{"code":1,"message":"m","data":{}}}'),
        (DeltaParams("s", 0, text="a"), '{"stream":"s","seq":0,"text":"a"}'),
        (ToolCallDelta(0, arguments=""), '{"index":0,"arguments":""}'),
    ],
)
def test_of_members_of_which_one_is_set_the_others_are_not_written(said: object, text: str) -> None:
    assert msgspec.json.encode(said).decode() == text
