"""WebEngage: what its documents accept and refuse, over real sockets."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from airflow_provider_events.sandbox import Sandbox
from tests.sandbox.conftest import Clock

KEY = {"Authorization": "Bearer we-sandbox-key"}
ACCOUNT = "/v1/accounts/~sandbox"
EVENT: dict[str, Any] = {
    "userId": "johndoe",
    "eventName": "Added to Cart",
    "eventTime": "2018-09-15T18:29:00-0800",
    "eventData": {
        "Product ID": 1337,
        "Price": 39.80,
        "Quantity": 1,
        "Product": "Givenchy Pour Homme Cologne",
        "Category": "Fragrance",
        "Currency": "USD",
    },
}
USER: dict[str, Any] = {
    "userId": "johndoe",
    "firstName": "John",
    "lastName": "Doe",
    "birthDate": "1986-08-19T15:45:00-0800",
    "gender": "male",
    "email": "john@example.com",
    "phone": "+551155256325",
    "company": "Alphabet Inc.",
    "attributes": {"Age": "31", "Twitter username": "@origjohndoe86", "Dollars spent": 461.93, "Points earned": 78732},
}
QUEUED = {"response": {"status": "queued"}}
NO_IDENTITY = {"response": {"message": "Error: userId and anonymousId cannot be empty.", "status": "error"}}


@pytest.mark.parametrize(
    ("resource", "body", "events"),
    [
        ("events", EVENT, 1),
        ("events", {"anonymousId": "a", "eventName": "x" * 49}, 1),
        ("events", {**EVENT, "anonymousId": "a"}, 1),
        ("bulk-events", {"events": [EVENT, EVENT]}, 2),
        ("bulk-events", {"events": [EVENT] * 25}, 25),
        ("users", USER, 0),
        ("bulk-users", {"users": [USER, {**USER, "userId": "other"}]}, 0),
    ],
)
def test_documented_requests(
    events_sandbox: Sandbox, client: httpx.Client, resource: str, body: dict[str, Any], events: int
) -> None:
    answer = client.post(f"{ACCOUNT}/{resource}", json=body, headers=KEY)
    assert answer.is_success
    assert answer.json() == QUEUED
    assert len(events_sandbox.events("webengage")) == events
    assert not events_sandbox.violations("webengage")


@pytest.mark.parametrize(
    "changes",
    [
        {"userId": 42},
        {"userId": "x" * 101},
        {"anonymousId": "x" * 101},
        {"eventName": ""},
        {"eventName": None},
        {"eventName": "x" * 51},
        {"eventTime": "2018-09-15T18:29:00Z"},
        {"eventTime": "2018-09-15T18:29:00+05:30"},
        {"eventTime": "2018-09-15T18:29:00.000-0800"},
        {"eventTime": "2018-02-30T18:29:00-0800"},
        {"eventTime": 1537064940},
        {"eventTime": None},
        {"eventData": []},
        {"eventData": {"x" * 51: 1}},
        {"eventData": {"text": "x" * 1001}},
    ],
)
@pytest.mark.parametrize("bulk", [False, True])
def test_malformed_event_is_refused(
    events_sandbox: Sandbox, client: httpx.Client, changes: dict[str, Any], bulk: bool
) -> None:
    event = {**EVENT, **changes}
    resource, body = ("bulk-events", {"events": [EVENT, event]}) if bulk else ("events", event)
    answer = client.post(f"{ACCOUNT}/{resource}", json=body, headers=KEY)
    assert answer.status_code == 400
    assert answer.json()["response"]["status"] == "error"
    assert not events_sandbox.events("webengage", outcome=None)


@pytest.mark.parametrize("identity", [{}, {"userId": ""}, {"userId": None, "anonymousId": ""}])
def test_nobody(client: httpx.Client, identity: dict[str, Any]) -> None:
    answer = client.post(f"{ACCOUNT}/events", json={**identity, "eventName": "x"}, headers=KEY)
    assert (answer.status_code, answer.json()) == (400, NO_IDENTITY)


@pytest.mark.parametrize(
    ("resource", "body"),
    [
        ("bulk-events", {"events": []}),
        ("bulk-events", {"events": [EVENT] * 26}),
        ("bulk-events", {"events": ["x"]}),
        ("bulk-events", {"users": [USER]}),
        ("bulk-users", {"users": [USER] * 26}),
        ("users", {**USER, "gender": "m"}),
        ("users", {**USER, "birthDate": "1986-08-19"}),
        ("users", {**USER, "emailOptIn": "yes"}),
        ("users", {**USER, "attributes": []}),
    ],
)
def test_other_refusals(client: httpx.Client, resource: str, body: dict[str, Any]) -> None:
    answer = client.post(f"{ACCOUNT}/{resource}", json=body, headers=KEY)
    assert (answer.status_code, answer.json()["response"]["status"]) == (400, "error")


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (f"{ACCOUNT}/events", {}, 401),
        (f"{ACCOUNT}/events", {"Authorization": "Bearer other"}, 401),
        (f"{ACCOUNT}/events", {"Authorization": "Basic we-sandbox-key"}, 401),
        ("/v1/accounts/we-sandbox-key/events", KEY, 404),
        (f"{ACCOUNT}/events/bulk", KEY, 404),
        (f"{ACCOUNT}/events", {**KEY, "content-type": "text/plain"}, 400),
    ],
)
def test_wrong_address_or_key(client: httpx.Client, path: str, headers: dict[str, str], status: int) -> None:
    answer = client.post(path, json=EVENT, headers=headers)
    assert (answer.status_code, answer.json()["response"]["status"]) == (status, "error")


def test_reading_users_is_not_offered(client: httpx.Client) -> None:
    assert client.get(f"{ACCOUNT}/users", headers=KEY).status_code == 405


def test_request_id_discards_for_four_hours(timed: Sandbox, clock: Clock) -> None:
    headers = {**KEY, "x-request-id": "a7551968d5d644b2"}

    def send(body: dict[str, Any]) -> None:
        assert httpx.post(f"{timed.url}{ACCOUNT}/events", json=body, headers=headers).json() == QUEUED

    send(EVENT)
    clock.now += 4 * 3600 - 1
    send(EVENT)
    clock.now += 1
    send(EVENT)
    assert [event.outcome for event in timed.events("webengage", outcome=None)] == ["accepted", "duplicate", "accepted"]
    assert {event.key for event in timed.events("webengage")} == {"a7551968d5d644b2"}
    assert not timed.violations("webengage")
    send({**EVENT, "eventName": "Other"})
    assert timed.violations("webengage") == ["x-request-id a7551968d5d644b2 was used before for another body"]


def test_a_refused_request_does_not_use_up_its_id(events_sandbox: Sandbox, client: httpx.Client) -> None:
    headers = {**KEY, "x-request-id": "ff"}
    assert client.post(f"{ACCOUNT}/events", json={**EVENT, "eventName": ""}, headers=headers).status_code == 400
    assert client.post(f"{ACCOUNT}/events", json=EVENT, headers=headers).is_success
    assert len(events_sandbox.events("webengage")) == 1


def test_request_id_must_be_hexadecimal_and_does_not_count_for_bulks(
    events_sandbox: Sandbox, client: httpx.Client
) -> None:
    answer = client.post(f"{ACCOUNT}/events", json=EVENT, headers={**KEY, "x-request-id": "order-1"})
    assert answer.status_code == 400
    for _ in range(2):
        client.post(f"{ACCOUNT}/bulk-events", json={"events": [EVENT]}, headers={**KEY, "x-request-id": "ff"})
    assert len(events_sandbox.events("webengage")) == 2


def test_what_is_silently_ignored(events_sandbox: Sandbox, client: httpx.Client) -> None:
    for event in (
        {**EVENT, "eventName": "we_event"},
        {**EVENT, "eventData": {"we_price": 1, "Price": 1}},
        {**EVENT, "eventData": {"Price": "1"}},
        {**EVENT, "eventName": "wide", "eventData": {f"a{n}": n for n in range(26)}},
    ):
        assert client.post(f"{ACCOUNT}/events", json=event, headers=KEY).json() == QUEUED
    assert [(event.outcome, event.notes) for event in events_sandbox.events("webengage", outcome=None)] == [
        ("ignored", ("eventName begins with we_",)),
        ("accepted", ("attribute we_price ignored: begins with we_",)),
        ("accepted", ("attribute Price ignored: was number, now string",)),
        ("accepted", ("attribute a25 ignored: 25 of type number exist",)),
    ]


def test_events_named_like_webengages_own_are_not_created(events_sandbox: Sandbox, client: httpx.Client) -> None:
    assert client.post(f"{ACCOUNT}/events", json={**EVENT, "eventName": "email_open"}, headers=KEY).json() == QUEUED
    (event,) = events_sandbox.events("webengage", outcome=None)
    assert (event.outcome, event.notes) == ("ignored", ("eventName is a system event",))
    assert events_sandbox.violations("webengage") == ["eventName is a system event"]


@pytest.mark.parametrize(
    "changes", [{"eventName": "x" * 50}, {"eventData": {"x" * 50: 1}}, {"eventData": {"text": "x" * 1000}}]
)
def test_exactly_at_a_limit(events_sandbox: Sandbox, client: httpx.Client, changes: dict[str, Any]) -> None:
    assert client.post(f"{ACCOUNT}/events", json={**EVENT, **changes}, headers=KEY).is_success
    assert len(events_sandbox.violations("webengage")) == 1


def test_rate_limit_headers_on_each_answer(client: httpx.Client) -> None:
    answers = [client.post(f"{ACCOUNT}/events", json=body, headers=KEY) for body in (EVENT, {})]
    answers.append(client.post(f"{ACCOUNT}/bulk-events", json={"events": [EVENT]}))
    shown = [(a.headers["X-RateLimit-Limit"], a.headers["X-RateLimit-Remaining"]) for a in answers]
    assert shown == [("5000", "4999"), ("5000", "4998"), ("500", "499")]


def gdpr(kind: str, user: str, request_id: str = "a7551968-d5d6-44b2-9831-815ac90177879") -> dict[str, Any]:
    return {
        "subject_request_id": request_id,
        "subject_request_type": kind,
        "subject_identities": [{"identity_type": "cuid", "identity_value": user}],
    }


def test_portability_reads_known_users(events_sandbox: Sandbox, client: httpx.Client) -> None:
    path = f"{ACCOUNT}/opengdpr_requests"
    assert client.post(path, json=gdpr("portability", "johndoe"), headers=KEY).status_code == 400
    client.post(f"{ACCOUNT}/users", json=USER, headers=KEY)
    events_sandbox.add_entries("webengage", [{"userId": "other"}])
    for request_id, user in enumerate(("johndoe", "other")):
        answer = client.post(path, json=gdpr("portability", user, str(request_id)), headers=KEY)
        assert answer.status_code == 201
        assert answer.json()["userProfile"]["userId"] == user
    assert client.post(path, json=gdpr("portability", "johndoe", "0"), headers=KEY).status_code == 400


def test_erasure_is_answered_and_raises_an_alarm(events_sandbox: Sandbox, client: httpx.Client) -> None:
    events_sandbox.add_entries("webengage", [{"userId": "1519021150"}])
    answer = client.post(f"{ACCOUNT}/opengdpr_requests", json=gdpr("erasure", "1519021150"), headers=KEY)
    assert answer.status_code == 201
    assert answer.json() == {
        "subject_request_id": "a7551968-d5d6-44b2-9831-815ac90177879",
        "subject_request_type": "erasure",
        "message": "erasure request registered",
    }
    assert events_sandbox.violations("webengage") == ["erasure of user 1519021150 was requested"]


@pytest.mark.parametrize(
    "changes",
    [
        {"subject_request_id": ""},
        {"subject_request_type": "other"},
        {"subject_identities": []},
        {"subject_identities": [{"identity_type": "email", "identity_value": "x"}]},
    ],
)
def test_malformed_gdpr_request(events_sandbox: Sandbox, client: httpx.Client, changes: dict[str, Any]) -> None:
    events_sandbox.add_entries("webengage", [{"userId": "johndoe"}])
    body = {**gdpr("portability", "johndoe"), **changes}
    assert client.post(f"{ACCOUNT}/opengdpr_requests", json=body, headers=KEY).status_code == 400
