"""HTTP as it is: certificates, names, hosts, time-outs, odd answers; and what errors say about them."""

from __future__ import annotations

import asyncio
import logging
import ssl
import traceback
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from airflow_provider_events.contract import Answer, Request
from airflow_provider_events.delivery.pacing import RetryPolicy
from airflow_provider_events.exceptions import EndpointRefused, VendorUnavailable
from airflow_provider_events.http import open_transport
from airflow_provider_events.http.client import Http1Transport
from airflow_provider_events.http.contract import MAX_ANSWER_BYTES, Endpoint, TransportError
from airflow_provider_events.http.tls import tls_context
from tests.delivery import harness
from tests.delivery.harness import OddServer, delivery, events, odd_server, records, vendor_at
from tests.http.relays import relay
from tests.http.theirs import AiohttpTransport

SECRET = "very-secret-key"
SHORT = RetryPolicy(budget_seconds=0.5, base_seconds=0.05, cap_seconds=0.1)


@pytest.fixture(params=["http1", "by a proxy", "aiohttp"])
def each_transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the harness opens: directly and by a proxy, odd answers are read alike, and as another client reads them."""
    if request.param == "aiohttp":
        monkeypatch.setattr(harness, "opened", AiohttpTransport)
        yield
        return
    with relay() if request.param == "by a proxy" else nullcontext() as proxy:

        def opened(endpoint: Endpoint) -> Http1Transport:
            return Http1Transport(replace(endpoint, proxy=proxy.url) if proxy else endpoint)

        monkeypatch.setattr(harness, "opened", opened)
        yield


over_each = pytest.mark.usefixtures("each_transport")


def send(url: str, request: Request | None = None, **options: Any) -> Answer:
    """One request through a transport of its own."""

    async def main() -> Answer:
        async with harness.opened(Endpoint(url, {"X-Key": SECRET}, **options)) as transport:
            return await transport.send(request or Request("POST", "/events", b"{}"))

    return asyncio.run(main())


@pytest.fixture
def echo() -> Iterator[OddServer]:
    """Answers with what it was asked."""

    async def answer(request: web.Request) -> web.Response:
        body = {"method": request.method, "path": request.raw_path, "body": (await request.read()).decode()}
        headers = {name.lower(): value for name, value in request.headers.items()}
        return web.json_response({**body, "headers": headers}, headers={"X-Odd": "1"})

    with odd_server(answer) as server:
        yield server


@over_each
def test_a_request_arrives_as_it_was_made(echo: OddServer) -> None:
    request = Request("PUT", "/a%2Fb/~c?d=%7Ee", b'{"f":1}', {"x-request-id": "00ff"})
    answer = send(echo.url + "/v1", request)
    import json

    seen = json.loads(answer.body)
    assert (seen["method"], seen["path"], seen["body"]) == ("PUT", "/v1/a%2Fb/~c?d=%7Ee", '{"f":1}')
    assert seen["headers"]["x-key"] == SECRET
    assert seen["headers"]["x-request-id"] == "00ff"
    assert seen["headers"]["content-type"] == "application/json"
    assert (answer.status, answer.headers["x-odd"]) == (200, "1")


@over_each
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed(status: int) -> None:
    """A key must not travel to where an answer points."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    with odd_server(answer) as server:
        assert send(server.url).status == status
        assert server.requests == 1


@over_each
def test_no_cookie_is_kept() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=request.headers.get("Cookie", "none"), headers={"Set-Cookie": "session=1"})

    async def main() -> list[bytes]:
        async with harness.opened(Endpoint(server.url, {})) as transport:
            return [(await transport.send(Request("GET", "/"))).body for _ in range(2)]

    with odd_server(answer) as server:
        assert asyncio.run(main()) == [b"none", b"none"]


@over_each
def test_an_endless_answer_is_cut_off() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65_536)
        except ConnectionError:
            return response

    with odd_server(answer) as server:
        assert len(send(server.url).body) == MAX_ANSWER_BYTES


@over_each
def test_an_answer_that_takes_too_long_is_none() -> None:
    release = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        await asyncio.wait_for(release.wait(), 5)
        return web.Response()

    with odd_server(answer) as server, pytest.raises(TransportError, match=r"127\.0\.0\.1:\d+ in 0\.2 s") as caught:
        send(server.url, timeout_seconds=0.2)
    assert not caught.value.final


@over_each
@pytest.mark.parametrize("max_connections", [1, 3])
def test_no_more_connections_are_open_than_allowed(max_connections: int) -> None:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(0.01)
        return web.Response()

    async def main() -> None:
        endpoint = Endpoint(server.url, {}, max_connections=max_connections)
        async with harness.opened(endpoint) as transport:
            await asyncio.gather(*(transport.send(Request("GET", "/")) for _ in range(20)))

    with odd_server(answer) as server:
        asyncio.run(main())
        assert server.most_open == max_connections


@over_each
def test_a_delivery_has_no_more_requests_open_than_allowed() -> None:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(0.005)
        return web.json_response({"success": True, "errors": []})

    with odd_server(answer) as server:
        job = delivery(odd_bloomreach(server.url), batch_size=1, max_in_flight=7)
        assert job.run(records(events("bloomreach", 200))).delivered == 200
        assert server.most_open == 7


def odd_bloomreach(url: str) -> Any:
    """A client of an odd server."""
    from airflow_provider_events.vendors.base import ConnectionValues
    from airflow_provider_events.vendors.bloomreach import Bloomreach

    return Bloomreach(ConnectionValues("odd", host=url, password=SECRET, extra={"project_token": "project"}))


# -- hosts that are not there --------------------------------------------------------------------------------------


@over_each
@pytest.mark.parametrize("host", ["http://127.0.0.1:1", "https://events.invalid", "https://127.0.0.1:1"])
def test_an_unreachable_host_is_named_within_the_budget(host: str) -> None:
    job = delivery(odd_bloomreach(host), retry_policy=SHORT, max_in_flight=2)
    with pytest.raises(VendorUnavailable, match=host.partition("//")[2]) as caught:
        job.run(records(events("bloomreach", 500)))
    report = caught.value.report
    assert report is not None
    assert report.read == report.unsent > 0
    assert report.seconds < 10
    assert caught.value.retryable
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@over_each
def test_a_server_that_speaks_no_http_is_named(unused_tcp_port: int) -> None:
    async def main() -> None:
        async def noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.write(b"220 mail.example.com ESMTP\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(noise, "127.0.0.1", unused_tcp_port)
        async with server, harness.opened(Endpoint(f"http://127.0.0.1:{unused_tcp_port}", {})) as transport:
            with pytest.raises(TransportError, match=f"127.0.0.1:{unused_tcp_port}") as caught:
                await transport.send(Request("GET", "/"))
        assert not caught.value.final

    asyncio.run(main())


@pytest.mark.parametrize("proxy", ["http://user:pass-word@127.0.0.1:1", "http://user:pass-word@events.invalid:3128"])
def test_a_proxy_that_is_not_there_is_no_leak(proxy: str, echo: OddServer) -> None:
    async def main() -> None:
        async with open_transport(Endpoint(echo.url, {"X-Key": SECRET}, proxy=proxy)) as transport:
            await transport.send(Request("GET", "/"))

    with pytest.raises(TransportError) as caught:
        asyncio.run(main())
    assert "pass-word" not in "".join(traceback.format_exception(caught.value))
    assert echo.requests == 0


# -- certificates --------------------------------------------------------------------------------------------------


async def accept(request: web.Request) -> web.Response:
    """As Bloomreach answers a single event."""
    return web.json_response({"success": True, "errors": []})


@pytest.fixture
def secure(authority: tuple[Path, ssl.SSLContext]) -> Iterator[OddServer]:
    """An HTTPS server that nobody trusts."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # the server's side of a refused handshake
    with odd_server(accept, authority[1]) as server:
        yield server
    logging.getLogger("asyncio").setLevel(logging.NOTSET)


@over_each
def test_an_untrusted_certificate_ends_it_at_once_and_says_so(secure: OddServer) -> None:
    job = delivery(odd_bloomreach(secure.url), batch_size=1)
    with pytest.raises(EndpointRefused, match=r"the TLS certificate of 127\.0\.0\.1:\d+.* is not trusted") as caught:
        job.run(records(events("bloomreach", 100)))
    report = caught.value.report
    assert report is not None
    assert 1 <= report.requests <= 4
    assert secure.requests == 0


@pytest.mark.parametrize(
    ("address", "days", "fault"),
    [
        ("127.0.0.1", (-9, -1), "has expired"),
        ("127.0.0.1", (1, 9), "is not valid yet: is the clock of this machine right?"),
        ("127.0.0.2", (-1, 1), "is for another name"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_said(
    address: str, days: tuple[int, int], fault: str, certificates: Any, authority: Any
) -> None:
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    with odd_server(accept, certificates.server(address, days)) as server:
        with pytest.raises(TransportError) as caught:
            send(server.url, verify=str(authority[0]))
        assert str(caught.value) == f"the TLS certificate of {server.url.removeprefix('https://')} {fault}"
        assert caught.value.final
    logging.getLogger("asyncio").setLevel(logging.NOTSET)


@over_each
@pytest.mark.parametrize("trust", ["bundle", "anything"])
def test_a_certificate_is_trusted_where_the_connection_says_so(
    trust: str, secure: OddServer, authority: tuple[Path, ssl.SSLContext]
) -> None:
    verify = str(authority[0]) if trust == "bundle" else False
    job = delivery(odd_bloomreach(secure.url), batch_size=1, verify=verify)
    assert job.run(records(events("bloomreach", 20))).delivered == 20
    assert secure.requests == 20


def test_what_verify_means(authority: tuple[Path, ssl.SSLContext]) -> None:
    usual, trusting = tls_context(True), tls_context(False)
    assert (usual.verify_mode, usual.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (trusting.verify_mode, trusting.check_hostname) == (ssl.CERT_NONE, False)
    context = tls_context(str(authority[0]))
    assert len(context.get_ca_certs()) == 1
    assert context.verify_mode is ssl.CERT_REQUIRED


# -- words ---------------------------------------------------------------------------------------------------------


def test_an_endpoint_shows_no_key(connections: Any) -> None:
    vendor = vendor_at(connections, "webengage")
    endpoint = Endpoint(vendor.base_url, vendor.headers(), proxy="http://user:pass-word@proxy:3128")
    assert vendor.password not in repr(endpoint)
    assert "pass-word" not in repr(endpoint)
    assert endpoint.host == vendor.base_url.removeprefix("http://")
