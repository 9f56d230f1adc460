"""HTTP proxies on loopback, good and bad, as the tests need them."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

from tests.delivery.loops import own_loop

__all__ = ["Relay", "relay"]


class Relay:
    """A proxy on a thread of its own: tunnels for `CONNECT`, and passes on requests that name their server.

    :param refusal: status with which it refuses instead, always.
    :param answer: bytes that it answers whatever it is asked.
    :param user: `user:password` that it asks for.
    """

    def __init__(self, refusal: int | None = None, answer: bytes | None = None, user: str | None = None) -> None:
        self.url = ""
        self.asked: list[bytes] = []
        self._refusal = refusal
        self._answer = answer
        self._user = user

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client."""
        with closing(writer):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            self.asked.append(head)
            if self._answer is not None:
                writer.write(self._answer)
                await writer.drain()
                return
            if status := self._status(head):
                writer.write(f"HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
                return
            method, target, _ = head.split(b" ", 2)
            tunnel = method == b"CONNECT"
            server = urlsplit(("//" if tunnel else "") + target.decode())
            there = await asyncio.open_connection(server.hostname, server.port)
            if tunnel:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                there[1].write(head.replace(f"http://{server.netloc}".encode(), b"", 1))
            with closing(there[1]):
                await asyncio.gather(pipe(reader, there[1]), pipe(there[0], writer), return_exceptions=True)

    def _status(self, head: bytes) -> int | None:
        if self._user and b64encode(self._user.encode()) not in head:
            return 407
        return self._refusal


async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Bytes from one to the other, until there are no more."""
    with closing(sink):
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()


@contextmanager
def relay(refusal: int | None = None, answer: bytes | None = None, user: str | None = None) -> Iterator[Relay]:
    """A proxy that runs."""
    proxy = Relay(refusal, answer, user)

    async def start() -> asyncio.Server:
        return await asyncio.start_server(proxy.handle, "127.0.0.1", 0)

    with own_loop("relay") as loop:
        server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        proxy.url = f"http://{f'{user}@' if user else ''}127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield proxy
        finally:
            loop.call_soon_threadsafe(server.close)
