"""Embeddables, held to its documents: requests, nested JSON, answers, identities."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_events.contract import Verdict
from airflow_provider_events.events import Event
from airflow_provider_events.exceptions import InvalidEvent
from airflow_provider_events.vendors.base import ConnectionValues
from airflow_provider_events.vendors.embeddables import Embeddables
from tests.vendors.wires import DIALECTS, HTML, answer, one, parsed, sent

EMBEDDABLES = Embeddables(
    ConnectionValues(
        "embeddables_default",
        password="rk_myexampleapikey",
        extra={"project_id": "pr_myexampleproject", "embeddable_id": "flow_myexampleflow"},
    )
)
NEW_YEAR = datetime(2022, 1, 1, tzinfo=UTC)
UNAUTHORIZED, ENTRY_NOT_FOUND, NO_EMBEDDABLE, NO_VERSION = DIALECTS["embeddables"].failures
STORED = {
    "group_id": "group_myexamplegroup",
    "project_id": "pr_myexampleproject",
    "embeddable_id": "flow_myexampleflow",
    "embeddable_version_number": 1,
    "contact_id": "contact_myexamplecontact",
    "entry_id": "entry_myexampleentry",
    "timestamp": "2022-01-01T00:00:00Z",
    "event_type": "custom_event:triggered",
    "custom_event_name": "my_custom_event",
    "custom_event_props": '{ "my_prop": "my_val" }',
}


def event(**changes: Any) -> Event:
    return Event(
        **{"name": "my_custom_event", "identity": {"email": "test@test.com"}, "timestamp": NEW_YEAR, **changes}
    )


def body(**changes: Any) -> Any:
    return parsed(sent(EMBEDDABLES, event(**changes)))


def unnested(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its JSON in strings parsed, so that only its meaning is compared."""
    return {
        **document,
        "custom_event_props": json.loads(document["custom_event_props"]),
        "identifiers": [{**each, "value": json.loads(each["value"])} for each in document["identifiers"]],
    }


DOCUMENTED_REQUESTS = [
    (
        event(properties={"my_prop": "my_val"}),
        {
            "embeddable_id": "flow_myexampleflow",
            "timestamp": "2022-01-01T00:00:00.000Z",
            "custom_event_name": "my_custom_event",
            "custom_event_props": '{ "my_prop": "my_val" }',
            "identifiers": [{"key": "email", "value": '"test@test.com"'}],
        },
    ),
    (
        event(
            name="purchase_completed",
            properties={
                "payload_metrics": {"order_value": 99.99, "revenue": 89.99},
                "payload_dimensions": {"plan": "premium", "bundle": "annual", "purchase_type": "subscription"},
            },
        ),
        {
            "embeddable_id": "flow_myexampleflow",
            "timestamp": "2022-01-01T00:00:00.000Z",
            "custom_event_name": "purchase_completed",
            "custom_event_props": '{"payload_metrics": {"order_value": 99.99, "revenue": 89.99}, '
            '"payload_dimensions": {"plan": "premium", "bundle": "annual", "purchase_type": "subscription"}}',
            "identifiers": [{"key": "email", "value": '"test@test.com"'}],
        },
    ),
]


@pytest.mark.parametrize(("given", "documented"), DOCUMENTED_REQUESTS, ids=["custom event", "structured purchase"])
def test_the_documented_requests(given: Event, documented: dict[str, Any]) -> None:
    request = sent(EMBEDDABLES, given)
    assert (request.method, request.path) == ("POST", "/projects/pr_myexampleproject/events")
    assert unnested(parsed(request)) == unnested(documented)


def test_the_key_travels_in_its_own_header() -> None:
    assert EMBEDDABLES.headers() == {"X-Api-Key": "rk_myexampleapikey"}
    assert EMBEDDABLES.base_url == "https://api.embeddables.com"


@pytest.mark.parametrize(
    ("value", "on_the_wire"),
    [
        ("test@test.com", '"test@test.com"'),
        (123, "123"),
        ("123", '"123"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("zoë@example.com", '"zoë@example.com"'),
    ],
)
def test_an_identifier_is_json_in_a_string_once(value: str | int, on_the_wire: str) -> None:
    assert body(identity={"user_key": value})["identifiers"] == [{"key": "user_key", "value": on_the_wire}]


def test_the_wrong_forms_of_an_identifier_are_never_sent() -> None:
    [identifier] = body()["identifiers"]
    unquoted, doubly_escaped = "test@test.com", json.dumps(json.dumps("test@test.com"))
    assert identifier["value"] not in (unquoted, doubly_escaped, '"\\"test@test.com\\""')


@pytest.mark.parametrize("properties", [{}, {"a": None}, {"a": [1, {"b": "c"}]}, {"q": 'say "hi"'}], ids=str)
def test_properties_are_one_json_document_in_a_string(properties: dict[str, Any]) -> None:
    props = body(properties=properties)["custom_event_props"]
    assert isinstance(props, str)
    assert json.loads(props) == properties


def test_every_required_field_is_a_string_or_the_list_of_identifiers() -> None:
    sent_fields = body(identity={"email": "test@test.com", "embeddable_id": 17})
    assert {name: type(value) for name, value in sent_fields.items()} == {
        "embeddable_id": str,
        "timestamp": str,
        "custom_event_name": str,
        "custom_event_props": str,
        "identifiers": list,
    }


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (NEW_YEAR, "2022-01-01T00:00:00.000Z"),
        (NEW_YEAR.replace(microsecond=999), "2022-01-01T00:00:00.000Z"),
        (NEW_YEAR.replace(microsecond=123456), "2022-01-01T00:00:00.123Z"),
        (datetime(2022, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), "2022-01-01T00:00:00.000Z"),
        (datetime(2021, 12, 31, 18, 30, tzinfo=timezone(-timedelta(hours=5.5))), "2022-01-01T00:00:00.000Z"),
        ("2022-01-01T02:00:00+02:00", "2022-01-01T00:00:00.000Z"),
    ],
)
def test_times_are_utc_in_milliseconds(moment: Any, text: str) -> None:
    assert body(timestamp=moment)["timestamp"] == text


def test_the_embeddable_of_the_event_comes_before_the_connections() -> None:
    assert body(identity={"email": "test@test.com", "embeddable_id": "flow_other"})["embeddable_id"] == "flow_other"


def test_an_event_without_an_embeddable_is_refused() -> None:
    without = Embeddables(ConnectionValues("c", password="rk_x", extra={"project_id": "pr_x"}))
    with pytest.raises(InvalidEvent, match=r"identity\.embeddable_id: .*'Embeddable ID'"):
        without.encode(event())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"identity": {"email": "a@example.com", "phone": "1"}}, "identity"),
        ({"identity": {"embeddable_id": "flow_x"}}, "identity"),
        ({"timestamp": None}, "timestamp"),
        ({"name": "Purchase"}, "name"),
        ({"name": "order placed"}, "name"),
        ({"name": "order-placed"}, "name"),
        ({"name": "1st_order"}, "name"),
        ({"name": "_order"}, "name"),
        ({"name": "ordér"}, "name"),
        ({"name": "order\n"}, "name"),
    ],
    ids=str,
)
def test_what_the_vendor_would_not_take_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidEvent) as refusal:
        EMBEDDABLES.encode(event(**changes))
    assert refusal.value.field == field


@pytest.mark.parametrize("name", ["a", "order", "order_placed_2", "a" * 500])
def test_snake_case_names_pass(name: str) -> None:
    assert body(name=name)["custom_event_name"] == name


def test_events_go_one_by_one_without_a_published_quota() -> None:
    assert Embeddables.max_batch_size == 1
    assert EMBEDDABLES.quota(1) is None
    assert "none" in Embeddables.deduplication


ANSWERS: list[tuple[str, int, Any, Verdict, str]] = [
    ("stored", 200, STORED, Verdict.DELIVERED, ""),
    ("required fields only", 200, {"entry_id": "entry_1"}, Verdict.DELIVERED, ""),
    ("unauthorized", 401, UNAUTHORIZED, Verdict.FATAL, "unauthorized"),
    ("entry not found", 404, ENTRY_NOT_FOUND, Verdict.MISSING, "entry_not_found"),
    ("without entryId", 404, {"error": ENTRY_NOT_FOUND["error"]}, Verdict.MISSING, "entry_not_found"),
    ("entryId null", 404, {**ENTRY_NOT_FOUND, "entryId": None}, Verdict.MISSING, "entry_not_found"),
    ("upper case", 404, {"error": {"code": "ENTRY_NOT_FOUND"}}, Verdict.MISSING, "ENTRY_NOT_FOUND"),
    ("unknown embeddable", 404, NO_EMBEDDABLE, Verdict.REJECTED, "embeddable_does_not_exist"),
    ("unknown version", 405, NO_VERSION, Verdict.FATAL, "embeddable_version_does_not_exist"),
    ("another 404", 404, {"error": {"code": "not_found", "message": "m"}}, Verdict.FATAL, "not_found"),
    ("404 page", 404, HTML, Verdict.FATAL, "http_404"),
    ("404 empty", 404, b"", Verdict.FATAL, "http_404"),
    ("error as text", 404, {"error": "entry_not_found"}, Verdict.FATAL, "http_404"),
    ("error as list", 404, {"error": ["entry_not_found"]}, Verdict.FATAL, "http_404"),
    ("code as list", 404, {"error": {"code": ["entry_not_found"]}}, Verdict.FATAL, "http_404"),
    ("code as number", 404, {"error": {"code": 404}}, Verdict.FATAL, "http_404"),
    ("bad request", 400, {"error": {"code": "bad_request", "message": "m"}}, Verdict.REJECTED, "bad_request"),
    ("unprocessable", 422, {"error": {"code": "validation", "message": "m"}}, Verdict.REJECTED, "validation"),
    ("200 that says failure", 200, {"error": {"code": "bad_props"}}, Verdict.REJECTED, "bad_props"),
    ("200 that says both", 200, {**STORED, "error": {"code": "bad_props"}}, Verdict.REJECTED, "bad_props"),
    ("200 that says missing", 200, ENTRY_NOT_FOUND, Verdict.MISSING, "entry_not_found"),
    ("error null", 200, {**STORED, "error": None}, Verdict.DELIVERED, ""),
    ("entry_id missing", 200, {"project_id": "pr_x"}, Verdict.RETRY, "http_200"),
    ("entry_id null", 200, {**STORED, "entry_id": None}, Verdict.RETRY, "http_200"),
    ("entry_id number", 200, {**STORED, "entry_id": 5}, Verdict.RETRY, "http_200"),
    ("in a list", 200, [STORED], Verdict.RETRY, "http_200"),
    ("cut off", 200, json.dumps(STORED).encode()[:-1], Verdict.RETRY, "http_200"),
]


@pytest.mark.parametrize(
    ("status", "said", "verdict", "code"), [row[1:] for row in ANSWERS], ids=[r[0] for r in ANSWERS]
)
def test_answers(status: int, said: Any, verdict: Verdict, code: str) -> None:
    outcome = one(EMBEDDABLES.read(answer(status, said), 1))
    assert (outcome.verdict, outcome.code) == (verdict, code)


def test_a_receipt_names_the_entry() -> None:
    assert one(EMBEDDABLES.read(answer(200, STORED), 1)).reference == "entry_myexampleentry"


def test_the_connection_test_lists_embeddables_and_no_customers() -> None:
    probe = EMBEDDABLES.probe()
    assert (probe.method, probe.path, probe.body) == ("GET", "/projects/pr_myexampleproject/embeddables", None)


LISTED = [
    {
        "embeddable_id": "flow_myexampleembeddable_1",
        "title": "My Example Embeddable 1",
        "group_id": "flow_myexamplegroup",
        "project_id": "pr_myexampleproject",
    }
]


@pytest.mark.parametrize(
    ("status", "said", "verdict"),
    [
        (200, LISTED, Verdict.DELIVERED),
        (200, [], Verdict.DELIVERED),
        (200, {}, Verdict.RETRY),
        (200, STORED, Verdict.RETRY),
        (200, HTML, Verdict.RETRY),
        (401, UNAUTHORIZED, Verdict.FATAL),
        (404, b"", Verdict.FATAL),
        (429, b"", Verdict.RETRY),
    ],
)
def test_answers_to_the_connection_test(status: int, said: Any, verdict: Verdict) -> None:
    assert EMBEDDABLES.read_probe(answer(status, said)).verdict is verdict
