"""Vendors, gateways and proxies that repeat all they are sent: nothing of it is written down anywhere."""

from __future__ import annotations

import json
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_provider_events.exceptions import EventsError
from airflow_provider_events.hooks.base import EventsHook
from tests.conftest import IDENTITY_KEYS
from tests.delivery.harness import VENDORS
from tests.hostile import MANNERS, HostileVendor, hostile_vendor
from tests.spellings import SPELLINGS, Marks

KEY = "kEy-Mark/7=f3a&b"
MARKS = Marks(
    {
        "key": KEY,
        "email": "ada.zq7mark@example.com",
        "name": "Zoe Lovelace-Qzmark",
        "street": "12 Zqmark Street, Łódź",
        "telephone": "+40 722 555 123",
        "number": "918273645546",
        "event id": "Order-Zq9177",
    }
)
EXTRAS = {
    "embeddables": {"project_id": "pr_1", "embeddable_id": "flow_1"},
    "vibetrace": {},
    "webengage": {"license_code": "lic", "existence_check": "portability"},
    "bloomreach": {"project_token": "token"},
}


@pytest.fixture(scope="module")
def hostile() -> Iterator[HostileVendor]:
    with hostile_vendor() as server:
        yield server


def lead_to(server: HostileVendor, vendor: str, manner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection `echo`, without patience."""
    monkeypatch.setattr("airflow_provider_events.delivery.pacing.RetryPolicy.backoff", lambda *_: 400.0)
    connection = {
        "conn_type": vendor,
        "host": server.url(manner),
        "login": "key-id" if vendor == "bloomreach" else None,
        "password": KEY,
        "extra": EXTRAS[vendor],
    }
    monkeypatch.setenv("AIRFLOW_CONN_ECHO", json.dumps(connection))


def event(vendor: str) -> dict[str, Any]:
    """One that says everything that is marked."""
    marked = MARKS.texts
    return {
        "name": "signed_up",
        "identity": {IDENTITY_KEYS[vendor]: marked["email"]},
        "timestamp": "2026-03-01T09:00:00Z",
        "id": marked["event id"],
        "properties": {
            "who": {marked["name"]: marked["street"]},
            "telephone": marked["telephone"],
            "number": int(marked["number"]),
        },
    }


def calls(vendor: str, folder: Path) -> list[Callable[[EventsHook], Any]]:
    """Everything that a hook does."""
    sent = event(vendor)
    identity, properties = sent["identity"], sent["properties"]
    path = folder / "rejected.jsonl"
    return [
        lambda hook: hook.deliver([sent] * 2, rejected_path=str(path), max_rejected=2),
        lambda hook: hook.send(sent),
        lambda hook: hook.upsert(identity, properties),
        lambda hook: hook.lookup([identity]),
        lambda hook: hook.test_connection(),
    ]


def said(call: Callable[[EventsHook], Any]) -> Iterator[str]:
    """All that a call leaves behind: its value, or its error with everything that hangs on it."""
    try:
        yield repr(call(EventsHook.for_connection("echo")))
    except EventsError as error:
        yield from (str(error), repr(error), repr(error.__dict__), *traceback.format_exception(error))
        yield repr(error.report and error.report.to_dict())
        yield pickle.dumps(error).decode("latin-1")


def reasons(folder: Path) -> Iterator[str]:
    """What the files of rejected events say but for the events themselves."""
    for path in folder.rglob("*.jsonl"):
        for line in map(json.loads, path.read_text().splitlines()):
            yield repr([value for name, value in line.items() if name not in ("event", "data")])


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("vendor", VENDORS)
def test_what_a_vendor_repeats_is_written_down_nowhere(
    vendor: str,
    manner: str,
    hostile: HostileVendor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """Errors with all their attributes, logs, reports, rejected reasons and codes, tests of the connection."""
    lead_to(hostile, vendor, manner, monkeypatch)
    hostile.heard.clear()
    ways = calls(vendor, tmp_path)
    turn = VENDORS.index(vendor) + list(MANNERS).index(manner)
    leaked: dict[str, set[str]] = {}
    with caplog.at_level(logging.DEBUG):
        for number, spelling in enumerate(list(SPELLINGS)[turn % 3 :: 3], turn):
            hostile.spellings = [spelling]
            written = "\n".join([*said(ways[number % len(ways)]), *reasons(tmp_path), caplog.text])
            if found := MARKS.found(written):
                leaked[spelling] = found
            caplog.clear()
    assert leaked == {}
    assert MARKS.found("\n".join(hostile.heard)) >= {"key", "email", "street", "telephone"}, (
        "the vendor has seen it all"
    )


@pytest.mark.parametrize("vendor", VENDORS)
def test_what_is_no_secret_is_still_said(
    vendor: str, hostile: HostileVendor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lead_to(hostile, vendor, "rejecting", monkeypatch)
    hostile.spellings = ["plain"]
    words = "".join(said(calls(vendor, tmp_path)[1]))
    assert "connection 'echo'" in words


@pytest.mark.parametrize("mark", ["Cust-Zxq81", "a7", "9182"])
@pytest.mark.parametrize("manner", ["half", "moved", "refusing", "missing", "failing"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_a_short_customer_is_not_repeated_either(
    vendor: str, manner: str, mark: str, hostile: HostileVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in words nor in the id of the request; of two characters every word may consist."""
    lead_to(hostile, vendor, manner, monkeypatch)
    hostile.spellings = ["plain"]
    identity = {IDENTITY_KEYS[vendor]: mark}
    sent: Mapping[str, Any] = {"name": "signed_up", "identity": identity, "properties": {}}
    ways: list[Callable[[EventsHook], Any]] = [
        lambda hook: hook.send(sent),
        lambda hook: hook.deliver([sent] * 3),
        lambda hook: hook.upsert(identity, {"a": 1}),
        lambda hook: hook.lookup([identity]),
    ]
    written = "".join(text for way in ways for text in said(way))
    assert len(mark) < 3 or mark not in written


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("vendor", VENDORS)
def test_the_client_that_users_get_repeats_no_key(
    vendor: str,
    manner: str,
    hostile: HostileVendor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In no error, log or repr; the answer's body and headers are the user's to read."""
    lead_to(hostile, vendor, manner, monkeypatch)
    hostile.spellings = ["plain"]
    written = []
    with caplog.at_level(logging.INFO), EventsHook.for_connection("echo").get_conn() as client:
        for _ in range(4):
            try:
                written.append(repr(client.get("/projects/pr_1/embeddables").raise_for_status()))
            except httpx.HTTPError as error:
                written += [repr(error), *traceback.format_exception(error)]
        written += [repr(client), caplog.text]
    assert MARKS.found("\n".join(hostile.heard)) >= {"key"}
    assert MARKS.found("\n".join(written)) == set()
