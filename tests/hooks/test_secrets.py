"""No key and no customer leaves by accident: masking, logs at their most talkative, errors with all their frames."""

from __future__ import annotations

import importlib
import json
import logging
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from airflow_provider_events.events import Event
from airflow_provider_events.exceptions import ConfigurationError, EventsError
from airflow_provider_events.hooks.base import EventsHook
from tests.conftest import IDENTITY_KEYS
from tests.delivery.harness import VENDORS, events

SECRET = "s3cr3t/key+with=odd&chars%"
KEY_ID = "key-id-7"


def redacted(text: str) -> str:
    """As Airflow's logs show it."""
    from airflow.providers.common.compat import sdk

    if hasattr(sdk, "redact"):
        return str(sdk.redact(text))
    masker = importlib.import_module("airflow.utils.log.secrets_masker")  # Airflow 2.11
    return str(masker.redact(text))


def forms(vendor: str) -> list[str]:
    """All forms in which the secret travels."""
    if vendor == "bloomreach":
        return [SECRET, quote(SECRET, safe=""), b64encode(f"{KEY_ID}:{SECRET}".encode()).decode()]
    return [SECRET, quote(SECRET, safe="")]


@pytest.fixture
def hook_of(connections: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., EventsHook]:
    """The hook of the sandbox's connection with some fields replaced."""

    def make(vendor: str, **fields: Any) -> EventsHook:
        connection = {**connections.connection(vendor), **fields}
        monkeypatch.setenv("AIRFLOW_CONN_SECRETIVE", json.dumps(connection))
        return EventsHook.for_connection("secretive")

    return make


@pytest.fixture
def talkative(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Every logger there is, at DEBUG, without Airflow's masker between."""
    loggers = [logging.getLogger(name) for name in (*logging.root.manager.loggerDict, "aiohttp", "asyncio", "httpx")]
    before = [(logger, logger.level, logger.propagate, logger.disabled) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.propagate, logger.disabled = True, False
    with caplog.at_level(logging.DEBUG):
        yield caplog
    for logger, level, propagate, disabled in before:
        logger.setLevel(level)
        logger.propagate, logger.disabled = propagate, disabled


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_form_of_a_secret_is_masked_in_airflows_logs(vendor: str, hook_of: Callable[..., EventsHook]) -> None:
    extra: dict[str, Any] = {"proxy": "http://user:pr0xy-passw0rd@127.0.0.1:3128"}
    given = hook_of(vendor).vendor.extra
    extra |= {name: given[name] for name in ("project_id", "license_code", "project_token") if name in given}
    vendor_of = hook_of(vendor, login=KEY_ID, password=SECRET, extra=extra).vendor
    for form in [*forms(vendor), *vendor_of.headers().values(), "pr0xy-passw0rd"]:
        shown = redacted(f"before {form} after")
        assert form not in shown
        assert "***" in shown


@pytest.mark.parametrize("vendor", VENDORS)
def test_sending_at_debug_shows_neither_key_nor_customer(
    vendor: str, connections: Any, hook_of: Callable[..., EventsHook], talkative: pytest.LogCaptureFixture
) -> None:
    """Also what is rejected, missing or repeated; and whatever a vendor says of a customer."""
    hook = hook_of(vendor)
    connections.fault("html", vendor=vendor, times=1)
    hook.send(events(vendor, 1)[0])
    stranger = Event("order_paid", {IDENTITY_KEYS[vendor]: "stranger@example.com"}, None, {"phone": "+4912345"})
    named = Event("order_paid", {IDENTITY_KEYS[vendor]: "customer5@example.com", "x" * 500: "Ada Lovelace"})
    hook.deliver([*events(vendor, 60), stranger, named, {"name": "n", "identity": {"email": ""}}], max_rejected=9)
    hook.test_connection()
    assert talkative.records
    for private in (*connections.credentials(vendor).values(), "@example.com", "Lovelace", "+4912345"):
        if private not in (connections.credentials(vendor).get(name) for name in PUBLIC):
            assert private not in talkative.text


PUBLIC = ("project_id", "embeddable_id", "license_code", "project_token", "api_key_id")  # ids, part of URLs


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("trouble", ["refused", "unreachable", "rejected", "misconfigured"])
def test_no_error_holds_a_key_or_a_customer(
    trouble: str,
    vendor: str,
    connections: Any,
    hook_of: Callable[..., EventsHook],
    talkative: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its whole traceback, with whatever caused it."""
    good = connections.connection(vendor)
    match trouble:
        case "refused":
            hook = hook_of(vendor, password=SECRET)
        case "unreachable":
            monkeypatch.setattr("airflow_provider_events.delivery.pacing.RetryPolicy.backoff", lambda *_: 400.0)
            hook = hook_of(vendor, password=SECRET, host="http://127.0.0.1:1")
        case "rejected":
            hook = hook_of(vendor)
            connections.fault("status", vendor=vendor, status=400)
        case _:
            extra = {**good["extra"], "unknown_key": SECRET, "proxy": f"http://u:{quote(SECRET, safe='')}@p:1"}
            hook = hook_of(vendor, password=SECRET, extra=extra)
    calls: list[Callable[[], Any]] = [lambda: hook.send(events(vendor, 1)[0]), lambda: hook.deliver(events(vendor, 9))]
    for call in calls:
        with pytest.raises(EventsError) as caught:
            call()
        text = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + talkative.text
        for private in (*forms(vendor), good["password"], "@example.com"):
            assert private not in text


@pytest.mark.parametrize("vendor", VENDORS)
def test_nothing_that_is_printed_holds_a_secret(vendor: str, hook_of: Callable[..., EventsHook]) -> None:
    hook = hook_of(vendor, login=KEY_ID, password=SECRET)
    shown = repr([hook, hook.vendor, hook.vendor.probe(), hook.__dict__])
    for form in forms(vendor):
        assert form not in shown


def test_values_of_a_connection_print_without_secrets() -> None:
    from airflow_provider_events.vendors.base import ConnectionValues

    values = ConnectionValues("c", "https://host", None, None, "the-login", SECRET, {"some_key": SECRET})
    assert SECRET not in repr(values)
    assert "the-login" not in repr(values)


@pytest.mark.parametrize("vendor", VENDORS)
def test_no_file_of_rejected_events_holds_a_key(
    vendor: str, connections: Any, hook_of: Callable[..., EventsHook], tmp_path: Path
) -> None:
    connections.fault("status", vendor=vendor, status=400, times=3)
    hook = hook_of(vendor)
    path = tmp_path / "rejected.jsonl"
    report = hook.deliver(events(vendor, 9), batch_size=1, rejected_path=str(path), max_rejected=3)
    assert report.rejected == 3
    assert connections.connection(vendor)["password"] not in path.read_text()


@pytest.mark.parametrize("host", ["https://user:s3cr3t-w0rd@api.example.com", "https://s3cr3t-w0rd@api.example.com"])
def test_a_host_with_credentials_is_refused_without_repeating_them(
    host: str, hook_of: Callable[..., EventsHook]
) -> None:
    with pytest.raises(ConfigurationError, match="must not hold credentials") as caught:
        hook_of("vibetrace", host=host).deliver([])
    assert "s3cr3t-w0rd" not in str(caught.value)


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_single_send_names_no_customer_whom_the_vendor_names(vendor: str, connections: Any) -> None:
    customer = "Zoe.Q@example.com"
    connections.fault(
        "status",
        vendor=vendor,
        status=400,
        body=json.dumps({"response": {"status": "error", "message": f"bad user {customer.lower()}"}}),
    )
    with pytest.raises(EventsError) as refusal:
        EventsHook.for_connection(f"{vendor}_default").send(
            {"name": "signed_up", "identity": {IDENTITY_KEYS[vendor]: customer}}
        )
    assert customer.lower() not in str(refusal.value).lower()
