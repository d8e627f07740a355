"""How much of an answer its deltas have told."""

from llmd.chat import Delta, ToolCall, ToolCallDelta
from llmd.core.outcomes import Answer
from llmd.dialects.base import Told

WHOLE = Answer(text="hello you", finish_reason="stop", reasoning="hm so", tool_calls=[ToolCall("c1", "f", {"x": 1})])
CALL = Delta(tool_call=ToolCallDelta(0, "c1", "f", '{"x":1}'))


def told(*deltas: Delta) -> list[Delta]:
    so_far = Told()
    for delta in deltas:
        so_far.note(delta)
    return so_far.rest(WHOLE)


def test_where_nothing_was_told_the_whole_answer_is_left() -> None:
    assert told() == [Delta(reasoning="hm so"), Delta(text="hello you"), CALL]


def test_what_was_told_is_not_told_again() -> None:
    assert told(Delta(reasoning="hm so"), Delta(text="hello "), Delta(text="you"), CALL) == []


def test_a_part_that_was_not_told_is_left() -> None:
    assert told(Delta(reasoning="hm "), Delta(text="hello"), CALL) == [Delta(reasoning="so"), Delta(text=" you")]
