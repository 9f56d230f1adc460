"""Each kind of fault, as a real client sees it."""

from __future__ import annotations

import socket
import time
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from airflow_provider_events.sandbox import Sandbox
from airflow_provider_events.sandbox.faults import Fault

PATH = "/track/v2/projects/project-token-sandbox/customers/events"
EVENT = {"customer_ids": {"registered": "a"}, "event_type": "b", "timestamp": 1}
KEYS = ("key-id-sandbox", "secret-sandbox")
ACCEPTED = {"errors": [], "success": True}


def send(client: httpx.Client, **options: Any) -> httpx.Response:
    return client.post(PATH, json=EVENT, auth=KEYS, **options)


def outcome(sandbox: Sandbox) -> tuple[int, int, str | None]:
    """Accepted events; status and fault of the last request."""
    last = sandbox.requests("bloomreach")[-1]
    return len(sandbox.events("bloomreach")), last.status, last.fault


@pytest.mark.parametrize(
    ("options", "status", "body"),
    [
        ({"kind": "status"}, 503, {"success": False, "error": "Injected by the sandbox"}),
        ({"kind": "status", "status": 500, "body": {"a": 1}}, 500, {"a": 1}),
        ({"kind": "failure"}, 200, {"success": False, "errors": ["Injected by the sandbox"]}),
        ({"kind": "wrong_type"}, 200, ["ok"]),
        ({"kind": "huge", "size": 1_000_000}, 200, "x" * 999_998),
    ],
)
def test_answers_in_place_of_the_true_one(
    events_sandbox: Sandbox, client: httpx.Client, options: dict[str, Any], status: int, body: Any
) -> None:
    events_sandbox.fault(**options)
    answer = send(client)
    assert (answer.status_code, answer.json()) == (status, body)
    assert outcome(events_sandbox) == (0, status, options["kind"])


@pytest.mark.parametrize("status", [200, 403, 502])
def test_html_page(events_sandbox: Sandbox, client: httpx.Client, status: int) -> None:
    events_sandbox.fault("html", status=status)
    answer = send(client)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert answer.text.startswith("<!DOCTYPE html>")


def test_empty_body(events_sandbox: Sandbox, client: httpx.Client) -> None:
    events_sandbox.fault("empty")
    answer = send(client)
    assert (answer.status_code, answer.content) == (200, b"")


def test_truncated_json(events_sandbox: Sandbox, client: httpx.Client) -> None:
    events_sandbox.fault("truncated")
    answer = send(client)
    with pytest.raises(ValueError, match=r"JSON|Expecting|Unterminated|delimiter"):
        answer.json()
    assert outcome(events_sandbox) == (1, 200, "truncated")


@pytest.mark.parametrize(("kind", "accepted"), [("cut", 0), ("lost", 1)])
def test_connection_cut_before_the_answer(
    events_sandbox: Sandbox, client: httpx.Client, kind: Any, accepted: int
) -> None:
    events_sandbox.fault(kind, times=1)
    with pytest.raises(httpx.TransportError):
        send(client)
    assert outcome(events_sandbox) == (accepted, 0, kind)
    assert send(client).json() == ACCEPTED


def test_connection_cut_in_mid_answer(events_sandbox: Sandbox, client: httpx.Client) -> None:
    events_sandbox.fault("cut_answer")
    with pytest.raises(httpx.RemoteProtocolError, match="complete message body"):
        send(client)
    assert outcome(events_sandbox) == (1, 200, "cut_answer")


def test_delay(events_sandbox: Sandbox, client: httpx.Client) -> None:
    events_sandbox.fault("delay", seconds=0.05)
    started = time.monotonic()
    assert send(client).json() == ACCEPTED
    assert time.monotonic() - started >= 0.05


def test_a_client_that_gives_up_has_been_heard(events_sandbox: Sandbox, client: httpx.Client) -> None:
    events_sandbox.fault("delay", seconds=600)
    with pytest.raises(httpx.ReadTimeout):
        send(client, timeout=0.1)
    assert len(events_sandbox.events("bloomreach")) == 1


def test_dribble(events_sandbox: Sandbox, client: httpx.Client) -> None:
    events_sandbox.fault("dribble", seconds=0.001)
    with client.stream("POST", PATH, json=EVENT, auth=KEYS) as answer:
        chunks = list(answer.iter_raw())
    assert len(chunks) > 1
    assert b"".join(chunks) == b'{"errors":[],"success":true}'


def test_dribble_stops_when_the_client_leaves() -> None:
    with Sandbox() as sandbox, socket.create_connection(("127.0.0.1", sandbox.port)) as connection:
        sandbox.fault("dribble", seconds=600)
        connection.sendall(b"GET /event HTTP/1.1\r\nhost: sandbox\r\n\r\n")
        assert connection.recv(1) == b"H"


@pytest.mark.parametrize(
    ("options", "header"), [({"retry_after": 7}, "7"), ({"retry_after": "soon"}, "soon"), ({}, None)]
)
def test_retry_after(
    events_sandbox: Sandbox, client: httpx.Client, options: dict[str, Any], header: str | None
) -> None:
    events_sandbox.fault("status", status=429, **options)
    answer = send(client)
    assert (answer.status_code, answer.headers.get("retry-after")) == (429, header)


def test_retry_after_as_a_date(events_sandbox: Sandbox, client: httpx.Client) -> None:
    events_sandbox.fault("status", status=429, retry_after=90, retry_after_date=True)
    at = parsedate_to_datetime(send(client).headers["retry-after"])
    assert 85 <= at.timestamp() - time.time() <= 90


def test_accepted_though_the_answer_says_otherwise(events_sandbox: Sandbox, client: httpx.Client) -> None:
    events_sandbox.fault("html", accepted=True)
    assert send(client).status_code == 502
    assert len(events_sandbox.events("bloomreach")) == 1


def test_late_and_not_accepted(events_sandbox: Sandbox, client: httpx.Client) -> None:
    events_sandbox.fault("delay", seconds=0, accepted=False)
    assert send(client).status_code == 503
    assert not events_sandbox.events("bloomreach")


@pytest.mark.parametrize(
    ("options", "hit"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"after": 2}, [2, 3, 4, 5]),
        ({"times": 2}, [0, 1]),
        ({"every": 3}, [2, 5]),
        ({"after": 1, "every": 2, "times": 1}, [2]),
        ({"probability": 0.0}, []),
        ({"vendor": "bloomreach", "method": "POST", "path": "*/customers/events"}, [0, 1, 2, 3, 4, 5]),
        ({"vendor": "webengage"}, []),
        ({"method": "GET"}, []),
        ({"path": "*/batch"}, []),
    ],
)
def test_which_requests_are_hit(
    events_sandbox: Sandbox, client: httpx.Client, options: dict[str, Any], hit: list[int]
) -> None:
    rule = events_sandbox.fault("status", **options)
    assert [n for n in range(6) if send(client).status_code == 503] == hit
    assert rule.fired == len(hit)


def test_probability_is_reproducible(events_sandbox: Sandbox, client: httpx.Client) -> None:
    def statuses() -> list[int]:
        events_sandbox.clear_faults()
        events_sandbox.fault("status", probability=0.5, seed=7)
        return [send(client).status_code for _ in range(20)]

    first = statuses()
    assert set(first) == {200, 503}
    assert statuses() == first


def test_the_first_rule_that_fires_wins(events_sandbox: Sandbox, client: httpx.Client) -> None:
    events_sandbox.fault("status", status=500, times=1)
    events_sandbox.fault("status", status=502)
    assert [send(client).status_code for _ in range(2)] == [500, 502]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"kind": "nonsense"}, ValueError),
        ({"kind": "cut", "every": 0}, ValueError),
        ({"kind": "cut", "vendor": "nobody"}, ValueError),
        ({"kind": "cut", "nonsense": 1}, TypeError),
    ],
)
def test_meaningless_rules(events_sandbox: Sandbox, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        events_sandbox.fault(**options)


def test_shown_without_defaults() -> None:
    assert Fault("cut", vendor="webengage").as_dict() == {
        "kind": "cut",
        "vendor": "webengage",
        "matched": 0,
        "fired": 0,
    }
