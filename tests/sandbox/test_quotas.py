"""The documented rate limits: enforced in sliding minutes, or not at all."""

from __future__ import annotations

import httpx
import pytest

from airflow_provider_events.sandbox import Sandbox
from airflow_provider_events.sandbox.hosts import Hosts
from airflow_provider_events.sandbox.state import Quotas, Settings
from airflow_provider_events.sandbox.vendors import Vendors
from tests.sandbox.conftest import Clock

PRIVATE = ("key-id-sandbox", "secret-sandbox")
TIME = "/track/v2/projects/project-token-sandbox/system/time"


def test_documented_numbers() -> None:
    documented = {name: dict(api.quotas) for name, api in Vendors(Hosts("127.0.0.1")).apis.items()}
    assert documented == {
        "embeddables": {},
        "vibetrace": {},
        "webengage": {
            "events": 5000,
            "users": 5000,
            "bulk-events": 500,
            "bulk-users": 500,
            "opengdpr_requests": 100,
        },
        "bloomreach": {"track": 6000},
    }


def test_the_window_slides(clock: Clock) -> None:
    quotas = Quotas("webengage", {"events": 2}, Settings(clock=clock))
    assert quotas.take("events") == (2, 1)
    clock.now += 59
    assert quotas.take("events") == (2, 0)
    assert quotas.take("events") == (2, -1)
    assert quotas.take("events", who="another") == (2, 1)
    clock.now += 1
    assert quotas.take("events") == (2, 0)
    assert quotas.take("events") == (2, -1)


def test_over_the_limit_is_429_and_nothing_is_accepted(clock: Clock) -> None:
    with Sandbox(clock=clock, quotas={"webengage:events": 1, "bloomreach:track": 1}) as sandbox:
        url, headers = f"{sandbox.url}/v1/accounts/~sandbox/events", {"Authorization": "Bearer we-sandbox-key"}
        event = {"userId": "a", "eventName": "b"}
        answers = [httpx.post(url, json=event, headers=headers) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 429]
        assert answers[1].json()["response"]["status"] == "error"
        assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["0", "0"]
        assert len(sandbox.events("webengage")) == 1

        statuses = [httpx.get(sandbox.url + TIME, auth=PRIVATE).status_code for _ in range(2)]
        assert statuses == [200, 429]
        clock.now += 60
        assert httpx.post(url, json=event, headers=headers).status_code == 201
        assert httpx.get(sandbox.url + TIME, auth=PRIVATE).status_code == 200


@pytest.mark.parametrize("requests", [101])
def test_quotas_can_be_switched_off(requests: int) -> None:
    with Sandbox(quotas=False) as sandbox, httpx.Client(base_url=sandbox.url) as client:
        path, headers = "/v1/accounts/~sandbox/opengdpr_requests", {"Authorization": "Bearer we-sandbox-key"}
        statuses = {client.post(path, json={}, headers=headers).status_code for _ in range(requests)}
        assert statuses == {400}
