"""The control endpoints and the index page."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from airflow_provider_events.sandbox import Sandbox

KEY = {"Authorization": "Bearer we-sandbox-key", "x-request-id": "ff"}
EVENTS = "/v1/accounts/~sandbox/events"
EVENT = {"userId": "a", "eventName": "b"}


def test_summary_counts(events_sandbox: Sandbox, client: httpx.Client) -> None:
    for body in (EVENT, EVENT, {"userId": "a"}):
        client.post(EVENTS, json=body, headers=KEY)
    counts = client.get("/_sandbox/summary").json()
    assert counts == events_sandbox.summary()
    assert list(counts) == ["embeddables", "vibetrace", "webengage", "bloomreach"]
    assert counts["webengage"] == {
        "requests": 3,
        "accepted": 1,
        "duplicate": 1,
        "ignored": 0,
        "refused": 0,
        "refused_requests": 1,
        "strays": 0,
        "violations": 0,
        "entries": 0,
    }


def test_events_are_paged(client: httpx.Client) -> None:
    for name in "abc":
        client.post(EVENTS, json={**EVENT, "eventName": name}, headers=KEY)
    page = client.get("/_sandbox/events?vendor=webengage&outcome=any&offset=1&limit=1").json()
    wire = {**EVENT, "eventName": "b"}
    assert page == [{"request": 2, "outcome": "duplicate", "key": "ff", "notes": [], "wire": wire}]
    assert len(client.get("/_sandbox/events?vendor=webengage").json()) == 1


def test_requests_never_show_keys(client: httpx.Client) -> None:
    client.post(EVENTS, json=EVENT, headers=KEY)
    client.post(EVENTS, json=EVENT, headers={"Authorization": "Bearer a-real-key"})
    client.post(EVENTS, json=EVENT)
    answer = client.get("/_sandbox/requests?vendor=webengage")
    assert [request["auth"] for request in answer.json()] == ["ok", "wrong", "missing"]
    assert "a-real-key" not in answer.text
    first = answer.json()[0]
    assert (first["number"], first["status"], first["events"], first["path"]) == (1, 201, 1, EVENTS)
    assert (first["headers"]["x-request-id"], json.loads(first["body"])) == ("ff", EVENT)


def test_entries_and_faults(events_sandbox: Sandbox, client: httpx.Client) -> None:
    body = {"vendor": "vibetrace", "entries": [{"email": "a@example.com"}], "appears_after": 0}
    assert client.post("/_sandbox/entries", json=body).json() == {"added": 1}
    user, key = "/v1/user/a@example.com", {"Authorization": "vt_sandbox_key"}
    assert client.get(user, headers=key).status_code == 200

    rules = [{"kind": "status", "vendor": "vibetrace", "status": 429, "retry_after": 3}]
    client.post("/_sandbox/faults", json=rules)
    assert client.get(user, headers=key).headers["retry-after"] == "3"
    assert client.get("/_sandbox/state").json()["faults"] == [{**rules[0], "matched": 1, "fired": 1}]
    client.delete("/_sandbox/faults")
    assert client.get(user, headers=key).status_code == 200

    client.post("/_sandbox/reset")
    assert client.get(user, headers=key).status_code == 404
    assert events_sandbox.summary()["vibetrace"]["requests"] == 1


def test_credentials_and_index(events_sandbox: Sandbox, client: httpx.Client) -> None:
    credentials = client.get("/_sandbox/credentials").json()
    for vendor, shown in credentials.items():
        assert shown["connection"] == events_sandbox.connection(vendor)
        assert shown["credentials"] == events_sandbox.credentials(vendor)
    index = client.get("/").text
    assert f'export AIRFLOW_CONN_VIBETRACE_DEFAULT=\'{{"conn_type":"vibetrace","host":"{events_sandbox.url}"' in index


@pytest.mark.parametrize(
    ("method", "path", "body", "error"),
    [
        ("GET", "events", None, "'vendor' is missing"),
        ("GET", "events?vendor=nobody", None, "unknown vendor 'nobody'"),
        ("GET", "requests?vendor=webengage&limit=x", None, "invalid literal"),
        ("POST", "entries", {"vendor": "webengage", "entries": [{}]}, "'userId' is missing"),
        ("POST", "entries", {"vendor": "bloomreach", "entries": [{"registered": 1}]}, "Invalid customer_id"),
        ("POST", "faults", [{"kind": "nonsense"}], "unknown fault kind"),
        ("POST", "faults", [{"kind": "cut", "nonsense": 1}], "nonsense"),
    ],
)
def test_mistakes_are_explained(client: httpx.Client, method: str, path: str, body: Any, error: str) -> None:
    answer = client.request(method, f"/_sandbox/{path}", json=body)
    assert answer.status_code == 400
    assert error in answer.json()["error"]


def test_paths_of_nobody(client: httpx.Client) -> None:
    assert client.get("/nothing").status_code == 404
    assert client.get("/eventual").status_code == 404
