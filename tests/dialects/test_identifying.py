"""No two calls of a conversation share an id, and each result has that of its call."""

import pytest

from llmd.chat import AnyPart, Message, StatePart, TextPart, ToolCallPart, ToolResultPart
from llmd.dialects.expressing import expressible
from llmd.dialects.identifying import distinct
from tests.support.calls import ask, row


def calls(*ids: str, state: str | None = None) -> Message:
    said: list[AnyPart] = [ToolCallPart(identifier, "f", {"of": identifier}) for identifier in ids]
    return Message("assistant", [*said, *([StatePart(state, [])] if state else [])])


def results(*ids: str) -> Message:
    return Message("tool", [TextPart("so"), *(ToolResultPart(identifier, "yes") for identifier in ids)])


def ids_of(*turns: Message) -> list[list[str]]:
    made = distinct(ask(messages=list(turns)), "work")
    said = [[part.id for part in turn.parts if isinstance(part, ToolCallPart | ToolResultPart)] for turn in made.turns]
    assert [len(turn.parts) for turn in made.turns] == [len(turn.parts) for turn in turns]
    return [ids for ids in said if ids]


def test_a_chat_whose_ids_are_distinct_is_left_as_it_is() -> None:
    for chat in (ask(), ask(messages=[Message("user", "a"), calls("a", "b"), results("a", "b")])):
        assert distinct(chat, "work") is chat


def test_an_id_that_comes_again_is_another_for_its_call_and_its_result() -> None:
    asked = [calls("call_0"), results("call_0"), Message("user", "a"), calls("call_0", "call_1")]
    told = [*asked, results("call_1", "call_0"), calls("call_0"), results("call_0")]
    assert ids_of(*told) == [
        ["call_0"],
        ["call_0"],
        ["call_0_2", "call_1"],
        ["call_1", "call_0_2"],
        ["call_0_3"],
        ["call_0_3"],
    ]


def test_of_calls_of_one_turn_that_share_an_id_the_results_follow_in_order() -> None:
    assert ids_of(calls("a", "a"), results("a"), results("a")) == [["a", "a_2"], ["a"], ["a_2"]]


def test_a_result_is_of_the_latest_call_though_an_earlier_one_has_none() -> None:
    assert ids_of(calls("a"), calls("a"), results("a")) == [["a"], ["a_2"], ["a_2"]]


@pytest.mark.parametrize("taken", ["a_2", "a"])
def test_a_new_id_is_none_that_is_taken(taken: str) -> None:
    made = ids_of(calls("a_2"), calls("a"), calls(taken))
    assert len({identifier for ids in made for identifier in ids}) == 3


def test_what_the_provider_wants_back_keeps_its_ids() -> None:
    told = [calls("a"), results("a"), calls("a", state="work"), results("a")]
    assert ids_of(*told) == [["a_2"], ["a_2"], ["a"], ["a"]]
    told = [calls("a"), results("a"), calls("a", state="another"), results("a")]
    assert ids_of(*told) == [["a"], ["a"], ["a_2"], ["a_2"]]


def test_every_request_is_made_with_ids_of_their_own() -> None:
    made, _ = expressible(ask(messages=[calls("a"), calls("a")]), row())
    assert [part.id for turn in made.turns for part in turn.parts if isinstance(part, ToolCallPart)] == ["a", "a_2"]
