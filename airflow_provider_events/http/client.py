"""HTTP/1.1 without detours: httptools reads an answer as its bytes arrive, and each request is one write.

A connection that shows anything irregular is closed; no later request goes through it.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import zlib
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Self, cast
from urllib.parse import urlsplit

from aiohappyeyeballs import start_connection
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from airflow_provider_events.contract import Answer, Request
from airflow_provider_events.http.contract import MAX_ANSWER_BYTES, Endpoint, TransportError
from airflow_provider_events.http.proxy import Proxy
from airflow_provider_events.http.tls import not_trusted, tls_context
from airflow_provider_events.http.wire import FRAMING, Writing

__all__ = ["Http1Transport"]

MAX_HEAD_BYTES = 65_536  # of an answer and the interim answers before it
IDLE_SECONDS = 15.0  # servers and load balancers wait longer before they close
CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 1.0
MISDIRECTED = 421  # the same request may fare better on another connection

_LENIENT = ("lenient_headers", "lenient_optional_cr_before_lf", "lenient_spaces_after_chunk_size")  # as in aiohttp
_KEEP_ALIVE = re.compile(r"\btimeout=(\d{1,9})\b")


class Http1Transport:
    """Connections that stay open, bounded in number; answers cut off at one mebibyte; no redirects, no cookies."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        url = urlsplit(endpoint.base_url)
        self._secure = url.scheme == "https"
        self.host = (url.hostname or "").rstrip(".")
        self.port = url.port or (443 if self._secure else 80)
        self._proxy = Proxy(endpoint, endpoint.proxy) if endpoint.proxy else None
        self._written = Writing(endpoint).written
        self._idle: list[_Connection] = []
        self._more = endpoint.max_connections  # that may be opened
        self._queue: deque[asyncio.Future[_Connection | None]] = deque()  # of requests that wait for either
        self._open: set[_Connection] = set()
        self._loop: asyncio.AbstractEventLoop

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        tls = self._secure or (self._proxy and self._proxy.secure)
        self._tls = tls_context(self._endpoint.verify) if tls else None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if closing := [connection.closed for connection in self._open]:
            for connection in tuple(self._open):
                connection.fail("(closed)")
            await asyncio.wait(closing, timeout=CLOSE_SECONDS)

    async def send(self, request: Request) -> Answer:
        """See `Transport.send`; its error is final, too, where the request is none that HTTP can carry."""
        message = self._written(request)
        # The one that was used last, so that those too many grow old.
        connection = self._idle.pop() if self._idle else await self._turn()
        try:
            now = self._loop.time()
            if connection is None or connection.good_until <= now:
                connection = await self._renewed(connection, now)
            return await connection.ask(message, now + self._endpoint.timeout_seconds)
        except TransportError as error:
            if error.stale:
                for rested in self._idle:  # most likely closed as well
                    rested.good_until = 0.0
            raise
        finally:
            if connection and not connection.good_until:
                connection.fail("(cancelled)")
                connection = None
            self._pass_on(connection)

    async def _turn(self) -> _Connection | None:
        """A connection, or None where one may be opened; first come, first served."""
        if self._more:
            self._more -= 1
            return None
        turn: asyncio.Future[_Connection | None] = self._loop.create_future()
        self._queue.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._pass_on(turn.result())
            raise

    def _pass_on(self, connection: _Connection | None) -> None:
        """To the request that has waited longest."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                return turn.set_result(connection)
        if connection:
            self._idle.append(connection)
        else:
            self._more += 1
        return None

    async def _renewed(self, connection: _Connection | None, now: float) -> _Connection:
        """A connection that has not rested for too long, or a new one."""
        while connection and connection.good_until <= now:
            connection.fail("(old)")
            connection = None
            if self._idle:
                connection = self._idle.pop()
                self._more += 1
        return connection or await self._connected()

    async def _connected(self) -> _Connection:
        endpoint, loop = self._endpoint, self._loop
        seconds = min(CONNECT_SECONDS, endpoint.timeout_seconds)
        try:
            async with asyncio.timeout(seconds):
                first = self._proxy or self
                addresses = await loop.getaddrinfo(first.host, first.port, type=socket.SOCK_STREAM)
                sock = await start_connection(addresses, happy_eyeballs_delay=0.25, loop=loop)
                connection = _Connection(loop, endpoint, self._open)
                try:
                    await self._establish(sock, connection)
                except BaseException:
                    if connection in self._open:
                        connection.fail("(cancelled)")
                    with suppress(OSError):  # uvloop before 0.23 closes its file alone
                        sock.close()
                    raise
                return connection
        except ssl.SSLCertVerificationError as error:
            raise TransportError(not_trusted(endpoint.name, error), final=True) from error
        except TimeoutError as error:
            raise TransportError(f"no answer from {endpoint.name} in {seconds:g} s") from error
        except (OSError, ValueError) as error:
            raise TransportError(f"no answer from {endpoint.name} ({type(error).__name__})") from error

    async def _establish(self, sock: socket.socket, connection: _Connection) -> None:
        """What is between a connected socket and a connection to the vendor: TLS, a proxy, both or neither."""
        loop, proxy, tls = self._loop, self._proxy, self._tls
        if proxy is None:
            name = self.host if tls else None
            await loop.create_connection(lambda: connection, sock=sock, ssl=tls, server_hostname=name)
        elif self._secure and tls is not None:
            host = f"[{self.host}]" if ":" in self.host else self.host
            tunnel = await proxy.tunnel(sock, f"{host}:{self.port}", tls)
            connection.connection_made(tunnel)
            through = await loop.start_tls(tunnel, connection, tls, server_hostname=self.host)
            if through is None:  # it was closed meanwhile
                raise ConnectionResetError
            connection.connection_made(through)
        else:
            await proxy.opened(sock, connection, tls)


class _Connection(asyncio.Protocol):
    """One connection with at most one request on it; it is among its neighbours while it is open."""

    def __init__(self, loop: asyncio.AbstractEventLoop, endpoint: Endpoint, neighbours: set[_Connection]) -> None:
        self._loop = loop
        self._endpoint = endpoint
        self._neighbours = neighbours
        self._transport: asyncio.Transport
        self._waiter: asyncio.Future[Answer] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rested = False
        self._fields: list[tuple[bytes, bytes]] = []
        self._known = self._fields
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._expected: list[None] = []
        self.on_message_begin = self._expected.pop  # an error where nothing is expected
        self.on_body = self._body.append
        self._parser = HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(**dict.fromkeys(_LENIENT, True))
        self.closed: asyncio.Future[None] = loop.create_future()
        self.good_until = 0.0  # when it has rested too long; 0 while it is of no use to another request

    def ask(self, message: bytes, deadline: float) -> asyncio.Future[Answer]:
        """Write a request; the future is its answer, or a `TransportError`."""
        self._waiter = waiter = self._loop.create_future()
        self._status = self._received = 0  # no status before the headers are complete
        if self._transport.is_closing():
            self._ended(None)
            return waiter
        self._expected.append(None)
        self._fields = []
        self._body.clear()
        self._deadline = deadline
        self.good_until = 0.0
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._look_at_the_clock)
        self._transport.write(message)
        return waiter

    def fail(self, why: str, *, stale: bool = False) -> None:
        """Close at once; a request that waits has no answer."""
        self.good_until = 0.0
        waiter, self._waiter = self._waiter, None
        if waiter and not waiter.done():
            waiter.set_exception(TransportError(f"no answer from {self._endpoint.name} {why}", stale=stale))
        self._transport.abort()

    def _finish(self, waiter: asyncio.Future[Answer], keep: bool) -> None:
        headers, body = self._headers, b"".join(self._body)[:MAX_ANSWER_BYTES]
        if "content-encoding" in headers and body:
            try:
                body = _decoded(body, headers["content-encoding"].strip().lower())
            except zlib.error:
                return self.fail("(undecodable)")
        self._waiter = None
        if not waiter.done():
            waiter.set_result(Answer(self._status, headers, body))
        if not keep or self._transport.get_write_buffer_size():
            return self._transport.abort()
        seconds = IDLE_SECONDS
        if "keep-alive" in headers and (told := _KEEP_ALIVE.search(headers["keep-alive"])):
            seconds = min(IDLE_SECONDS, int(told[1]) - 1.0)
        self.good_until = self._loop.time() + seconds
        self._rested = True
        return None

    def _bound(self, more: int) -> None:
        """Neither headers without an end, nor more of a body than is read; `more` bytes came, and not the last ones."""
        self._received += more
        if self._received > MAX_HEAD_BYTES and not self._status:
            self.fail("(improper headers)")
        elif self._received > MAX_ANSWER_BYTES and self._waiter:
            self._body[:] = [b"".join(self._body)]
            if len(self._body[0]) >= MAX_ANSWER_BYTES:
                self._finish(self._waiter, keep=False)

    def _look_at_the_clock(self) -> None:
        """One timer serves all requests of a connection: when it is due, most have long been answered."""
        self._timer = None
        if self._waiter and self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._look_at_the_clock)
        elif self._waiter:
            self.fail(f"in {self._endpoint.timeout_seconds:g} s")

    # -- called by the event loop ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._neighbours.add(self)

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            return self.fail("(unasked)")
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            return self.fail("(not HTTP)")
        if self._waiter:
            self._bound(len(data))
        return None

    def eof_received(self) -> None:
        self._ended(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._ended(error)
        self._neighbours.discard(self)
        if self._timer:
            self._timer.cancel()
        self.closed.set_result(None)

    def _ended(self, error: Exception | None) -> None:
        """The end of an answer that names no other, else of the hope for one."""
        if self._waiter and self._status and not error and not any(name in self._headers for name in FRAMING):
            self._finish(self._waiter, keep=False)
        else:
            stale = self._rested and not self._received and not self._status
            self.fail(f"({type(error).__name__})" if error else "(closed)", stale=stale)

    # -- called by the parser ----------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Most answers have the headers of the one before, which are read already."""
        self._status = self._parser.get_status_code()
        fields, self._fields = self._fields, []  # what comes later are trailers
        if fields != self._known:
            self._known = fields
            self._headers = {name.decode().lower(): value.strip().decode("latin-1") for name, value in fields}
            values = "".join(self._headers.values())
            if len(values) + 64 * len(self._headers) > MAX_HEAD_BYTES or "\0" in values:
                self.fail("(improper headers)")

    def on_message_complete(self) -> None:
        if self._status == 101:
            self.fail("(switching protocols)")
        elif 100 <= self._status < 200:  # an interim answer
            self._status = 0
            self._expected.append(None)
        elif self._waiter:
            self._finish(self._waiter, self._parser.should_keep_alive() and self._status != MISDIRECTED)


def _decoded(body: bytes, coding: str) -> bytes:
    """The body without a compression that nobody asked for, cut off like any other; `zlib.error` if it is damaged."""
    if coding not in ("gzip", "x-gzip", "deflate"):
        return body
    bare = coding == "deflate" and body[0] & 0x0F != 8  # some servers leave the wrapping out
    decoder = zlib.decompressobj(-15 if bare else 47)
    plain = decoder.decompress(body, MAX_ANSWER_BYTES)
    if len(plain) < MAX_ANSWER_BYTES and (not decoder.eof or decoder.unused_data):
        raise zlib.error("cut off, or more than one")
    return plain
