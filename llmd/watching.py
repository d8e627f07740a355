"""Who wants to know when a budget has changed: each is woken once for however much has changed meanwhile."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager

import anyio


class _Watcher:
    def __init__(self) -> None:
        self.changed = anyio.Event()

    async def next(self) -> None:
        await self.changed.wait()
        self.changed = anyio.Event()


class Watchers:
    def __init__(self) -> None:
        self._watchers: dict[str, list[_Watcher]] = {}

    @contextmanager
    def watching(self, identifier: str) -> Iterator[Callable[[], Awaitable[None]]]:
        """A wait for the next change of this budget, time after time."""
        watcher = _Watcher()
        self._watchers.setdefault(identifier, []).append(watcher)
        try:
            yield watcher.next
        finally:
            watchers = self._watchers[identifier]
            watchers.remove(watcher)
            if not watchers:
                del self._watchers[identifier]

    def stir(self, identifiers: Iterable[str]) -> None:
        """These budgets have changed."""
        if self._watchers:
            for identifier in identifiers:
                for watcher in self._watchers.get(identifier, ()):
                    watcher.changed.set()
