"""A real Session in the test's own process, on bytes in memory: everything of the daemon but its sockets.

`Runner.converse` is one whole connection: bytes in at given cuts, every byte of the answer out. `MemoryStream` is the
client's end of one for dialogues that have to see what happens in between (support/dialogues.py).
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import anyio
import anyio.lowlevel
import msgspec
import uvloop

from llmd.budget_operations import BudgetOperations
from llmd.catalog import Catalog, configured
from llmd.clock import Clock, Now
from llmd.context import Peer
from llmd.dialects.base import Provider
from llmd.errors import LLMError
from llmd.executor import Executor
from llmd.journal.memory import MemoryJournal
from llmd.payer import Payer
from llmd.replays import Replays
from llmd.rpc import METHODS
from llmd.rpc.base import Service
from llmd.rpc.dispatch import Dispatcher
from llmd.rpc.hub import Hub
from llmd.rpc.output import CHUNK_BYTES
from llmd.rpc.session import Session
from llmd.settings import Limits, Settings
from llmd.treasury import Treasury
from llmd.upstreams import Upstreams

T = TypeVar("T")

DEADLINE_S = 10  # of one conversation

OWN = Peer("unix", 1000, 1, own=True)
STRANGER = Peer("tcp", None, None, own=False)
TOKEN = "the-token-of-this-daemon"

# `slow` never answers by itself within a test: it is cancelled, or runs into its deadline.
SETTINGS: dict[str, Any] = {
    "default_model": "echo/echo",
    "providers": {
        "slow": {"dialect": "echo", "latency_ms": 3_600_000},
        "broken": {"dialect": "echo", "fail": "model_not_found"},
        "priced": {"dialect": "echo", "models": {"echo": {"price": {"input": 1.0, "output": 2.0}}}},
    },
}


class MemoryStream:
    """Both ends of a connection: the session's (the ByteStream protocol), and the client's (all other methods)."""

    def __init__(self, chunks: Sequence[bytes] = (), *, ended: bool = False, at_once: int | None = None) -> None:
        self.written = bytearray()
        self.finished = False  # the session has shut its side down
        self.reading = False  # the session waits for bytes
        self.stalled = False  # the client takes nothing: writes wait
        self.at_once = at_once  # how many bytes it takes without waiting; all, if None
        self.sends = 0
        self._chunks = [memoryview(chunk) for chunk in reversed(chunks) if chunk]
        self._ended = ended
        self._lost = False
        self._gone = anyio.Event()
        self._changed = anyio.Event()

    # -- the session's end ----------------------------------------------------------------------------------------

    async def read(self, take: Callable[[bytes], bool], /) -> None:
        data = b""
        while take(data):
            data = await self._receive(CHUNK_BYTES)

    async def _receive(self, max_bytes: int) -> bytes:
        await anyio.lowlevel.checkpoint()
        while not self._chunks and not self._ended and not self._lost:
            self.reading = True
            self._note()
            try:
                await self._changed.wait()
            finally:
                self.reading = False
        if self._lost:
            raise anyio.BrokenResourceError
        if not self._chunks:
            raise anyio.EndOfStream
        chunk = self._chunks.pop()
        if len(chunk) > max_bytes:
            self._chunks.append(chunk[max_bytes:])
        return bytes(chunk[:max_bytes])

    async def send(self, data: bytes, /) -> None:
        self.sends += 1
        self._note()
        await anyio.lowlevel.checkpoint()
        while self.stalled and not self._lost:
            await self._changed.wait()
        if self._lost:
            raise anyio.BrokenResourceError
        self.written += data
        self._note()

    def send_now(self, data: bytes | memoryview, /) -> int:
        if self.stalled or self._lost:
            return 0
        self.sends += 1
        taken = data[: self.at_once]
        self.written += taken
        self._note()
        return len(taken)

    async def send_eof(self) -> None:
        self.finished = True
        self._note()

    async def hung_up(self) -> None:
        await self._gone.wait()

    # -- the client's end -----------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        self._chunks.insert(0, memoryview(data))
        self._note()

    def half_close(self) -> None:
        self._ended = True
        self._note()

    def close(self) -> None:
        self._gone.set()
        self.half_close()

    def lose(self) -> None:
        """A reset: nothing can be read or written any more."""
        self._lost = True
        self._note()

    def resume(self) -> None:
        self.stalled = False
        self._note()

    @property
    def unread(self) -> int:
        return sum(len(chunk) for chunk in self._chunks)

    def replies(self) -> list[Any]:
        return [msgspec.json.decode(line) for line in bytes(self.written).splitlines()]

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    async def taken(self) -> None:
        """Wait until the session has read all there is and waits for more."""
        await self.until(lambda: self.reading and not self._chunks)

    async def answered(self, count: int) -> list[Any]:
        """Wait for so many lines in all."""
        await self.until(lambda: self.written.count(b"\n") >= count)
        return self.replies()

    def _note(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()


class _Upstreams(Upstreams):
    """The configured ones, with some of a test's own in their places."""

    def __init__(self, catalog: Catalog, own: Mapping[str, Provider]) -> None:
        super().__init__(catalog, {}, _no_transport)
        self._own = own

    def provider(self, name: str) -> Provider:
        return self._own.get(name) or super().provider(name)


class _NoClock(Clock):
    """For conversations that open no budgets, wherever the loop is that they run on."""

    def now(self) -> Now:
        return Now(0.0, 0)


def _no_transport() -> Any:
    raise AssertionError("the echo provider needs no network")


def catalog() -> Catalog:
    settings = msgspec.convert(SETTINGS, Settings)
    rows, problems = configured(settings)
    assert problems == []
    return Catalog(providers=rows, default_model=settings.default_model)


def dispatcher(limits: Limits, own: Mapping[str, Provider]) -> Dispatcher:
    upstreams = _Upstreams(catalog(), own)
    treasury = Treasury(_NoClock(), {}, limits.budgets)
    treasury.open(MemoryJournal())
    replays = Replays(treasury)

    async def reload() -> None:
        raise LLMError("config_invalid", "llmd.toml: is not TOML", problems=["is not TOML"])

    return Dispatcher(
        Service(
            methods=METHODS,
            executor=Executor(lambda: upstreams, Payer(treasury, lambda: 1024)),
            budgets=BudgetOperations(treasury, replays),
            replays=replays,
            upstreams=lambda: upstreams,
            limits=lambda: limits,
            reload=reload,
            is_token=lambda token: token == TOKEN,
            started=0,
        )
    )


def open_hub(limits: Limits | None = None, **own: Provider) -> Hub:
    """What a daemon's connections share; needs a running loop. `own` replaces providers by name."""
    limits = limits or Limits()
    return Hub(dispatcher(limits, own) if own else _shared_dispatcher(limits), lambda: limits)


@lru_cache
def _shared_dispatcher(limits: Limits) -> Dispatcher:
    return dispatcher(limits, {})


class Terms(NamedTuple):
    """Under which terms a connection is served."""

    limits: Limits = Limits()
    peer: Peer = OWN
    authorized: bool = True
    draining: bool = False


class Outcomes(NamedTuple):
    """All that was answered, and whether the session ended it before the client did."""

    written: bytes
    cut_off: bool


async def _converse(chunks: Sequence[bytes], terms: Terms, at_once: int | None) -> Outcomes:
    hub = open_hub(terms.limits)
    if terms.draining:
        hub.stopping.set()
    stream = MemoryStream(chunks, ended=True, at_once=at_once)
    with anyio.fail_after(DEADLINE_S):
        await Session(hub, stream, terms.peer, authorized=terms.authorized).run()
    assert not hub.sessions
    assert hub.in_flight == 0, "no call outlives its connection"
    assert hub.input_bytes == 0, "what was counted is given back"
    return Outcomes(bytes(stream.written), stream.finished)


class Runner:
    """One event loop of the daemon's kind for many short conversations."""

    def __enter__(self) -> "Runner":
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)

    def converse(self, chunks: Sequence[bytes], terms: Terms | None = None, at_once: int | None = None) -> Outcomes:
        """One connection: `chunks` arrive one by one, then the client shuts its side down and reads to the end.

        at_once  how many bytes of answers it takes at a time before the session has to wait
        """
        return self.run(_converse(chunks, terms or Terms(), at_once))


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """`data` in pieces, cut at these places."""
    edges = [0, *sorted(place for place in places if 0 < place < len(data)), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]
