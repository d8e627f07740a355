"""What waits to be written to one connection: a queue bounded in bytes, drained by one writer."""

from collections import deque
from collections.abc import Callable

import anyio

CHUNK_BYTES = 64 * 1024


class Output:
    """Bytes in order. Above `high_water` of them, `room` waits; `push` never does."""

    def __init__(self, high_water: int, send_now: Callable[[bytes | memoryview], int] = lambda data: 0) -> None:
        self._high_water = high_water
        self._send_now = send_now
        self._taken = False  # the writer has bytes in its hands: nothing may overtake them
        self._chunks: deque[bytes | memoryview] = deque()
        self._size = 0
        self._filled = anyio.Event()
        self._drained = anyio.Event()

    @property
    def size(self) -> int:
        """Bytes that have not been written, those in the writer's hands included."""
        return self._size

    def push(self, data: bytes, *, wake: bool = True) -> None:
        """Queue `data`; without `wake`, `flush` must follow, or nobody writes it."""
        self._chunks.append(data)
        self._size += len(data)
        if wake:
            self._filled.set()

    def flush(self) -> None:
        """Write what can be written without waiting; the rest is the writer's."""
        while self._chunks and not self._taken:
            data = self._next()
            sent = self._send_now(data)
            self.written(sent)
            if sent < len(data):
                self._chunks.appendleft(memoryview(data)[sent:])
                break
        if self._chunks:
            self._filled.set()

    async def take(self) -> bytes:
        """The next bytes to write, at most a chunk; waits until there are some."""
        while not self._chunks:
            self._filled = anyio.Event()
            await self._filled.wait()
        self._taken = True
        return self._next()

    def _next(self) -> bytes:
        first = self._chunks.popleft()
        if len(first) > CHUNK_BYTES:
            view = memoryview(first)
            self._chunks.appendleft(view[CHUNK_BYTES:])
            return bytes(view[:CHUNK_BYTES])
        if not self._chunks:
            return bytes(first)
        size, parts = len(first), [first]
        while self._chunks and size + len(self._chunks[0]) <= CHUNK_BYTES:
            parts.append(self._chunks.popleft())
            size += len(parts[-1])
        return b"".join(parts)

    def written(self, size: int) -> None:
        self._size -= size
        self._taken = False
        if self._size <= self._high_water:
            self._drained.set()

    def discard(self) -> None:
        """Nobody will write what waits."""
        self._chunks.clear()
        self._size = 0
        self._drained.set()

    def is_full(self) -> bool:
        """Whether more than `high_water` bytes wait, even after what could be written at once."""
        if self._size > self._high_water:
            self.flush()
        return self._size > self._high_water

    async def room(self) -> None:
        """Wait until no more than `high_water` bytes wait."""
        if self.is_full():
            await self._until(self._high_water)

    async def flushed(self) -> None:
        """Wait until everything is written."""
        await self._until(0)

    async def _until(self, size: int) -> None:
        self.flush()
        while self._size > size:
            self._drained = anyio.Event() if self._drained.is_set() else self._drained
            await self._drained.wait()
