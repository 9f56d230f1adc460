"""Events in a JSON Lines file: those that were rejected, and any others."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_events.delivery.sinks import rejected_line
from airflow_provider_events.events import REJECTED_SCHEMA, Event, Record, Rejection
from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.sources.lines import LineRecords, is_lines_uri
from tests.conftest import IDENTITY_KEYS
from tests.delivery.harness import vendor_at

AT = datetime(2026, 3, 1, 9, 30, 0, 123456, tzinfo=UTC)
EVENT = Event("order_paid", {"registered": "c-1"}, AT, {"total": 39.8, "items": [1, {"a": None}]}, "order-1")


def rejected(event: Event | None = EVENT, row: int = 7, vendor: str = "bloomreach", **changes: Any) -> bytes:
    """A line as a delivery writes it."""
    line = json.loads(rejected_line(vendor, Record(row, event, {"n": row}), Rejection(row, "E1", "too old")))
    return json.dumps({**line, **changes}).encode() + b"\n"


def read(tmp_path: Path, *lines: bytes, vendor: str = "bloomreach") -> list[Record]:
    """The records of a file of these lines."""
    path = tmp_path / "rejected.jsonl"
    path.write_bytes(b"".join(lines))
    return [record for chunk in LineRecords(str(path), vendor).records() for record in chunk]


def test_a_rejected_event_comes_back_as_it_was(tmp_path: Path) -> None:
    (record,) = read(tmp_path, rejected())
    assert record == Record(1, EVENT, {"n": 7})


@given(
    st.dictionaries(
        st.text(min_size=1).filter(lambda name: name.isprintable()),
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"])),
        max_size=5,
    ),
    st.datetimes(timezones=st.just(UTC)),
    st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip),
)  # fmt: skip
def test_every_event_survives_the_file(properties: dict[str, Any], at: datetime, key: str | None) -> None:
    event = Event("e", {"registered": "c", "cookie": "k"}, at, properties, key)
    line = rejected_line("bloomreach", Record(1, event), Rejection(1, "E1", "too old"))
    record = LineRecords("unused", "bloomreach")._record(1, line)
    assert record.fault is None
    assert record.event == event


def test_a_column_type_in_the_row_does_not_matter(tmp_path: Path) -> None:
    line = rejected_line(
        "bloomreach", Record(1, EVENT, {"total": Decimal("1.10"), "raw": b"\xff"}), Rejection(1, "E", "r")
    )
    (record,) = read(tmp_path, line)
    assert record.event == EVENT


@pytest.mark.parametrize("vendor", list(IDENTITY_KEYS))
@pytest.mark.parametrize(
    "value",
    [
        Decimal("39.80"), Decimal("7"), 2**60, True, 1.5, "39.80", date(2026, 3, 1), UUID(int=5), b"x",
        timedelta(days=1),
        {"a": [Decimal("1.5"), None]},
    ],
)  # fmt: skip
def test_a_replayed_event_has_the_bytes_of_the_original(vendor: str, value: Any, events_sandbox: Any) -> None:
    """A NUMERIC column that was a number must not come back as text."""
    target = vendor_at(events_sandbox, vendor)
    event = Event("e", {IDENTITY_KEYS[vendor]: "c-1"}, AT, {"value": value})
    line = rejected_line(vendor, Record(1, event), Rejection(1, "E1", "too old"))
    again = LineRecords("unused", vendor)._record(1, line).event
    assert again is not None
    assert target.encode(again) == target.encode(event)


@pytest.mark.parametrize("vendor", ["webengage", "bloomreach"])
def test_a_replayed_time_is_the_same_moment(vendor: str, events_sandbox: Any) -> None:
    """WebEngage wants milliseconds and gets them; the others take both."""
    target = vendor_at(events_sandbox, vendor)
    for moment in (AT.replace(microsecond=0), AT.replace(microsecond=120_000)):
        event = Event("e", {IDENTITY_KEYS[vendor]: "c-1"}, AT, {"value": moment})
        line = rejected_line(vendor, Record(1, event), Rejection(1, "E1", "too old"))
        again = LineRecords("unused", vendor)._record(1, line).event
        assert again is not None
        assert datetime.fromisoformat(again.properties["value"]) == moment
        if vendor == "webengage":
            assert target.encode(again) == target.encode(event)


@pytest.mark.parametrize("value", [float("nan"), 2**70, object(), Decimal("NaN")])
def test_what_has_no_place_in_json_is_no_event_to_replay(value: Any, tmp_path: Path) -> None:
    """Else it would come back as null or as text, and wipe or change a value at the vendor."""
    event = Event("e", {"registered": "c"}, AT, {"value": value})
    line = rejected_line("bloomreach", Record(1, event), Rejection(1, "invalid", "no place in JSON"))
    (record,) = read(tmp_path, line)
    assert "the row never became an event" in str(record.fault)
    assert record.data is not None
    assert record.data["identity"] == {"registered": "c"}


def test_plain_events_are_taken_as_well(tmp_path: Path) -> None:
    """One object a line, with the fields of `Event`: what an export writes."""
    (record,) = read(tmp_path, b'{"name": "e", "identity": {"registered": "c"}, "properties": null}\n')
    assert record.event == Event("e", {"registered": "c"})


def test_line_numbers_are_row_numbers_and_blank_lines_count(tmp_path: Path) -> None:
    records = read(tmp_path, b"\n", rejected(), b"  \r\n", rejected(), b"\n")
    assert [record.row for record in records] == [2, 4]


def test_many_lines_come_in_chunks(tmp_path: Path) -> None:
    path = tmp_path / "rejected.jsonl"
    path.write_bytes(rejected() * 1201)
    assert [len(chunk) for chunk in LineRecords(str(path), "bloomreach").records()] == [500, 500, 201]


def test_an_empty_file_holds_nothing(tmp_path: Path) -> None:
    assert read(tmp_path) == []


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{\n", "line: is not JSON"),
        (b"\xff\xfe\n", "line: is not JSON"),
        (b"[1]\n", "line: has to be a JSON object, not list"),
        (b"7\n", "line: has to be a JSON object"),
        (b'"name"\n', "line: has to be a JSON object"),
        (b'{"name": "e"}\n', "identity: missing"),
        (b'{"name": "e", "identity": {"a": "b"}, "colour": 1}\n', "colour: not a field of an event"),
        (rejected(event=None), "event: the row never became an event: correct it where it comes from"),
        (rejected(row=1)[:-30] + b"\n", "line: is not JSON"),
    ],
)
def test_a_line_that_is_no_event_is_rejected_and_the_others_are_not(line: bytes, words: str, tmp_path: Path) -> None:
    first, second = read(tmp_path, line, rejected())
    assert first.event is None
    assert words in str(first.fault)
    assert second.event == EVENT


def test_events_of_another_vendor_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"line 1 of .* was rejected by 'bloomreach'; this connection leads to "
    ):
        read(tmp_path, rejected(), vendor="webengage")


@pytest.mark.parametrize("version", [REJECTED_SCHEMA + 1, "1", None, True, 1.0])
def test_a_later_schema_is_refused_in_words(version: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"line 1 of .* is of schema version .*; this release reads up to 1"):
        read(tmp_path, rejected(version=version))


@pytest.mark.parametrize("name", ["missing.jsonl", "folder.jsonl"])
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ConfigurationError, match=rf"events: cannot read .*{name}"):
        list(LineRecords(str(tmp_path / name), "bloomreach").records())


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("/data/rejected.jsonl", True),
        ("s3://bucket/a/b.jsonl", True),
        ("[]", False),
        ('[{"name": "x.jsonl"}]\n.jsonl', False),
        ("", False),
        ("None", False),
        ("rejected.json", False),
    ],
)
def test_what_is_the_name_of_a_file(text: str, is_one: bool) -> None:
    assert is_lines_uri(text) is is_one
