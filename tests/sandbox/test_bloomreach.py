"""Bloomreach Engagement: what its documents accept and refuse, over real sockets."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from typing import Any

import httpx
import pytest

from airflow_provider_events.sandbox import Sandbox
from tests.sandbox.conftest import Clock

TRACK = "/track/v2/projects/project-token-sandbox"
DATA = "/data/v2/projects/project-token-sandbox"
EVENT: dict[str, Any] = {
    "customer_ids": {"registered": "milan@test.com"},
    "properties": {"price": 150, "test": "a"},
    "timestamp": 123456.78,
    "event_type": "testing_event",
}
UPDATE: dict[str, Any] = {
    "customer_ids": {"registered": "marian@example.com"},
    "properties": {"first_name": "Marian", "last_name": "Galik"},
}
NO_ID = "At least one id should be specified."
NO_VALID_ID = "At least one valid id should be specified"


def basic(key_id: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{key_id}:{secret}".encode()).decode()}


PRIVATE = basic("key-id-sandbox", "secret-sandbox")
PUBLIC = {"Authorization": "Token public-token-sandbox"}


@pytest.mark.parametrize("headers", [PRIVATE, PUBLIC])
@pytest.mark.parametrize(
    ("resource", "changes"),
    [
        ("customers/events", {}),
        ("customers/events", {"timestamp": "2024-01-01T00:00:00Z"}),
        ("customers/events", {"timestamp": "2024-01-01T00:00:00"}),
        ("customers/events", {"timestamp": "1533495544.34"}),
        ("customers/events", {"properties": {}}),
        ("customers/events", {"customer_ids": {"registered": "a", "cookie": ["b", "c"]}}),
        ("customers", {}),
        ("customers", {"update_timestamp": 1681484247}),
    ],
)
def test_documented_single_calls(
    client: httpx.Client, headers: dict[str, str], resource: str, changes: dict[str, Any]
) -> None:
    body = {**(EVENT if resource == "customers/events" else UPDATE), **changes}
    answer = client.post(f"{TRACK}/{resource}", json=body, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"errors": [], "success": True})
    assert answer.headers["x-request-id"]


def test_documented_batch(events_sandbox: Sandbox, client: httpx.Client) -> None:
    commands = [
        {"name": "system/time"},
        {"name": "customers", "command_id": "abc", "data": UPDATE},
        {"name": "customers/events", "command_id": "def", "data": EVENT},
        {"name": "customers", "data": {"customer_ids": {}}},
        {"name": "nonsense", "command_id": "ghi"},
        {"name": "customers/events", "command_id": 5, "data": EVENT},
    ]
    answer = client.post(f"{TRACK}/batch", json={"commands": commands, "sdk": "x"}, headers=PUBLIC)
    assert answer.status_code == 200
    body = answer.json()
    assert (set(body), body["success"]) == ({"results", "start_time", "end_time", "success"}, True)
    assert body["results"][0].keys() == {"success", "time"}
    assert body["results"][1:] == [
        {"command_id": "abc", "success": True},
        {"command_id": "def", "success": True},
        {"success": False, "errors": [NO_ID]},
        {"command_id": "ghi", "success": False, "errors": ["Unknown command nonsense"]},
        {"command_id": 5, "success": False, "errors": ["command_id must be a string"]},
    ]
    assert [(event.key, event.wire) for event in events_sandbox.events("bloomreach")] == [("def", EVENT)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"customer_ids": {}}, NO_ID),
        ({"customer_ids": None}, NO_ID),
        ({"customer_ids": "x"}, "Invalid customer_id"),
        ({"customer_ids": {"registered": 5}}, "Invalid customer_id"),
        ({"customer_ids": {"registered": None}}, NO_VALID_ID),
        ({"customer_ids": {"registered": "undefined"}}, NO_VALID_ID),
        ({"customer_ids": {"registered": " - "}}, NO_VALID_ID),
        ({"event_type": None}, "Field event_type is required"),
        ({"properties": []}, "Field properties must be an object"),
        ({"timestamp": None}, "Field timestamp must be Unix seconds or ISO 8601"),
        ({"timestamp": True}, "Field timestamp must be Unix seconds or ISO 8601"),
        ({"timestamp": "yesterday"}, "Field timestamp must be Unix seconds or ISO 8601"),
        ({"properties": {"text": "x" * 16_384}}, "Property text is not smaller than 16384 bytes"),
        (
            {"properties": {f"p{n}": "x" * 10_000 for n in range(82)}},
            "The message is not smaller than 819200 bytes",
        ),
    ],
)
def test_malformed_event_is_refused(
    events_sandbox: Sandbox, client: httpx.Client, changes: dict[str, Any], message: str
) -> None:
    event = {**EVENT, **changes}
    refused = {"success": False, "errors": [message]}
    answer = client.post(f"{TRACK}/customers/events", json=event, headers=PRIVATE)
    assert (answer.status_code, answer.json()) == (200, refused)
    commands = [{"name": "customers/events", "data": event}, {"name": "customers/events", "data": EVENT}]
    batch = client.post(f"{TRACK}/batch", json={"commands": commands}, headers=PRIVATE)
    assert batch.json()["results"] == [refused, {"success": True}]
    assert [e.outcome for e in events_sandbox.events("bloomreach", None)] == ["refused", "refused", "accepted"]


def test_customer_without_properties_is_refused(client: httpx.Client) -> None:
    answer = client.post(f"{TRACK}/customers", json={**UPDATE, "properties": {}}, headers=PRIVATE)
    assert answer.json() == {"success": False, "errors": ["Field properties is required"]}


@pytest.mark.parametrize(
    ("content", "headers", "message"),
    [
        (b"{", {}, "Invalid JSON"),
        (b"{}", {}, "No commands"),
        (b'{"commands": []}', {}, "No commands"),
        (b'{"commands": ["x"]}', {}, "Invalid JSON"),
        (json.dumps({"commands": [{"name": "system/time"}] * 51}).encode(), {}, "Too many commands"),
        (
            gzip.compress(b'{"commands": [{"name": "system/time"}]}'),
            {"content-encoding": "gzip"},
            "BadRequest: The browser (or proxy) sent a request that this server could not understand",
        ),
    ],
)
def test_refused_batch(client: httpx.Client, content: bytes, headers: dict[str, str], message: str) -> None:
    headers = {**PRIVATE, "content-type": "application/json", **headers}
    answer = client.post(f"{TRACK}/batch", content=content, headers=headers)
    assert (answer.status_code, answer.json()) == (400, {"success": False, "message": message})


def test_fifty_commands_fit(client: httpx.Client) -> None:
    body = {"commands": [{"name": "system/time"}] * 50}
    assert len(client.post(f"{TRACK}/batch", json=body, headers=PRIVATE).json()["results"]) == 50


@pytest.mark.parametrize(
    ("project", "headers", "status", "error"),
    [
        ("other", PRIVATE, 400, "Could not authenticate"),
        ("not_a_token", PRIVATE, 400, "Invalid project id"),
        ("project-token-sandbox", {}, 401, "access key not found"),
        ("project-token-sandbox", basic("other", "secret-sandbox"), 401, "access key not found"),
        ("project-token-sandbox", {"Authorization": "Basic ???"}, 401, "access key not found"),
        ("project-token-sandbox", basic("key-id-sandbox", "other"), 403, "invalid secret"),
        ("project-token-sandbox", {"Authorization": "Token other"}, 400, "Could not authenticate"),
    ],
)
@pytest.mark.parametrize("resource", ["customers/events", "batch"])
def test_wrong_keys(
    client: httpx.Client, project: str, headers: dict[str, str], status: int, error: str, resource: str
) -> None:
    answer = client.post(f"/track/v2/projects/{project}/{resource}", json=EVENT, headers=headers)
    assert (answer.status_code, answer.json()) == (status, {"success": False, "error": error})


def test_public_token_in_the_query_is_not_logged(events_sandbox: Sandbox, client: httpx.Client) -> None:
    answer = client.get(f"{TRACK}/system/time?access_token=public-token-sandbox")
    assert answer.json().keys() == {"errors", "success", "time"}
    assert events_sandbox.requests("bloomreach")[0].path == f"{TRACK}/system/time?access_token=***"


@pytest.mark.parametrize("path", [f"{TRACK}/nothing", "/track/v2/nothing", f"{DATA}/customers"])
def test_unknown_path(client: httpx.Client, path: str) -> None:
    answer = client.post(path, headers=PRIVATE)
    assert answer.status_code == 404
    description = "The requested URL was not found on the server"
    assert answer.json() == {"errors": {"code": 404, "description": description}}


def test_wrong_method(client: httpx.Client) -> None:
    assert client.get(f"{TRACK}/batch", headers=PRIVATE).status_code == 405


def test_duplicates_need_an_explicit_timestamp(events_sandbox: Sandbox, client: httpx.Client) -> None:
    undated = {name: value for name, value in EVENT.items() if name != "timestamp"}
    reordered = dict(reversed(EVENT.items()))
    for event in (EVENT, reordered, undated, undated, {**EVENT, "timestamp": 123456.79}):
        assert client.post(f"{TRACK}/customers/events", json=event, headers=PRIVATE).json()["success"]
    outcomes = [event.outcome for event in events_sandbox.events("bloomreach", outcome=None)]
    assert outcomes == ["accepted", "duplicate", "accepted", "accepted", "accepted"]


def test_duplicates_are_told_by_the_types_of_their_values_too(events_sandbox: Sandbox, client: httpx.Client) -> None:
    for price in (10, 10.0, "10", 10):
        event = {**EVENT, "properties": {"price": price}}
        assert client.post(f"{TRACK}/customers/events", json=event, headers=PRIVATE).json()["success"]
    outcomes = [event.outcome for event in events_sandbox.events("bloomreach", outcome=None)]
    assert outcomes == ["accepted", "accepted", "accepted", "duplicate"]


def test_a_duplicate_is_dropped_for_90_days_from_its_last_receipt(timed: Sandbox, clock: Clock) -> None:
    for days in (0, 89, 89, 90):
        clock.now += days * 86_400
        sent = httpx.post(f"{timed.url}{TRACK}/customers/events", json=EVENT, headers=PRIVATE)
        assert sent.json()["success"]
    outcomes = [event.outcome for event in timed.events("bloomreach", outcome=None)]
    assert outcomes == ["accepted", "duplicate", "duplicate", "accepted"]


def test_a_repeated_consent_is_a_second_consent(events_sandbox: Sandbox, client: httpx.Client) -> None:
    event = {**EVENT, "event_type": "consent", "properties": {"category": "email", "action": "accept"}}
    for _ in range(2):
        assert client.post(f"{TRACK}/customers/events", json=event, headers=PRIVATE).json()["success"]
    assert [event.outcome for event in events_sandbox.events("bloomreach", outcome=None)] == ["accepted", "accepted"]


def test_milliseconds_are_taken_for_seconds(events_sandbox: Sandbox, client: httpx.Client) -> None:
    event = {**EVENT, "timestamp": 1_700_000_000_000}
    assert client.post(f"{TRACK}/customers/events", json=event, headers=PRIVATE).json()["success"]
    assert "far in the future" in events_sandbox.violations("bloomreach")[0]


def test_repeated_command_id_is_a_violation(events_sandbox: Sandbox, client: httpx.Client) -> None:
    client.post(f"{TRACK}/batch", json={"commands": [{"name": "system/time", "command_id": "a"}] * 2}, headers=PRIVATE)
    assert len(events_sandbox.violations("bloomreach")) == 1


def test_event_to_an_unknown_customer_creates_a_stray(events_sandbox: Sandbox, client: httpx.Client) -> None:
    events_sandbox.add_entries("bloomreach", [{"registered": "known", "cookie": ["k1", "k2"]}])
    for ids in ({"registered": "known"}, {"cookie": "k2"}, {"registered": "stray"}, {"registered": "stray"}):
        client.post(f"{TRACK}/customers/events", json={**EVENT, "customer_ids": ids}, headers=PRIVATE)
    summary = events_sandbox.summary()["bloomreach"]
    assert (summary["strays"], summary["entries"]) == (1, 2)
    notes = [event.notes for event in events_sandbox.events("bloomreach")]
    assert notes == [(), (), ("stray customer created",)]


@pytest.mark.parametrize(
    ("resource", "extra"),
    [
        ("export-one", {}),
        ("events", {"event_types": ["test"]}),
        ("attributes", {"attributes": [{"type": "id", "id": "registered"}]}),
    ],
)
def test_reading_needs_a_known_customer_and_private_access(
    events_sandbox: Sandbox, client: httpx.Client, resource: str, extra: dict[str, Any]
) -> None:
    body = {"customer_ids": {"registered": "test"}, **extra}
    path = f"{DATA}/customers/{resource}"
    missing = client.post(path, json=body, headers=PRIVATE)
    assert missing.status_code == 404
    assert missing.json() == {"errors": {"_global": ["Customer does not exist"]}, "success": False}
    events_sandbox.add_entries("bloomreach", [{"registered": "test"}])
    found = client.post(path, json=body, headers=PRIVATE)
    assert (found.status_code, found.json()["success"]) == (200, True)
    assert client.post(path, json=body, headers=PUBLIC).status_code == 403
    assert client.post(path, json={**body, "customer_ids": {}}, headers=PRIVATE).json()["errors"] == [NO_ID]


def test_what_was_tracked_can_be_read(client: httpx.Client) -> None:
    ids = {"registered": "test"}
    client.post(
        f"{TRACK}/customers", json={"customer_ids": ids, "properties": {"first_name": "Lukas"}}, headers=PRIVATE
    )
    for timestamp, kind in ((30, "test"), (10, "test"), (20, "other")):
        event = {**EVENT, "customer_ids": ids, "timestamp": timestamp, "event_type": kind}
        client.post(f"{TRACK}/customers/events", json=event, headers=PRIVATE)

    exported = client.post(f"{DATA}/customers/export-one", json={"customer_ids": ids}, headers=PRIVATE).json()
    assert (exported["ids"], exported["properties"], len(exported["events"])) == (ids, {"first_name": "Lukas"}, 3)

    def timestamps(**query: Any) -> list[float]:
        body = {"customer_ids": ids, "event_types": ["test"], **query}
        answer = client.post(f"{DATA}/customers/events", json=body, headers=PRIVATE).json()
        return [event["timestamp"] for event in answer["data"]]

    assert timestamps() == [10, 30]
    assert timestamps(order="desc", limit=1) == [30]
    assert timestamps(skip=1) == [30]

    wanted = [
        {"type": "property", "property": "first_name"},
        {"type": "segmentation", "id": "592ff585fb60094e02bfaf6a"},
    ]
    body = {"customer_ids": ids, "attributes": wanted}
    attributes = client.post(f"{DATA}/customers/attributes", json=body, headers=PRIVATE).json()
    assert attributes == {
        "results": [{"success": True, "value": "Lukas"}, {"success": False, "error": "No permission"}],
        "success": True,
    }


@pytest.mark.parametrize(
    ("resource", "extra"),
    [
        ("events", {}),
        ("events", {"event_types": ["x"], "order": "up"}),
        ("events", {"event_types": ["x"], "limit": "1"}),
        ("attributes", {}),
    ],
)
def test_malformed_reading(events_sandbox: Sandbox, client: httpx.Client, resource: str, extra: dict[str, Any]) -> None:
    events_sandbox.add_entries("bloomreach", [{"registered": "test"}])
    body = {"customer_ids": {"registered": "test"}, **extra}
    assert client.post(f"{DATA}/customers/{resource}", json=body, headers=PRIVATE).status_code == 400


def test_a_customer_may_appear_later(timed: Sandbox, clock: Clock) -> None:
    timed.add_entries("bloomreach", [{"registered": "test"}], appears_after=30)
    url, body = f"{timed.url}{DATA}/customers/export-one", {"customer_ids": {"registered": "test"}}
    assert httpx.post(url, json=body, headers=PRIVATE).status_code == 404
    clock.now += 30
    assert httpx.post(url, json=body, headers=PRIVATE).status_code == 200
