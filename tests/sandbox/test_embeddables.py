"""Embeddables: what its documents accept and refuse, over real sockets."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from airflow_provider_events.sandbox import Sandbox
from tests.sandbox.conftest import Clock

KEY = {"X-Api-Key": "rk_sandbox_key"}
EVENTS = "/projects/pr_sandbox/events"
EVENT: dict[str, Any] = {
    "embeddable_id": "flow_myexampleflow",
    "timestamp": "2022-01-01T00:00:00.000Z",
    "custom_event_name": "my_custom_event",
    "custom_event_props": '{ "my_prop": "my_val" }',
    "identifiers": [{"key": "email", "value": '"test@test.com"'}],
}
PURCHASE = {
    **EVENT,
    "custom_event_name": "purchase_completed",
    "custom_event_props": '{"payload_metrics": {"order_value": 99.99, "revenue": 89.99}, '
    '"payload_dimensions": {"plan": "premium", "bundle": "annual", "purchase_type": "subscription"}}',
}


@pytest.fixture
def sandbox(events_sandbox: Sandbox) -> Sandbox:
    entry = {"embeddable_id": "flow_myexampleflow", "entry_id": "entry_1", "email": "test@test.com", "age": 42}
    events_sandbox.add_entries("embeddables", [entry])
    return events_sandbox


def test_documented_event_is_answered_as_documented(sandbox: Sandbox, client: httpx.Client) -> None:
    answer = client.post(EVENTS, json=EVENT, headers=KEY)
    assert answer.status_code == 200
    assert answer.json() == {
        "group_id": "group_sandbox",
        "project_id": "pr_sandbox",
        "embeddable_id": "flow_myexampleflow",
        "embeddable_version_number": 1,
        "contact_id": "contact_sandbox_1",
        "entry_id": "entry_1",
        "timestamp": "2022-01-01T00:00:00Z",
        "event_type": "custom_event:triggered",
        "custom_event_name": "my_custom_event",
        "custom_event_props": '{ "my_prop": "my_val" }',
    }
    (event,) = sandbox.events("embeddables")
    assert (event.wire, event.request, event.key) == (EVENT, 1, None)


@pytest.mark.parametrize(
    "changes",
    [
        PURCHASE,
        {"custom_event_props": "{}"},
        {"timestamp": "2022-01-01T02:00:00+02:00"},
        {"identifiers": [{"key": "age", "value": "42"}]},
        {"not_documented": 1},
    ],
)
def test_accepted(sandbox: Sandbox, client: httpx.Client, changes: dict[str, Any]) -> None:
    assert client.post(EVENTS, json={**EVENT, **changes}, headers=KEY).status_code == 200
    assert sandbox.summary()["embeddables"]["accepted"] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"embeddable_id": None},
        {"timestamp": "2022-01-01T00:00:00"},
        {"timestamp": "2022-13-01T00:00:00Z"},
        {"timestamp": 1640995200},
        {"custom_event_name": "MyEvent"},
        {"custom_event_name": ""},
        {"custom_event_props": {"my_prop": "my_val"}},
        {"custom_event_props": "{not json"},
        {"custom_event_props": None},
        {"identifiers": []},
        {"identifiers": EVENT["identifiers"] * 2},
        {"identifiers": {"email": "x"}},
        {"identifiers": [{"key": "email", "value": 42}]},
        {"identifiers": [{"key": "email"}]},
    ],
)
def test_malformed_is_refused(sandbox: Sandbox, client: httpx.Client, changes: dict[str, Any]) -> None:
    answer = client.post(EVENTS, json={**EVENT, **changes}, headers=KEY)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "bad_request"
    assert not sandbox.events("embeddables")
    assert sandbox.summary()["embeddables"]["refused_requests"] == 1


@pytest.mark.parametrize(
    ("changes", "violations"),
    [
        ({"identifiers": [{"key": "email", "value": '"ada@lovelace.com"'}]}, []),
        ({"identifiers": [{"key": "user_email", "value": '"test@test.com"'}]}, []),
        ({"embeddable_id": "flow_other"}, []),
        (
            {"identifiers": [{"key": "email", "value": "test@test.com"}]},
            ["identifier value is not JSON-stringified"],
        ),
        (
            {"identifiers": [{"key": "email", "value": '"\\"test@test.com\\""'}]},
            ["identifier value is JSON-stringified twice"],
        ),
    ],
)
def test_unknown_entry_is_404(
    sandbox: Sandbox, client: httpx.Client, changes: dict[str, Any], violations: list[str]
) -> None:
    answer = client.post(EVENTS, json={**EVENT, **changes}, headers=KEY)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "entry_not_found"
    assert sandbox.violations("embeddables") == violations
    assert [event.outcome for event in sandbox.events("embeddables", outcome=None)] == ["refused"]


@pytest.mark.parametrize("headers", [{}, {"X-Api-Key": "rk_other"}, {"Authorization": "Bearer rk_sandbox_key"}])
@pytest.mark.parametrize("path", ["events", "entries", "entries/entry_1", "entries/entry_1/events", "embeddables"])
def test_wrong_key(client: httpx.Client, sandbox: Sandbox, headers: dict[str, str], path: str) -> None:
    method = "POST" if path == "events" else "GET"
    answer = client.request(method, f"/projects/pr_sandbox/{path}", json=EVENT, headers=headers)
    assert answer.status_code == 401
    message = "You are not authorized to access this project with the API key provided."
    assert answer.json() == {"error": {"code": "unauthorized", "message": message}, "projectId": "pr_sandbox"}


def test_key_of_another_project(client: httpx.Client) -> None:
    answer = client.post("/projects/pr_other/events", json=EVENT, headers=KEY)
    assert (answer.status_code, answer.json()["projectId"]) == (401, "pr_other")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/projects/pr_sandbox/nothing", 404, "not_found"),
        ("POST", f"{EVENTS}/", 404, "not_found"),
        ("GET", EVENTS, 405, "method_not_allowed"),
        ("DELETE", "/projects/pr_sandbox/entries/entry_1", 405, "method_not_allowed"),
    ],
)
def test_unknown_paths(client: httpx.Client, method: str, path: str, status: int, code: str) -> None:
    answer = client.request(method, path, headers=KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"{}", "text/plain"),
        (b'{"a": NaN}', "application/json"),
    ],
)
def test_body_must_be_a_json_object(client: httpx.Client, content: bytes, content_type: str) -> None:
    answer = client.post(EVENTS, content=content, headers={**KEY, "content-type": content_type})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")


def test_reading_entries(sandbox: Sandbox, client: httpx.Client) -> None:
    entry = client.get("/projects/pr_sandbox/entries/entry_1", headers=KEY)
    assert entry.status_code == 200
    assert entry.json()["entry_data"] == '{"email":"test@test.com","age":42}'
    assert client.get("/projects/pr_sandbox/entries", headers=KEY).json() == [entry.json()]
    missing = client.get("/projects/pr_sandbox/entries/entry_doesnotexist", headers=KEY)
    assert missing.status_code == 404
    assert missing.json() == {
        "error": {
            "code": "entry_not_found",
            "message": "The entry with the specified ID does not exist or you don't have permission to access it.",
        },
        "entryId": "entry_doesnotexist",
    }


def test_listing_sorts_limits_and_filters(timed: Sandbox, clock: Clock) -> None:
    for number in range(12):
        clock.now += 60
        timed.add_entries("embeddables", [{"entry_id": f"entry_{number}", "email": f"{number}@test.com"}])

    def listed(**query: str) -> list[str]:
        answer = httpx.get(f"{timed.url}/projects/pr_sandbox/entries", params=query, headers=KEY)
        assert answer.status_code == 200
        return [entry["entry_id"] for entry in answer.json()]

    assert listed() == [f"entry_{number}" for number in range(11, 1, -1)]
    assert listed(limit="2", direction="ASC") == ["entry_0", "entry_1"]
    cut = httpx.get(f"{timed.url}/projects/pr_sandbox/entries/entry_5", headers=KEY).json()["updated_at"]
    assert listed(updated_after=cut, direction="ASC", sort="created_at")[0] == "entry_6"
    assert listed(updated_before=cut)[0] == "entry_4"


@pytest.mark.parametrize("query", [{"limit": "x"}, {"direction": "up"}, {"updated_after": "y"}, {"sort": "z"}])
def test_listing_refuses_odd_queries(client: httpx.Client, query: dict[str, str]) -> None:
    assert client.get("/projects/pr_sandbox/entries", params=query, headers=KEY).status_code == 400


def test_events_of_an_entry(sandbox: Sandbox, client: httpx.Client) -> None:
    for day in ("01", "03", "02"):
        client.post(EVENTS, json={**EVENT, "timestamp": f"2022-01-{day}T00:00:00.250Z"}, headers=KEY)
    events = client.get("/projects/pr_sandbox/entries/entry_1/events?limit=2", headers=KEY).json()
    assert [event["timestamp"] for event in events] == ["2022-01-03T00:00:00.250Z", "2022-01-02T00:00:00.250Z"]


def test_embeddables(sandbox: Sandbox, client: httpx.Client) -> None:
    embeddables = client.get("/projects/pr_sandbox/embeddables", headers=KEY).json()
    assert [one["embeddable_id"] for one in embeddables] == ["flow_sandbox", "flow_myexampleflow"]
    one = client.get("/projects/pr_sandbox/embeddables/flow_sandbox", headers=KEY)
    assert one.json() == embeddables[0]
    missing = client.get("/projects/pr_sandbox/embeddables/flow_doesnotexist", headers=KEY)
    assert missing.status_code == 404
    assert missing.json() == {
        "error": {"code": "embeddable_does_not_exist", "message": "The embeddable does not exist"},
        "projectId": "pr_sandbox",
        "embeddableId": "flow_doesnotexist",
    }


def test_an_entry_may_appear_later(timed: Sandbox, clock: Clock) -> None:
    timed.add_entries("embeddables", [{"email": "test@test.com", "entry_id": "e"}], appears_after=30)
    event = {**EVENT, "embeddable_id": "flow_sandbox"}
    url = f"{timed.url}/projects/pr_sandbox"
    assert httpx.post(f"{url}/events", json=event, headers=KEY).status_code == 404
    assert httpx.get(f"{url}/entries/e", headers=KEY).status_code == 404
    assert httpx.get(f"{url}/entries", headers=KEY).json() == []
    clock.now += 30
    assert httpx.post(f"{url}/events", json=event, headers=KEY).status_code == 200
    assert httpx.get(f"{url}/entries/e", headers=KEY).status_code == 200
