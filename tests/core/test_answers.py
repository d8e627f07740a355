"""Which idempotency keys have been answered: those of a day, so many, and so much; and what a restart finds of them."""

from typing import Any

import msgspec
import pytest

from llmd.core import answers
from llmd.core.answers import ANSWERS_MAX, KEPT_MS, Answers, Told, conflict, outcome_unknown, row_of
from llmd.core.budget import Budget, Terms
from llmd.core.changes import Changes
from llmd.core.holds import Call, Hold
from llmd.errors import LLMError
from tests.support.trees import tokens


class Answer(msgspec.Struct):
    text: str


class Book(Answers):
    """Answers, with the rows that a journal has of them."""

    def __init__(self) -> None:
        self.changes = Changes()
        super().__init__(self.changes)
        self.rows: dict[str, bytes] = {}

    def answer(self, key: str, at_ms: int, size: int = 1) -> None:
        self.keep(key, "p", at_ms, Answer("x" * size))

    def write(self) -> dict[str, bytes]:
        for key, row in self.changes.take().rows.items():
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row
        return self.rows

    def kept(self) -> list[str]:
        """The keys that are answered: those with both their rows, and no other row is there."""
        rows = sorted(self.write())
        keys = [key.removeprefix("a/") for key in rows if key.startswith("a/")]
        assert rows == sorted(prefix + key for key in keys for prefix in ("a/", "k/"))
        assert all(self.is_answered(key, "p") for key in keys)
        return keys

    def restarted(self, *cut: Hold) -> "Book":
        again = Book()
        again.rows = dict(self.write())
        rows = again.rows.copy()
        again.recover(lambda prefix: [row for row in rows.items() if row[0].startswith(prefix)], cut)
        return again


def kept(*ages: int, size: int = 1) -> Book:
    """Keys "0", "1", ... that were answered at these times."""
    made = Book()
    for number, at_ms in enumerate(ages):
        made.answer(str(number), at_ms, size)
    return made


def test_a_key_is_answered_once_it_is_kept_and_until_it_is_dropped() -> None:
    made = kept(0)
    assert made.is_answered("0", "p")
    assert not made.is_answered("1", "p")
    assert msgspec.json.decode(made.write()[row_of("0")]) == {"text": "x"}
    made.drop("0")
    assert not made.is_answered("0", "p")
    assert made.kept() == []
    made.drop("0")
    assert not made.changes, "there was nothing to drop"


def test_the_same_key_with_other_params_is_a_conflict() -> None:
    with pytest.raises(LLMError) as caught:
        kept(0).is_answered("0", "q")
    assert (caught.value.kind, caught.value.data["path"]) == ("idempotency_conflict", "idempotency_key")
    assert conflict().kind == "idempotency_conflict"


def test_what_is_a_day_old_is_forgotten() -> None:
    made = kept(0, 1000, 2000)
    made.forget(KEPT_MS)
    assert made.kept() == ["0", "1", "2"]
    made.forget(KEPT_MS + 1001)
    assert made.kept() == ["2"]


def test_the_oldest_go_where_there_are_too_many() -> None:
    made = kept(*range(ANSWERS_MAX + 3))
    assert len(made.kept()) == ANSWERS_MAX
    assert not any(made.is_answered(key, "p") for key in "012")


def test_a_call_that_still_runs_is_known_however_many_come_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "ANSWERS_MAX", 2)
    made = Book()
    made.begin("running", "p", 0, "r1", held=False)
    for number in range(4):
        made.answer(str(number), number)
    assert made.is_answered("running", "p")
    assert [key for key in "0123" if made.is_answered(key, "p")] == ["3"]
    made.forget(KEPT_MS + 10)
    assert made.is_answered("running", "p")
    assert not made.is_answered("3", "p")


def test_the_oldest_go_where_they_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "ANSWER_BYTES_MAX", 100 + 4 * len('{"text":""}'))
    made = kept(0, 1, 2, 3, size=30)
    assert made.kept() == ["1", "2", "3"]
    made.drop("1")
    made.answer("4", 4, 30)
    assert made.kept() == ["2", "3", "4"]
    made.answer("5", 5, 200)
    assert made.kept() == [], "not even the one that has just come"


def test_a_key_that_is_kept_again_counts_once_and_as_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "ANSWER_BYTES_MAX", 150)
    made = kept(0, 1, size=40)
    for at_ms in range(2, 10):
        made.answer("0", at_ms, 40)
    assert made.kept() == ["0", "1"]
    made.forget(KEPT_MS + 5)
    assert made.kept() == ["0"]


# -- after a restart ------------------------------------------------------------------------------------------------


def begun(*, held: bool, answered: bool = False) -> Book:
    made = Book()
    made.begin("k", "p", 5, "r1", held=held)
    if answered:
        made.answer("k", 6)
    return made


def cut(call: str, *, dispatched: bool = True) -> Hold:
    hold = Hold(1, Budget("b", None, Terms(), None), tokens(7), [], Call(call))
    hold.dispatched = dispatched
    return hold


def told(book: Book) -> dict[str, Any]:
    with pytest.raises(LLMError) as caught:
        msgspec.json.decode(book.write()[row_of("k")], type=Told).completion()
    assert caught.value.kind == "outcome_unknown"
    return caught.value.data


def test_a_restart_finds_the_same_answers_oldest_first() -> None:
    made = kept(3, 1, 2).restarted()
    assert made.kept() == ["0", "1", "2"]
    made.forget(KEPT_MS + 3)
    assert made.kept() == ["0"]


def test_a_call_that_was_cut_has_an_unknown_outcome_that_is_posted() -> None:
    made = begun(held=True).restarted(cut("r2"), cut("r1"))
    assert told(made) == {"posted": {"total_tokens": 7}}
    assert told(made.restarted()) == {"posted": {"total_tokens": 7}}


@pytest.mark.parametrize("holds", [[], [cut("r1", dispatched=False)], [cut("r2")]])
def test_a_call_whose_bytes_had_not_left_has_not_been(holds: list[Hold]) -> None:
    made = begun(held=True).restarted(*holds)
    assert made.kept() == []
    assert not made.is_answered("k", "p")


def test_a_call_one_of_whose_attempts_had_been_posted_has_an_unknown_outcome_though_nothing_is_held() -> None:
    made = begun(held=True)
    made.posted("r2", tokens(3))
    made.posted("r1", tokens(4))
    assert told(made.restarted()) == {"posted": {"total_tokens": 4}}
    made.posted("r1", tokens(5))
    assert told(made.restarted(cut("r1"))) == {"posted": {"total_tokens": 4 + 5 + 7}}
    made.answer("k", 6)
    made.posted("r1", tokens(1))  # a race's loser, say
    assert msgspec.json.decode(made.restarted().write()[row_of("k")]) == {"text": "x"}


def test_of_a_call_without_a_hold_nobody_knows_whether_its_bytes_had_left() -> None:
    assert told(begun(held=False).restarted()) == {"posted": {}}


def test_a_call_that_was_answered_was_not_cut() -> None:
    made = begun(held=True, answered=True).restarted(cut("r1"))
    assert msgspec.json.decode(made.write()[row_of("k")]) == {"text": "x"}


def test_an_unknown_outcome_tells_what_was_posted() -> None:
    error = outcome_unknown({"total_tokens": 7})
    assert (error.kind, error.retryable, error.data) == ("outcome_unknown", False, {"posted": {"total_tokens": 7}})
