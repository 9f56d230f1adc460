"""Rows and events become records, chunk by chunk; what cannot be an event keeps its row and the reason."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from typing import Any, Protocol, TypeVar, overload

from airflow_provider_events.contract import BulkRecords, Codec
from airflow_provider_events.events import Event, Record, nested_hint
from airflow_provider_events.exceptions import ConfigurationError, InvalidEvent, MappingError
from airflow_provider_events.shown import shown_names
from airflow_provider_events.sources.columnar import BulkEncoder
from airflow_provider_events.sources.cursors import RowChunk
from airflow_provider_events.sources.keyset import comparable
from airflow_provider_events.sources.mapping import EventMapping, RowMapper
from airflow_provider_events.values import MAX_DEPTH, kind, plain_cell

__all__ = ["EventRecords", "Mappers", "RowSource", "SqlRecords", "in_chunks"]

T = TypeVar("T")

log = logging.getLogger(__name__)

_STABLE = {str, int, float, bool, type(None), bytes, date, datetime, Decimal}
_PLAIN = _STABLE - {float} | {dict, list}  # `plain_cell` leaves them as they are
CHUNK_SIZE = 500  # rows that are encoded together; more of them cost memory and save nothing


class RowSource(Protocol):
    """Rows of a query; see `SqlSource`."""

    total: int | None

    @property
    def bounds_with_offset(self) -> list[str]: ...

    def chunks(self, *, after: Any | None = None, first_row: int = 1) -> Iterator[RowChunk]: ...

    def count(self, limit: int) -> int: ...


class SqlRecords:
    """The rows of a query as records.

    :param key_column: the column by which `source` reads, so that a later try can start behind a key.
    """

    def __init__(self, source: RowSource, mapping: EventMapping, key_column: str | None = None) -> None:
        self._source = source
        self._mapping = mapping
        self._key_column = key_column

    cursor = None

    @property
    def keyed(self) -> bool:
        """Whether `records` can start behind a key."""
        return self._key_column is not None

    @property
    def total(self) -> int | None:
        """The number of rows, where it is known."""
        return self._source.total

    def count(self, limit: int) -> int:
        """See `SqlSource.count`."""
        return self._source.count(limit)

    def keys(self, records: Sequence[Record]) -> Sequence[Any] | None:
        """The key of each row of a chunk; None without a key column."""
        if self._key_column is None or not isinstance(records, MappedRows):
            return None
        return [comparable(key) for key in records.column(self._key_column)]

    def records(self, after: Any = None, first_row: int = 1) -> Iterator[MappedRows]:
        """All rows, or those behind the key `after`, numbered from `first_row`.

        :raises MappingError: a column is not there, or times lack a zone; with the first chunk.
        """
        if self._mapping.timezone and (bounds := self._source.bounds_with_offset):
            log.warning(
                "the mapping says that times of the query are local ones of %s, and the parameters %s are times with "
                "an offset, which databases drop or convert when they compare them to such a column: the query may "
                "read other hours. Give them in that zone, {{ data_interval_start.in_timezone('%s')"
                ".to_datetime_string() }}",
                self._mapping.timezone,
                shown_names(bounds),
                self._mapping.timezone,
            )
        mapper: RowMapper | None = None
        checked = False
        row = first_row
        for chunk in self._source.chunks(after=after, first_row=first_row):
            if mapper is None:
                mapper = self._mapping.bind(chunk.columns)
                encoder = BulkEncoder(mapper)
            if chunk.rows and not checked:
                mapper.check_times(chunk.rows)
                checked = True
            for at in range(0, len(chunk.rows), CHUNK_SIZE):
                yield MappedRows(row + at, chunk.rows[at : at + CHUNK_SIZE], mapper, encoder)
            row += len(chunk.rows)


class MappedRows(BulkRecords):
    """One chunk of a query as records, each made only when somebody asks for it; or all of them on the wire at once.

    :param first_row: number of the first one.
    :param encoder: that of the chunks before; it knows the kinds of the columns.
    """

    def __init__(self, first_row: int, rows: Sequence[Sequence[Any]], mapper: RowMapper, encoder: BulkEncoder) -> None:
        self.first_row = first_row
        self._rows = rows
        self._mapper = mapper
        self._encoder = encoder

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Record: ...

    @overload
    def __getitem__(self, at: slice) -> MappedRows: ...

    def __getitem__(self, at: int | slice) -> Record | MappedRows:
        if isinstance(at, slice):
            rows = range(len(self))[at]
            return MappedRows(self.first_row + rows.start, self._rows[at], self._mapper, self._encoder)
        position = range(len(self))[at]
        return _record(self.first_row + position, self._mapper, self._rows[position], self._mapper.columns)

    def column(self, name: str) -> list[Any]:
        """The values of one column; databases fold the case of names."""
        columns = self._mapper.columns
        folded = [column.lower() for column in columns]
        at = columns.index(name) if name in columns else folded.index(name.lower())
        return [row[at] for row in self._rows]

    def encoded(self, codec: Codec, sent_at: datetime | None) -> list[bytes | None]:
        """See `BulkEncoder.encode`."""
        return self._encoder.encode(self._rows, codec, sent_at)

    def identity(self, at: int) -> Mapping[str, Any]:
        """See `BulkRecords.identity`."""
        return self._mapper.identity_of(self._rows[at])


class EventRecords:
    """What is already in Python as records: a list, an XCom, a generator, a DataFrame.

    :param events: events, or the dictionaries of their fields; with a mapping, rows as dictionaries. A single one is
        a list of one.
    :raises ConfigurationError: `events` are none.
    :raises MappingError: the first row lacks a column of the mapping, or its times lack a zone.

    `total` is their number, if they have a length.
    """

    cursor = None
    keyed = False

    def __init__(
        self,
        events: Iterable[Event | Mapping[str, Any]] | Event | Mapping[str, Any],
        mapping: EventMapping | Mapping[str, Any] | None = None,
    ) -> None:
        self._events = _several(events)
        self.total = len(self._events) if isinstance(self._events, Sized) else None
        self._mapping = None if mapping is None else EventMapping.of(mapping)

    def keys(self, records: Sequence[Record]) -> None:
        """None: there is no key column."""

    def count(self, limit: int) -> int | None:
        """Their number; None for a generator."""
        return None if self.total is None else min(self.total, limit)

    def records(self, after: Any = None, first_row: int = 1) -> Iterator[Sequence[Record]]:
        """All of them, in chunks of 500; the first ones of a generator are shorter, for it may pause."""
        values = self._events if isinstance(self._events, list | tuple) else map(_safely_taken, self._events)
        numbered = enumerate(values, start=first_row)
        first = 1 if self.total is None else CHUNK_SIZE
        if self._mapping is None:
            return in_chunks((_event_record(row, value) for row, value in numbered), first)
        return Mappers(self._mapping).records(numbered, first)


def in_chunks(items: Iterator[T], first: int = CHUNK_SIZE) -> Iterator[list[T]]:
    """Lists of 500; where the source fails, what came before that comes first.

    :param first: how long the first one is; the next ones are twice as long each.
    """
    failure = None
    size = first
    while failure is None:
        chunk: list[T] = []
        try:
            chunk.extend(islice(items, size))
        except Exception as error:
            failure = error
        if chunk:
            yield chunk
        elif failure is None:
            return
        size = min(2 * size, CHUNK_SIZE)
    raise failure


def _several(events: Any) -> Any:
    """Events one after the other, in whatever they came."""
    if isinstance(events, Event | Mapping):
        return [events]
    if type(events).__name__ == "DataFrame" and hasattr(events, "to_dict"):
        return events.to_dict("records")
    if isinstance(events, str | bytes) or not isinstance(events, Iterable):
        raise ConfigurationError(f"events: has to be a list or another iterable of events, not {kind(events)}")
    return events


def _safely_taken(value: Any) -> Any:
    try:
        return _taken(value)
    except Exception:  # as an event it finds its words
        return value


def _taken(value: Any, depth: int = 0) -> Any:
    """A copy of whatever may still be changed: a generator may hand out the same dictionary again and again."""
    if isinstance(value, Event):
        taken = object.__new__(Event)  # `replace` would check everything again
        for name in Event.__slots__:
            object.__setattr__(taken, name, getattr(value, name))
        object.__setattr__(taken, "properties", _taken(value.properties))
        return taken
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if depth <= MAX_DEPTH:  # what is deeper is rejected anyway
        if isinstance(value, Mapping):
            return {name: item if type(item) in _STABLE else _taken(item, depth + 1) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [item if type(item) in _STABLE else _taken(item, depth + 1) for item in value]
    return value


def _event_record(row: int, value: Event | Mapping[str, Any]) -> Record:
    try:
        return Record(row, Event.from_dict(value))
    except InvalidEvent as fault:
        return Record(row, None, value if isinstance(value, Mapping) else None, fault)
    except Exception as error:
        return Record(row, None, None, _unreadable(error))


def _record(row: int, mapper: RowMapper, values: Sequence[Any], columns: Sequence[str]) -> Record:
    data = dict(zip(columns, values, strict=True))
    try:
        return Record(row, mapper.event(values), data, None, mapper.text)
    except InvalidEvent as fault:
        return Record(row, None, data, fault, mapper.text)
    except Exception as error:
        return Record(row, None, data, _unreadable(error), mapper.text)


def _unreadable(error: Exception) -> InvalidEvent:
    """Values may have methods of their own, which fail in ways of their own."""
    return InvalidEvent("event", f"holds a value that cannot be read ({type(error).__name__})")


class Mappers:
    """One mapper for each set of columns; dictionaries need not all have the same, but those that do go together.

    :param strict: a first row that lacks a column is an error, not a rejection.
    :ivar text: the mapping as JSON.
    """

    def __init__(self, mapping: EventMapping, strict: bool = True) -> None:
        self._mapping = mapping
        self._strict = strict
        self.text = mapping.model_dump_json(exclude_defaults=True)
        self._bound: dict[tuple[str, ...], tuple[RowMapper, BulkEncoder]] = {}

    def records(self, numbered: Iterator[tuple[int, Any]], first: int = CHUNK_SIZE) -> Iterator[Sequence[Record]]:
        """All rows as records, in chunks of 500; as `MappedRows` where they have the same columns.

        :param numbered: the rows with their numbers.
        :param first: see `in_chunks`.
        :raises MappingError: as from `record`.
        """
        for chunk in in_chunks(numbered, first):
            if (mapped := self._mapped([row for row, _ in chunk], [data for _, data in chunk])) is not None:
                yield mapped
            else:
                yield from in_chunks(self.record(row, data) for row, data in chunk)

    def _mapped(self, numbers: Sequence[int], rows: Sequence[Any]) -> MappedRows | None:
        if set(map(type, rows)) != {dict} or numbers[-1] - numbers[0] >= len(rows) or len(set(map(tuple, rows))) > 1:
            return None
        columns = tuple(rows[0])
        if not columns or not all(isinstance(column, str) for column in columns):
            return None
        try:
            values = list(zip(*map(_plain_cells, zip(*map(dict.values, rows), strict=True)), strict=True))
            mapper, encoder = self._bind(columns, values[0])
        except MappingError:
            if self._strict and not self._bound:
                raise
            return None
        except Exception:  # of a value's own methods; as a record it finds its words
            return None
        return MappedRows(numbers[0], values, mapper, encoder)

    def record(self, row: int, data: Any) -> Record:
        """The record of one row.

        :raises MappingError: the first row lacks a column of the mapping, or its times lack a zone.
        """
        if not isinstance(data, Mapping):
            words = f"has to be a mapping of columns, not {kind(data)}{nested_hint(data)}"
            return Record(row, None, None, InvalidEvent("row", words))
        if not all(isinstance(column, str) for column in data):
            return Record(row, None, None, InvalidEvent("row", "column names have to be text"))
        columns = tuple(data)
        values = tuple(map(plain_cell, data.values()))
        try:
            mapper, _ = self._bind(columns, values)
        except MappingError as error:
            if self._strict and not self._bound:
                raise
            return Record(row, None, data, InvalidEvent("row", str(error)), self.text)
        return _record(row, mapper, values, columns)

    def _bind(self, columns: tuple[str, ...], values: Sequence[Any]) -> tuple[RowMapper, BulkEncoder]:
        """The mapper of these columns, with its encoder; a new one if the values of their first row are fit for it."""
        bound = self._bound.get(columns)
        if bound is None:
            mapper = self._mapping.bind(columns)
            mapper.check_times([values])
            bound = mapper, BulkEncoder(mapper)
            if len(self._bound) < CHUNK_SIZE:
                self._bound[columns] = bound
        return bound


def _plain_cells(column: Sequence[Any]) -> Sequence[Any]:
    """`plain_cell` of each value."""
    return column if set(map(type, column)) <= _PLAIN else list(map(plain_cell, column))
