"""Vibetrace: what its documents accept and refuse, over real sockets."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from airflow_provider_events.sandbox import Sandbox
from tests.sandbox.conftest import Clock

KEY = {"Authorization": "vt_sandbox_key"}
USER = {"email": "user@example.com"}
ORDER = {"orderId": "unique_id", "total": 123, "coupons": ["code_a", "code_b"]}
ITEM = {
    "title": "Example item",
    "idInShop": "r3dd",
    "url": "http://example.com",
    "category": [{"name": "unique_id_of_category", "title": "Category title"}],
}
NOT_FOUND = {"errors": [{"message": "User not found", "description": "This email does not exist in our database."}]}
MISSING = {
    "errors": [{"message": "Missing event information", "description": "Please send event information along with user"}]
}


@pytest.fixture
def sandbox(events_sandbox: Sandbox) -> Sandbox:
    events_sandbox.add_entries("vibetrace", [{**USER, "_id": "id1", "isSubscribed": True, "gender": "male"}])
    return events_sandbox


@pytest.mark.parametrize("base", ["", "/v1"])
@pytest.mark.parametrize(
    "event",
    [
        {"update": {"firstname": "alexandru"}},
        {"generic": {"generic": {"event_name": "my_event", "firstname": "alexandru"}}},
        {"confirmation": {"items": [{"id": "item_id", "quantity": 1}], "generic": ORDER}},
        {"confirmation": {"items": [], "generic": ORDER}},
        {"viewitem": {"itemId": "r3dd", "item_data": ITEM}},
        {"viewcategory": {"category": "c", "category_data": {"title": "This is our category", "name": "c"}}},
        {"login": {"email": "john.smith@example.com", "name": "John Smith"}},
    ],
)
def test_documented_events(sandbox: Sandbox, client: httpx.Client, base: str, event: dict[str, Any]) -> None:
    body = {"user": USER, "event": event}
    answer = client.post(f"{base}/event", json=body, headers=KEY)
    assert answer.status_code == 200
    assert answer.json() == {
        "results": {"message": "Event created", "email": "Event was created for the specified user"}
    }
    assert [accepted.wire for accepted in sandbox.events("vibetrace")] == [body]


@pytest.mark.parametrize(
    ("body", "answered"),
    [
        ({"user": USER}, MISSING),
        ({"event": {"update": {}}}, MISSING),
        ({"user": USER, "event": {}}, MISSING),
        ({"user": {}, "event": {"update": {}}}, None),
        ({"user": {**USER, "_id": "id1"}, "event": {"update": {}}}, None),
        ({"user": USER, "event": {"update": {}, "login": {}}}, None),
        ({"user": USER, "event": {"nonsense": {}}}, None),
        ({"user": USER, "event": {"update": 1}}, None),
        ({"user": USER, "event": {"generic": {"event_name": "my_event"}}}, None),
        ({"user": USER, "event": {"generic": {"generic": {"firstname": "a"}}}}, None),
        ({"user": USER, "event": {"generic": {"generic": "my_event"}}}, None),
        ({"user": USER, "event": {"confirmation": {"orderId": "unique_id"}}}, None),
        ({"user": USER, "event": {"confirmation": {"generic": {"total": 1}}}}, None),
        ({"user": USER, "event": {"viewitem": {}}}, None),
    ],
)
def test_malformed_is_refused(
    sandbox: Sandbox, client: httpx.Client, body: dict[str, Any], answered: dict[str, Any] | None
) -> None:
    answer = client.post("/v1/event", json=body, headers=KEY)
    assert answer.status_code == 400
    assert list(answer.json()["errors"][0]) == ["message", "description"]
    if answered:
        assert answer.json() == answered
    assert not sandbox.events("vibetrace")


@pytest.mark.parametrize("user", [{"email": "nobody@example.com"}, {"_id": "id2"}])
def test_event_for_an_unknown_user(sandbox: Sandbox, client: httpx.Client, user: dict[str, str]) -> None:
    answer = client.post("/v1/event", json={"user": user, "event": {"update": {}}}, headers=KEY)
    assert (answer.status_code, answer.json()) == (404, NOT_FOUND)
    assert sandbox.summary()["vibetrace"]["refused"] == 1


def test_event_by_id(sandbox: Sandbox, client: httpx.Client) -> None:
    body = {"user": {"_id": "id1"}, "event": {"update": {"firstname": "a"}}}
    assert client.post("/v1/event", json=body, headers=KEY).status_code == 200


def test_repeated_order_is_discarded_and_answered_as_created(sandbox: Sandbox, client: httpx.Client) -> None:
    body = {"user": USER, "event": {"confirmation": {"items": [], "generic": ORDER}}}
    answers = [client.post("/v1/event", json=body, headers=KEY) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert [(e.outcome, e.key) for e in sandbox.events("vibetrace", outcome=None)] == [
        ("accepted", "unique_id"),
        ("duplicate", "unique_id"),
    ]


@pytest.mark.parametrize("key", [None, "other", "Bearer vt_sandbox_key"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/event"), ("GET", "/user/a@b.c"), ("PUT", "/v1/user/a@b.c")])
def test_wrong_key(client: httpx.Client, key: str | None, method: str, path: str) -> None:
    headers = {"Authorization": key} if key else {}
    answer = client.request(method, path, json={}, headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["message"]) == (401, "Unauthorized")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/event/", 404),
        ("POST", "/event/", 404),
        ("GET", "/v1/user/user@example.com/", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/event", 405),
        ("DELETE", "/v1/user/user@example.com", 405),
    ],
)
def test_unknown_paths(sandbox: Sandbox, client: httpx.Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, path, headers=KEY)
    assert answer.status_code == status
    assert answer.json()["errors"][0]["message"] != "User not found"


def test_user_is_found_or_not(sandbox: Sandbox, client: httpx.Client) -> None:
    found = client.get("/v1/user/user@example.com", headers=KEY)
    assert found.status_code == 200
    assert found.json() == {"_id": "id1", "email": "user@example.com", "isSubscribed": True, "gender": "male"}
    missing = client.get("/v1/user/nobody@example.com", headers=KEY)
    assert (missing.status_code, missing.json()) == (404, NOT_FOUND)


def test_email_with_a_plus_is_percent_encoded(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_entries("vibetrace", [{"email": "a+b@example.com"}])
    assert client.get("/v1/user/a%2Bb%40example.com", headers=KEY).status_code == 200


def test_creating_and_updating_users(sandbox: Sandbox, client: httpx.Client) -> None:
    new = {"email": "new@example.com", "isSubscribed": True, "gender": "male"}
    created = client.post("/v1/user", json=new, headers=KEY)
    assert created.json()["results"] == [{"message": "Successfully added new user.", "email": "new@example.com"}]
    assert created.json()["object"].items() >= new.items()
    assert client.post("/v1/user", json=new, headers=KEY).status_code == 400
    updated = client.put("/v1/user/new@example.com", json={"gender": "female"}, headers=KEY)
    assert updated.json()["object"]["gender"] == "female"
    invalid = client.post("/v1/user", json={"gender": "male"}, headers=KEY)
    assert invalid.status_code == 400
    assert invalid.json() == {
        "errors": [{"message": "Invalid data format/type", "description": "Error validating user attributes"}]
    }


def test_upsert(sandbox: Sandbox, client: httpx.Client) -> None:
    path = "/v1/user/new@example.com"
    assert client.put(path, json={}, headers=KEY).status_code == 404
    assert client.put(f"{path}?upsert=true", json={}, headers=KEY).status_code == 200
    assert client.get(path, headers=KEY).status_code == 200


def test_a_user_may_appear_later(timed: Sandbox, clock: Clock) -> None:
    timed.add_entries("vibetrace", [USER], appears_after=30)
    url = f"{timed.url}/v1/user/user@example.com"
    assert httpx.get(url, headers=KEY).status_code == 404
    clock.now += 30
    assert httpx.get(url, headers=KEY).status_code == 200
