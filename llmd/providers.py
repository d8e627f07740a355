"""The one shell that carries any dialect: the only file that imports httpx, and aiohttp below it.

httpx's types and exceptions say what happened; aiohttp moves the bytes, because httpx's own pool costs 6 times the CPU
at 32 calls in flight (tests/bench) and leaks its slots when calls are cancelled. Whether anything of a request was
written decides what it may have cost, so the mapping of errors is exact: only a failed connect is a ConnectError or
ConnectTimeout.
"""

import ssl
from collections.abc import AsyncIterator
from functools import lru_cache
from types import TracebackType
from typing import cast
from urllib.parse import urlencode

import aiohttp
import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import msgspec
import yarl

from llmd.catalog import Health, ProviderRow
from llmd.chat import Chat
from llmd.core.outcomes import Answer, Failure, Outcome
from llmd.core.rows import ModelRow
from llmd.dialects import DIALECTS
from llmd.dialects.base import Emit, HttpCall, Offered, Told
from llmd.dialects.counting import read_count
from llmd.dialects.expressing import expressible
from llmd.dialects.reading import UNREADABLE
from llmd.keys import Key, KeyUnavailable
from llmd.proxies import proxy
from llmd.version import VERSION

CONNECT_TIMEOUT_S = 15.0  # DNS, TCP and TLS together
IDLE_TIMEOUT_S = 120.0  # between two pieces of a stream
END_TIMEOUT_S = 1.0  # from the end mark of an answer to the end of its response
KEEPALIVE_S = 15.0
RESPONSE_BYTES_MAX = 64 * 2**20
QUESTION_TIMEOUT_S = 3.0  # for a list of models, or a count of tokens
ANSWER_BYTES_MAX = 4 * 2**20
DECODED_AT_ONCE_BYTES = 16 * 1024


class _Body(httpx.AsyncByteStream):
    """A response's bytes as they come; its errors are httpx's."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.content.iter_any():
                # A compressed byte can be a thousand decoded ones: few at a time, so that the reader can stop.
                for at in range(0, len(chunk), DECODED_AT_ONCE_BYTES):
                    yield chunk[at : at + DECODED_AT_ONCE_BYTES]
        except Exception as error:
            raise _translated(error) from error

    async def aclose(self) -> None:
        # Gives the connection back if the response was read to its end, breaks it otherwise.
        self._response.close()


def _translated(error: Exception) -> httpx.TransportError:
    """The httpx error that says as much as is certain: connect errors mean that nothing was written."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return httpx.ConnectTimeout(f"no connection to the provider within {CONNECT_TIMEOUT_S:.0f} s")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return httpx.ConnectError("the provider's certificate is not trusted")
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return httpx.ConnectError("the provider's address does not speak TLS: is it http:// instead of https://?")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return httpx.ConnectError("the provider's host name is not known")
    if isinstance(error, aiohttp.ClientConnectorError | ValueError):  # refused, no such name or address, no proxy
        return httpx.ConnectError("nothing answers at the provider's address")
    if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
        return httpx.ConnectError("the proxy did not connect to the provider")
    if isinstance(error, aiohttp.ServerTimeoutError | TimeoutError):
        return httpx.ReadTimeout("read timed out")
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError):
        return httpx.RemoteProtocolError("the response broke off, or is not HTTP")
    return httpx.ReadError("the connection broke")


class AiohttpTransport(httpx.AsyncBaseTransport):
    """httpx's transport interface over one aiohttp session. Build it inside the running loop, and close it there.

    `limit=0` because admission is ours; POSTs are never sent twice; redirects are not followed; cookies are not kept.
    """

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_field_size=65536,
            max_line_size=65536,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        self._ssl: ssl.SSLContext | None = None

    async def __aenter__(self) -> "AiohttpTransport":
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._session.close()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        extensions = request.extensions
        # A keep-alive connection that the server has closed is seen as closed only once the loop has run.
        await anyio.lowlevel.checkpoint()
        try:
            response = await self._session.request(
                request.method,
                yarl.URL(str(request.url), encoded=True),
                headers=request.headers.multi_items(),
                data=request.content or None,
                allow_redirects=False,
                proxy=extensions.get("proxy"),
                ssl=await self._tls() if request.url.scheme == "https" else True,
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=CONNECT_TIMEOUT_S, sock_read=extensions.get("idle_s")
                ),
            )
        except Exception as error:
            raise _translated(error) from error
        return httpx.Response(response.status, headers=list(response.raw_headers), stream=_Body(response))

    async def _tls(self) -> ssl.SSLContext:
        if self._ssl is None:
            # Reading the certificates takes tens of milliseconds: not on the loop.
            self._ssl = await anyio.to_thread.run_sync(httpx.create_ssl_context)
        return self._ssl


class HttpProvider:
    """A provider behind HTTP: a dialect and a key. It raises nothing; failures are outcomes."""

    def __init__(self, row: ProviderRow, key: Key, transport: httpx.AsyncBaseTransport) -> None:
        self._row = row
        self._dialect = DIALECTS[row.dialect]
        self._key = key
        self._transport = transport
        self._proxy = proxy(row.base_url)
        self._query = f"?{urlencode(row.query)}" if row.query else ""
        self._headers = {name.lower(): value for name, value in row.headers.items()}

    def request(self, chat: Chat, row: ModelRow, max_tokens: int | None, stream: bool) -> HttpCall:
        said, dropped = expressible(chat, row)
        call = self._dialect.request(said, row, max_tokens, stream)
        return msgspec.structs.replace(call, dropped=[*dropped, *call.dropped]) if dropped else call

    async def send(self, call: HttpCall, emit: Emit | None) -> Outcome:
        try:
            key = await self._key.get()
            outcome = await self._send_once(call, emit, key)
            if isinstance(outcome, Failure) and outcome.http_status == 401 and self._key.renew(key):
                key = await self._key.get()
                outcome = await self._send_once(call, emit, key)
        except KeyUnavailable as error:
            return Failure(kind="upstream_auth", message=str(error), billed="no")
        if isinstance(outcome, Failure) and outcome.provider_text is not None:
            text = outcome.provider_text.replace(key, "[key]") if key else outcome.provider_text
            outcome = msgspec.structs.replace(outcome, provider_text=text[:1000])
        return outcome

    async def models(self) -> tuple[Health, list[Offered] | None]:
        """Whether it answers to its key, and the models that it says it has; None where it tells none."""
        try:
            url = self._row.base_url.rstrip("/") + self._dialect.models
            status, body = await self._ask("GET", url, dict(self._dialect.models_headers))
        except KeyUnavailable:
            return "no_key", None
        except (httpx.HTTPError, TimeoutError):
            return "unreachable", None
        if status in (401, 403):
            return "key_refused", None
        if status >= 500:
            return "unreachable", None
        try:
            return "ready", self._dialect.read_models(body)
        except UNREADABLE:
            # Of a port on this machine, that something else lives there.
            return ("unreachable" if self._row.local else "ready"), None

    async def count(self, call: HttpCall) -> int | None:
        asked = self._dialect.count(call)
        if asked is None:
            return None
        try:
            status, body = await self._ask("POST", asked.url, asked.headers, asked.body)
            return read_count(body) if status == 200 else None
        except (httpx.HTTPError, TimeoutError, KeyUnavailable, *UNREADABLE):
            return None

    async def _ask(self, method: str, url: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, bytes]:
        """Something that costs nothing: the status, and a body that is short and comes soon."""
        with anyio.fail_after(QUESTION_TIMEOUT_S):
            key = await self._key.get()
            request = self._authorized(method, url, headers, body, key, None)
            response = await self._transport.handle_async_request(request)
            read = bytearray()
            try:
                async for chunk in response.aiter_bytes():
                    read += chunk
                    if len(read) > ANSWER_BYTES_MAX:
                        raise httpx.DecodingError("the answer is too long")
            finally:
                await response.aclose()
        return response.status_code, bytes(read)

    def _authorized(
        self, method: str, url: str, headers: dict[str, str], body: bytes, key: str | None, idle_s: float | None
    ) -> httpx.Request:
        all_headers = {"user-agent": f"llmd/{VERSION}", **headers, **self._headers}
        if key is not None:
            bearer = self._row.auth == "bearer"
            all_headers["authorization" if bearer else self._row.auth] = f"Bearer {key}" if bearer else key
        if self._query:
            url += self._query.replace("?", "&") if "?" in url else self._query
        extensions = {"proxy": self._proxy, "idle_s": idle_s}
        return httpx.Request(method, _url(url), headers=all_headers, content=body, extensions=extensions)

    async def _send_once(self, call: HttpCall, emit: Emit | None, key: str | None) -> Outcome:
        # A compressed stream would be held back until a block of it is full.
        headers = {**call.headers, "accept-encoding": "identity" if call.stream else "gzip, deflate"}
        idle_s = IDLE_TIMEOUT_S if call.stream else None
        request = self._authorized("POST", call.url, headers, call.body, key, idle_s)
        try:
            response = await self._transport.handle_async_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            # The words are ours: _translated's.
            return Failure(kind="upstream_unavailable", message=str(error), billed="no")
        except httpx.ReadTimeout:
            return _silent()
        except httpx.TransportError:
            return Failure(kind="upstream_unavailable", message="the provider closed the connection without an answer")
        try:
            return await self._read(call, response, emit)
        finally:
            await response.aclose()

    async def _read(self, call: HttpCall, response: httpx.Response, emit: Emit | None) -> Outcome:
        reader = self._dialect.reader(call, response.status_code, response.headers)
        if "," in response.headers.get("content-encoding", ""):
            return Failure(kind="upstream_invalid", message="the provider compressed its answer more than once")
        read, told, cut, silent = 0, Told(), False, False
        # httpx's decoding, where there is nothing to decode, costs more than the reader.
        plain = "content-encoding" not in response.headers
        with anyio.CancelScope() as scope:
            try:
                async for chunk in cast(httpx.AsyncByteStream, response.stream) if plain else response.aiter_bytes():
                    read += len(chunk)
                    if read > RESPONSE_BYTES_MAX:
                        return Failure(kind="upstream_invalid", message="the provider's answer is longer than 64 MiB")
                    for delta in reader.feed(chunk):
                        if emit is not None:
                            told.note(delta)
                            await emit(delta)
                    if reader.whole:
                        # The end of the response gives the connection back. Some keep it from us: not for long.
                        scope.deadline = min(scope.deadline, anyio.current_time() + END_TIMEOUT_S)
            except httpx.ReadTimeout:
                cut = silent = True
            except httpx.HTTPError:  # broke off, or cannot be decoded
                cut = True
        outcome = reader.end(cut)
        if silent and isinstance(outcome, Failure):
            return msgspec.structs.replace(_silent(), seen=outcome.seen)
        if emit is not None and isinstance(outcome, Answer):
            for delta in told.rest(outcome):
                await emit(delta)
        return outcome


def _silent() -> Failure:
    return Failure(kind="upstream_unavailable", message=f"the provider said nothing for {IDLE_TIMEOUT_S:.0f} s")


@lru_cache(64)
def _url(text: str) -> httpx.URL:
    """Providers have few addresses, and httpx takes longer to parse one than to send a request."""
    return httpx.URL(text)
