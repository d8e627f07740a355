"""One connection from its client's end: what is answered when, and what it may hold."""

from functools import partial

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.catalog import ProviderRow
from llmd.chat import Delta
from llmd.core.outcomes import Outcome
from llmd.dialects.base import Emit, HttpCall
from llmd.echo import EchoProvider
from llmd.rpc.session import Session
from llmd.settings import Limits
from tests.support.dialogues import Client, call, cancel, connected, execute, gate, gated_hub, kinds, pong
from tests.support.sessions import OWN, STRANGER, MemoryStream, Runner, Terms, catalog, cut, open_hub

pytestmark = pytest.mark.anyio


class Chatty(EchoProvider):
    """Says `said` words by now, of so many, as fast as it is let."""

    def __init__(self, row: ProviderRow, words: int) -> None:
        super().__init__(row)
        self._words = words
        self.said = 0

    async def send(self, call: HttpCall, emit: Emit | None) -> Outcome:
        assert emit is not None
        for _ in range(self._words):
            await emit(Delta(text="word "))
            self.said += 1
        return await super().send(call, None)


# -- answering ----------------------------------------------------------------------------------------------------


async def test_a_value_is_answered_when_its_bracket_closes_and_no_newline_comes() -> None:
    async with connected(open_hub()) as client:
        client.stream.feed(call(1))
        assert await client.stream.answered(1) == [pong(1)]


async def test_calls_run_at_once_and_what_can_be_answered_overtakes_them() -> None:
    gated = gate()
    async with connected(gated_hub(gated)) as client:
        client.send(*(execute(number) for number in range(50)), call(99))
        assert await client.stream.answered(1) == [pong(99)]
        await anyio.wait_all_tasks_blocked()
        assert gated.running == 50
        gated.release.set()
        replies = await client.stream.answered(51)
        assert sorted(kinds(replies)) == [(number, "ok") for number in [*range(50), 99]]


async def test_the_calls_of_a_batch_run_at_once_and_their_replies_wait_for_the_last() -> None:
    gated = gate()
    async with connected(gated_hub(gated)) as client:
        client.send(b"[%b]" % b",".join([*(execute(number) for number in range(20)), call(20)]))
        await client.stream.taken()
        await anyio.wait_all_tasks_blocked()
        assert gated.running == 20
        assert not client.stream.written
        gated.release.set()
        (replies,) = await client.stream.answered(1)
        assert sorted(kinds(replies)) == [(number, "ok") for number in range(21)]


async def test_an_id_and_a_token_are_free_again_behind_the_reply() -> None:
    async with connected(open_hub()) as client:
        for turn in range(3):
            client.send(execute(1, stream="s"))
            replies = await client.stream.answered(2 * (turn + 1))
            assert replies[-2]["params"] == {"stream": "s", "seq": 0, "text": "p"}
            assert kinds(replies[-1:]) == [(1, "ok")]


async def test_an_id_is_free_again_behind_a_cancel() -> None:
    gated = gate()
    async with connected(gated_hub(gated)) as client:
        client.send(execute(1, stream="s"))
        await gated.entered.wait()
        client.send(cancel(1))
        assert kinds(await client.stream.answered(1)) == [(1, "cancelled")]
        assert gated.aborted == 1
        gated.release.set()
        client.send(execute(1, stream="s"))
        assert kinds((await client.stream.answered(3))[2:]) == [(1, "ok")]


async def test_two_connections_share_neither_ids_nor_tokens_nor_cancels() -> None:
    gated = gate()
    hub = gated_hub(gated)
    async with connected(hub) as one, connected(hub) as other:
        one.send(execute(1, stream="s"))
        await gated.entered.wait()
        other.send(cancel(1), execute(1, stream="s"))
        await other.stream.taken()
        gated.release.set()
        for client in (one, other):
            assert kinds((await client.stream.answered(2))[1:]) == [(1, "ok")]


# -- limits -------------------------------------------------------------------------------------------------------


async def test_above_its_calls_in_flight_a_connection_is_busy_until_one_ends() -> None:
    gated = gate()
    hub = gated_hub(gated, in_flight=2)
    async with connected(hub) as client, connected(hub) as other:
        client.send(execute(1), execute(2), execute(3), call(4))
        assert kinds(await client.stream.answered(2)) == [(3, "busy"), (4, "ok")]
        assert client.stream.replies()[0]["error"]["data"]["retry_after_ms"] > 0
        client.send(cancel(1))
        assert kinds((await client.stream.answered(3))[2:]) == [(1, "cancelled")]
        client.send(execute(5))
        other.send(execute(6))
        await anyio.wait_all_tasks_blocked()
        assert gated.running == 3
        gated.release.set()
        assert sorted(kinds((await client.stream.answered(5))[3:])) == [(2, "ok"), (5, "ok")]
        assert kinds(await other.stream.answered(1)) == [(6, "ok")]


async def test_unfinished_messages_are_bounded_over_all_connections() -> None:
    hub = open_hub(Limits(input_bytes=100))
    async with connected(hub) as first:
        first.stream.feed(call(1)[:-1])
        await first.stream.taken()
        held = hub.input_bytes
        assert held == len(call(1)) - 1
        async with connected(hub) as second:
            second.stream.feed(b"[" + b" " * (100 - held))
            (reply,) = await second.stream.answered(1)
            assert (reply["id"], reply["error"]["data"]["kind"]) == (None, "busy")
            await second.stream.until(lambda: second.stream.finished)
        assert hub.input_bytes == held, "what the one had is given back"
        first.stream.feed(b"}")
        assert await first.stream.answered(1) == [pong(1)]
        assert hub.input_bytes == 0


async def test_a_connection_that_is_refused_hears_one_reason() -> None:
    hub = open_hub(Limits(input_bytes=10))
    async with connected(hub, STRANGER, authorized=False) as client:
        client.stream.feed(call(1) + b"[" + b" " * 20)
        await client.stream.until(lambda: client.stream.finished)
        assert kinds(client.stream.replies()) == [(1, "unauthorized")]


async def test_a_peer_that_takes_nothing_is_dropped_with_its_calls() -> None:
    gated = gate()
    async with connected(gated_hub(gated, stalled_write_ms=20)) as client:
        client.stream.stalled = True
        client.send(execute(1), call(2))
        await client.ended.wait()
        assert (gated.running, gated.aborted) == (0, 1)
        assert not client.stream.written


def _has_sent(client: Client, before: int) -> bool:
    return client.stream.sends > before


async def test_a_peer_that_takes_something_in_time_is_not_dropped() -> None:
    async with connected(open_hub(Limits(stalled_write_ms=10_000))) as client:
        for number in range(3):
            client.stream.stalled = True
            sends = client.stream.sends
            client.send(call(number))
            await client.stream.until(partial(_has_sent, client, sends))
            client.stream.resume()
            assert await client.stream.answered(number + 1) == [pong(number) for number in range(number + 1)]


async def test_a_peer_that_has_nothing_to_take_is_not_dropped() -> None:
    hub = open_hub(Limits(stalled_write_ms=20))
    async with connected(hub) as idle, connected(hub) as stalled:
        idle.stream.at_once = 0  # each answer is the writer's
        idle.send(call(1))
        await idle.stream.answered(1)
        stalled.stream.stalled = True
        stalled.send(call(1))
        await stalled.ended.wait()
        idle.send(call(2))
        assert await idle.stream.answered(2) == [pong(1), pong(2)]


async def test_a_peer_that_does_not_read_is_not_read_from_until_it_does() -> None:
    async with connected(open_hub(Limits(output_bytes=1000))) as client:
        client.stream.stalled = True
        for number in range(200):
            client.stream.feed(call(number))
        await anyio.wait_all_tasks_blocked()
        assert 20 < client.stream.unread / len(call(100)) < 190, "it has read to its high-water mark and no further"
        assert not client.stream.reading
        client.stream.resume()
        assert await client.stream.answered(200) == [pong(number) for number in range(200)]


async def test_of_many_requests_that_come_at_once_only_so_many_answers_are_made_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = open_hub(Limits(output_bytes=1000))
    answer, made = hub.dispatcher.now, []
    monkeypatch.setattr(hub.dispatcher, "now", lambda *asked: made.append(asked) or answer(*asked))
    async with connected(hub) as client:
        client.stream.stalled = True
        client.send(*(call(number) for number in range(200)))
        await anyio.wait_all_tasks_blocked()
        assert 20 < len(made) < 190
        client.stream.resume()
        assert await client.stream.answered(200) == [pong(number) for number in range(200)]


async def test_a_stream_waits_for_a_peer_that_does_not_read() -> None:
    chatty = Chatty(catalog().providers["echo"], words=1000)
    async with connected(open_hub(Limits(output_bytes=1000), echo=chatty)) as client:
        client.stream.stalled = True
        client.send(execute(1, stream="s"))
        await anyio.wait_all_tasks_blocked()
        assert 1 < chatty.said < 100
        client.stream.resume()
        *deltas, reply = await client.stream.answered(1001)
        assert [delta["params"]["seq"] for delta in deltas] == list(range(1000))
        assert kinds([reply]) == [(1, "ok")]


# -- any bytes ----------------------------------------------------------------------------------------------------

PIECES = [call(1), call(2, "nothing"), b"[%b,1]" % call(3), b'{"result":1}', cancel(3), b'{"id":7}']
MARKS = [b"{", b"}", b"[", b"]", b'"', b"\\", b",", b"\n", b" ", b"\xff", b"x"]
HEADERS = [b"Content-Length: 53\r\n\r\n", b"Content-Length: 2\r\n\r\n{}"]


@given(
    parts=st.lists(st.sampled_from(PIECES) | st.sampled_from(MARKS) | st.sampled_from(HEADERS), max_size=12),
    change=st.tuples(st.integers(0, 500), st.binary(max_size=3)),
    places=st.lists(st.integers(0, 600), max_size=12),
)
def test_any_bytes_get_the_same_answers_at_any_cut(
    parts: list[bytes], change: tuple[int, bytes], places: list[int]
) -> None:
    at, bytes_there = change
    data = b"".join(parts)
    data = data[:at] + bytes_there + data[at + len(bytes_there) :]
    terms = Terms(Limits(frame_bytes=120))
    with Runner() as runner:
        whole = runner.converse([data], terms)
        assert runner.converse(cut(data, places), terms, at_once=5) == whole
        assert runner.converse(cut(data, range(len(data))), terms, at_once=0) == whole


class _Grudging(MemoryStream):
    """A peer that takes nothing at one try and everything at the next: it reads in between."""

    tries = 0

    def send_now(self, data: bytes | memoryview, /) -> int:
        self.tries += 1
        return 0 if self.tries % 2 else super().send_now(data)


async def test_what_a_full_queue_left_in_the_decoder_waits_for_nobodys_next_byte() -> None:
    stream = _Grudging()
    session = Session(open_hub(Limits(output_bytes=60)), stream, OWN, authorized=True)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(session.run)
            stream.feed(b"".join(b'{"jsonrpc":"2.0","id":%d,"method":"ping"}\n' % number for number in range(10)))
            await stream.until(lambda: stream.written.count(b"\n") == 10)
            group.cancel_scope.cancel()


async def test_a_flood_on_one_connection_does_not_keep_another_waiting() -> None:
    hub, flood, other = open_hub(Limits()), MemoryStream(), MemoryStream()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            flood.feed(b"{}" * 30_000)
            other.feed(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
            for stream in (flood, other):
                group.start_soon(Session(hub, stream, OWN, authorized=True).run)
            await other.answered(1)
            assert flood.written.count(b"\n") < 30_000
            await flood.answered(30_000)
            group.cancel_scope.cancel()
