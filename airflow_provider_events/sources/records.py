"""Rows and events become records, chunk by chunk; what cannot be an event keeps its row and the reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from airflow_provider_events.events import Event, Record
from airflow_provider_events.exceptions import InvalidEvent, MappingError
from airflow_provider_events.sources.mapping import EventMapping, RowMapper
from airflow_provider_events.sources.sql import RowChunk
from airflow_provider_events.values import kind

__all__ = ["event_records", "sql_records"]

CHUNK_SIZE = 500


def sql_records(chunks: Iterable[RowChunk], mapping: EventMapping, *, first_row: int = 1) -> Iterator[Sequence[Record]]:
    """Records of a query's rows.

    :param first_row: number of the first row.
    :raises MappingError: a column is not there, or times lack a zone; with the first chunk.
    """
    mapper: RowMapper | None = None
    checked = False
    row = first_row
    for chunk in chunks:
        mapper = mapper or mapping.bind(chunk.columns)
        if chunk.rows and not checked:
            mapper.check_times(chunk.rows)
            checked = True
        yield [_record(row + n, mapper, values, chunk.columns) for n, values in enumerate(chunk.rows)]
        row += len(chunk.rows)


def event_records(
    events: Iterable[Event | Mapping[str, Any]], mapping: EventMapping | Mapping[str, Any] | None = None
) -> Iterator[Sequence[Record]]:
    """Records of what is already in Python: a list, an XCom, a generator.

    :param events: events, or the dictionaries of their fields; with a mapping, rows as dictionaries.
    :raises MappingError: the first row lacks a column of the mapping, or its times lack a zone.
    """
    numbered = enumerate(events, start=1)
    mappers = _Mappers(EventMapping.of(mapping)) if mapping is not None else None
    while chunk := list(islice(numbered, CHUNK_SIZE)):
        yield [_event_record(n, value) if mappers is None else mappers.record(n, value) for n, value in chunk]


def _event_record(row: int, value: Event | Mapping[str, Any]) -> Record:
    try:
        return Record(row, Event.from_dict(value))
    except InvalidEvent as fault:
        return Record(row, None, value if isinstance(value, Mapping) else None, fault)


def _record(row: int, mapper: RowMapper, values: Sequence[Any], columns: Sequence[str]) -> Record:
    data = dict(zip(columns, values, strict=True))
    try:
        return Record(row, mapper.event(values), data)
    except InvalidEvent as fault:
        return Record(row, None, data, fault)


class _Mappers:
    """One mapper for each set of columns; dictionaries need not all have the same."""

    def __init__(self, mapping: EventMapping) -> None:
        self._mapping = mapping
        self._bound: dict[tuple[str, ...], RowMapper] = {}

    def record(self, row: int, data: Any) -> Record:
        if not isinstance(data, Mapping):
            return Record(row, None, None, InvalidEvent("row", f"has to be a mapping of columns, not {kind(data)}"))
        columns = tuple(data)
        values = tuple(data.values())
        mapper = self._bound.get(columns)
        if mapper is None:
            try:
                mapper = self._mapping.bind(columns)
                mapper.check_times([values])
            except MappingError as error:
                if not self._bound:
                    raise
                return Record(row, None, data, InvalidEvent("row", str(error)))
            if len(self._bound) < CHUNK_SIZE:
                self._bound[columns] = mapper
        return _record(row, mapper, values, columns)
