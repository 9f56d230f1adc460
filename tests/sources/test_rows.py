"""Rows and events become records: numbered, in order, none lost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import count, islice
from typing import Any, cast

import pytest

from airflow_provider_events.events import Event, Record
from airflow_provider_events.exceptions import InvalidEvent, MappingError
from airflow_provider_events.sources.mapping import EventMapping
from airflow_provider_events.sources.rows import CHUNK_SIZE, EventRecords, SqlRecords
from airflow_provider_events.sources.sql import RowChunk, SqlSource

FIELDS: dict[str, Any] = {"name": "purchase", "identity": {"email": "ada@example.com"}}
MAPPING: dict[str, Any] = {"name": "purchase", "identity": {"email": "user_email"}}
NAIVE = datetime(2026, 3, 1, 9, 30)


def flat(chunks: Iterator[Sequence[Record]]) -> list[Record]:
    return [record for chunk in chunks for record in chunk]


def of_events(events: Iterable[Any], mapping: Any = None) -> Iterator[Sequence[Record]]:
    return EventRecords(events, mapping).records()


class Query:
    """A query's chunks as they are given, behind the key that is asked for."""

    bounds_with_offset: tuple[str, ...] = ()

    def __init__(self, *chunks: RowChunk) -> None:
        self._chunks = chunks

    def chunks(self, *, after: Any = None, first_row: int = 1) -> Iterator[RowChunk]:
        for chunk in self._chunks:
            yield RowChunk(chunk.columns, [row for row in chunk.rows if after is None or row[-1] > after])


def of_query(*chunks: RowChunk, key_column: str | None = None, **options: Any) -> SqlRecords:
    return SqlRecords(cast(SqlSource, Query(*chunks)), EventMapping.of({**MAPPING, **options}), key_column)


def chunk(*rows: tuple[Any, ...], columns: tuple[str, ...] = ("user_email", "total")) -> RowChunk:
    return RowChunk(columns, rows)


# -- events ------------------------------------------------------------------------------------------------------------


def test_events_and_their_dictionaries_are_numbered_from_one() -> None:
    event = Event(**FIELDS)
    assert flat(of_events([event, FIELDS])) == [Record(1, event), Record(2, event)]


@pytest.mark.parametrize(("given", "total"), [([FIELDS] * 3, 3), ((), 0), (iter([FIELDS]), None)])
def test_events_with_a_length_are_known_in_number(given: Iterable[Any], total: int | None) -> None:
    assert EventRecords(given).total == total


def test_no_events_are_no_records() -> None:
    assert list(of_events([])) == []
    assert list(of_events([], MAPPING)) == []


@pytest.mark.parametrize("total", [1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 3 * CHUNK_SIZE])
def test_chunks_lose_nothing(total: int) -> None:
    chunks = list(of_events([{**FIELDS, "id": n} for n in range(1, total + 1)]))
    assert max(len(each) for each in chunks) <= CHUNK_SIZE
    records = [record for each in chunks for record in each]
    assert [record.row for record in records] == list(range(1, total + 1))
    assert [record.event and record.event.id for record in records] == [str(n) for n in range(1, total + 1)]


def test_an_endless_generator_is_read_chunk_by_chunk() -> None:
    taken = 0

    def endless() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for n in count(1):
            taken = n
            yield {**FIELDS, "id": n}

    lengths = [1, 2, 4, 8, 16, 32, 64, 128, 256, CHUNK_SIZE, CHUNK_SIZE]
    assert [len(chunk) for chunk in islice(of_events(endless()), len(lengths))] == lengths
    assert taken == sum(lengths)


@pytest.mark.parametrize("mapping", [None, MAPPING])
def test_a_generator_that_pauses_has_its_first_events_read_before(mapping: Any) -> None:
    paused = False
    given = {"user_email": "a@example.com"} if mapping else FIELDS

    def pausing() -> Iterator[dict[str, Any]]:
        nonlocal paused
        yield from [given] * 3
        paused = True
        yield given

    chunks = iter(of_events(pausing(), mapping))
    assert [len(next(chunks)) for _ in range(2)] == [1, 2]
    assert not paused
    assert sum(map(len, chunks)) == 1


@pytest.mark.parametrize(
    ("given", "field", "data"),
    [
        ({"name": "purchase"}, "identity", {"name": "purchase"}),
        ({**FIELDS, "props": 1}, "props", {**FIELDS, "props": 1}),
        ("purchase", "event", None),
        (None, "event", None),
    ],
    ids=str,
)
def test_what_is_no_event_keeps_its_row_and_the_reason(given: Any, field: str, data: Any) -> None:
    good, bad, last = flat(of_events([FIELDS, given, FIELDS]))
    assert (good.row, last.row) == (1, 3)
    assert (bad.row, bad.event, bad.data) == (2, None, data)
    assert bad.fault is not None
    assert bad.fault.field == field


# -- plain rows --------------------------------------------------------------------------------------------------------


def test_rows_become_events_by_the_mapping_and_keep_their_columns() -> None:
    row = {"user_email": "ada@example.com", "total": 39.8}
    [record] = flat(of_events([row], MAPPING))
    assert record[:4] == Record(1, Event("purchase", {"email": "ada@example.com"}, None, {"total": 39.8}), row)[:4]
    assert EventMapping.of(json.loads(record.mapping or "")) == EventMapping.of(MAPPING)


def test_rows_need_not_all_have_the_same_columns() -> None:
    rows = [
        {"user_email": "a@example.com", "total": 1},
        {"total": 2, "user_email": "b@example.com"},
        {"user_email": "c@example.com", "coupon": "x"},
    ]
    events = [record.event for record in flat(of_events(rows, EventMapping.of(MAPPING)))]
    assert [(event.identity["email"], event.properties) for event in events if event] == [
        ("a@example.com", {"total": 1}),
        ("b@example.com", {"total": 2}),
        ("c@example.com", {"coupon": "x"}),
    ]


def test_a_column_missing_from_the_first_row_is_an_error_before_the_first_request() -> None:
    with pytest.raises(MappingError, match=r"'user_email'.*did you mean 'useremail'"):
        flat(of_events([{"useremail": "a@example.com"}], MAPPING))


def test_a_column_missing_from_a_later_row_rejects_that_row() -> None:
    good, bad = flat(of_events([{"user_email": "a@example.com"}, {"total": 2}], MAPPING))
    assert good.event is not None
    assert (bad.row, bad.event, bad.data) == (2, None, {"total": 2})
    assert bad.fault is not None
    assert (bad.fault.field, "user_email" in bad.fault.reason) == ("row", True)


def test_times_without_a_zone_in_the_first_row_are_an_error() -> None:
    with pytest.raises(MappingError, match='"timezone"'):
        flat(of_events([{"user_email": "a@example.com", "at": NAIVE}], {**MAPPING, "timestamp": "at"}))


@pytest.mark.parametrize("given", [None, "row", ["user_email"], 7, Event(**FIELDS)], ids=str)
def test_what_is_no_row_is_rejected(given: Any) -> None:
    first, bad = flat(of_events([{"user_email": "a@example.com"}, given], MAPPING))
    assert first.event is not None
    assert (bad.row, bad.event, bad.data) == (2, None, None)
    assert bad.fault is not None
    assert bad.fault.field == "row"


def test_a_row_that_is_no_event_is_rejected_with_its_data() -> None:
    row = {"user_email": None, "total": 2}
    [record] = flat(of_events([row], MAPPING))
    assert (record.event, record.data) == (None, row)
    assert isinstance(record.fault, InvalidEvent)


@pytest.mark.parametrize("columns", [{7: "x"}, {None: "x"}, {("a",): "x"}], ids=str)
def test_columns_that_are_no_texts_reject_the_row(columns: dict[Any, Any]) -> None:
    rows: list[Any] = [{"user_email": "a@example.com"}, {"user_email": "b@example.com", **columns}, {**columns}]
    good, *bad = flat(of_events(rows, MAPPING))
    assert good.event is not None
    assert [(record.row, record.event) for record in bad] == [(2, None), (3, None)]


def test_many_sets_of_columns_need_no_more_memory() -> None:
    rows = [{"user_email": "a@example.com", f"c{n}": n} for n in range(3 * CHUNK_SIZE)]
    events = [record.event for record in flat(of_events(rows, MAPPING))]
    assert [event.properties for event in events if event] == [{f"c{n}": n} for n in range(3 * CHUNK_SIZE)]


# -- rows of a query ---------------------------------------------------------------------------------------------------

ADA, GRACE = ("ada@example.com", 1), ("grace@example.com", 2)


def test_rows_of_a_query_are_numbered_over_all_chunks() -> None:
    records = flat(of_query(chunk(ADA), chunk(), chunk(GRACE, (None, 3))).records())
    assert [record.row for record in records] == [1, 2, 3]
    assert [record.data for record in records] == [
        {"user_email": "ada@example.com", "total": 1},
        {"user_email": "grace@example.com", "total": 2},
        {"user_email": None, "total": 3},
    ]
    assert [record.fault and record.fault.field for record in records] == [None, None, "identity"]


def test_a_query_without_rows_still_needs_the_columns() -> None:
    with pytest.raises(MappingError, match="'user_email'"):
        flat(of_query(chunk(columns=("email",))).records())
    assert flat(of_query(chunk()).records()) == []
    assert flat(of_query().records()) == []


def test_times_without_a_zone_are_an_error_with_the_first_rows() -> None:
    with pytest.raises(MappingError, match="'total'"):
        flat(of_query(chunk(), chunk(("ada@example.com", NAIVE)), timestamp="total").records())


def test_a_time_without_a_zone_in_a_later_chunk_is_no_event() -> None:
    chunks = [chunk(("ada@example.com", NAIVE.replace(tzinfo=UTC))), chunk(("grace@example.com", NAIVE))]
    good, bad = flat(of_query(*chunks, timestamp="total").records())
    assert good.event is not None
    assert bad.fault is not None
    assert bad.fault.field == "timestamp"


@pytest.mark.parametrize("key_column", ["total", "TOTAL", "Total"])
def test_a_later_try_starts_behind_a_key_with_the_next_number(key_column: str) -> None:
    records = of_query(chunk(ADA, GRACE), key_column=key_column)
    [both] = records.records()
    assert records.keyed
    assert records.keys(both) == [1, 2]
    [rest] = records.records(after=1, first_row=both[1].row)
    assert [(record.row, record.data) for record in rest] == [(2, {"user_email": "grace@example.com", "total": 2})]


def test_without_a_key_column_there_is_no_key() -> None:
    records = of_query(chunk(ADA))
    assert not records.keyed
    assert records.keys(flat(records.records())) is None


def test_events_can_be_numbered_anew_but_have_no_key() -> None:
    records = EventRecords([FIELDS, FIELDS])
    assert not records.keyed
    [numbered] = records.records(first_row=42)
    assert [record.row for record in numbered] == [42, 43]


def test_a_wrong_mapping_is_an_error_before_the_first_row() -> None:
    with pytest.raises(MappingError, match="name_column"):
        EventRecords([], {"identity": {"email": "user_email"}})
