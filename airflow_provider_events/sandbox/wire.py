"""The way back to one client: ASGI messages, and the connection itself for those who must cut it."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from airflow_provider_events.sandbox.api import Answer

_TRANSPORT = "sandbox.transport"

_Protocol: Any = AutoHTTPProtocol  # httptools' or h11's, whichever is installed


class TransportProtocol(_Protocol):  # type: ignore[misc]  # the base is chosen at run time
    """uvicorn's HTTP protocol, handing each request the transport it came on in `scope["state"]`."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Remember the transport among the values that uvicorn copies into each scope."""
        super().connection_made(transport)
        self.app_state: dict[str, Any] = {**self.app_state, _TRANSPORT: transport}


class Wire:
    """Answers one request."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the three things that ASGI gives."""
        self._scope = scope
        self._receive = receive
        self._send = send

    async def read(self) -> bytes:
        """The whole request body."""
        message = await self._receive()
        if not message.get("more_body"):
            return bytes(message.get("body", b""))
        chunks = [message["body"]]
        while message.get("more_body"):
            message = await self._receive()
            chunks.append(message.get("body", b""))
        return b"".join(chunks)

    async def send(self, answer: Answer) -> None:
        """Send a whole answer."""
        await self.start(answer)
        await self._send({"type": "http.response.body", "body": answer.content})

    async def start(self, answer: Answer) -> None:
        """Send status and headers, with the length of the whole body."""
        headers = [
            (b"content-type", answer.media_type.encode("latin-1")),
            (b"content-length", b"%d" % len(answer.content)),
            *((name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()),
        ]
        message: Message = {"type": "http.response.start", "status": answer.status, "headers": headers}
        await self._send(message)

    async def write(self, chunk: bytes) -> None:
        """Send a piece of the body."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def finish(self) -> None:
        """End the body."""
        await self._send({"type": "http.response.body", "body": b""})

    async def pause(self, seconds: float) -> bool:
        """Wait; ends early, with `False`, if the client goes away."""
        try:
            await asyncio.wait_for(self._receive(), seconds)
        except TimeoutError:
            return True
        return False

    async def cut(self) -> None:
        """Close the connection once what was written is out, and wait until it is closed."""
        transport: asyncio.Transport = self._scope["state"][_TRANSPORT]
        transport.close()
        while (await self._receive())["type"] != "http.disconnect":
            pass
