"""The way through an HTTP proxy: for HTTPS a tunnel, for plain HTTP the proxy passes each request on."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from base64 import b64encode
from urllib.parse import unquote, urlsplit

from airflow_provider_events.http.contract import Endpoint, TransportError
from airflow_provider_events.http.tls import not_trusted

__all__ = ["Proxy", "authorization"]

MAX_HEAD_BYTES = 65_536  # of the proxy's answer
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
_INTERIM = re.compile(rb"HTTP/1\.[01] 1\d\d[ \r]")
_LATER = (408, 421, 423, 425, 429, 500, 502, 503, 504)  # of the answers to CONNECT: another attempt may do better


class Proxy:
    """The proxy of an endpoint.

    :ivar host: its name or address.
    :ivar port: where it listens.
    :ivar secure: whether it is itself spoken to over TLS.
    """

    def __init__(self, endpoint: Endpoint, url: str) -> None:
        parts = urlsplit(url)
        self._endpoint = endpoint
        self.host = (parts.hostname or "").rstrip(".")
        self.secure = parts.scheme == "https"
        self.port = parts.port or (443 if self.secure else 80)
        self._authorization = authorization(url)

    async def opened(
        self, sock: socket.socket, connection: asyncio.Protocol, tls: ssl.SSLContext | None
    ) -> asyncio.Transport:
        """Speak to the proxy on a connected socket, without a tunnel.

        :param tls: for the connection to the proxy, where it wants one.
        :raises TransportError: its certificate is not trusted; final.
        """
        name = self.host if self.secure else None
        try:
            transport, _ = await asyncio.get_running_loop().create_connection(
                lambda: connection, sock=sock, ssl=tls if self.secure else None, server_hostname=name
            )
        except ssl.SSLCertVerificationError as error:
            raise TransportError(not_trusted(f"the proxy {self._endpoint.proxy_host}", error), final=True) from error
        return transport

    async def tunnel(self, sock: socket.socket, authority: str, tls: ssl.SSLContext) -> asyncio.Transport:
        """A transport to `authority` (host and port), of which nothing has been read.

        :raises TransportError: the proxy refuses; final where it will always do so.
        """
        asked = _Asked(asyncio.get_running_loop().create_future())
        transport = await self.opened(sock, asked, tls)
        try:
            head = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
            if self._authorization:
                head += f"Proxy-Authorization: {self._authorization}\r\n"
            transport.write(f"{head}\r\n".encode())
            self._check(await asked.answer)
        except BaseException:
            transport.abort()
            raise
        return transport

    def _check(self, head: bytes) -> None:
        """Whether the tunnel is there, by the answer to `CONNECT`."""
        endpoint, told = self._endpoint, _STATUS.match(head)
        if told is None:
            raise TransportError(f"no answer from {endpoint.name} (the proxy speaks no HTTP)")
        status = int(told[1])
        if 200 <= status < 300:
            return
        if status in _LATER:
            raise TransportError(f"no answer from {endpoint.name} (the proxy answers {status})")
        why = "it asks for a user and password" if status == 407 else "it does not let this connection through"
        raise TransportError(
            f"the proxy {endpoint.proxy_host} refuses to connect to {endpoint.host} ({status}): {why}", final=True
        )


class _Asked(asyncio.Protocol):
    """Reads the headers of the answer to `CONNECT`; behind a good one the other side waits for us."""

    def __init__(self, answer: asyncio.Future[bytes]) -> None:
        self.answer = answer
        self._read = b""

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n") + 4) >= 4 and _INTERIM.match(self._read):
            self._read = self._read[end:]
        if (end >= 4 or len(self._read) > MAX_HEAD_BYTES) and not self.answer.done():
            self.answer.set_result(self._read)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(error or ConnectionResetError("closed"))


def authorization(url: str) -> str | None:
    """The value of `Proxy-Authorization` for a proxy, or None where its URL names no user."""
    parts = urlsplit(url)
    if parts.username is None:
        return None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {b64encode(pair.encode()).decode('ascii')}"
