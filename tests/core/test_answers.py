"""Which idempotency keys have been answered: those of a day, so many, and so much."""

import pytest

from llmd.core import answers
from llmd.core.answers import ANSWERS_MAX, KEPT_MS, Answered, Answers, conflict, outcome_unknown
from llmd.errors import LLMError


def kept(*ages: int, size: int = 1) -> Answers:
    """Keys "0", "1", ... that were answered at these times."""
    made = Answers()
    for number, at_ms in enumerate(ages):
        made.keep(str(number), Answered("p", at_ms, size))
    return made


def test_a_key_is_answered_once_it_is_kept_and_until_it_is_dropped() -> None:
    made = kept(0)
    assert made.is_answered("0", "p")
    assert not made.is_answered("1", "p")
    assert made.drop("0")
    assert not made.drop("0")
    assert not made.is_answered("0", "p")


def test_the_same_key_with_other_params_is_a_conflict() -> None:
    with pytest.raises(LLMError) as caught:
        kept(0).is_answered("0", "q")
    assert (caught.value.kind, caught.value.data["path"]) == ("idempotency_conflict", "idempotency_key")
    assert conflict().kind == "idempotency_conflict"


def forget(made: Answers, now_ms: int) -> list[str]:
    outdated = made.outdated(now_ms)
    assert all(made.drop(key) for key in outdated)
    return outdated


def test_what_is_a_day_old_is_forgotten() -> None:
    made = kept(0, 1000, 2000)
    assert forget(made, KEPT_MS) == []
    assert forget(made, KEPT_MS + 1001) == ["0", "1"]
    assert made.is_answered("2", "p")


def test_the_oldest_go_where_there_are_too_many() -> None:
    made = kept(*range(ANSWERS_MAX + 3))
    assert forget(made, ANSWERS_MAX) == ["0", "1", "2"]
    assert forget(made, ANSWERS_MAX) == []


def test_the_oldest_go_where_they_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "ANSWER_BYTES_MAX", 100)
    made = kept(0, 1, 2, 3, size=30)
    assert forget(made, 3) == ["0"]
    made.drop("1")
    made.keep("4", Answered("p", 4, 30))
    assert forget(made, 4) == []
    made.keep("5", Answered("p", 5, 200))
    assert forget(made, 5) == ["2", "3", "4", "5"]


def test_a_key_that_is_kept_again_counts_once_and_as_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "ANSWER_BYTES_MAX", 100)
    made = kept(0, 1, size=40)
    for at_ms in range(2, 10):
        made.keep("0", Answered("p", at_ms, 40))
    assert forget(made, 10) == []
    assert forget(made, KEPT_MS + 5) == ["1"]


def test_a_call_has_begun_until_it_has_an_answer() -> None:
    made = kept(0)
    made.keep("a", Answered("p", 1, call="r1"))
    made.keep("b", Answered("p", 1, call="r2"))
    assert [key for key, _ in made.begun()] == ["a", "b"]
    made.keep("a", Answered("p", 1, size=10))
    assert [(key, answered.call) for key, answered in made.begun()] == [("b", "r2")]


def test_an_unknown_outcome_tells_what_was_posted() -> None:
    error = outcome_unknown({"total_tokens": 7})
    assert (error.kind, error.retryable, error.data) == ("outcome_unknown", False, {"posted": {"total_tokens": 7}})
