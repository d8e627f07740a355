"""What is durable: rows by key, replaced whole, and entries that are only added. Knows nothing of budgets.

A batch is written whole or not at all, and batches in the order in which they come; so whatever was lost, what is found
again is a state that there was. Two journals keep the same promises: `memory`, for as long as the process lives, and
`sqlite`.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from msgspec import Struct


class JournalEntry(NamedTuple):
    """One line of history: when (milliseconds since the epoch), of what (ids from the root down, "a/b/c"), and it."""

    at_ms: int
    path: str
    data: bytes


class Batch(Struct, frozen=True):
    """What changes together.

    rows     by key: the new value, or None where the row goes
    entries  in their order
    """

    rows: dict[str, bytes | None]
    entries: list[JournalEntry]


class StoreUnavailable(Exception):
    """The store cannot be opened: the message says where, why, and what to do. For the log and the operator."""


class StoreTaken(StoreUnavailable):
    """Another process has the store; `draining` where it said that it is about to let go."""

    def __init__(self, message: str, *, draining: bool) -> None:
        super().__init__(message)
        self.draining = draining


class WriteFailed(Exception):
    """A batch was not written, and nothing of it is there: it may be written later. The message is the reason."""


class DurabilityLost(Exception):
    """Whether a batch was written cannot be known any more: the process must end, and start again from the store."""


class Journal(Protocol):
    """Opened, it is read with `rows`; from then on it is written."""

    @property
    def read_only(self) -> str | None:
        """Why nothing can be written until somebody has looked at it, or None."""
        ...

    @property
    def last(self) -> int:
        """The number of the last entry that was written, 0 if there is none."""
        ...

    def rows(self, prefix: str) -> Iterable[tuple[str, bytes]]:
        """The rows whose key begins so, in the order of their keys. Before the first `write` only."""
        ...

    async def write(self, batch: Batch) -> None:
        """Durable when it returns. One at a time. Raises WriteFailed, DurabilityLost.

        Cancelled, it returns only when it is known whether the batch was written.
        """
        ...

    async def row(self, key: str) -> bytes | None: ...

    async def entries(self, path: str, after: int, limit: int) -> list[tuple[int, JournalEntry]]:
        """Of `path` and all below it, in order, those with a number above `after`; numbers only grow."""
        ...

    def yielding(self) -> None:
        """Tell whoever waits for the store that it will be closed soon."""
        ...

    async def aclose(self) -> None:
        """Give the store up. Whoever waits for it may have it from now on."""
        ...
