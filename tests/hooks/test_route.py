"""One rule for everything a hook sends: which proxy, which authorities, plain HTTP or not, and whose key."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import httpx
import pytest
from aiohttp import web

from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.hooks.base import EventsHook
from tests.conftest import IDENTITY_KEYS
from tests.delivery.harness import VENDORS, OddServer, events, odd_server
from tests.http.relays import Relay, relay

PROXIES = [f"{scheme}_PROXY" for scheme in ("HTTP", "HTTPS", "ALL", "NO")]
AUTHORITIES = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no authorities in the environment but those of a test."""
    for name in (*PROXIES, *map(str.lower, PROXIES), *AUTHORITIES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hook_at(connections: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A hook of the sandbox's connection with other fields."""

    def hook_of(vendor: str = "bloomreach", extra: dict[str, Any] | None = None, **fields: Any) -> EventsHook:
        connection = {**connections.connection(vendor), **fields}
        connection["extra"] = {**connection.get("extra", {}), **(extra or {})}
        monkeypatch.setenv("AIRFLOW_CONN_ROUTED", json.dumps(connection))
        return EventsHook.for_connection("routed")

    return hook_of


def ways(hook: EventsHook) -> dict[str, str | None]:
    """The proxy of each way in which a hook speaks to its vendor."""
    endpoint = hook.client.endpoint()
    with hook.get_conn() as client:
        pool = getattr(client._transport, "_pool", None)
        proxy = getattr(pool, "_proxy_url", None)
    url = f"{proxy.scheme.decode()}://{proxy.host.decode()}:{proxy.port}" if proxy else None
    return {"deliveries": endpoint.proxy, "get_conn": url}


@pytest.mark.parametrize(
    ("environment", "host", "proxy"),
    [
        ({"HTTPS_PROXY": "http://proxy.test:3128"}, "https://api.test", "http://proxy.test:3128"),
        ({"https_proxy": "http://proxy.test:3128"}, "https://api.test", "http://proxy.test:3128"),
        ({"https_proxy": "proxy.test:3128"}, "https://api.test", "http://proxy.test:3128"),
        ({"ALL_PROXY": "http://proxy.test:3128"}, "https://api.test", "http://proxy.test:3128"),
        ({"HTTP_PROXY": "http://proxy.test:3128"}, "https://api.test", None),
        ({"HTTPS_PROXY": "http://proxy.test:3128"}, "http://127.0.0.1:80", None),
        ({"ALL_PROXY": "http://proxy.test:3128"}, "https://localhost", None),
        ({"ALL_PROXY": "http://proxy.test:3128"}, "https://[::1]", None),
        ({"HTTPS_PROXY": "http://proxy.test:3128", "NO_PROXY": "api.test"}, "https://api.test", None),
        ({"HTTPS_PROXY": "http://proxy.test:3128", "no_proxy": ".test"}, "https://api.test/v1", None),
        ({"HTTPS_PROXY": "http://proxy.test:3128", "NO_PROXY": "*"}, "https://api.test", None),
        (
            {"HTTPS_PROXY": "http://proxy.test:3128", "NO_PROXY": "other.test"},
            "https://api.test",
            "http://proxy.test:3128",
        ),
        ({}, "https://api.test", None),
    ],
)
def test_the_environments_proxy_is_followed_on_every_way(
    environment: dict[str, str], host: str, proxy: str | None, hook_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert set(ways(hook_at(host=host)).values()) == {proxy}


def test_the_connections_proxy_comes_before_the_environments(hook_at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://other.test:1")
    monkeypatch.setenv("NO_PROXY", "*")
    hook = hook_at(host="https://api.test", extra={"proxy": "http://proxy.test:3128"})
    assert set(ways(hook).values()) == {"http://proxy.test:3128"}


@pytest.mark.parametrize("value", ["socks5://proxy.test:1", "http://", "http://proxy.test:port", "ftp://proxy.test"])
def test_a_proxy_of_the_environment_that_is_none_is_named(
    value: str, hook_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY"):
        hook_at(host="https://api.test").send(events("bloomreach", 1)[0])


@pytest.fixture
def proxy() -> Iterator[Relay]:
    with relay(user="me:proxy-pass") as running:
        yield running


@pytest.mark.parametrize("vendor", VENDORS)
def test_everything_a_hook_sends_goes_by_the_proxy(vendor: str, proxy: Relay, hook_at: Any, connections: Any) -> None:
    connections.add_entries(vendor, [{IDENTITY_KEYS[vendor]: "customer1@example.com"}])
    hook = hook_at(vendor, extra={"proxy": proxy.url})
    good, said = hook.test_connection()
    assert good, said
    assert f"by the proxy {proxy.url.rpartition('@')[2]}" in said
    assert hook.deliver(events(vendor, 3)).delivered == 3
    with hook.get_conn() as client:
        assert client.get("/").status_code < 500
    assert len(proxy.asked) >= 3
    assert "proxy-pass" not in said


def test_an_error_by_a_proxy_names_it_without_its_password(hook_at: Any, caplog: pytest.LogCaptureFixture) -> None:
    with relay(refusal=407) as closed:
        address = closed.url.removeprefix("http://")
        hook = hook_at(host="https://api.test", extra={"proxy": f"http://me:pass-word@{address}"})
        good, said = hook.test_connection()
        with pytest.raises(Exception, match=f"the proxy {address} refuses to connect") as caught:
            hook.deliver(events("bloomreach", 3))
    assert not good
    assert f"the proxy {address} refuses to connect to api.test (407): it asks for a user and password" in said
    assert "pass-word" not in said + str(caught.value) + caplog.text


# -- authorities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", AUTHORITIES)
def test_authorities_of_the_environment_count_on_every_way(
    variable: str, hook_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, certifi.where())
    hook = hook_at(host="https://api.test")
    assert hook.client.endpoint().verify == certifi.where()
    monkeypatch.setenv(variable, "/nowhere/ca.pem")
    with pytest.raises(ConfigurationError, match=f"the environment variable {variable} has to be the path of a CA"):
        hook.get_conn()
    good, said = hook.test_connection()
    assert not good
    assert variable in said


@pytest.mark.parametrize(("verify", "meant"), [(False, False), ("false", False), (certifi.where(), certifi.where())])
def test_what_the_connection_says_of_certificates_comes_first(
    verify: Any, meant: Any, hook_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    assert hook_at(host="https://api.test", extra={"verify": verify}).client.endpoint().verify == meant


def test_a_folder_of_authorities_is_taken(hook_at: Any, tmp_path: Path) -> None:
    hook = hook_at(host="https://api.test", extra={"verify": str(tmp_path)})
    assert hook.client.endpoint().verify == str(tmp_path)


# -- what is not safe --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    "host", ["http://api.test", "http://10.0.0.1:8080", "http://127.0.0.1.nip.test", "http://[2001:db8::1]"]
)
def test_plain_http_to_another_machine_is_refused_before_anything_is_sent(vendor: str, host: str, hook_at: Any) -> None:
    hook = hook_at(vendor, host=host)
    for call in (lambda: hook.send(events(vendor, 1)[0]), lambda: hook.deliver([]), hook.get_conn):
        with pytest.raises(ConfigurationError, match="'Allow plain HTTP' \\(extra key 'allow_http'\\)"):
            call()
    good, said = hook.test_connection()
    assert not good
    assert "allow_http" in said


@pytest.mark.parametrize(
    "host", ["http://127.0.0.1:1", "http://localhost:1", "http://127.9.9.9", "http://[::1]:1", "http://a.localhost"]
)
def test_plain_http_to_this_machine_is_no_matter(host: str, hook_at: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert hook_at(host=host).vendor.base_url == host
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"host": "http://api.test", "extra": {"allow_http": True}}, "plain http://"),
        ({"host": "https://api.test", "extra": {"verify": False}}, "'Verify TLS' is false"),
    ],
)
def test_what_is_allowed_though_it_should_not_is_said_once_for_each_hook(
    fields: dict[str, Any], words: str, hook_at: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = hook_at(**fields)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            hook.vendor  # noqa: B018  the access is what warns
    assert sum(words in message for message in caplog.messages) == 1
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert f"Warning: {words}" in hook.test_connection()[1]
    asyncio.run(hook_at(**fields).prepare())
    assert sum(words in message for message in caplog.messages) >= 2


# -- the client for users ----------------------------------------------------------------------------------------------


@pytest.fixture
def others() -> Iterator[tuple[OddServer, list[dict[str, str]]]]:
    """Another host, and the headers that it was sent."""
    seen: list[dict[str, str]] = []

    async def look(request: web.Request) -> web.Response:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(text="other")

    with odd_server(look) as server:
        yield server, seen


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_key_is_for_the_base_urls_origin_alone(vendor: str, others: Any, hook_at: Any) -> None:
    other, seen = others
    own: list[dict[str, str]] = []

    async def elsewhere(request: web.Request) -> web.Response:
        own.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(status=302, headers={"Location": f"{other.url}/taken"})

    with odd_server(elsewhere) as server:
        hook = hook_at(vendor, host=server.url)
        secrets = [*hook.vendor.secrets()]
        with hook.get_conn() as client:
            assert client.get(f"{other.url}/absolute").text == "other"
            assert client.get("/moved", follow_redirects=True).text == "other"
            assert client.get(server.url.replace("127.0.0.1", "localhost")).status_code == 302
            assert client.get("/plain").status_code == 302
    assert len(seen) == 2
    shown = json.dumps(seen)
    assert not [secret for secret in secrets if secret in shown]
    carried = [any(secret in json.dumps(headers) for secret in secrets) for headers in own]
    assert carried == [True, False, True]  # localhost is another origin


def test_what_a_caller_sets_himself_stays(others: Any, hook_at: Any) -> None:
    other, seen = others
    with hook_at("vibetrace", host=other.url).get_conn() as client:
        client.get("/", headers={"Authorization": "mine"})
        assert isinstance(client, httpx.Client)
    assert seen[0]["authorization"] == "mine"
