"""The way by a proxy: tunnels, what a proxy refuses, and what is said of it."""

from __future__ import annotations

import asyncio
import logging
import ssl
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from airflow_provider_events.contract import Answer, Request
from airflow_provider_events.http.client import Http1Transport
from airflow_provider_events.http.contract import Endpoint, TransportError
from tests.delivery.harness import OddServer, odd_server
from tests.http.relays import relay

KEY = {"X-Key": "very-secret-key"}
ASK = Request("POST", "/events", b"{}")


async def accept(request: web.Request) -> web.Response:
    return web.Response(body=await request.read(), headers={"X-Path": str(request.rel_url), "X-Long": "h" * 20_000})


@pytest.fixture
def secure(authority: tuple[Path, ssl.SSLContext]) -> Iterator[OddServer]:
    """An HTTPS server with a certificate of the test's own authority."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    with odd_server(accept, authority[1]) as server:
        yield server
    logging.getLogger("asyncio").setLevel(logging.NOTSET)


def send(url: str, times: int = 1, **options: Any) -> list[Answer]:
    async def main() -> list[Answer]:
        async with Http1Transport(Endpoint(url, KEY, **options)) as transport:
            return [await transport.send(ASK) for _ in range(times)]

    return asyncio.run(main())


def failure(url: str, **options: Any) -> TransportError:
    with pytest.raises(TransportError) as caught:
        send(url, **options)
    return caught.value


def test_https_goes_through_one_tunnel_and_the_proxy_sees_no_key(secure: OddServer, authority: Any) -> None:
    with relay() as proxy:
        answers = send(secure.url, 3, proxy=proxy.url, verify=str(authority[0]))
        (asked,) = proxy.asked
    assert [answer.body for answer in answers] == [b"{}"] * 3
    assert answers[0].headers["x-long"] == "h" * 20_000
    assert asked.startswith(b"CONNECT 127.0.0.1:")
    assert b"secret" not in asked


def test_plain_http_names_its_server_to_the_proxy() -> None:
    with odd_server(accept) as server, relay() as proxy:
        (answer, again) = send(f"{server.url}/v1", 2, proxy=proxy.url)
        assert proxy.asked[0].startswith(f"POST {server.url}/v1/events HTTP/1.1\r\nHost: 127.0.0.1:".encode())
    assert (answer.status, answer.headers["x-path"], again.body) == (200, "/v1/events", b"{}")


@pytest.mark.parametrize("tls", [True, False])
def test_user_and_password_are_for_the_proxy_alone(tls: bool, secure: OddServer, authority: Any) -> None:
    seen: list[str | None] = []

    async def look(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Proxy-Authorization"))
        return web.Response()

    with (
        odd_server(look, authority[1] if tls else None) as server,
        relay(user="me:pa%40ss".replace("%40", "@")) as proxy,
    ):
        url = proxy.url.replace("pa@ss", "pa%40ss")
        (answer,) = send(server.url, proxy=url, verify=str(authority[0]))
    assert answer.status == 200
    assert len(proxy.asked) == 1
    if tls:
        assert seen == [None]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (407, "it asks for a user and password"),
        (403, "it does not let this connection through"),
        (405, "it does not let this connection through"),
        (501, "it does not let this connection through"),
        (400, "it does not let this connection through"),
        (302, "it does not let this connection through"),
    ],
)
def test_what_a_proxy_refuses_is_final_and_names_the_proxy(status: int, words: str, secure: OddServer) -> None:
    with relay(refusal=status) as proxy:
        address = proxy.url.removeprefix("http://")
        error = failure(secure.url, proxy=proxy.url.replace("http://", "http://me:pass-word@"))
    assert error.final
    host = secure.url.removeprefix("https://")
    assert str(error) == f"the proxy {address} refuses to connect to {host} ({status}): {words}"
    assert "pass-word" not in "".join(traceback.format_exception(error))
    assert secure.requests == 0


@pytest.mark.parametrize("status", [408, 421, 429, 500, 502, 503, 504])
def test_what_heals_at_a_proxy_is_tried_again(status: int, secure: OddServer) -> None:
    with relay(refusal=status) as proxy:
        error = failure(secure.url, proxy=proxy.url)
    assert not error.final
    assert f"by the proxy {proxy.url.removeprefix('http://')} (the proxy answers {status})" in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
        b"HTTP/1.1 2",
        b"\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n",
        b"x" * 200_000,
        b"HTTP/1.1 200 OK\r\n\r\nthis is no TLS",
    ],
    ids=lambda answer: str(answer[:20]),
)
def test_what_is_no_answer_of_a_proxy_names_it(answer: bytes, secure: OddServer) -> None:
    with relay(answer=answer) as proxy:
        error = failure(secure.url, proxy=proxy.url, timeout_seconds=5)
    assert not error.final
    assert f"by the proxy {proxy.url.removeprefix('http://')}" in str(error)


def test_interim_answers_come_before_the_proxys_own(secure: OddServer) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 407 No\r\n\r\n"
    with relay(answer=interim) as proxy:
        assert "(407): it asks for a user and password" in str(failure(secure.url, proxy=proxy.url))


@pytest.mark.parametrize("proxy", ["http://me:pass-word@127.0.0.1:1", "http://me:pass-word@proxy.invalid:3128"])
@pytest.mark.parametrize("url", ["https://127.0.0.1:1", "http://127.0.0.1:1"])
def test_a_proxy_that_is_down_is_named_without_its_password(proxy: str, url: str) -> None:
    error = failure(url, proxy=proxy)
    assert not error.final
    assert f"by the proxy {proxy.partition('@')[2]}" in str(error)
    assert "pass-word" not in "".join(traceback.format_exception(error))


def test_a_certificate_is_checked_through_the_tunnel(secure: OddServer) -> None:
    with relay() as proxy:
        error = failure(secure.url, proxy=proxy.url)
    assert error.final
    assert "is not trusted" in str(error)
    assert secure.requests == 0


def test_a_proxy_that_says_nothing_costs_the_time_to_connect(secure: OddServer) -> None:
    async def main() -> None:
        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with closing(writer):
                await reader.read()

        async with await asyncio.start_server(mute, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            endpoint = Endpoint(secure.url, KEY, proxy=f"http://127.0.0.1:{port}", timeout_seconds=0.3)
            async with Http1Transport(endpoint) as transport:
                with pytest.raises(TransportError, match=r"by the proxy 127\.0\.0\.1:\d+ in 0\.3 s"):
                    await transport.send(ASK)

    asyncio.run(main())
