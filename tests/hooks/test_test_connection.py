"""The button "Test connection": right or wrong, in helpful words, without a trace at the vendor."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.hooks.base import EventsHook
from tests.delivery.harness import VENDORS

Tested = Callable[..., tuple[bool, str]]

LABELS = {
    "embeddables": "Embeddables",
    "vibetrace": "Vibetrace",
    "webengage": "WebEngage",
    "bloomreach": "Bloomreach Engagement",
}
SECRET = "wrong-secret-key"


@pytest.fixture
def tested(connections: Any, monkeypatch: pytest.MonkeyPatch) -> Tested:
    """What the test says of the sandbox's connection with some fields replaced."""

    def test(vendor: str, **fields: Any) -> tuple[bool, str]:
        connection = {**connections.connection(vendor), **fields}
        monkeypatch.setenv("AIRFLOW_CONN_TESTED", json.dumps(connection))
        return EventsHook.for_connection("tested").test_connection()

    return test


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_good_connection(vendor: str, connections: Any, tested: Tested) -> None:
    good, message = tested(vendor)
    assert good, message
    assert LABELS[vendor] in message
    assert connections.url in message


def test_a_good_connection_with_public_access(connections: Any, tested: Tested) -> None:
    good, message = tested("bloomreach", login=None, password=connections.credentials("bloomreach")["public_token"])
    assert good, message


@pytest.mark.parametrize(
    ("vendor", "fields", "words"),
    [
        ("embeddables", {"password": SECRET}, ["401", "API key"]),
        ("vibetrace", {"password": SECRET}, ["401", "Unauthorized"]),
        ("webengage", {"password": SECRET}, ["401", "Unauthorized access"]),
        ("bloomreach", {"password": SECRET}, ["403", "invalid secret"]),
        ("bloomreach", {"login": "wrong-key-id"}, ["401", "access key not found"]),
        ("bloomreach", {"login": None, "password": SECRET}, ["400", "Could not authenticate"]),
        ("embeddables", {"extra": {"project_id": "pr_other"}}, ["401", "project"]),
        ("webengage", {"extra": {"license_code": "other"}}, ["404", "license code"]),
        ("bloomreach", {"extra": {"project_token": "other"}}, ["400", "Could not authenticate"]),
        ("bloomreach", {"extra": {"project_token": "not/a project"}}, ["404"]),
    ],
)
def test_wrong_credentials_are_told_in_the_vendors_words(
    vendor: str, fields: dict[str, Any], words: list[str], tested: Tested
) -> None:
    """Mistake 8 of the peers: the vendor's error text thrown away."""
    good, message = tested(vendor, **fields)
    assert not good
    for word in [LABELS[vendor], *words]:
        assert word in message
    assert SECRET not in message


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("host", ["http://127.0.0.1:1", "https://events.invalid"])
def test_a_host_that_is_not_there(host: str, vendor: str, tested: Tested) -> None:
    good, message = tested(vendor, host=host)
    assert not good
    assert host in message
    assert "check the API base URL" in message


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_wrong_path_in_the_host(vendor: str, connections: Any, tested: Tested) -> None:
    good, message = tested(vendor, host=f"{connections.url}/nothing/here")
    assert not good
    assert "404" in message
    looks = message.partition("in the connection's form look at ")[2]
    assert "(host)" in looks
    assert "(password)" not in looks


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "html", "status": 200}, ["200"]),
        ({"kind": "html"}, ["502"]),
        ({"kind": "empty"}, ["200"]),
        ({"kind": "wrong_type"}, ["200"]),
        ({"kind": "truncated"}, []),
        ({"kind": "status", "status": 503}, ["503", "Injected by the sandbox"]),
        ({"kind": "status", "status": 429}, ["429", "Injected by the sandbox"]),
        ({"kind": "cut"}, ["no answer"]),
    ],
    ids=lambda value: str(value.get("status", "") or value["kind"]) if isinstance(value, dict) else "",
)
def test_an_odd_answer_is_no_success(
    fault: dict[str, Any], words: list[str], vendor: str, connections: Any, tested: Tested
) -> None:
    """A proxy's login page, a vendor that is down."""
    connections.fault(vendor=vendor, **fault)
    good, message = tested(vendor)
    assert not good
    assert message
    for word in words:
        assert word in message


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(("kind", "status"), [("html", 200), ("html", 404), ("status", 503)])
def test_a_failure_names_the_address_that_was_asked(
    kind: str, status: int, vendor: str, connections: Any, tested: Tested
) -> None:
    """With a web page for an answer the address is the first thing to look at, and it may be a default."""
    connections.fault(kind, vendor=vendor, status=status)
    good, message = tested(vendor)
    assert not good
    assert connections.url in message


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_field_that_is_missing_is_named(vendor: str, tested: Tested) -> None:
    good, message = tested(vendor, password="")
    assert not good
    assert "fill in the field" in message


@pytest.mark.parametrize(("verify", "word"), [("/no/such/bundle.pem", "/no/such/bundle.pem"), (__file__, __file__)])
def test_a_bundle_that_is_none_is_named(verify: str, word: str, connections: Any, tested: Tested) -> None:
    extra = {**connections.connection("vibetrace")["extra"], "verify": verify}
    good, message = tested("vibetrace", extra=extra)
    assert not good
    assert word in message


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendor_that_hangs_does_not_hang_the_button(vendor: str, connections: Any, tested: Tested) -> None:
    connections.fault("delay", vendor=vendor, seconds=30)
    extra = {**connections.connection(vendor)["extra"], "timeout": 0.2}
    good, message = tested(vendor, extra=extra)
    assert not good
    assert "0.2 s" in message


# -- nothing stays at the vendor -----------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", VENDORS)
def test_test_connection_stores_nothing_at_the_vendor(vendor: str, connections: Any, tested: Tested) -> None:
    """Mistake 10 of the peers: a connection test that posts data."""
    before = connections.summary()[vendor]["entries"]
    for fields in ({}, {"password": SECRET}, {"host": f"{connections.url}/nothing"}):
        tested(vendor, **fields)
    summary = connections.summary()[vendor]
    assert connections.events(vendor, None) == []
    assert summary["entries"] == before
    assert (summary["strays"], summary["violations"]) == (0, 0)


@pytest.mark.parametrize("vendor", VENDORS)
def test_no_request_is_sent_by_test_connection_that_stores_anything(
    vendor: str, connections: Any, tested: Tested
) -> None:
    """One request, and it reads; WebEngage documents no reading call: there it is an event that cannot be stored."""
    assert tested(vendor)[0]
    (request,) = connections.requests(vendor)
    if vendor == "webengage":
        assert (request.method, request.body, request.status) == ("POST", b"{}", 400)
    else:
        assert (request.method, request.body) == ("GET", b"")


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"batch_size": 5000}, "batch_size 5000 is more than the"),
        ({"batch_size": 0}, "'Events per request' (extra key 'batch_size') has to be at least 1"),
        ({"requests_per_minute": 0}, "'Requests per minute' (extra key 'requests_per_minute') has to be at least 0.1"),
        ({"requests_per_minute": -5}, "'Requests per minute' (extra key 'requests_per_minute') has to be at least 0.1"),
        ({"max_in_flight": 0}, "'Requests in flight' (extra key 'max_in_flight') has to be at least 1"),
        ({"timeout": 0}, "'Timeout (s)' (extra key 'timeout') has to be at least 0.1"),
        ({"verify": "/nowhere/ca.pem"}, "'Verify TLS' (extra key 'verify')"),
        ({"proxi": "http://proxy:3128"}, "unknown extra key 'proxi'; did you mean 'proxy'?"),
    ],
)
def test_it_refuses_what_a_delivery_refuses(
    vendor: str, extra: dict[str, Any], words: str, connections: Any, tested: Tested
) -> None:
    good, message = tested(vendor, extra={**connections.connection(vendor)["extra"], **extra})
    assert not good
    assert message.startswith("this connection: "), "the form tests under an id that Airflow makes up"
    assert words in message
    assert "'tested'" not in message
    with pytest.raises(ConfigurationError) as delivered:
        EventsHook.for_connection("tested").deliver([{"name": "a", "identity": {"email": "b"}}])
    assert str(delivered.value) == message.replace("this connection", "connection 'tested'")
    assert connections.requests(vendor) == []


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_required_field_that_is_blank_is_named_without_an_id(vendor: str, tested: Tested) -> None:
    good, message = tested(vendor, password="")
    assert not good
    assert message.startswith("this connection (")
    assert "fill in the field" in message


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("port", [0, None, 1])
def test_a_port_counts_only_where_the_url_names_none(vendor: str, port: int | None, tested: Tested) -> None:
    good, message = tested(vendor, port=port)
    assert good, message
