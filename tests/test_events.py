"""The words of the house: an event, its receipt, a rejection, a report."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_events.events import DeliveryReport, Event, Receipt, Record, Rejection
from airflow_provider_events.exceptions import InvalidEvent

T = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
LEAST: dict[Any, Any] = {"name": "purchase", "identity": {"email": "ada@example.com"}}


def refused(**changes: Any) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as refusal:
        Event(**{**LEAST, **changes})
    return refusal.value


def test_the_least_event() -> None:
    event = Event(**LEAST)
    assert (event.timestamp, event.properties, event.id) == (None, {}, None)


def test_events_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Event(**LEAST).name = "other"  # type: ignore[misc]  # that it is refused


def test_the_repr_shows_the_name_and_no_customer() -> None:
    event = Event("purchase", {"email": "ada@example.com"}, T, {"city": "London"}, "order-1")
    assert repr(event) == str(event) == "<Event 'purchase'>"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "  \t"}, "name"),
        ({"name": None}, "name"),
        ({"name": 7}, "name"),
        ({"identity": None}, "identity"),
        ({"identity": "ada@example.com"}, "identity"),
        ({"identity": [("email", "ada@example.com")]}, "identity"),
        ({"identity": {}}, "identity"),
        ({"identity": {"": "ada@example.com"}}, "identity"),
        ({"identity": {7: "ada@example.com"}}, "identity"),
        ({"identity": {"email": ""}}, "identity.email"),
        ({"identity": {"email": " \n"}}, "identity.email"),
        ({"identity": {"email": None}}, "identity.email"),
        ({"identity": {"email": True}}, "identity.email"),
        ({"identity": {"email": 1.5}}, "identity.email"),
        ({"identity": {"email": ["ada@example.com"]}}, "identity.email"),
        ({"identity": {"email": b"ada@example.com"}}, "identity.email"),
        ({"identity": {"email": "ada@example.com", "phone": ""}}, "identity.phone"),
        ({"timestamp": datetime(2026, 3, 1)}, "timestamp"),
        ({"timestamp": "2026-03-01T09:30:00"}, "timestamp"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": ""}, "timestamp"),
        ({"timestamp": 1772357400}, "timestamp"),
        ({"timestamp": T.date()}, "timestamp"),
        ({"timestamp": datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))}, "timestamp"),
        ({"timestamp": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))}, "timestamp"),
        ({"properties": None}, "properties"),
        ({"properties": [("a", 1)]}, "properties"),
        ({"properties": {7: 1}}, "properties"),
        ({"properties": {"": 1}}, "properties"),
        ({"properties": {None: 1}}, "properties"),
        ({"id": True}, "id"),
        ({"id": 1.5}, "id"),
        ({"id": b"order-1"}, "id"),
        ({"id": ["order-1"]}, "id"),
        ({"id": ""}, "id"),
        ({"id": " "}, "id"),
    ],
    ids=str,
)
def test_what_is_no_event_is_refused_by_field(changes: dict[str, Any], field: str) -> None:
    refusal = refused(**changes)
    assert refusal.field == field
    assert "ada" not in str(refusal)


@pytest.mark.parametrize(
    ("given", "moment"),
    [
        (T, T),
        ("2026-03-01T09:30:00Z", T),
        ("2026-03-01T09:30:00+00:00", T),
        (" 2026-03-01T11:30:00+02:00\n", T),
        ("2026-03-01 09:30:00.123456Z", T.replace(microsecond=123456)),
        ("20260301T093000Z", T),
        (None, None),
    ],
    ids=str,
)
def test_times_are_aware(given: Any, moment: datetime | None) -> None:
    timestamp = Event(**LEAST, timestamp=given).timestamp
    assert timestamp == moment
    assert timestamp is None or timestamp.utcoffset() is not None


@pytest.mark.parametrize(("given", "text"), [("order-1", "order-1"), (7, "7"), (2**70, str(2**70)), (0, "0")])
def test_an_id_is_text(given: Any, text: str) -> None:
    assert Event(**LEAST, id=given).id == text


# -- from_dict ---------------------------------------------------------------------------------------------------------


def test_an_event_of_its_fields() -> None:
    fields = {**LEAST, "timestamp": "2026-03-01T09:30:00Z", "properties": {"total": 39.8}, "id": "order-1"}
    event = Event("purchase", {"email": "ada@example.com"}, T, {"total": 39.8}, "order-1")
    assert Event.from_dict(fields) == event
    assert Event.from_dict(json.loads(json.dumps(fields))) == event
    assert Event.from_dict(event) is event


@pytest.mark.parametrize("absent", ["timestamp", "properties", "id"])
def test_optional_fields_may_be_null(absent: str) -> None:
    assert Event.from_dict({**LEAST, absent: None}) == Event(**LEAST)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (None, "event"),
        ("purchase", "event"),
        ([LEAST], "event"),
        ({}, "name"),
        ({"identity": LEAST["identity"]}, "name"),
        ({"name": "purchase"}, "identity"),
        ({**LEAST, "props": {}}, "props"),
        ({**LEAST, 7: 1}, "7"),
        ({**LEAST, "properties": "total"}, "properties"),
    ],
    ids=str,
)
def test_other_dictionaries_are_refused_by_field(given: object, field: str) -> None:
    with pytest.raises(InvalidEvent) as refusal:
        Event.from_dict(given)
    assert refusal.value.field == field


def test_an_unknown_field_is_answered_with_those_there_are() -> None:
    with pytest.raises(InvalidEvent, match="name, identity, timestamp, properties, id"):
        Event.from_dict({**LEAST, "props": {}})


# -- accounts ----------------------------------------------------------------------------------------------------------


def test_a_report_closes() -> None:
    report = DeliveryReport("webengage", read=15, delivered=5, rejected=4, skipped=3, resumed=2, unsent=1)
    assert report.read == 15


@pytest.mark.parametrize("count", ["read", "delivered", "rejected", "skipped", "resumed", "unsent"])
def test_a_report_that_does_not_close_is_an_error(count: str) -> None:
    with pytest.raises(ValueError, match="do not close"):
        DeliveryReport("webengage", **{count: 1})  # type: ignore[arg-type]  # counts, none of which is a text


def test_a_report_of_less_than_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"do not close: 1 read, but .* \(2, 0, 0, 0, -1\)"):
        DeliveryReport("webengage", read=1, delivered=2, unsent=-1)


def test_a_report_is_an_xcom_of_all_its_fields() -> None:
    reasons, path = {"invalid: name: longer": 1}, "r.jsonl"
    report = DeliveryReport("webengage", read=1, rejected=1, reasons=reasons, rejected_path=path)
    sent = report.to_dict()
    assert json.loads(json.dumps(sent)) == sent
    assert list(sent) == list(DeliveryReport.__dataclass_fields__)
    assert (sent["vendor"], sent["read"], sent["reasons"], sent["rejected_path"]) == ("webengage", 1, reasons, path)


def test_a_receipt_is_an_xcom() -> None:
    receipt = Receipt("embeddables", "0" * 32, 200, reference="entry_1")
    assert json.loads(json.dumps(receipt.to_dict())) == {
        "vendor": "embeddables",
        "event_id": "0" * 32,
        "status": 200,
        "reference": "entry_1",
        "request_id": None,
        "requests": 1,
    }


@pytest.mark.parametrize(
    ("rejection", "summary"),
    [
        (Rejection(7, "http_400", "bad"), "http_400: bad"),
        (Rejection(7, "invalid", "longer than 50 characters", "name"), "invalid: name: longer than 50 characters"),
    ],
)
def test_the_summary_of_a_rejection_is_the_same_for_every_row(rejection: Rejection, summary: str) -> None:
    assert rejection.summary == summary


def test_a_record_is_an_event_or_a_fault() -> None:
    record = Record(1, None, {"email": None}, InvalidEvent("identity", "missing"))
    assert (record.row, record.event, record.data) == (1, None, {"email": None})
