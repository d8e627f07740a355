"""Which idempotency keys have been answered, and the rows that keep the answers over a restart.

A key's scope (peer, method, budget) is part of it. What an answer says is in its row alone; known here are its params
and its size, those of a day, so many and so much.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmd.books import Unit
from llmd.chat import Completion
from llmd.core.amounts import Packed, by_unit, pack
from llmd.core.changes import Changes
from llmd.core.holds import Hold
from llmd.errors import LLMError

KEPT_MS = 24 * 3600 * 1000
ANSWERS_MAX = 10_000
ANSWER_BYTES_MAX = 256 * 2**20

_INDEX, _ANSWER = "k/", "a/"  # how the keys of the rows begin


class Answered(Struct, frozen=True, omit_defaults=True):
    """One key that has come. `params` is a hash of what was asked, `size` that of the answer in bytes.

    call    the request id of a call that has begun and has no answer yet
    held    whether a hold tells if its bytes have left
    posted  what its attempts have cost whose holds have resolved
    """

    params: str
    at_ms: int
    size: int = 0
    call: str | None = None
    held: bool = False
    posted: dict[Unit, int] = {}


class Told(Struct, frozen=True, omit_defaults=True):
    """How a call has ended: one of these."""

    ok: Completion | None = None
    error: dict[str, Any] | None = None

    def completion(self) -> Completion:
        """Raises the error."""
        if self.ok is not None:
            return replace(self.ok, replayed=True)
        assert self.error is not None
        data = dict(self.error["data"])
        raise LLMError(data.pop("kind"), self.error["message"], retryable=data.pop("retryable"), **data)


class Answers:
    """By key, the oldest first; each change is noted in `changes`, in the same breath as what it tells of."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._answered: dict[str, Answered] = {}
        self._begun: dict[str, str] = {}  # keys by the request ids of their calls
        self._bytes = 0

    def is_answered(self, key: str, params: str) -> bool:
        """Raises idempotency_conflict if the same key came with other params."""
        found = self._answered.get(key)
        if found is not None and found.params != params:
            raise conflict()
        return found is not None

    def begin(self, key: str, params: str, at_ms: int, call: str, *, held: bool) -> None:
        """A call has come that has no answer yet."""
        self._note(key, Answered(params, at_ms, call=call, held=held))

    def posted(self, call: str | None, amounts: Packed) -> None:
        """An attempt of this call has cost so much: if it has a key, it is not to be made again after a crash."""
        if (key := self._begun.get(call or "")) is not None:
            begun = self._answered[key]
            self._note(key, replace(begun, posted=by_unit(pack(begun.posted) + amounts)))

    def keep(self, key: str, params: str, at_ms: int, answer: Struct) -> None:
        data = msgspec.json.encode(answer)
        self._changes.row(row_of(key), data)
        self._note(key, Answered(params, at_ms, len(data)))

    def drop(self, key: str) -> None:
        if self._take(key):
            self._changes.row(_INDEX + key, None)
            self._changes.row(row_of(key), None)

    def forget(self, now_ms: int) -> None:
        """Let go of the oldest answers: those that are too old or too much. A call that still runs has none."""
        outdated = []
        count, size = len(self._answered), self._bytes
        for key, answered in self._answered.items():
            too_much = count > ANSWERS_MAX or size > ANSWER_BYTES_MAX
            if not too_much and answered.at_ms >= now_ms - KEPT_MS:
                break
            if answered.call is None:
                outdated.append(key)
                count, size = count - 1, size - answered.size
        for key in outdated:
            self.drop(key)

    def recover(self, rows: Callable[[str], Iterable[tuple[str, bytes]]], cut: Sequence[Hold]) -> None:
        """Begin with what is in `rows`; `cut` are the holds of the calls that a crash has cut."""
        known = [(key, msgspec.json.decode(data, type=Answered)) for key, data in rows(_INDEX)]
        for key, answered in sorted(known, key=lambda row: row[1].at_ms):
            self._put(key.removeprefix(_INDEX), answered)
        for key, begun in [(key, answered) for key, answered in self._answered.items() if answered.call is not None]:
            open_holds = [hold.amounts for hold in cut if hold.dispatched and hold.call.request_id == begun.call]
            posted = pack(begun.posted) + sum(open_holds)
            if begun.held and not posted:  # its bytes had not left
                self.drop(key)
            else:
                told = Told(error=outcome_unknown(by_unit(posted)).to_object())
                self.keep(key, begun.params, begun.at_ms, told)

    def _note(self, key: str, answered: Answered) -> None:
        self._put(key, answered)
        self._changes.row(_INDEX + key, msgspec.json.encode(answered))
        self.forget(answered.at_ms)

    def _put(self, key: str, answered: Answered) -> None:
        self._take(key)
        self._answered[key] = answered
        if answered.call is not None:
            self._begun[answered.call] = key
        self._bytes += answered.size

    def _take(self, key: str) -> bool:
        answered = self._answered.pop(key, None)
        if answered is None:
            return False
        self._bytes -= answered.size
        if answered.call is not None:
            self._begun.pop(answered.call, None)
        return True


def row_of(key: str) -> str:
    """The key of the row that has the answer."""
    return _ANSWER + key


def outcome_unknown(posted: Mapping[Unit, int]) -> LLMError:
    """Of a call that was cut, after its bytes had left: `posted` is what its budget has paid for it."""
    reason = "the call with this idempotency_key was cut short: it may have been made, and it was posted as if it had"
    return LLMError("outcome_unknown", reason, posted=posted)


def conflict() -> LLMError:
    return LLMError("idempotency_conflict", "this idempotency_key has come with other params", path="idempotency_key")
