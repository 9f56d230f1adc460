"""HTTP/1.1 without detours: a request is one write, and httptools reads the answer as its bytes arrive.

A connection that shows anything irregular is closed; no later request goes through it.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import zlib
from collections.abc import Mapping
from functools import lru_cache
from types import TracebackType
from typing import Self, cast
from urllib.parse import urlsplit

from aiohappyeyeballs import start_connection
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from airflow_provider_events import __version__
from airflow_provider_events.delivery.transport import MAX_ANSWER_BYTES, Endpoint, TransportError, tls_context
from airflow_provider_events.exchange import Answer, Request

__all__ = ["Http1Transport"]

MAX_HEAD_BYTES = 65_536  # of an answer and the interim answers before it
IDLE_SECONDS = 15.0  # servers and load balancers wait longer before they close
CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 1.0

_DEFAULTS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": f"airflow-provider-events/{__version__}",
}
_LENIENT = ("lenient_headers", "lenient_optional_cr_before_lf", "lenient_spaces_after_chunk_size")  # as in aiohttp
_FRAMING = ("content-length", "transfer-encoding")
_START = re.compile(r"(GET|POST|PUT) /[!-~]*")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*")
_KEEP_ALIVE = re.compile(r"\btimeout=(\d{1,9})\b")


class Http1Transport:
    """Connections that stay open, bounded in number; answers cut off at one mebibyte; no redirects, no cookies."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        url = urlsplit(endpoint.base_url)
        self._secure = url.scheme == "https"
        default_port = 443 if self._secure else 80
        self._host = (url.hostname or "").rstrip(".")
        self._port = url.port or default_port
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._authority = host if self._port == default_port else f"{host}:{self._port}"
        self._prefix = url.path
        self._head = lru_cache(maxsize=64)(self._made_head)
        self._places = asyncio.Semaphore(endpoint.max_connections)
        self._idle: list[_Connection] = []  # at most one for each free place
        self._open: set[_Connection] = set()
        self._loop: asyncio.AbstractEventLoop
        self._tls: ssl.SSLContext | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        if self._secure:
            context = tls_context(self._endpoint.verify)
            self._tls = _usual_context(context) if isinstance(context, bool) else context
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
        message = self._message(request)
        await self._places.acquire()
        connection = None
        try:
            now = self._loop.time()
            connection = self._rested(now) or await self._connected()
            return await connection.ask(message, now + self._endpoint.timeout_seconds)
        finally:
            if connection and connection.good_until:
                self._idle.append(connection)
            elif connection:
                connection.fail("(cancelled)")
            self._places.release()

    def _message(self, request: Request) -> bytes:
        method, path, body = request.method, request.path, request.body
        head = self._made_head(method, path, request.headers) if request.headers else self._head(method, path)
        if body is None and method == "GET":
            return head + b"\r\n"
        return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body or b""), body or b"")

    def _made_head(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> bytes:
        start = f"{method} {self._prefix}{path}"
        if not _START.fullmatch(start):
            raise TransportError(f"{self._endpoint.host} cannot be sent such a method or path", final=True)
        lines: dict[str, str] = {}  # by lower-case name, so that what comes later takes the place of the same earlier
        for some in ({"Host": self._authority}, _DEFAULTS, self._endpoint.headers, headers or {}):
            for name, value in some.items():
                if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value) or name.lower() in _FRAMING:
                    raise TransportError(f"{self._endpoint.host} cannot be sent such a header", final=True)
                lines[name.lower()] = f"{name}: {value}\r\n"
        return f"{start} HTTP/1.1\r\n{''.join(lines.values())}".encode()

    def _rested(self, now: float) -> _Connection | None:
        """Of the open connections the one that was used last, so that those too many grow old."""
        while self._idle:
            connection = self._idle.pop()
            if now < connection.good_until:
                return connection
            connection.fail("(old)")
        return None

    async def _connected(self) -> _Connection:
        endpoint, loop = self._endpoint, self._loop
        seconds = min(CONNECT_SECONDS, endpoint.timeout_seconds)
        try:
            async with asyncio.timeout(seconds):
                addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                made = await loop.create_connection(
                    lambda: _Connection(loop, endpoint, self._open),
                    sock=await start_connection(addresses, happy_eyeballs_delay=0.25, loop=loop),
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
                return made[1]
        except ssl.SSLCertVerificationError as error:
            raise TransportError(f"the TLS certificate of {endpoint.host} is not trusted", final=True) from error
        except TimeoutError as error:
            raise TransportError(f"no answer from {endpoint.host} in {seconds:g} s") from error
        except (OSError, ValueError) as error:
            raise TransportError(f"no answer from {endpoint.host} ({type(error).__name__})") from error


class _Connection(asyncio.Protocol):
    """One connection with at most one request on it; it is among its neighbours while it is open."""

    def __init__(self, loop: asyncio.AbstractEventLoop, endpoint: Endpoint, neighbours: set[_Connection]) -> None:
        self._loop = loop
        self._endpoint = endpoint
        self._neighbours = neighbours
        self._transport: asyncio.Transport
        self._waiter: asyncio.Future[Answer] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._fields: dict[str, str] = {}
        self._headers = self._fields
        self._body: list[bytes] = []
        self.on_body = self._body.append
        self._parser = HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(**dict.fromkeys(_LENIENT, True))
        self.closed: asyncio.Future[None] = loop.create_future()
        self.good_until = 0.0  # when it has rested too long; 0 while it is of no use to another request

    def ask(self, message: bytes, deadline: float) -> asyncio.Future[Answer]:
        """Write a request; the future is its answer, or a `TransportError`."""
        self._waiter = waiter = self._loop.create_future()
        if self._transport.is_closing():
            self.fail("(closed)")
            return waiter
        self._status = self._received = 0  # no status before the headers are complete
        self._body.clear()
        self._deadline = deadline
        self.good_until = 0.0
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._look_at_the_clock)
        self._transport.write(message)
        return waiter

    def fail(self, why: str) -> None:
        """Close at once; a request that waits has no answer."""
        self.good_until = 0.0
        waiter, self._waiter = self._waiter, None
        if waiter and not waiter.done():
            waiter.set_exception(TransportError(f"no answer from {self._endpoint.host} {why}"))
        self._transport.abort()

    def _finish(self, keep: bool) -> None:
        headers, body = self._headers, b"".join(self._body)[:MAX_ANSWER_BYTES]
        if body and "content-encoding" in headers:
            try:
                body = _decoded(body, headers["content-encoding"].strip().lower())
            except zlib.error:
                return self.fail("(undecodable)")
        waiter, self._waiter = self._waiter, None
        if waiter and not waiter.done():
            waiter.set_result(Answer(self._status, headers, body))
        if keep and not self._transport.get_write_buffer_size():
            told = "keep-alive" in headers and _KEEP_ALIVE.search(headers["keep-alive"])
            seconds = min(IDLE_SECONDS, int(told[1]) - 1.0) if told else IDLE_SECONDS
            self.good_until = self._loop.time() + seconds
        else:
            self._transport.abort()
        return None

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
        self._received += len(data)
        if not self._status and self._received > MAX_HEAD_BYTES:
            self.fail("(improper headers)")
        elif self._waiter and self._received > MAX_ANSWER_BYTES:
            self._body[:] = [b"".join(self._body)]
            if len(self._body[0]) >= MAX_ANSWER_BYTES:
                self._finish(keep=False)
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
        if self._waiter and self._status and not error and not any(name in self._headers for name in _FRAMING):
            self._finish(keep=False)
        else:
            self.fail(f"({type(error).__name__})" if error else "(closed)")

    # -- called by the parser ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._fields = {}
        if self._waiter is None:
            self.fail("(unasked)")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields[name.decode().lower()] = value.strip().decode("latin-1")

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        self._headers, self._fields = self._fields, {}  # what comes later are trailers
        values = "".join(self._headers.values())
        if self._status == 101:
            self.fail("(switching protocols)")
        elif len(values) + 64 * len(self._headers) > MAX_HEAD_BYTES or "\0" in values:
            self.fail("(improper headers)")

    def on_message_complete(self) -> None:
        if 100 <= self._status < 200:  # an interim answer
            self._status = 0
        elif self._waiter:
            self._finish(self._parser.should_keep_alive())


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


@lru_cache
def _usual_context(verify: bool) -> ssl.SSLContext:
    """Made once: to load the system's CAs takes tens of milliseconds."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
