"""A client that does anything in any order: each id is answered exactly once, and what is in flight stays so."""

import asyncio
from collections import Counter
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import uvloop
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from llmd.catalog import ProviderRow
from llmd.core.outcomes import Outcome
from llmd.dialects.base import Emit, HttpCall
from llmd.echo import EchoProvider
from llmd.rpc.hub import Hub
from llmd.rpc.session import Session
from llmd.settings import Limits
from tests.support.sessions import OWN, MemoryStream, catalog, open_hub

IN_FLIGHT = 4
EXAMPLES = {"mutants": 10, "quick": 60, "ci": 600, "deep": 6_000}[settings.get_current_profile_name()]

TURNS = 40  # of the loop, more than anything takes that waits for nobody

IDS = st.sampled_from(["1", "2", '"a"', "1.0", "2.5"])


class Held(EchoProvider):
    """Echo that answers a prompt when it is let go."""

    def __init__(self, row: ProviderRow) -> None:
        super().__init__(row)
        self.gates: dict[str, anyio.Event] = {}

    async def send(self, call: HttpCall, emit: Emit | None) -> Outcome:
        prompt = msgspec.json.decode(call.body)["turns"][0]["content"]
        self.gates[prompt] = anyio.Event()
        try:
            await self.gates[prompt].wait()
        finally:
            del self.gates[prompt]
        return await super().send(call, emit)


class Replies:
    """What comes together, once nobody holds it back any more: counts by the bytes of ids."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.waits_for: set[str] = set()


class ClientMachine(RuleBasedStateMachine):
    """`wanted` counts the replies by the bytes of their ids; `held` are the calls in flight, ids by their prompts."""

    @initialize()
    def connect(self) -> None:
        self.loop = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.held: dict[str, str] = {}
        self.replies: dict[str, Replies] = {}  # by the prompts that they wait for
        self.wanted: Counter[str] = Counter()
        self.numbers = 0
        self.loop.run(self._connect())

    async def _connect(self) -> None:
        self.provider = Held(catalog().providers["echo"])
        self.hub: Hub = open_hub(Limits(in_flight=IN_FLIGHT, batch=3), echo=self.provider)
        self.stream = MemoryStream()
        self.session = Session(self.hub, self.stream, OWN, authorized=True)
        self.served = asyncio.get_running_loop().create_task(self.session.run())
        await self._settle()

    # -- what a client may do -----------------------------------------------------------------------------------------

    @rule(identifier=IDS, what=st.sampled_from(["ping", "held", "held", "held", "echo", "nothing", "wrong"]))
    def ask(self, identifier: str, what: str) -> None:
        self._count(identifier, what)
        self._send(self._message(identifier, what))

    @rule(whats=st.lists(st.tuples(IDS, st.sampled_from(["ping", "held", "echo", "wrong"])), min_size=1, max_size=3))
    def ask_in_a_batch(self, whats: list[tuple[str, str]]) -> None:
        flying, replies = set(self.held.values()), Replies()
        room = IN_FLIGHT - len(self.held)
        items = []
        for identifier, what in whats:
            if identifier in flying:
                replies.counts["null"] += 1  # it is refused, whatever it is
            elif what == "held" and room > 0:
                self._hold(identifier, replies)
            else:
                replies.counts[identifier] += 1
            room -= what != "ping" and identifier not in flying  # until the whole batch has begun
            items.append(self._message(identifier, what))
        self._expect(replies)
        self._send(b"[" + b",".join(items) + b"]")

    @rule(identifier=IDS, words=st.sampled_from([("$/cancelRequest", "id"), ("notifications/cancelled", "requestId")]))
    def cancel(self, identifier: str, words: tuple[str, str]) -> None:
        method, name = words
        self._send(f'{{"jsonrpc":"2.0","method":"{method}","params":{{"{name}":{identifier}}}}}'.encode())
        for prompt in [prompt for prompt, held in self.held.items() if held == identifier]:
            self._end(prompt)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, IN_FLIGHT - 1))
    def let_go(self, which: int) -> None:
        prompt = list(self.held)[which % len(self.held)]
        self.provider.gates[prompt].set()
        self._end(prompt)
        self.loop.run(self._settle())

    @rule()
    def notify(self) -> None:
        self._send(b'{"jsonrpc":"2.0","method":"ping"}')

    @rule(garbage=st.sampled_from([b"{]", b"[}", b'{"a"}', b'{"jsonrpc":"2.0","id":1']))
    def say_nonsense(self, garbage: bytes) -> None:
        self.wanted["null"] += 1
        self._send(garbage)

    @rule()
    def stall(self) -> None:
        self.stream.stalled = not self.stream.stalled
        if not self.stream.stalled:
            self.stream.resume()
            self.loop.run(self._settle())

    # -- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def each_id_is_answered_exactly_once(self) -> None:
        if not self.stream.stalled:
            assert self._answered() == self.wanted
        assert self.hub.in_flight == len(self.held)

    def teardown(self) -> None:
        self.loop.run(self._leave())
        assert self._answered() == self.wanted
        assert (self.hub.in_flight, self.hub.input_bytes, len(self.hub.sessions)) == (0, 0, 0)
        self.loop.close()

    async def _leave(self) -> None:
        """Half-close: what is in flight is finished and answered."""
        with anyio.fail_after(10):
            self.stream.resume()
            self.stream.half_close()
            await self._settle()
            for prompt in list(self.held):
                self.provider.gates[prompt].set()
                self._end(prompt)
            await self.served

    # -- words and books ----------------------------------------------------------------------------------------------

    def _count(self, identifier: str, what: str) -> None:
        replies = Replies()
        if identifier in self.held.values():
            replies.counts["null"] += 1
        elif what == "held" and len(self.held) < IN_FLIGHT:
            self._hold(identifier, replies)
        else:
            replies.counts[identifier] += 1  # at once: busy, too
        self._expect(replies)

    def _hold(self, identifier: str, replies: Replies) -> None:
        self.numbers += 1
        prompt = f"p{self.numbers}"
        self.held[prompt], self.replies[prompt] = identifier, replies
        replies.waits_for.add(prompt)

    def _end(self, prompt: str) -> None:
        replies = self.replies.pop(prompt)
        replies.counts[self.held.pop(prompt)] += 1
        replies.waits_for.discard(prompt)
        self._expect(replies)

    def _expect(self, replies: Replies) -> None:
        if not replies.waits_for:
            self.wanted += replies.counts

    def _message(self, identifier: str, what: str) -> bytes:
        prompt = f"p{self.numbers}"
        params: dict[str, Any] = {
            "held": {"prompt": prompt, "model": "echo/echo"},
            "echo": {"prompt": "x", "model": "priced/echo"},
            "wrong": {"promt": 1},
        }.get(what, {})
        method = {"held": "execute", "echo": "execute", "wrong": "execute", "ping": "ping"}.get(what, "fly")
        head = f'{{"jsonrpc":"2.0","id":{identifier},"method":"{method}","params":'
        return head.encode() + msgspec.json.encode(params) + b"}"

    def _send(self, message: bytes) -> None:
        """Cut in two."""
        self.stream.feed(message[: len(message) // 2])
        self.stream.feed(message[len(message) // 2 :] + b"\n")
        self.loop.run(self._settle())

    async def _settle(self) -> None:
        for _ in range(TURNS):
            await anyio.lowlevel.checkpoint()

    def _answered(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for line in bytes(self.stream.written).splitlines():
            message = msgspec.json.decode(line, type=list[msgspec.Raw] | dict[str, msgspec.Raw])
            replies = message if isinstance(message, list) else [msgspec.Raw(line)]
            found.update(bytes(msgspec.json.decode(one, type=dict[str, msgspec.Raw])["id"]).decode() for one in replies)
        return found


def test_each_id_is_answered_exactly_once_whatever_a_client_does() -> None:
    run_state_machine_as_test(
        ClientMachine, settings=settings(max_examples=EXAMPLES, stateful_step_count=30, deadline=None)
    )
