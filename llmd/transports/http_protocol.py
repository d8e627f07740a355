"""What uvicorn does not bound: how many connections there are, how long the head of a request may be and take, how much
there may be around its body, and how long a client may leave unread what it is sent.
"""

import asyncio
import logging
from asyncio import TimerHandle
from collections.abc import Callable
from functools import partial
from typing import cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from llmd.errors import LLMError
from llmd.rpc.dispatch import error_reply
from llmd.rpc.hub import Hub
from llmd.settings import Limits
from llmd.transports.http_messages import response
from llmd.transports.peers import tcp_peer

log = logging.getLogger("llmd.transports")

WAITING_MAX = 4  # requests read ahead of the answer to one before them


def bounded(its: Hub) -> type[asyncio.Protocol]:
    """uvicorn's protocol within `auth_bytes` and `auth_ms` for a head, and `stalled_write_ms` for what is not read.

    The head says who asks: it is to HTTP what comes before auth on the other listeners. Until it has shown the token, a
    connection of anybody but our own user is a stranger's; `vouch` in a request's state says that it has.
    """

    class Bounded(_Bounded):
        hub = its
        limits = staticmethod(its.limits)

    return Bounded


class _Bounded(HttpToolsProtocol):
    hub: Hub
    limits: Callable[[], Limits]
    _running: RequestResponseCycle | None = None
    _in_head = True
    _bare_bytes = 0  # that came since the end of a head or the last piece of a body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._coming = _Timer(self.loop)
        self._going = _Timer(self.loop)
        super().connection_made(cast(asyncio.Transport, transport))
        self._expect()
        self._place = object()  # not ourselves, whom what refers to it would keep
        own = self.server is not None and self.client is not None and tcp_peer("http", self.server, self.client).own
        self.app_state = {**self.app_state, "vouch": partial(self.hub.enter, self._place, known=True)}
        try:
            self.hub.enter(self._place, known=own)
        except LLMError as error:
            self._refuse(error)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._running is not None and not self._running.response_complete:
            # uvicorn tells the newest request alone, which may be one that waits behind this one.
            self._running.disconnected = True
            self._running.message_event.set()
        self._coming.cancel()
        self._going.cancel()
        self.hub.forget(self._place)

    def _refuse(self, error: LLMError) -> None:
        """Say why, before anything is asked, and close."""
        told = response(error_reply(error))
        headers = b"".join(b"%b: %b\r\n" % header for header in told.raw_headers)
        self.transport.write(b"%b%bconnection: close\r\n\r\n" % (STATUS_LINE[told.status_code], headers) + told.body)
        self.transport.close()

    # -- what comes ---------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._bare_bytes += len(data)  # the parser keeps what it has of a line, and tells of whole ones only
        super().data_received(data)
        if self._bare_bytes > self.limits().auth_bytes and not self.transport.is_closing():
            self.send_400_response("The headers of the request are too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # behind a body they are trailers, which nobody reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._bare_bytes = False, 0
        self._coming.cancel()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self.limits().auth_bytes:
            raise ValueError("the head of the request is too long")  # the parser makes an answer of it
        super().on_headers_complete()
        if not self.pipeline:
            self._running = self.cycle
        elif len(self.pipeline) <= WAITING_MAX:
            self.flow.resume_reading()  # uvicorn has paused it, and would not see the client go away

    def on_body(self, body: bytes) -> None:
        self._bare_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True

    def on_response_complete(self) -> None:
        if self.pipeline:
            self._running = self.pipeline[-1][0]
        super().on_response_complete()
        if self.cycle.response_complete:  # whatever comes now is a body that was refused, or the next head
            self._expect()

    def _expect(self) -> None:
        self._coming.start(self.limits().auth_ms, self._too_late)

    def _too_late(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
        else:
            self._expect()  # a call is in flight, before a head that is not all there

    # -- what goes ----------------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._going.cancel()

    def _watch(self) -> None:
        """A client may read slowly, but within each such time it reads something."""
        left = self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.get_write_buffer_size() < left:
                self._watch()
            else:
                log.info("a connection over HTTP: dropped, it does not read")
                self.transport.abort()

        self._going.start(self.limits().stalled_write_ms, look)


class _Timer:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: TimerHandle | None = None

    def start(self, ms: int, run: Callable[[], object]) -> None:
        """Run it so late, instead of what was to be run."""
        self.cancel()
        self._handle = self._loop.call_later(ms / 1000, run)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
