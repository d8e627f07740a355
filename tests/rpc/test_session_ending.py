"""One connection from its client's end: every way in which it ends, and what becomes of its calls."""

import anyio
import pytest

from llmd.rpc import session as session_module
from llmd.settings import Limits
from tests.support.dialogues import call, connected, execute, gate, gated_hub, kinds, pong
from tests.support.sessions import STRANGER, TOKEN, open_hub

pytestmark = pytest.mark.anyio


async def test_a_half_close_finishes_the_work_and_answers() -> None:
    gated = gate()
    async with connected(gated_hub(gated)) as client:
        client.send(execute(1), b"[%b]" % execute(2))
        client.stream.half_close()
        await anyio.wait_all_tasks_blocked()
        assert (gated.running, client.ended.is_set()) == (2, False)
        gated.release.set()
        await client.ended.wait()
        one, (two,) = sorted(client.stream.replies(), key=lambda reply: isinstance(reply, list))
        assert kinds([one, two]) == [(1, "ok"), (2, "ok")]


async def test_a_half_close_waits_for_a_peer_that_is_slow_to_read() -> None:
    async with connected(open_hub()) as client:
        client.stream.stalled = True
        client.send(call(1), call(2))
        client.stream.half_close()
        await anyio.wait_all_tasks_blocked()
        assert not client.ended.is_set()
        client.stream.resume()
        await client.ended.wait()
        assert client.stream.replies() == [pong(1), pong(2)]


@pytest.mark.parametrize("ending", ["close", "lose", "close behind a half-close"])
async def test_a_real_close_cancels_the_work(ending: str) -> None:
    gated = gate()
    hub = gated_hub(gated)
    async with connected(hub) as client:
        client.send(execute(1), execute(2))
        await client.stream.until(lambda: gated.running == 2)
        if ending == "lose":
            client.stream.lose()
        elif ending == "close":
            client.stream.close()
        else:
            client.stream.half_close()
            await anyio.wait_all_tasks_blocked()
            client.stream.close()
        await client.ended.wait()
    assert (gated.running, gated.aborted, hub.in_flight) == (0, 2, 0)
    assert not client.stream.written


async def test_a_fault_answers_what_is_in_flight_before_it_closes() -> None:
    gated = gate()
    async with connected(gated_hub(gated, frame_bytes=200)) as client:
        client.send(execute(1))
        await gated.entered.wait()
        client.stream.feed(b"[" + b" " * 200)
        assert [code for _, code in kinds(await client.stream.answered(1))] == ["too_large"]
        gated.release.set()
        assert kinds((await client.stream.answered(2))[1:]) == [(1, "ok")]
        await client.stream.until(lambda: client.stream.finished)


async def test_a_peer_that_is_cut_off_while_it_sends_is_read_to_its_end() -> None:
    async with connected(open_hub()) as client:
        client.stream.feed(b"x")
        await client.stream.until(lambda: client.stream.finished)
        for _ in range(10):
            client.send(call(1))
            await client.stream.taken()
        assert not client.ended.is_set()
        client.stream.half_close()
        await client.ended.wait()
        assert kinds(client.stream.replies()) == [(None, "parse_error")]


@pytest.mark.parametrize(("name", "value"), [("LINGER_S", 0.02), ("LINGER_BYTES_MAX", 100)])
async def test_a_peer_that_never_ends_is_not_read_for_ever(
    monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    monkeypatch.setattr(session_module, name, value)
    async with connected(open_hub()) as client:
        client.stream.feed(b"x")
        await client.stream.until(lambda: client.stream.finished)
        client.stream.feed(b"y" * 100)
        with anyio.fail_after(session_module.LINGER_S / 2 + 0.5):
            await client.ended.wait()


async def test_a_stranger_has_only_so_long_to_show_the_token() -> None:
    hub = open_hub(Limits(auth_ms=20))
    async with connected(hub, STRANGER, authorized=False) as late, connected(hub, STRANGER, authorized=False) as known:
        known.send(call(1, "daemon.auth", token=TOKEN))
        await late.stream.until(lambda: late.stream.finished)
        assert kinds(late.stream.replies()) == [(None, "unauthorized")]
        known.send(call(2))
        assert await known.stream.answered(2) == [pong(1), pong(2)]


async def test_a_session_that_is_told_to_end_answers_first_and_reads_no_more() -> None:
    gated = gate()
    hub = gated_hub(gated)
    async with connected(hub) as client:
        client.send(execute(1), execute(2))
        await client.stream.until(lambda: gated.running == 2)
        client.session.end()
        client.send(call(3))
        await anyio.wait_all_tasks_blocked()
        assert not client.ended.is_set()
        gated.release.set()
        await client.ended.wait()
        await hub.idle()
        await hub.empty()
        assert kinds(client.stream.replies()) == [(1, "ok"), (2, "ok")]


async def test_a_daemon_that_cannot_wait_cancels_and_says_why() -> None:
    gated = gate()
    hub = gated_hub(gated)
    async with connected(hub) as client:
        client.send(execute(1), b"[%b]" % execute(2))
        await client.stream.until(lambda: gated.running == 2)
        hub.stopping.set()
        client.session.cancel_calls()
        client.session.end()
        await client.ended.wait()
        one, (two,) = sorted(client.stream.replies(), key=lambda reply: isinstance(reply, list))
        assert kinds([one, two]) == [(1, "cancelled"), (2, "cancelled")]
        assert one["error"]["data"]["reason"] == "shutting_down"
