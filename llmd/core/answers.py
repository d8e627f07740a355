"""Which idempotency keys have been answered: their params, and how large the answers are, which are kept elsewhere."""

from collections.abc import Mapping

from msgspec import Struct

from llmd.books import Unit
from llmd.errors import LLMError

KEPT_MS = 24 * 3600 * 1000
ANSWERS_MAX = 10_000
ANSWER_BYTES_MAX = 256 * 2**20


class Answered(Struct, frozen=True, omit_defaults=True):
    """One key that has come. `params` is a hash of what was asked, `size` that of the answer in bytes.

    call  the request id of a call that has begun and has no answer yet
    held  whether a hold tells if its bytes have left
    """

    params: str
    at_ms: int
    size: int = 0
    call: str | None = None
    held: bool = False


class Answers:
    """By key, the oldest first. A key's scope (peer, method, budget) is part of it."""

    def __init__(self) -> None:
        self._answered: dict[str, Answered] = {}
        self._bytes = 0

    def is_answered(self, key: str, params: str) -> bool:
        """Raises idempotency_conflict if the same key came with other params."""
        found = self._answered.get(key)
        if found is not None and found.params != params:
            raise conflict()
        return found is not None

    def begun(self) -> list[tuple[str, Answered]]:
        """The keys of calls that have no answer yet."""
        return [(key, answered) for key, answered in self._answered.items() if answered.call is not None]

    def keep(self, key: str, answered: Answered) -> None:
        self.drop(key)
        self._answered[key] = answered
        self._bytes += answered.size

    def drop(self, key: str) -> bool:
        """Whether it was there."""
        answered = self._answered.pop(key, None)
        self._bytes -= 0 if answered is None else answered.size
        return answered is not None

    def outdated(self, now_ms: int) -> list[str]:
        """The oldest keys: those that are too old or too much, to be dropped."""
        count, size, found = len(self._answered), self._bytes, []
        for key, answered in self._answered.items():
            too_much = count > ANSWERS_MAX or size > ANSWER_BYTES_MAX
            if not too_much and answered.at_ms >= now_ms - KEPT_MS:
                break
            found.append(key)
            count, size = count - 1, size - answered.size
        return found


def outcome_unknown(posted: Mapping[Unit, int]) -> LLMError:
    """Of a call that was cut, after its bytes had left: `posted` is what its budget has paid for it."""
    reason = "the call with this idempotency_key was cut short: it may have been made, and it was posted as if it had"
    return LLMError("outcome_unknown", reason, posted=posted)


def conflict() -> LLMError:
    return LLMError("idempotency_conflict", "this idempotency_key has come with other params", path="idempotency_key")
