"""Our own HTTP client: its answers beside aiohttp's, its connections, and what it puts on the wire."""

from __future__ import annotations

import asyncio
import gc
import gzip
import os
import random
import socket
import ssl
import struct
import sys
import time
import traceback
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohappyeyeballs import start_connection
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_events import __version__
from airflow_provider_events.contract import Answer, Request
from airflow_provider_events.http import client as http_client
from airflow_provider_events.http.client import IDLE_SECONDS, MAX_HEAD_BYTES, Http1Transport
from airflow_provider_events.http.contract import MAX_ANSWER_BYTES, Endpoint, Transport, TransportError
from airflow_provider_events.http.wire import Writing
from tests.http.theirs import AiohttpTransport
from tests.until import until

ASK = Request("POST", "/events", b"{}")
SECRET = "very-secret-key"
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
if sys.platform != "win32":
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on either event loop; nothing may reach its exception handler, and no socket may stay open."""

    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        runner.run(asyncio.sleep(0))  # the first loop of a process opens files for good

    def main(coroutine: Coroutine[Any, Any, None]) -> None:
        leaked: list[dict[str, Any]] = []
        before = open_files()
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: leaked.append(context))
            runner.run(asyncio.wait_for(coroutine, 20))
        assert leaked == []
        assert open_files() <= before

    return main


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


# -- a server that says what it is told ----------------------------------------------------------------------------


class RawServer:
    """Answers with bytes; keeps what it was sent.

    :param handler: talks on each connection; it is closed afterwards.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.connections = self.open = self.most_open = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self._handler(reader, writer)
        except (OSError, EOFError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """A server on the running loop."""
    raw = RawServer(handler)
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0, ssl=tls)
    raw.url = f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield raw
    finally:
        server.close()
        await until(lambda: raw.open == 0)
        await asyncio.sleep(0.001)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One whole request; `EOFError` at the end."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head + await reader.readexactly(int(line.partition(b":")[2]))
    return head


def saying(*answers: bytes) -> Handler:
    """Each request of a connection is answered with the next of these; after the last the connection is closed."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await read_request(reader)
            writer.write(answer)
            await writer.drain()

    return handler


def good(body: bytes = b"fine", headers: bytes = b"", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, headers, len(body), body)


async def polite(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers every request with its own body."""
    while True:
        request = await read_request(reader)
        writer.write(good(request.partition(b"\r\n\r\n")[2]))
        await writer.drain()


def ask(text: str) -> Request:
    return Request("POST", "/", text.encode())


# -- the same answers as aiohttp -----------------------------------------------------------------------------------

Seen = tuple[int, bytes, str | None] | None

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
UPGRADE = b"Connection: upgrade\r\nUpgrade: h2c\r\n"
HELLO = b"hello" * 50


def bare_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def many_headers(count: int) -> bytes:
    return b"".join(b"X-%d: 1\r\n" % n for n in range(count))


SAME = {
    "plain": good(),
    "status of no meaning": good(status=b"999 What"),
    "no reason": good(status=b"200"),
    "two digits": good(status=b"20 OK"),
    "four digits": good(status=b"2000 OK"),
    "no body": good(b""),
    "no content": b"HTTP/1.1 204 No EventContent\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
    "ended by the connection": OK + b"\r\nuntil here",
    "ended by the connection at once": OK + b"\r\n",
    "kept alive without a length": OK + b"Connection: keep-alive\r\n\r\nuntil here",
    "closed afterwards": good(headers=b"Connection: close\r\n"),
    "1.0": good().replace(b"1.1", b"1.0"),
    "1.0 without a length": b"HTTP/1.0 200 OK\r\n\r\nuntil here",
    "0.9": good().replace(b"1.1", b"0.9"),
    "2.0": good().replace(b"1.1", b"2.0"),
    "3.7": good().replace(b"1.1", b"3.7"),
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n" + good(),
    "early hints": b"HTTP/1.1 103 Early Hints\r\nX-A: early\r\n\r\n" + good(),
    "many interim answers": b"HTTP/1.1 102 Processing\r\n\r\n" * 20 + good(headers=b"X-A: 1\r\n"),
    "an interim answer alone": b"HTTP/1.1 100 Continue\r\n\r\n",
    "chunks": CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    "chunks with extensions": CHUNKED + b"3;a=b\r\nabc\r\n0\r\n\r\n",
    "chunks with spaces": CHUNKED + b"3  \r\nabc\r\n0\r\n\r\n",
    "chunks in capitals": CHUNKED.replace(b"chunked", b"CHUNKED") + b"3\r\nabc\r\n0\r\n\r\n",
    "chunks of chunks": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "trailers": OK + b"X-A: head\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-A: trailer\r\n\r\n",
    "cut after a chunk": CHUNKED + b"3\r\nabc\r\n",
    "cut within a chunk": CHUNKED + b"5\r\nab",
    "cut before the last line": CHUNKED + b"3\r\nabc\r\n0\r\n",
    "no size": CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
    "longer than its chunk": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "an impossible chunk": CHUNKED + b"f" * 18 + b"\r\nabc\r\n0\r\n\r\n",
    "30,000 chunks": CHUNKED + b"1\r\nx\r\n" * 30_000 + b"0\r\n\r\n",
    "shorter than its length": OK + b"Content-Length: 10\r\n\r\nabc",
    "both lengths": OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "both lengths, reversed": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "its length twice": OK + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "two lengths": OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "a list of lengths": OK + b"Content-Length: 3, 3\r\n\r\nabc",
    "less than nothing": OK + b"Content-Length: -3\r\n\r\nabc",
    "a signed length": OK + b"Content-Length: +3\r\n\r\nabc",
    "a hexadecimal length": OK + b"Content-Length: 0x3\r\n\r\nabc",
    "a blank length": OK + b"Content-Length: \r\n\r\nabc",
    "an impossible length": OK + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "a length with a space": OK + b"Content-Length : 3 \r\n\r\nabc",
    "lines of old": b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
    "lines of older": b"HTTP/1.1 200 OK\rContent-Length: 3\r\rabc",
    "a header twice": good(headers=b"X-A: 1\r\nx-a: 2\r\n"),
    "a folded header": good(headers=b"X-A: one\r\n two\r\n"),
    "spaces around a value": good(headers=b"X-A:   one \t \r\n"),
    "no value": good(headers=b"X-A:\r\n"),
    "no colon": good(headers=b"X-A\r\n"),
    "no name": good(headers=b": a\r\n"),
    "a space in a name": good(headers=b"X A: a\r\n"),
    "NUL in a header": good(headers=b"X-A: a\0b\r\n"),
    "a control character in a header": good(headers=b"X-A: a\x01b\r\n"),
    "100 headers": good(headers=many_headers(100)),
    "2,000 headers": good(headers=many_headers(2000)),
    "endless headers": OK + many_headers(50_000),
    "a header of 70 kB": good(headers=b"X-A: %b\r\n" % (b"a" * 70_000)),
    "a header of 1 MB": good(headers=b"X-A: %b\r\n" % (b"a" * 1_000_000)),
    "lines before it": b"\r\n\r\n" + good(),
    "a space before it": b" " + good(),
    "lines behind it": good() + b"\r\n\r\n",
    "another behind it": good() + good(b"other"),
    "TLS": b"\x16\x03\x01\x02\x00garbage",
    "a request": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "small letters": good().lower(),
    "radio": good().replace(b"HTTP/1.1", b"ICY"),
    "nothing": b"",
    "half a head": OK + b"Content-Le",
    "an upgrade that is none": good(headers=UPGRADE),
    "gzip": good(gzip.compress(HELLO), b"Content-Encoding: GZIP\r\n"),
    "deflate": good(zlib.compress(HELLO), b"Content-Encoding: deflate\r\n"),
    "bare deflate": good(bare_deflate(HELLO), b"Content-Encoding: deflate\r\n"),
    "deflate, cut": good(zlib.compress(HELLO)[:-5], b"Content-Encoding: deflate\r\n"),
    "no gzip at all": good(b"not gzip", b"Content-Encoding: gzip\r\n"),
    "gzip of nothing": good(b"", b"Content-Encoding: gzip\r\n"),
    "gzip and more": good(gzip.compress(HELLO) + b"more", b"Content-Encoding: gzip\r\n"),
    "gzip of 30 MB": good(gzip.compress(b"a" * 30_000_000), b"Content-Encoding: gzip\r\n"),
    "gzip of the limit": good(gzip.compress(b"a" * MAX_ANSWER_BYTES), b"Content-Encoding: gzip\r\n"),
    "an unknown coding": good(headers=b"Content-Encoding: UTF-8\r\n"),
    "the limit": good(b"x" * MAX_ANSWER_BYTES),
    "one less": good(b"x" * (MAX_ANSWER_BYTES - 1)),
    "one more": good(b"x" * (MAX_ANSWER_BYTES + 1)),
    "3 MB": good(b"x" * 3_000_000),
    "3 MB in chunks": CHUNKED + (b"400\r\n%b\r\n" % (b"x" * 1024)) * 3000 + b"0\r\n\r\n",
    "3 MB until the end": OK + b"\r\n" + b"x" * 3_000_000,
}

# Ours on purpose. An answer that was complete is kept: without it an event would be sent twice.
OTHERWISE: dict[str, tuple[bytes, Seen]] = {
    "garbage behind it": (good() + b"more", (200, b"fine", None)),  # to aiohttp an answer where it comes late
    "the same where the connection was to be closed": (
        good(headers=b"Connection: close\r\n") + b"more",
        (200, b"fine", None),
    ),
    "a body that cannot be": (b"HTTP/1.1 204 No EventContent\r\n\r\nabc", (204, b"", None)),
    "an upgrade that nobody asked for is no answer": (b"HTTP/1.1 101 Switching\r\n%b\r\n" % UPGRADE, None),
    "a transfer coding that cannot be undone": (OK + b"Transfer-Encoding: gzip\r\n\r\nabc", None),
    "chunks under another transfer coding": (
        OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        None,
    ),
    "letters: no surrogates": (good(headers=b"X-A: caf\xe9\r\n"), (200, b"fine", "caf\xe9")),
    "gzip by its older name": (good(gzip.compress(HELLO), b"Content-Encoding: x-gzip\r\n"), (200, HELLO, None)),
    "gzip that was cut": (good(gzip.compress(HELLO)[:-9], b"Content-Encoding: gzip\r\n"), None),
    "gzip twice": (good(gzip.compress(b"a") + gzip.compress(b"b"), b"Content-Encoding: gzip\r\n"), None),
    "an unreadable body still has a status": (good(b"br", b"Content-Encoding: br\r\n"), (200, b"br", None)),
    "a header of 9 kB": (good(headers=b"X-A: %b\r\n" % (b"a" * 9000)), (200, b"fine", "a" * 9000)),
    "300 headers": (good(headers=many_headers(300)), (200, b"fine", None)),
    "the longest reason": (good(status=b"200 " + b"a" * 60_000), (200, b"fine", None)),
}


async def seen(transport: Transport) -> Seen:
    """What is compared: status, body, and one header; None for no answer."""
    try:
        answer = await transport.send(ASK)
    except TransportError as error:
        return None if str(error).startswith("no answer from 127.0.0.1:") and not error.final else (0, b"", str(error))
    return answer.status, answer.body, answer.headers.get("x-a")


async def both(pieces: Sequence[bytes]) -> tuple[Seen, Seen]:
    """What aiohttp and ours make of an answer in these pieces."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    async with serving(handler) as server:
        endpoint = Endpoint(server.url, {}, timeout_seconds=5.0)
        async with AiohttpTransport(endpoint) as theirs, Http1Transport(endpoint) as ours:
            return await seen(theirs), await seen(ours)


@pytest.mark.parametrize("name", SAME)
def test_an_answer_is_what_it_is_to_aiohttp(name: str, run: Run) -> None:
    async def main() -> None:
        theirs, ours = await both([SAME[name]])
        assert ours == theirs

    run(main())


@pytest.mark.parametrize("name", OTHERWISE)
def test_an_answer_is_something_else_on_purpose(name: str, run: Run) -> None:
    async def main() -> None:
        answer, expected = OTHERWISE[name]
        theirs, ours = await both([answer])
        assert ours == expected
        assert ours != theirs, "no longer a difference"

    run(main())


def chunks_of(body: bytes, sizes: list[int]) -> bytes:
    pieces: list[bytes] = []
    at = 0
    while at < len(body):
        size = sizes[len(pieces) % len(sizes)]
        piece = body[at : at + size]
        pieces.append(b"%x\r\n%b\r\n" % (len(piece), piece))
        at += size
    return b"".join(pieces) + b"0\r\n\r\n"


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Answers that are right."""
    status = draw(st.sampled_from([200, 201, 204, 301, 304, 400, 401, 429, 500, 503, 599]))
    body = draw(st.binary(max_size=300))
    names = st.sampled_from([b"X-A", b"x-a", b"X-B", b"Retry-After", b"Set-Cookie"])
    values = st.binary(max_size=20).map(lambda value: bytes(32 + byte % 95 for byte in value))
    lines = [b"%b: %b" % line for line in draw(st.lists(st.tuples(names, values), max_size=6))]
    interim = draw(
        st.sampled_from([b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nX-A: e\r\n\r\n"])
    )
    framing = draw(st.sampled_from(["length", "chunks", "end"]))
    if status in (204, 304):
        body = b""
    elif framing == "length":
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == "chunks":
        lines.append(b"Transfer-Encoding: chunked")
        body = chunks_of(body, draw(st.lists(st.integers(1, 80), min_size=1, max_size=3)))
    lines += draw(st.sampled_from([[], [], [b"Connection: close"], [b"Connection: keep-alive"]]))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.0"]))
    head = [b"HTTP/%b %d Reason" % (version, status), *draw(st.permutations(lines))]
    return interim + b"\r\n".join(head) + b"\r\n\r\n" + body


@st.composite
def torn(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    """The same in some TCP segments."""
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    return [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


@settings(max_examples=250, derandomize=True, deadline=None)
@given(st.data())
def test_any_right_answer_is_what_it_is_to_aiohttp_also_when_it_is_cut(data: st.DataObject) -> None:
    answer = data.draw(answers())
    if data.draw(st.booleans()):
        answer = answer[: data.draw(st.integers(0, len(answer)))]
    pieces = data.draw(torn(answer))
    with asyncio.Runner(loop_factory=LOOPS[data.draw(st.sampled_from(list(LOOPS)))]) as runner:
        theirs, ours = runner.run(both(pieces))
    assert ours == theirs


@settings(max_examples=250, derandomize=True, deadline=None)
@given(st.data())
def test_no_wrong_answer_spoils_the_next(data: st.DataObject) -> None:
    """Bytes changed, dropped, doubled, put in, or nothing but noise: an answer or an error, then the right answer."""
    answer = bytearray(data.draw(st.one_of(answers(), st.binary(max_size=200))))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(answer)))
        until = at + data.draw(st.integers(0, 3))
        answer[at:until] = data.draw(st.one_of(st.binary(max_size=3), st.just(bytes(answer[:60]))))
    pieces = data.draw(torn(bytes(answer)))
    leaked: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: leaked.append(context))
        said = asyncio.Event()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if b"second" not in await read_request(reader):
                try:
                    for piece in pieces:
                        writer.write(piece)
                        await writer.drain()
                        await asyncio.sleep(0)
                finally:
                    said.set()
                await read_request(reader)  # the connection was found good enough
            writer.write(good(b"second"))
            await writer.drain()

        async with serving(handler) as server, Http1Transport(Endpoint(server.url, {})) as ours:
            first = asyncio.create_task(seen(ours))
            await said.wait()
            await asyncio.wait([first], timeout=0.03)
            first.cancel()  # it may lack its end
            await asyncio.wait([first])
            await asyncio.sleep(0.001)  # what comes after an answer comes before the next request
            assert (await ours.send(ask("second"))).body == b"second"

    with asyncio.Runner(loop_factory=LOOPS[data.draw(st.sampled_from(list(LOOPS)))]) as runner:
        runner.run(main())
    assert leaked == []


# -- what is written -----------------------------------------------------------------------------------------------


def written(base_url: str, request: Request, **headers: str) -> tuple[str, list[str], bytes]:
    """First line, headers and body of a request as it would be sent."""
    message = Writing(Endpoint(base_url, headers)).written(request)
    head, _, body = message.partition(b"\r\n\r\n")
    start, *lines = head.decode().split("\r\n")
    return start, lines, body


def test_a_request_is_written_at_once_and_in_full(run: Run) -> None:
    async def main() -> None:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            requests.append(await reader.read(65_536))
            writer.write(good())

        requests: list[bytes] = []
        async with serving(handler) as server, Http1Transport(Endpoint(f"{server.url}/v1", {"X-Key": SECRET})) as ours:
            await ours.send(Request("PUT", "/a%2Fb?c=%7Ed", b'{"e":"\xc3\xa9"}', {"X-Request-Id": "1"}))
        port = server.url.rpartition(":")[2]
        assert requests == [
            f"PUT /v1/a%2Fb?c=%7Ed HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: application/json\r\n"
            "Accept-Encoding: identity\r\nContent-Type: application/json\r\n"
            f"User-Agent: airflow-provider-events/{__version__}\r\nX-Key: {SECRET}\r\nX-Request-Id: 1\r\n"
            'Content-Length: 10\r\n\r\n{"e":"é"}'.encode()
        ]

    run(main())


def test_a_body_has_a_length_also_when_it_is_empty() -> None:
    assert "Content-Length: 0" in written("http://a", Request("POST", "/"))[1]
    assert "Content-Length: 0" in written("http://a", Request("GET", "/", b""))[1]
    assert "Content-Length" not in "".join(written("http://a", Request("GET", "/"))[1])


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://events.example", "events.example"),
        ("http://events.example:80", "events.example"),
        ("https://events.example:443/v1", "events.example"),
        ("https://Events.example.:80", "events.example:80"),
        ("http://[::1]", "[::1]"),
        ("http://[2001:db8::1]:8080/v1", "[2001:db8::1]:8080"),
    ],
)
def test_the_host_is_named_with_its_port_where_it_is_not_the_usual_one(url: str, host: str) -> None:
    assert written(url, ASK)[1][0] == f"Host: {host}"


def test_a_header_is_sent_once_in_its_last_form() -> None:
    request = Request("POST", "/", b"{}", {"ACCEPT": "text/plain", "x-key": "2"})
    lines = written("http://a", request, **{"content-type": "text/csv", "accept": "text/html", "X-Key": "1"})[1]
    assert sorted(line for line in lines if not line.startswith(("Host", "User-Agent", "Content-Length"))) == [
        "ACCEPT: text/plain",
        "Accept-Encoding: identity",
        "content-type: text/csv",
        "x-key: 2",
    ]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": f"{SECRET}\r\nX-B: 1"},
        {"X-A": f"{SECRET}\n"},
        {"X-A": f"{SECRET}\0"},
        {"X-A": f"{SECRET}\ud800"},
        {f"X-{SECRET}\r\nX-B": "1"},
        {f"{SECRET}:": "1"},
        {f"{SECRET} ": "1"},
        {"": SECRET},
        {"content-length": "0"},
        {"Transfer-Encoding": "chunked"},
    ],
)
@pytest.mark.parametrize("where", ["endpoint", "request"])
def test_a_header_that_would_be_two_is_refused(where: str, headers: dict[str, str], run: Run) -> None:
    async def main() -> None:
        async with serving(polite) as server:
            endpoint = Endpoint(server.url, headers if where == "endpoint" else {})
            async with Http1Transport(endpoint) as transport:
                with pytest.raises(TransportError, match=r"127\.0\.0\.1:\d+ cannot be sent such a header") as caught:
                    await transport.send(Request("POST", "/", b"{}", headers if where == "request" else None))
        assert caught.value.final
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert server.connections == 0

    run(main())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"/{SECRET} HTTP/1.1\r\nX-A: 1\r\n\r\n"),
        ("POST", f"/{SECRET} "),
        ("POST", f"/{SECRET}\n"),
        ("POST", f"/{SECRET}\xe9"),
        ("POST", SECRET),
        ("DELETE", f"/{SECRET}"),
        (f"POST /{SECRET} HTTP/1.1\r\n", "/"),
    ],
)
def test_a_method_or_path_that_is_none_is_refused(method: str, path: str, run: Run) -> None:
    async def main() -> None:
        async with serving(polite) as server, Http1Transport(Endpoint(server.url, {})) as transport:
            with pytest.raises(TransportError, match="such a method or path") as caught:
                await transport.send(Request(method, path, b"{}"))
        assert caught.value.final
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert server.connections == 0

    run(main())


# -- connections ---------------------------------------------------------------------------------------------------


def test_a_connection_is_used_again(run: Run) -> None:
    async def main() -> None:
        async with serving(polite) as server, Http1Transport(Endpoint(server.url, {})) as transport:
            for n in range(20):
                assert (await transport.send(ask(f"{n}"))).body == f"{n}".encode()
            assert server.connections == 1

    run(main())


def test_connections_are_bounded_and_waited_for_in_order(run: Run) -> None:
    async def main() -> None:
        arrived: list[int] = []

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                arrived.append(int((await read_request(reader)).rpartition(b"\r\n")[2]))
                await asyncio.sleep(0.002)
                writer.write(good())

        async with serving(handler) as server:
            async with Http1Transport(Endpoint(server.url, {}, max_connections=1)) as transport:
                await asyncio.gather(*(transport.send(ask(f"{n}")) for n in range(10)))
            assert arrived == list(range(10))
            assert server.connections == 1
            async with Http1Transport(Endpoint(server.url, {}, max_connections=3)) as transport:
                await asyncio.gather(*(transport.send(ask(f"{n}")) for n in range(30)))
            assert server.most_open == 3
            assert server.connections == 4

    run(main())


@pytest.mark.parametrize("headers", [b"Connection: close\r\n", b"Keep-Alive: timeout=1\r\n"])
def test_a_server_may_have_each_connection_used_once(headers: bytes, run: Run) -> None:
    async def main() -> None:
        async with serving(saying(good(headers=headers), good(b"never"))) as server:
            async with Http1Transport(Endpoint(server.url, {})) as transport:
                for _ in range(3):
                    assert (await transport.send(ASK)).body == b"fine"
            assert server.connections == 3

    run(main())


@pytest.mark.parametrize("told", [b"", b"Keep-Alive: timeout=90, max=9\r\n"])
def test_a_connection_that_rested_too_long_is_not_used(told: bytes, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert IDLE_SECONDS == 15.0
    monkeypatch.setattr(http_client, "IDLE_SECONDS", 0.2)

    async def main() -> None:
        answer = good(headers=told)
        async with serving(saying(answer, answer, answer)) as server:
            async with Http1Transport(Endpoint(server.url, {})) as transport:
                await transport.send(ASK)
                await transport.send(ASK)
                await asyncio.sleep(0.25)
                await transport.send(ASK)
            assert server.connections == 2

    run(main())


def test_the_connection_used_last_is_used_first(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that those too many grow old after a burst."""
    monkeypatch.setattr(http_client, "IDLE_SECONDS", 0.2)

    async def main() -> None:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            mine = server.connections
            while True:
                await read_request(reader)
                writer.write(good(b"%d" % mine))

        async with serving(handler) as server, Http1Transport(Endpoint(server.url, {})) as transport:
            await asyncio.gather(*(transport.send(ASK) for _ in range(8)))
            assert server.connections == 8
            assert len({(await transport.send(ASK)).body for _ in range(8)}) == 1
            await asyncio.sleep(0.25)
            assert (await transport.send(ASK)).body == b"9"
            await until(lambda: server.open == 1)

    run(main())


def test_a_connection_that_was_closed_meanwhile_is_replaced_without_an_error(run: Run) -> None:
    async def main() -> None:
        async with serving(saying(good())) as server, Http1Transport(Endpoint(server.url, {})) as transport:
            for _ in range(5):
                assert (await transport.send(ASK)).body == b"fine"
                await until(lambda: not transport._open)
            assert server.connections == 5

    run(main())


@pytest.mark.parametrize("unasked", [b"x", b"\r\n", good(b"forged"), b"HTTP/1.1 408 Timeout\r\n\r\n"])
def test_a_connection_that_speaks_unasked_is_not_used(unasked: bytes, run: Run) -> None:
    async def main() -> None:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(good())
            await asyncio.sleep(0.005)
            writer.write(unasked)
            await reader.read()

        async with serving(handler) as server, Http1Transport(Endpoint(server.url, {})) as transport:
            for _ in range(2):
                assert (await transport.send(ASK)).body == b"fine"
                await until(lambda: not transport._open)
            assert server.connections == 2

    run(main())


def test_half_an_answer_behind_an_answer_belongs_to_nobody(run: Run) -> None:
    async def main() -> None:
        forged = OK + b"Content-Length: 100\r\n\r\nforged"
        async with serving(saying(good() + forged, good())) as server:
            async with Http1Transport(Endpoint(server.url, {})) as transport:
                for _ in range(3):
                    assert (await transport.send(ASK)).body == b"fine"
            assert server.connections == 3

    run(main())


def test_a_connection_that_ends_as_it_begins_is_no_answer(run: Run) -> None:
    class Late(Http1Transport):
        async def _connected(self) -> Any:
            connection = await super()._connected()
            await connection.closed
            return connection

    async def main() -> None:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            pass

        async with serving(handler) as server, Late(Endpoint(server.url, {})) as transport:
            with pytest.raises(TransportError, match=r"\(closed\)"):
                await transport.send(ASK)

    run(main())


def test_an_answer_that_breaks_off_has_no_end(run: Run) -> None:
    """Only an orderly end of the connection is one of the answer."""

    async def main() -> None:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(OK + b"\r\nuntil")
            await asyncio.sleep(0.05)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

        async with serving(handler) as server, Http1Transport(Endpoint(server.url, {})) as transport:
            with pytest.raises(TransportError, match=r"\(ConnectionResetError\)"):
                await transport.send(ASK)

    run(main())


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_that_was_closed_while_it_rested_is_stale_and_so_are_the_others(reset: bool, run: Run) -> None:
    """The server closes it without notice; whoever asks again gets a fresh one."""

    async def main() -> None:
        requests: list[bytes] = []

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            requests.append(await read_request(reader))
            writer.write(good())
            await reader.read(1)  # of the next request, which nobody reads
            if reset:
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

        async with serving(handler) as server, Http1Transport(Endpoint(server.url, {})) as transport:
            await asyncio.gather(*(transport.send(ask("first")) for _ in range(3)))
            with pytest.raises(TransportError) as caught:
                await transport.send(ask("second"))
            assert (caught.value.stale, caught.value.final) == (True, False)
            assert (await transport.send(ask("second"))).status == 200
        assert len(requests) == server.connections == 4

    run(main())


def test_a_fresh_connection_that_is_closed_is_a_failure(run: Run) -> None:
    async def main() -> None:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)

        async with serving(handler) as server, Http1Transport(Endpoint(server.url, {})) as transport:
            with pytest.raises(TransportError, match=r"\(closed\)") as caught:
                await transport.send(ask("first"))
        assert server.connections == 1
        assert not caught.value.stale

    run(main())


def test_part_of_an_answer_is_a_failure_on_a_rested_connection_too(run: Run) -> None:
    async def main() -> None:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(good())
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")

        async with serving(handler) as server, Http1Transport(Endpoint(server.url, {})) as transport:
            await transport.send(ask("first"))
            with pytest.raises(TransportError) as caught:
                await transport.send(ask("second"))
        assert server.connections == 1
        assert not caught.value.stale

    run(main())


@pytest.mark.parametrize("framed", [True, False])
def test_an_early_answer_counts_and_ends_the_connection(framed: bool, run: Run) -> None:
    """Most of the body is still to be written."""

    async def main() -> None:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            if framed:
                writer.write(good(b"too much", status=b"413 Too Large"))
            else:
                writer.write(b"HTTP/1.1 413 Too Large\r\n\r\ntoo much")
                writer.write_eof()
            await gone.wait()

        gone = asyncio.Event()
        async with serving(handler) as server, Http1Transport(Endpoint(server.url, {})) as transport:
            for _ in range(2):
                answer = await transport.send(Request("POST", "/", b"x" * 20_000_000))
                assert (answer.status, answer.body) == (413, b"too much")
            assert server.connections == 2
            gone.set()

    run(main())


def test_each_request_has_its_own_time(run: Run) -> None:
    async def main() -> None:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while b"never" not in await read_request(reader):
                await asyncio.sleep(0.1)
                writer.write(good())
            await reader.read()

        async with (
            serving(handler) as server,
            Http1Transport(Endpoint(server.url, {}, timeout_seconds=0.6)) as transport,
        ):
            started = time.monotonic()
            for _ in range(2):
                await transport.send(ask("soon"))
            assert server.connections == 1
            with pytest.raises(TransportError, match=r"no answer from 127\.0\.0\.1:\d+ in 0\.6 s"):
                await transport.send(ask("never"))
            assert time.monotonic() - started > 0.79
            assert (await transport.send(ask("soon"))).body == b"fine"
            assert server.connections == 2

    run(main())


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (OK, b"X-A: 1\r\n" * 1000),
        (b"HTTP/1.1 200 ", b"x" * 9000),
        (OK, b"x" * 9000),
        (OK + b"X-A: ", b"x" * 9000),
    ],
)
def test_a_head_without_end_is_cut_short(start: bytes, more: bytes, run: Run) -> None:
    async def main() -> None:
        sent = 0

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await read_request(reader)
            writer.write(start)
            while True:
                writer.write(more)
                sent += len(more)
                await writer.drain()
                await asyncio.sleep(0)

        async with serving(handler) as server, Http1Transport(Endpoint(server.url, {})) as transport:
            with pytest.raises(TransportError, match=r"\(improper headers\)"):
                await transport.send(ASK)
        assert sent < 100 * MAX_HEAD_BYTES  # sockets have buffers

    run(main())


# -- giving up -----------------------------------------------------------------------------------------------------


def test_a_cancelled_request_takes_its_connection_along(run: Run) -> None:
    async def main() -> None:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                body = (await read_request(reader)).rpartition(b"\r\n")[2]
                if body == b"slow":
                    await reader.read()
                writer.write(good(body))

        async with serving(handler) as server, Http1Transport(Endpoint(server.url, {}, max_connections=1)) as transport:
            await transport.send(ask("quick"))
            slow = asyncio.create_task(transport.send(ask("slow")))
            waiting = asyncio.create_task(transport.send(ask("waiting")))
            last = asyncio.create_task(transport.send(ask("last")))
            await until(lambda: len(transport._queue) == 2)
            waiting.cancel()
            slow.cancel()
            assert (await last).body == b"last"
            assert slow.cancelled()
            assert waiting.cancelled()
            assert server.connections == 2

    run(main())


@pytest.mark.filterwarnings("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("steps", range(8))
@pytest.mark.parametrize("secure", [False, True])
def test_no_socket_is_left_of_a_connection_cancelled_while_it_is_made(
    secure: bool, steps: int, run: Run, monkeypatch: pytest.MonkeyPatch, authority: tuple[Path, ssl.SSLContext]
) -> None:
    async def main() -> None:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await read_request(reader):
                writer.write(good())

        async def connected(*arguments: Any, **options: Any) -> socket.socket:
            made = await start_connection(*arguments, **options)
            monkeypatch.undo()
            asyncio.get_running_loop().call_soon(cancel, steps)
            return made

        def cancel(steps: int) -> None:
            if steps:
                asyncio.get_running_loop().call_soon(cancel, steps - 1)
            else:
                asking.cancel()

        bundle, context = authority
        asking: asyncio.Task[Answer]
        async with (
            serving(handler, context if secure else None) as server,
            Http1Transport(Endpoint(server.url, {}, verify=str(bundle), max_connections=1)) as transport,
        ):
            monkeypatch.setattr(http_client, "start_connection", connected)
            asking = asyncio.create_task(transport.send(ASK))
            await asyncio.wait([asking])
            assert asking.cancelled() or (steps and asking.result().status == 200)
            gc.collect()
            assert (await transport.send(ASK)).status == 200

    run(main())


def test_no_place_and_no_connection_is_lost_in_a_storm_of_cancellations(run: Run) -> None:
    async def main() -> None:
        chance = random.Random(7)

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                body = (await read_request(reader)).rpartition(b"\r\n")[2]
                await asyncio.sleep(chance.random() * 0.004)
                if chance.random() < 0.1:
                    return
                writer.write(good(body))

        async def one(n: int) -> None:
            try:
                answer = await asyncio.wait_for(transport.send(ask(f"{n}")), chance.random() * 0.02)
            except (TimeoutError, TransportError):
                return
            assert answer.body == f"{n}".encode()

        async with serving(handler) as server:
            async with Http1Transport(Endpoint(server.url, {}, max_connections=4)) as transport:
                await asyncio.gather(*(one(n) for n in range(400)))
                await until(lambda: server.open <= 4)
                done = await asyncio.gather(*(transport.send(ask("x")) for _ in range(4)), return_exceptions=True)
                assert len(done) == 4
            await until(lambda: server.open == 0)

    run(main())


def test_leaving_ends_what_is_under_way(run: Run) -> None:
    async def main() -> None:
        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        async with serving(mute) as server:
            async with Http1Transport(Endpoint(server.url, {})) as transport:
                under_way = asyncio.create_task(transport.send(ASK))
                await until(lambda: server.open == 1 and len(transport._open) == 1)
            assert transport._open == set()
            with pytest.raises(TransportError, match=r"\(closed\)"):
                await under_way
        assert server.connections == 1

    run(main())


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_never_says_a_word_is_given_up(scheme: str, run: Run) -> None:
    """Over TLS: while connecting."""

    async def main() -> None:
        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            await reader.read()

        async with serving(mute) as server:
            url = server.url.replace("http:", f"{scheme}:")
            async with Http1Transport(Endpoint(url, {}, timeout_seconds=0.1)) as transport:
                with pytest.raises(TransportError, match=r"no answer from 127\.0\.0\.1:\d+ in 0\.1 s"):
                    await transport.send(ASK)
            async with Http1Transport(Endpoint(url, {})) as transport:
                abandoned = asyncio.create_task(transport.send(ASK))
                await until(lambda: server.connections == 2)
                abandoned.cancel()
                await asyncio.wait([abandoned])
                assert abandoned.cancelled()

    run(main())


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://events.invalid", "http://" + "a" * 64 + ".example"])
def test_a_host_that_is_not_there_is_named(url: str, run: Run) -> None:
    async def main() -> None:
        async with Http1Transport(Endpoint(url, {"X-Key": SECRET})) as transport:
            with pytest.raises(TransportError, match=f"no answer from {url.partition('://')[2]}") as caught:
                await transport.send(ASK)
        assert not caught.value.final
        assert SECRET not in "".join(traceback.format_exception(caught.value))

    run(main())


# -- TLS -----------------------------------------------------------------------------------------------------------


async def over_tls(server_tls: ssl.SSLContext, host: str, verify: bool | str) -> Answer:
    """The second of two answers of an HTTPS server, over one connection."""
    async with serving(polite, server_tls) as server:
        url = server.url.replace("127.0.0.1", host)
        async with Http1Transport(Endpoint(url, {}, timeout_seconds=5.0, verify=verify)) as transport:
            await transport.send(ASK)
            answer = await transport.send(ask("x" * 300_000))
        assert server.connections == 1
    return answer


Authority = tuple[Path, ssl.SSLContext]


@pytest.mark.parametrize("trust", ["bundle", "anything"])
def test_a_trusted_server_is_spoken_to(trust: str, authority: Authority, run: Run) -> None:
    async def main() -> None:
        answer = await over_tls(authority[1], "127.0.0.1", str(authority[0]) if trust == "bundle" else False)
        assert len(answer.body) == 300_000

    run(main())


@pytest.mark.parametrize(
    ("host", "trust", "fault"),
    [("127.0.0.1", "usual", "is not trusted"), ("localhost", "bundle", "is for another name")],
)
def test_an_unknown_authority_or_another_name_is_final(
    host: str, trust: str, fault: str, authority: Authority, run: Run
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: None)  # the server's side of it
        with pytest.raises(TransportError, match=f"the TLS certificate of {host}:\\d+ {fault}") as caught:
            await over_tls(authority[1], host, str(authority[0]) if trust == "bundle" else True)
        assert caught.value.final

    run(main())


def test_the_server_is_told_which_name_is_meant(authority: Authority, run: Run) -> None:
    async def main() -> None:
        names: list[str | None] = []
        authority[1].sni_callback = lambda _, name, __: names.append(name)
        try:
            await over_tls(authority[1], "localhost", False)
            await over_tls(authority[1], "127.0.0.1", False)
        finally:
            authority[1].sni_callback = None
        assert names == ["localhost", None]

    run(main())


def test_a_server_that_does_not_say_goodbye_holds_nobody_up(authority: Authority, run: Run) -> None:
    async def main() -> None:
        async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(good())
            await writer.drain()
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a TLS stream, too
            await over.wait()
            writer.transport.abort()

        over = asyncio.Event()
        async with serving(deaf, authority[1]) as server:
            async with Http1Transport(Endpoint(server.url, {}, verify=False)) as transport:
                await transport.send(ASK)
                started = time.monotonic()
            assert time.monotonic() - started < 5
            over.set()

    run(main())


def test_an_answer_over_tls_that_has_no_end_but_the_connections(authority: Authority, run: Run) -> None:
    async def main() -> None:
        handler = saying(OK + b"\r\nuntil here")
        async with (
            serving(handler, authority[1]) as server,
            Http1Transport(Endpoint(server.url, {}, verify=False)) as ours,
        ):
            assert (await ours.send(ASK)).body == b"until here"

    run(main())
