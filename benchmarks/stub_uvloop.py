"""The stub in pure Python on uvloop and httptools, with the same answers: only there to be compared with stub.c."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any, cast

import httptools
import uvloop

COMMAND = re.compile(rb'"command_id"[:\s]*"([^"]*)"')
EMBEDDABLES = json.dumps({"entry_id": "entry_0f8fad5bd9cb", "event_type": "custom"}).encode()
VIBETRACE = b'{"results":{"message":"Event created"}}'
QUEUED = b'{"response":{"status":"queued"}}'


class Stats:
    """What was received."""

    requests = events = body_bytes = connections = connections_max = accepted = in_flight_max = malformed = 0
    first_ns = last_ns = 0


class Server(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpRequestParser(self)
        self.path, self.parts = b"", list[bytes]()
        Stats.accepted += 1
        Stats.connections += 1
        Stats.connections_max = max(Stats.connections_max, Stats.connections)

    def connection_lost(self, error: Exception | None) -> None:
        """It went."""
        Stats.connections -= 1

    def data_received(self, data: bytes) -> None:
        """Some bytes."""
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """A request begins."""
        self.path, self.parts = url, []

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        self.parts.append(body)

    def on_message_complete(self) -> None:
        """It is whole."""
        if self.path == b"/stats":
            names = [name for name in vars(Stats) if not name.startswith("_")]
            return self.answer(b"200 OK", json.dumps({name: getattr(Stats, name) for name in names}).encode())
        body = b"".join(self.parts)
        Stats.last_ns = time.monotonic_ns()
        Stats.first_ns = Stats.first_ns or Stats.last_ns
        Stats.requests += 1
        Stats.body_bytes += len(body)
        status, events, answer = b"200 OK", 1, EMBEDDABLES
        if b"/track/v2/" in self.path:
            ids = COMMAND.findall(body)
            events = len(ids)
            results = b",".join([b'{"success":true,"command_id":"%s"}' % command for command in ids])
            answer = b'{"results":[%s],"success":true}' % results
        elif b"/bulk-events" in self.path:
            status, events, answer = b"201 Created", body.count(b'"eventName"'), QUEUED
        elif self.path == b"/event":
            answer = VIBETRACE
        Stats.events += events
        return self.answer(status, answer)

    def answer(self, status: bytes, body: bytes) -> None:
        """Send it."""
        head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
        self.transport.write(head + body)


async def serve() -> None:
    """Until it is killed."""
    server: Any = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
