"""Events in a JSON Lines file: those that were rejected, and any others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_events.delivery.dead_letter import rejected_line
from airflow_provider_events.events import NOBODY, REJECTED_SCHEMA, Event, Record, Rejection
from airflow_provider_events.exceptions import ConfigurationError, InvalidEvent, MappingError
from airflow_provider_events.row_data import plain_row, restored
from airflow_provider_events.sources.jsonl import LineRecords, is_lines_uri
from airflow_provider_events.sources.mapping import EventMapping
from airflow_provider_events.sources.rows import Mappers
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
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),  # the edges mean infinity
    st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
        lambda key: key.strip() and key not in NOBODY
    ),
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


NO_JSON: list[Any] = [
    float("nan"), float("-inf"), 2**70, 10**5000, object(), Decimal("NaN"), "\ud800", {1, 2}, {("a", "b"): 1}, {1: 2},
    [{"deep": float("nan")}], {"a/b": {"~": Decimal("Infinity")}}, datetime(2026, 3, 1), 1j, datetime.max,
]  # fmt: skip


@pytest.mark.parametrize("value", NO_JSON, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("rounds", [1, 3])
def test_what_has_no_place_in_json_is_no_event_to_replay(
    value: Any, rounds: int, tmp_path: Path, events_sandbox: Any
) -> None:
    """Else it would come back as null or as text, and wipe or change a value at the vendor."""
    target = vendor_at(events_sandbox, "bloomreach")
    record = Record(1, Event("e", {"registered": "c"}, AT, {"value": value, "fine": 1}))
    for _ in range(rounds):
        line = rejected_line("bloomreach", record, Rejection(1, "invalid", "no place in JSON"))
        (record,) = read(tmp_path, line)
        if record.event is not None:
            with pytest.raises(InvalidEvent):
                target.encode(record.event)
        else:
            assert "JSON has no such value" in str(record.fault)
            assert record.data is not None
            assert record.data["identity"] == {"registered": "c"}


@pytest.mark.parametrize("value", NO_JSON, ids=lambda value: type(value).__name__)
def test_a_correction_makes_an_event_of_it(value: Any, tmp_path: Path) -> None:
    record = Record(1, Event("e", {"registered": "c"}, AT, {"value": value}))
    line = json.loads(rejected_line("bloomreach", record, Rejection(1, "invalid", "no place in JSON")))
    line["data"]["properties"]["value"] = 12.5
    (record,) = read(tmp_path, json.dumps(line).encode() + b"\n")
    assert record.event == Event("e", {"registered": "c"}, AT, {"value": 12.5})


# -- rows that never became an event -----------------------------------------------------------------------------------

MAPPING = {"name": "order_paid", "identity": {"registered": "user"}, "timestamp": "at", "id": "no"}
GOOD = {"user": "c-1", "at": AT, "no": 1, "total": Decimal("39.80"), "day": date(2026, 3, 1), "raw": b"\x00\xff",
        "took": timedelta(seconds=1.5), "key": UUID(int=7), "big": 2**63, "items": [1, {"a": None}]}  # fmt: skip


def mapped(row: Mapping[str, Any], mapping: Mapping[str, Any] = MAPPING, strict: bool = False) -> Record:
    """A row as a query gives it."""
    return Mappers(EventMapping.of(mapping), strict).record(1, row)


def rejected_row(row: Mapping[str, Any], mapping: Mapping[str, Any] = MAPPING) -> dict[str, Any]:
    """Its line."""
    record = mapped(row, mapping)
    assert record.fault is not None
    line = rejected_line("bloomreach", record, Rejection(1, "invalid", str(record.fault)))
    written: dict[str, Any] = json.loads(line)
    assert written["event"] is None
    return written


def replayed(tmp_path: Path, line: Mapping[str, Any], mapping: Any = None) -> Record:
    """The record of a line."""
    path = tmp_path / "rejected.jsonl"
    path.write_text(json.dumps(line))
    ((record,),) = LineRecords(str(path), "bloomreach", mapping and EventMapping.of(mapping)).records()
    return record


def test_a_corrected_row_becomes_the_event_that_its_mapping_would_have_made(tmp_path: Path) -> None:
    line = rejected_row({**GOOD, "user": None})
    line["data"]["user"] = "c-1"
    assert replayed(tmp_path, line).event == mapped(GOOD).event


def test_a_row_that_nobody_corrected_is_rejected_for_the_same_reason_and_can_be_corrected_later(tmp_path: Path) -> None:
    first = rejected_row({**GOOD, "user": None})
    record = replayed(tmp_path, first)
    assert str(record.fault) == first["reason"]
    second = json.loads(rejected_line("bloomreach", record, Rejection(1, "invalid", "again")))
    assert second == {**first, "reason": "again"}
    second["data"]["user"] = "c-1"
    assert replayed(tmp_path, second).event == mapped(GOOD).event


def test_another_mapping_makes_it_an_event(tmp_path: Path) -> None:
    """The mapping was wrong, not the row."""
    line = rejected_row({**GOOD, "user": None, "customer": "c-1"})
    mended = {**MAPPING, "identity": {"registered": "customer"}, "properties": ["total"]}
    event = replayed(tmp_path, line, mended).event
    assert event == Event("order_paid", {"registered": "c-1"}, AT, {"total": Decimal("39.80")}, "1")


def test_plain_rows_of_a_file_are_mapped(tmp_path: Path) -> None:
    """`mapping` beside a file is never passed over in silence."""
    row = {"user": "c-1", "at": AT.isoformat(), "no": 7, "total": 1}
    assert replayed(tmp_path, row, MAPPING).event == Event("order_paid", {"registered": "c-1"}, AT, {"total": 1}, "7")


def test_a_mapping_for_another_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="names the column 'user', which is not there"):
        replayed(tmp_path, {"other": 1}, MAPPING)


def test_a_line_that_was_an_event_stays_the_event_that_it_says(tmp_path: Path) -> None:
    record = replayed(tmp_path, json.loads(rejected()), MAPPING)
    assert record.event == EVENT


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mapping": None}, "or give a mapping"),
        ({"mapping": []}, "mapping: has to be"),
        ({"mapping": {"name": "x"}}, "mapping"),
        ({"mapping": {**MAPPING, "colour": 1}}, "colour"),
        ({"mapping": {**MAPPING, "identity": {"registered": "gone"}}}, "names the column 'gone'"),
        ({"types": []}, "types: has to be a JSON object"),
        ({"types": {"/total": "pickle"}}, "JSON has no such value"),
        ({"types": {"/total": 7}}, "JSON has no such value"),
        ({"types": {"/user": "decimal"}}, "data/user: has to be the text of a decimal"),
        ({"types": {"": "other"}}, "JSON has no such value"),
        ({"data": None}, "nothing to make an event of"),
        ({"data": [1]}, "nothing to make an event of"),
        ({"data": {}}, "names the column 'user'"),
    ],
)
def test_a_line_that_was_corrected_wrongly_hurts_only_itself(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    line = rejected_row({**GOOD, "user": None})
    line["data"]["user"] = "c-1"
    record = replayed(tmp_path, {**line, **change})
    assert record.event is None
    assert words in str(record.fault)


@pytest.mark.parametrize("pointer", ["/none", "/items/9", "/items/x", "/items/1/a/b", "x", "/", "//", "/items/-1"])
def test_types_of_what_is_no_longer_there_do_no_harm(pointer: str, tmp_path: Path) -> None:
    line = rejected_row({**GOOD, "user": None})
    line["data"]["user"] = "c-1"
    line["types"][pointer] = "decimal"
    assert replayed(tmp_path, line).event == mapped(GOOD).event


@given(st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.integers() | st.floats(allow_nan=False) | st.decimals(allow_nan=False, allow_infinity=False) | st.binary()
    | st.datetimes(timezones=st.none() | st.just(UTC)) | st.dates() | st.timedeltas() | st.none()
    | st.lists(st.decimals(allow_nan=False), max_size=3),
    max_size=6,
))  # fmt: skip
def test_every_row_comes_back_as_it_was(row: dict[str, Any]) -> None:
    plain, types = plain_row(row)
    again, fault = restored(json.loads(orjson.dumps(plain)), types)
    assert fault is None
    assert again == row
    assert [type(again[name]) for name in row] == [type(value) for value in row.values()]


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
