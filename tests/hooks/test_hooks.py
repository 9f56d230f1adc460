"""From an Airflow connection to a vendor: what hooks accept, say and do, against the sandbox."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from airflow_provider_events._compat import Connection
from airflow_provider_events.delivery.pacing import RetryPolicy
from airflow_provider_events.events import Event
from airflow_provider_events.exceptions import (
    ConfigurationError,
    CredentialsRefused,
    DeliveryInterrupted,
    EntryMissing,
    EventRejected,
    InvalidEvent,
    RateLimited,
    VendorUnavailable,
)
from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.hooks.bloomreach import BloomreachHook
from airflow_provider_events.hooks.embeddables import EmbeddablesHook
from airflow_provider_events.hooks.vibetrace import VibetraceHook
from airflow_provider_events.hooks.webengage import WebEngageHook
from airflow_provider_events.vendors.connection import read_extra_text
from tests.conftest import IDENTITY_KEYS
from tests.delivery.harness import VENDORS, events

HOOKS: dict[str, type[EventsHook]] = {
    "embeddables": EmbeddablesHook,
    "vibetrace": VibetraceHook,
    "webengage": WebEngageHook,
    "bloomreach": BloomreachHook,
}


@pytest.fixture
def connect(connections: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Makes a connection like the sandbox's, with some fields replaced; gives its id."""

    def make(vendor: str, conn_id: str = "changed", **fields: Any) -> str:
        connection = {**connections.connection(vendor), **fields}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        return conn_id

    return make


def with_extra(connections: Any, vendor: str, **extra: Any) -> dict[str, Any]:
    """The sandbox's extra with some keys replaced."""
    return {**connections.connection(vendor)["extra"], **extra}


# -- finding the vendor --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_type_of_a_connection_decides_the_hook(vendor: str, connections: Any) -> None:
    hook = EventsHook.for_connection(f"{vendor}_default")
    assert type(hook) is HOOKS[vendor]
    assert (hook.conn_type, hook.conn_id, hook.default_conn_name) == (vendor, f"{vendor}_default", f"{vendor}_default")
    assert hook.vendor.base_url == connections.url


@pytest.mark.parametrize("conn_type", ["http", "postgres", "", "Embeddables"])
def test_another_type_of_connection_is_told_the_four(conn_type: str, connect: Callable[..., str]) -> None:
    conn_id = connect("embeddables", conn_type=conn_type)
    with pytest.raises(ConfigurationError) as caught:
        EventsHook.for_connection(conn_id)
    assert "'changed'" in str(caught.value)
    assert all(vendor in str(caught.value) for vendor in VENDORS)


def test_a_hook_refuses_a_connection_of_another_vendor(connections: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"'vibetrace_default' has the type 'vibetrace'.*'bloomreach'"):
        BloomreachHook("vibetrace_default").send(events("bloomreach", 1)[0])


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_hook_needs_no_connection_before_it_is_used(vendor: str) -> None:
    assert HOOKS[vendor]().conn_id == f"{vendor}_default"


# -- fields of a connection ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vendor", "fields", "label"),
    [
        ("embeddables", {"password": None}, "API key"),
        ("embeddables", {"password": "  "}, "API key"),
        ("embeddables", {"extra": {}}, "Project ID"),
        ("vibetrace", {"password": ""}, "API key"),
        ("webengage", {"password": None}, "API key"),
        ("webengage", {"extra": {}}, "License code"),
        ("bloomreach", {"password": None}, "API secret or public token"),
        ("bloomreach", {"extra": {"project_token": ""}}, "Project token"),
    ],
)
def test_a_missing_field_is_named_by_its_label_in_the_form(
    vendor: str, fields: dict[str, Any], label: str, connect: Callable[..., str]
) -> None:
    conn_id = connect(vendor, **fields)
    with pytest.raises(ConfigurationError) as caught:
        EventsHook.for_connection(conn_id).deliver([])
    assert repr(label) in str(caught.value)
    assert "'changed'" in str(caught.value)
    assert not caught.value.retryable


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"batchsize": 5}, ["'batchsize'", "'batch_size'"]),
        ({"headers": {"X": "y"}}, ["'headers'"]),
        ({"max_in_flight": "many"}, ["Requests in flight", "whole number"]),
        ({"max_in_flight": 0}, ["Requests in flight", "at least 1"]),
        ({"max_in_flight": 2.7}, ["Requests in flight", "whole number"]),
        ({"requests_per_minute": -1}, ["Requests per minute", "at least"]),
        ({"timeout": "soon"}, ["Timeout (s)", "number"]),
        ({"timeout": True}, ["Timeout (s)", "number"]),
        ({"proxy": "proxy.example.com:3128"}, ["Proxy URL"]),
        ({"verify": "/no/such/bundle.pem"}, ["/no/such/bundle.pem", "Verify TLS"]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_wrong_extra_is_named_before_anything_is_sent(
    extra: dict[str, Any],
    words: list[str],
    vendor: str,
    connections: Any,
    connect: Callable[..., str],
    quick_retries: None,
) -> None:
    """Unknown keys too: what was meant as a setting must not travel as a header."""
    conn_id = connect(vendor, extra=with_extra(connections, vendor, **extra))
    with pytest.raises(ConfigurationError) as caught:
        EventsHook.for_connection(conn_id).deliver(events(vendor, 1))
    assert "'changed'" in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert connections.requests(vendor) == []


NO_OBJECTS = {
    "a list": '["proxy"]',
    "a number": "42",
    "null": "null",
    "a text within JSON": '"verify"',
    "a list within JSON": json.dumps('["proxy"]'),
    "an empty text within JSON": '""',
    "no JSON": "proxy=http://proxy:3128",
    "half an object": '{"proxy": ',
    "JSON within JSON within JSON": json.dumps(json.dumps('{"timeout": 7}')),
}


@pytest.mark.filterwarnings("ignore:Encountered")  # Airflow 2 warns of such an extra, and passes it by
@pytest.mark.parametrize("extra", NO_OBJECTS.values(), ids=NO_OBJECTS)
@pytest.mark.parametrize("vendor", VENDORS)
def test_an_extra_that_is_no_object_is_an_error(vendor: str, extra: str, connections: Any, odd_extra: Any) -> None:
    hook = odd_extra(vendor, extra)
    words = "connection 'odd': the extra has to be a JSON object"
    with pytest.raises(ConfigurationError, match=words):
        hook.deliver([])
    with pytest.raises(ConfigurationError, match=words):
        asyncio.run(hook.prepare())
    tested, said = hook.test_connection()
    assert not tested
    assert said.startswith("this connection: the extra has to be a JSON object")
    assert connections.requests(vendor) == []


def test_an_extra_without_an_end_is_none() -> None:
    with pytest.raises(ConfigurationError, match="'odd': the extra has to be a JSON object"):
        read_extra_text("odd", "[" * 100_000)


@pytest.mark.filterwarnings("ignore:Encountered")
@pytest.mark.parametrize("extra", ["", " ", "{}", " {} ", '"{}"'])
def test_a_blank_extra_is_an_empty_one(extra: str, connections: Any, odd_extra: Any) -> None:
    assert odd_extra("vibetrace", extra).vendor.extra["timeout"] == 30


@pytest.mark.filterwarnings("ignore:Encountered")
def test_an_object_that_was_written_as_a_json_text_is_read(connections: Any, odd_extra: Any) -> None:
    assert odd_extra("vibetrace", json.dumps('{"timeout": 7}')).vendor.extra["timeout"] == 7


@pytest.fixture
def odd_extra(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A hook whose connection has this text as its extra, as some other tool may have stored it."""

    def hook_of(vendor: str, extra: str) -> EventsHook:
        connection = Connection(conn_id="odd", conn_type=vendor, password="k")
        name = "_extra" if hasattr(type(connection), "_extra") else "extra"  # Airflow 2 checks what is set
        setattr(connection, name, extra)
        hook_class = type(EventsHook.for_connection(f"{vendor}_default"))
        monkeypatch.setattr(EventsHook, "get_connection", classmethod(lambda cls, conn_id: connection))

        async def read(conn_id: str, hook: Any = None) -> Any:
            return connection

        monkeypatch.setattr("airflow_provider_events.hooks.base.get_async_connection", read)
        return hook_class("odd")

    return hook_of


def test_a_connection_may_come_as_a_uri(connections: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    host, _, port = connections.url.removeprefix("http://").partition(":")
    keys = connections.credentials("embeddables")
    query = f"project_id={keys['project_id']}&embeddable_id={keys['embeddable_id']}&batch_size=1&verify=false"
    uri = f"embeddables://:{keys['api_key']}@{host}:{port}/http?{query}"
    monkeypatch.setenv("AIRFLOW_CONN_EMBEDDABLES_DEFAULT", uri)
    assert EmbeddablesHook().deliver(events("embeddables", 3)).delivered == 3


# -- one event -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_single_event_gives_a_receipt(vendor: str, connections: Any) -> None:
    receipt = HOOKS[vendor]().send(events(vendor, 1)[0])
    assert (receipt.vendor, receipt.requests) == (vendor, 1)
    assert receipt.status in (200, 201)
    assert len(receipt.event_id) == 32
    assert (receipt.reference is not None) == (vendor == "embeddables")
    assert (receipt.request_id is not None) == (vendor == "bloomreach")
    assert len(connections.events(vendor)) == 1
    json.dumps(receipt.to_dict())


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_single_event_may_be_a_dictionary_and_sent_from_a_loop(vendor: str, connections: Any) -> None:
    event = {"name": "signed_up", "identity": {IDENTITY_KEYS[vendor]: "customer1@example.com"}, "properties": {"n": 1}}
    receipt = asyncio.run(HOOKS[vendor]().asend(event))
    assert receipt.vendor == vendor
    assert len(connections.events(vendor)) == 1


def test_a_single_event_is_repeated_while_the_vendor_is_down(connections: Any) -> None:
    connections.fault("html", vendor="webengage", times=1)
    assert WebEngageHook().send(events("webengage", 1)[0]).requests == 2
    assert len(connections.events("webengage")) == 1


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_single_event_that_is_invalid_is_not_sent(vendor: str, connections: Any) -> None:
    with pytest.raises(InvalidEvent) as caught:
        HOOKS[vendor]().send(Event("e", {"a": "1", "b": "2", "!": "?"}))
    assert caught.value.field.startswith("identity")
    assert connections.requests(vendor) == []


def test_a_single_event_that_the_vendor_rejects_says_why(connections: Any) -> None:
    connections.fault("failure", vendor="bloomreach")
    with pytest.raises(EventRejected, match="Injected by the sandbox") as caught:
        BloomreachHook().send(events("bloomreach", 1)[0])
    error = caught.value
    assert (error.status, error.code, error.conn_id) == (200, "http_200", "bloomreach_default")
    assert not error.retryable


@pytest.mark.parametrize("vendor", ["embeddables", "vibetrace"])
def test_a_single_event_of_an_unknown_customer(vendor: str, connections: Any) -> None:
    with pytest.raises(EntryMissing) as caught:
        HOOKS[vendor]().send(Event("e", {"email": "stranger@example.com"}))
    assert caught.value.retryable
    assert "stranger" not in str(caught.value)


@pytest.mark.parametrize("vendor", VENDORS)
def test_refused_credentials_name_the_connection(vendor: str, connections: Any, connect: Callable[..., str]) -> None:
    conn_id = connect(vendor, password="not-the-key")
    hook = EventsHook.for_connection(conn_id)
    calls: list[Callable[[], Any]] = [lambda: hook.send(events(vendor, 1)[0]), lambda: hook.deliver(events(vendor, 99))]
    for call in calls:
        with pytest.raises(CredentialsRefused, match="connection 'changed': ") as caught:
            call()
        assert caught.value.conn_id == "changed"
        assert (caught.value.request_id is not None) == (vendor == "bloomreach")
        assert "not-the-key" not in str(caught.value)


def test_a_longer_pause_than_a_task_should_wait_is_handed_back(connections: Any) -> None:
    connections.fault("status", status=429, retry_after=7200)
    with pytest.raises(RateLimited, match="'vibetrace_default'") as caught:
        VibetraceHook().send(events("vibetrace", 1)[0])
    assert caught.value.retry_after == 7200


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook takes no retry policy from its caller, so the defaults are short for a while."""
    original = RetryPolicy.__init__

    def short(policy: RetryPolicy) -> None:
        original(policy, budget_seconds=0.3, max_wait_seconds=1.0, base_seconds=0.05, cap_seconds=0.1)

    monkeypatch.setattr(RetryPolicy, "__init__", short)


@pytest.mark.parametrize("host", ["http://127.0.0.1:1", "https://events.invalid"])
def test_an_unreachable_host_is_named(host: str, connect: Callable[..., str], quick_retries: None) -> None:
    hook = EventsHook.for_connection(connect("webengage", host=host))
    name = host.partition("://")[2]
    with pytest.raises(VendorUnavailable, match=f"'changed'.*{name}") as caught:
        hook.send(events("webengage", 1)[0])
    assert caught.value.retryable
    with pytest.raises(VendorUnavailable, match=f"'changed'.*{name}") as caught:
        hook.deliver(events("webengage", 100))
    assert caught.value.report is not None
    assert caught.value.report.read == caught.value.report.unsent


# -- many events ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", VENDORS)
def test_many_events_from_a_generator(vendor: str, connections: Any) -> None:
    report = HOOKS[vendor]().deliver(event for event in events(vendor, 77))
    assert (report.read, report.delivered) == (77, 77)
    assert len(connections.events(vendor)) == 77
    assert connections.violations(vendor) == []


@pytest.mark.parametrize(
    ("vendor", "largest"), [("embeddables", 1), ("vibetrace", 1), ("webengage", 25), ("bloomreach", 50)]
)
def test_batches_are_as_large_as_the_vendor_takes_and_no_larger(
    vendor: str, largest: int, connections: Any, connect: Callable[..., str]
) -> None:
    hook = HOOKS[vendor]()
    hook.deliver(events(vendor, 60))
    assert max(request.events for request in connections.requests(vendor)) == largest
    with pytest.raises(ConfigurationError, match=f"batch_size {largest + 1} is more than the {largest}"):
        hook.deliver(events(vendor, 1), batch_size=largest + 1)
    extra = with_extra(connections, vendor, batch_size=largest + 1)
    with pytest.raises(ConfigurationError, match="'changed'"):
        EventsHook.for_connection(connect(vendor, extra=extra)).deliver(events(vendor, 1))


def test_the_operators_options_come_before_the_connections(connections: Any, connect: Callable[..., str]) -> None:
    conn_id = connect("bloomreach", extra=with_extra(connections, "bloomreach", batch_size=7))
    hook = EventsHook.for_connection(conn_id)
    assert hook.deliver(events("bloomreach", 21)).requests == 3
    assert hook.deliver(events("bloomreach", 21, name="other"), batch_size=3).requests == 7


def test_a_rate_above_the_published_quota_is_brought_down_to_it(
    connections: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(WebEngageHook, "log", logging.getLogger("hook"))  # Airflow's own does not reach caplog
    WebEngageHook().deliver(events("webengage", 1), requests_per_minute=100_000)
    assert "100000 requests per minute are above WebEngage's published 500: keeping to these" in caplog.text


def test_a_rate_below_the_quota_is_kept(connections: Any, connect: Callable[..., str]) -> None:
    extra = with_extra(connections, "bloomreach", requests_per_minute=1200, batch_size=1)
    EventsHook.for_connection(connect("bloomreach", extra=extra)).deliver(events("bloomreach", 11))
    at = [request.at for request in connections.requests("bloomreach")]
    assert at[-1] - at[0] >= 10 * 60 / 1200 * 0.97


def test_rejected_events_are_in_the_file(connections: Any, tmp_path: Path) -> None:
    source = [*events("webengage", 5), Event("we_reserved", {"userId": "c-1"}, properties={"n": 1})]
    report = WebEngageHook().deliver(source, rejected_path=str(tmp_path), max_rejected=1)
    assert report.rejected_path is not None
    (line,) = [json.loads(line) for line in Path(report.rejected_path).read_text().splitlines()]
    assert (line["row"], line["field"], line["event"]["name"]) == (6, "name", "we_reserved")


def test_a_misspelt_option_is_an_error(connections: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"max_in_fligth is no option; did you mean 'max_in_flight'\?"):
        BloomreachHook().deliver([], max_in_fligth=3)  # type: ignore[call-arg]  # that it is refused
    with pytest.raises(ConfigurationError, match=r"rejected is no option; did you mean 'max_rejected'\?"):
        BloomreachHook().deliver([], rejected="/tmp")  # type: ignore[call-arg]  # that it is refused
    with pytest.raises(ConfigurationError, match=r"zzz is no option; there are on_missing_entry, .*, rejected_path"):
        BloomreachHook().deliver([], zzz=None)  # type: ignore[call-arg]  # that it is refused


# -- stops ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("early", [True, False])
def test_a_hook_can_be_stopped_even_before_it_begins(early: bool, connections: Any) -> None:
    hook = BloomreachHook()

    def source() -> Any:
        for n in count():
            if n == 1500:
                hook.stop()
            yield {"name": "e", "identity": {"registered": f"c-{n}"}}

    if early:
        hook.stop()
    with pytest.raises(DeliveryInterrupted, match="'bloomreach_default'") as caught:
        hook.deliver(source())
    report = caught.value.report
    assert report is not None
    assert report.delivered == len(connections.events("bloomreach"))
    assert report.read == report.delivered + report.unsent
    assert (report.delivered == 0) == early


class TaskTimeout(BaseException):
    """As Airflow's own."""


def test_a_timeout_ends_a_single_event_that_waits_for_its_next_attempt(connections: Any) -> None:
    """Airflow's `execution_timeout` must not be held back until the retry budget is spent."""
    connections.fault("status", vendor="vibetrace", status=429, retry_after=4, times=1)

    def time_is_over(number: int, frame: FrameType | None) -> None:
        raise TaskTimeout

    def alarm() -> None:
        deadline = time.monotonic() + 10
        while not connections.requests("vibetrace") and time.monotonic() < deadline:
            time.sleep(0.002)
        signal.pthread_kill(main, signal.SIGALRM)

    main = threading.main_thread().ident or 0
    before = signal.signal(signal.SIGALRM, time_is_over)
    thread = threading.Thread(target=alarm)
    thread.start()
    started = time.monotonic()
    try:
        with pytest.raises(TaskTimeout):
            VibetraceHook().send(events("vibetrace", 1)[0])
    finally:
        thread.join()
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < 3
    assert connections.events("vibetrace") == []


# -- an HTTP client ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", VENDORS)
def test_get_conn_is_an_authenticated_client(vendor: str, connections: Any, connect: Callable[..., str]) -> None:
    import httpx

    hook = HOOKS[vendor]()
    probe = hook.vendor.probe()
    with hook.get_conn() as client:
        assert isinstance(client, httpx.Client)
        answer = client.request(
            probe.method, probe.path, content=probe.body, headers={"Content-Type": "application/json"}
        )
    assert answer.status_code == {"embeddables": 200, "vibetrace": 404, "webengage": 400, "bloomreach": 200}[vendor]
    assert connections.requests(vendor)[-1].auth == "ok"
    with EventsHook.for_connection(connect(vendor, password="not-the-key")).get_conn() as client:
        client.request(probe.method, probe.path, content=probe.body)
    assert connections.requests(vendor)[-1].auth == "wrong"


def test_get_conn_takes_the_settings_of_the_connection(connections: Any, connect: Callable[..., str]) -> None:
    extra = with_extra(connections, "vibetrace", timeout=7, verify="false")
    with EventsHook.for_connection(
        connect("vibetrace", extra=extra, host="https://api.example.com/v1")
    ).get_conn() as c:
        assert str(c.base_url) == "https://api.example.com/v1/"
        assert c.timeout.read == 7
