"""Rows behind a cursor that is kept from run to run: each row once, late ones too.

With one cursor column the rows come from one ordered query; with a second one, unique within equal values of the
first, from page after page (`keyset`). What was sent and is read again is told by its digest, and passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol
from zoneinfo import ZoneInfo

from airflow_provider_events.events import Record
from airflow_provider_events.exceptions import ConfigurationError, CursorError, MappingError
from airflow_provider_events.row_data import dump_key
from airflow_provider_events.sources.bounds import ColumnKind, TextTimes, column_of
from airflow_provider_events.sources.cursor_axis import Axis, CursorOptions
from airflow_provider_events.sources.cursor_state import DIGEST_BYTES, Position, SentRows
from airflow_provider_events.sources.cursors import RowChunk, connected, fetch, paging, streaming
from airflow_provider_events.sources.kept_cursor import AS_GIVEN, Begin
from airflow_provider_events.sources.keyset import Keyset, Limit, Wrapped, comparable, key_pages
from airflow_provider_events.sources.mapping import EventMapping
from airflow_provider_events.sources.passage import Part, Passage, RowDigests
from airflow_provider_events.sources.rows import MappedRows, SqlRecords
from airflow_provider_events.sources.sql import bound_parameters, numbered, send_lineage, without_terminator
from airflow_provider_events.values import kind as kind_of

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

__all__ = ["AnyCursor", "Bounds", "CursorRecords"]

log = logging.getLogger(__name__)

# Clocks in UTC; those of the others come with their zone.
CLOCKS = {
    "mysql": "SELECT UTC_TIMESTAMP(6)",
    "mariadb": "SELECT UTC_TIMESTAMP(6)",
    "sqlite": "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')",
    "mssql": "SELECT SYSUTCDATETIME()",
    "oracle": "SELECT SYS_EXTRACT_UTC(SYSTIMESTAMP) FROM DUAL",
}


@dataclass(frozen=True, slots=True, repr=False)
class Bounds:
    """What one try reads.

    :param axis: of the cursor column; None where it holds no value yet.
    :param lower: behind which rows are read; its value is None for all rows.
    :param begin: value from which on they are read, the lookback included.
    :param strictly: whether rows begin behind both values of `lower`, and none is read again.
    :param upper: value up to which they are read; None for no bound.
    :param excluded: rows that are not read as their value is NULL.
    :param nothing: whether the bounds leave nothing.
    """

    columns: tuple[str, ...]
    axis: Axis | None
    lower: Position
    begin: Any
    strictly: bool
    upper: Any
    excluded: int = 0
    nothing: bool = False

    def limits(self, column: str) -> tuple[Limit, ...]:
        """For the query."""
        limits = [] if self.begin is None else [Limit(column, ">=", self.begin)]
        return (*limits, *([] if self.upper is None else [Limit(column, "<=", self.upper)]))


class SettledRows(Protocol):
    """See `airflow_provider_events.delivery.offsets.Settled`."""

    @property
    def position(self) -> int: ...
    @property
    def gaps(self) -> Sequence[tuple[int, int]]: ...
    @property
    def ended(self) -> bool: ...
    @property
    def completed(self) -> bool: ...


class AnyCursor(Protocol):
    """A cursor for one try; see `KeptCursor`."""

    name: str

    @property
    def most(self) -> int: ...

    def begin(self) -> Begin: ...

    def freeze(self, lower: Position, upper: Any, kind: str) -> None: ...

    def place(self, position: Position, kind: str) -> None: ...

    def settle(
        self,
        position: Position | None,
        kind: str,
        since: Any,
        sent: bytes,
        *,
        covered: bool,
        ended: bool,
        completed: bool,
    ) -> None: ...


class CursorRecords:
    """The rows of a query behind a cursor, as records; the source and its cursor in one.

    :param hook: any `DbApiHook`.
    :param sql: one SELECT without a condition on the cursor.
    :param parameters: see `SqlSource`.
    :param kept: the stored cursor, for this try.
    """

    keyed = False

    def __init__(
        self,
        hook: DbApiHook,
        sql: str,
        parameters: Mapping[str, Any] | Sequence[Any] | None,
        mapping: EventMapping,
        options: CursorOptions,
        kept: AnyCursor,
        *,
        chunk_size: int = 1000,
    ) -> None:
        self._hook = hook
        self._sql = without_terminator(sql)
        self._parameters = bound_parameters(parameters)
        self._mapping = mapping
        self._options = options
        self._kept = kept
        self._chunk_size = chunk_size
        self._begin = kept.begin()
        self._passage: Passage | None = None
        self.total: int | None = None

    @property
    def cursor(self) -> CursorRecords:
        """See `Source.cursor`."""
        return self

    @property
    def strategy(self) -> str:
        """How the rows are read, in words for the log."""
        if len(self._options.columns) == 2:
            return f"cursor and keyset pagination on {', '.join(self._options.columns)}"
        return f"cursor on {self._options.columns[0]}, {streaming(self._hook).strategy}"

    @property
    def excluded(self) -> int:
        """Rows that are not read, for their value is NULL."""
        return self.bounds.excluded

    def keys(self, records: Sequence[Record]) -> None:
        """None: the cursor knows where to begin."""

    def records(self, after: Any = None, first_row: int = 1) -> Iterator[MappedRows]:
        """All rows that are left to be sent."""
        return SqlRecords(self, self._mapping).records(None, first_row)

    @property
    def bounds_with_offset(self) -> list[str]:
        """See `SqlSource.bounds_with_offset`: ours are of the column's own kind."""
        return []

    # -- what is to be read ----------------------------------------------------------------------------------------

    def plan(self) -> None:
        """Find what this try reads, by the database's clock; it is fixed for the other tries of its run.

        :raises CursorError: the column does not fit the stored cursor, or holds NULL.
        :raises ConfigurationError: an option does not fit the column.
        :raises SourceError: the database or a store gives no answer.
        """
        self.bounds  # noqa: B018

    @cached_property
    def bounds(self) -> Bounds:
        """See `plan`."""
        bounds = self._planned()
        if not self._begin.fixed and bounds.axis is not None:
            self._kept.freeze(bounds.lower, bounds.upper, bounds.axis.kind.value)
        self._say(bounds)
        return bounds

    def _planned(self) -> Bounds:
        column, *_ = self._options.columns
        access = paging(self._hook)
        with connected(access, self._sql) as connection:
            wrapped = Wrapped(self._hook, access, connection, self._sql, self._parameters, [column], "cursor_column")
            keyset = wrapped.keyset
            excluded = self._without_value(wrapped, keyset)
            found = column_of(wrapped)
            now = self._clock(wrapped)
            if found.kind is None:
                # Whatever comes has a value of which nothing is known yet.
                if self._begin.lower is None and self._options.initial_value == "now":
                    self._kept.place(Position(now.isoformat()), AS_GIVEN)
                return Bounds(wrapped.columns, None, Position(None), None, False, None, excluded, nothing=True)
            axis = self._axis(wrapped, keyset, found.kind, found.least)
            self._check_kind(axis)
            lower = self._lower(axis, now, found.greatest)
            upper = self._begin.upper if self._begin.fixed else None
            if not self._begin.fixed and axis.is_time:
                upper = axis.bound(now - (self._options.delay or timedelta(0)))
            begin, strictly = self._first(axis, lower)
            if begin is None and upper is None:
                begin = found.least
            nothing = upper is not None and begin is not None and upper < begin
            if axis.is_time:
                self._warn_of_clock(wrapped, keyset, axis, now, lower, upper)
            elif found.greatest is not None:
                self._check_exact(wrapped, keyset, axis, found.greatest)
        return Bounds(wrapped.columns, axis, lower, begin, strictly, upper, excluded, nothing)

    def _without_value(self, wrapped: Wrapped, keyset: Keyset) -> int:
        if not wrapped.run(keyset.any_null()):
            return 0
        name = self._options.columns[0]
        if self._options.on_null == "fail":
            raise CursorError(
                f"cursor_column {name!r} holds NULL, which no run would ever read. Leave such rows out in SQL, or "
                "count them as skipped by on_cursor_null='exclude'"
            )
        [(count,)] = wrapped.run(keyset.how_many_null())
        log.warning("%d rows skipped: cursor is NULL", count)
        return int(count)

    def _clock(self, wrapped: Wrapped) -> datetime:
        dialect = self._hook.dialect_name
        [(now,)] = wrapped.run((CLOCKS.get(dialect, "SELECT CURRENT_TIMESTAMP"), None))
        if isinstance(now, str):
            now = datetime.fromisoformat(now)
        if now.tzinfo is None:
            if dialect not in CLOCKS:
                log.warning("the clock of this database (%s) does not say its zone: the worker's is taken", dialect)
                return datetime.now(UTC)
            now = now.replace(tzinfo=UTC)
        return now.astimezone(UTC)  # type: ignore[no-any-return]

    def _axis(self, wrapped: Wrapped, keyset: Keyset, kind: ColumnKind, least: Any) -> Axis:
        name = self._options.columns[0]
        shape = None
        means = kind
        if kind is ColumnKind.TEXT:
            shape = TextTimes.of(least) if self._hook.dialect_name == "sqlite" else None
            if shape is None or wrapped.run(keyset.any_where(partial(_of_another_shape, shape))):
                raise CursorError(
                    f"cursor_column {name!r} holds text that is not of times of one shape (2026-03-01 09:30:00, on "
                    "SQLite only): name a column of times or numbers, or make one in SQL"
                )
            means = shape.kind
        if kind is ColumnKind.OTHER:
            raise CursorError(f"cursor_column {name!r} holds {kind.value}: name a column of times or numbers")
        zone = self._mapping.timezone
        if zone is None and means in (ColumnKind.LOCAL, ColumnKind.DAY):
            raise MappingError(
                f'cursor_column {name!r} holds {means.value}: add "timezone": "Europe/Bucharest" (the zone they are '
                'in, or "UTC") to the mapping, or cast them in SQL'
            )
        axis = Axis(name, kind, shape, ZoneInfo(zone) if zone else None)
        lookback, delay = self._options.lookback, self._options.delay
        if lookback and isinstance(lookback, timedelta) is not axis.is_time:
            wanted = "a timedelta, as timedelta(minutes=15)" if axis.is_time else "a number"
            raise ConfigurationError(f"lookback has to be {wanted}: cursor_column {name!r} holds {kind.value}")
        if delay and not axis.is_time:
            raise ConfigurationError(
                f"cursor_delay is for times, and cursor_column {name!r} holds numbers: use lookback for rows whose "
                "numbers are given before they are committed"
            )
        return axis

    def _check_kind(self, axis: Axis) -> None:
        stored = self._begin
        if stored.lower is not None and stored.kind not in (AS_GIVEN, axis.kind.value):
            raise CursorError(
                f"cursor {self._kept.name!r} is stored as {stored.kind}, and cursor_column {axis.name!r} holds "
                f"{axis.kind.value}: they cannot be compared. Begin anew by `airflow events cursor reset "
                f"{self._kept.name} --to VALUE`, or cast the column in SQL"
            )

    def _lower(self, axis: Axis, now: datetime, greatest: Any) -> Position:
        stored = self._begin.lower
        if stored is not None:
            return self._as_given(axis, stored.value) if self._begin.kind == AS_GIVEN else stored
        first = self._options.initial_value
        if self._begin.again or first == "earliest":
            return Position(None)
        if first != "now":
            return Position(axis.given(first, "initial_value"))
        if axis.is_time:
            return Position(axis.bound(now))
        return Position(None if greatest is None else greatest + 1)

    def _as_given(self, axis: Axis, value: Any) -> Position:
        """A stored value of which it was not known what the column holds."""
        if not axis.is_time and isinstance(value, str):
            try:
                datetime.fromisoformat(value)
            except ValueError:
                pass
            else:  # the column of numbers had none at that moment
                return Position(None)
        return Position(axis.given(value, "the stored value"))

    def _first(self, axis: Axis, lower: Position) -> tuple[Any, bool]:
        """The value to begin with, and whether no row is read again."""
        lookback = self._options.lookback
        strictly = len(self._options.columns) == 2 and not lookback
        begin = axis.behind(lower.value, lookback)
        first = self._begin.kind == AS_GIVEN  # as a person said, and not a row before that
        since = lower.value if first else self._begin.since
        if begin is not None and since is not None and begin < since:
            begin = since  # before that nobody knows what was sent
        return begin, strictly

    def _warn_of_clock(
        self, wrapped: Wrapped, keyset: Keyset, axis: Axis, now: datetime, lower: Position, upper: Any
    ) -> None:
        if lower.value is not None and upper < lower.value and self._begin.lower is not None:
            log.warning(
                "the database's clock, less cursor_delay, is behind the cursor (%s): nothing is read that is later",
                self._kept.name,
            )
        beyond = replace(keyset, within=(Limit(keyset.key, ">", axis.bound(now)),))
        [(count,)] = wrapped.run(beyond.how_many(None))
        if count:
            log.warning("%d rows are beyond upper: dated in the future, they are read when their time comes", count)

    def _check_exact(self, wrapped: Wrapped, keyset: Keyset, axis: Axis, value: Any) -> None:
        """Make sure that the database finds a value again as Python knows it."""
        itself = replace(keyset, within=(Limit(keyset.key, "=", value),))
        [(count,)] = wrapped.run(itself.how_many_at_most(1))
        if not count and wrapped.run(keyset.range())[0][1] == value:
            raise CursorError(
                f"cursor_column {axis.name!r} loses precision on the way to Python (as FLOAT does): the database "
                "does not find its own value again. Cast it in SQL to a whole number, a NUMERIC or a time"
            )

    def _say(self, bounds: Bounds) -> None:
        if self._begin.lower is None and not self._begin.again:
            log.info(
                "no cursor is stored for %r yet: beginning as initial_value says, with %s",
                self._kept.name,
                "the first row" if bounds.lower.value is None else bounds.lower.value,
            )
        log.info(
            "cursor %r: reading rows with %s %s %s, up to %s",
            self._kept.name,
            self._options.columns[0],
            "behind" if bounds.strictly and bounds.lower.key is not None else "from",
            "the first" if bounds.begin is None else bounds.begin,
            "the last row" if bounds.upper is None else bounds.upper,
        )

    def count(self, limit: int | None = None) -> int:
        """The number of rows to send, `limit` if there are more; those that are known as sent are no part of it.

        :raises SourceError: the database failed.
        """
        bounds = self.bounds
        if bounds.nothing:
            return 0
        names = list(self._options.columns)
        access = paging(self._hook)
        known = len(self._begin.sent) // DIGEST_BYTES
        with connected(access, self._sql) as connection:
            wrapped = Wrapped(
                self._hook,
                access,
                connection,
                self._sql,
                self._parameters,
                names,
                "cursor_column",
                bounds.limits(names[0]),
            )
            if limit is not None and not bounds.strictly:
                return max(wrapped.count(limit + known) - known, 0)
            [(count,)] = wrapped.run(wrapped.keyset.how_many(self._after(bounds)))
        left = max(int(count) - known, 0)
        return left if limit is None else min(left, limit)

    # -- reading ---------------------------------------------------------------------------------------------------

    def chunks(self, *, after: Any | None = None, first_row: int = 1) -> Generator[RowChunk, None, None]:
        """The rows that are left to be sent; see `SqlSource.chunks`."""
        return numbered(self._chunks(first_row), first_row)

    def _chunks(self, first_row: int) -> Generator[RowChunk, None, None]:
        bounds = self.bounds
        axis = bounds.axis
        if bounds.nothing or axis is None:
            self._passage = Passage(lambda value: value, False)
            yield RowChunk(bounds.columns, [])
            self._passage.exhausted = True
            return
        lookback = self._options.lookback
        self._passage = passage = Passage(lambda value: axis.behind(value, lookback), bounds.strictly)
        chunks = self._pages(bounds) if len(self._options.columns) == 2 else self._stream(bounds)
        known = SentRows(self._begin.sent)
        passed_over = 0
        send_lineage(self._hook, self._sql)
        with closing(chunks):
            digested = None
            for chunk in chunks:
                digested = digested or RowDigests(chunk.columns, self._options.columns, self._mapping)
                part, left = self._part(chunk, digested, known, first_row, bounds.strictly)
                if part is not None:
                    self._check_room(passage, part, axis)
                    passage.add(part)
                passed_over += len(chunk.rows) - len(left)
                first_row += len(left)
                yield RowChunk(chunk.columns, left)
        passage.exhausted = True
        if passed_over:
            log.info("%d rows were read again that earlier runs have sent: passed over", passed_over)

    def _part(
        self, chunk: RowChunk, digested: RowDigests, known: SentRows, first_row: int, strictly: bool
    ) -> tuple[Part | None, Sequence[tuple[Any, ...]]]:
        rows = chunk.rows
        if not rows:
            return None, rows
        values = [comparable(row[digested.cursor]) for row in rows]
        if None in values:
            raise CursorError(
                f"cursor_column {self._options.columns[0]!r} holds NULL: a row has lost its value meanwhile"
            )
        keys = None
        if strictly:
            keys = [comparable(row[digested.key]) for row in rows]
            if dump_key(keys[-1]) is None:
                raise CursorError(
                    f"the second cursor column {self._options.columns[1]!r} holds values of kind {kind_of(keys[-1])}, "
                    "which cannot be kept: cast it to a number or a text in SQL"
                )
        digests = list(map(digested.of, rows))
        passed = frozenset[int]()
        if len(known):
            passed = frozenset(at for at, digest in enumerate(digests) if digest in known)
        part = Part(first_row, values, keys, b"".join(digests), passed)
        return part, [row for at, row in enumerate(rows) if at not in passed] if passed else rows

    def _check_room(self, passage: Passage, part: Part, axis: Axis) -> None:
        """Rows are not sent when the next run could not know of it."""
        if (near := passage.near(part.values)) <= self._kept.most:
            return
        column = axis.name
        if self._options.lookback:
            raise CursorError(
                f"{near:,} rows or more lie within lookback, and only {self._kept.most:,} of them can be known as "
                "sent: set checkpoint_path, or a shorter lookback"
            )
        raise CursorError(
            f"{near:,} rows or more have one value of cursor_column {column!r}, and only {self._kept.most:,} of "
            "them can "
            f'be known as sent: name a second column, cursor_column=("{column}", "<unique column>"), or set '
            "checkpoint_path"
        )

    def _after(self, bounds: Bounds) -> tuple[Any, Any] | None:
        return tuple(bounds.lower) if bounds.strictly and bounds.lower.key is not None else None

    def _pages(self, bounds: Bounds) -> Generator[RowChunk, None, None]:
        leading, key = self._options.columns
        yield from key_pages(
            self._hook,
            paging(self._hook),
            self._sql,
            self._parameters,
            key_column=key,
            after=self._after(bounds),
            size=self._chunk_size,
            leading=leading,
            within=bounds.limits(leading),
        )

    def _stream(self, bounds: Bounds) -> Generator[RowChunk, None, None]:
        access = streaming(self._hook)
        (column,) = self._options.columns
        within = bounds.limits(column)
        with connected(access, self._sql) as connection:
            wrapped = Wrapped(
                self._hook, access, connection, self._sql, self._parameters, [column], "cursor_column", within
            )
            with wrapped.executed(wrapped.keyset.rows()) as cursor:
                yield RowChunk(wrapped.columns, fetch(cursor, self._chunk_size))
                while rows := fetch(cursor, self._chunk_size):
                    yield RowChunk(wrapped.columns, rows)

    # -- what became of them -----------------------------------------------------------------------------------------

    def settled(self, rows: SettledRows) -> None:
        """See `SourceCursor.settled`."""
        passage, bounds = self._passage, self.bounds
        if passage is None or bounds.axis is None:
            return
        axis = bounds.axis
        reads_on = bounds.upper is None or bounds.lower.value is None or not bounds.upper < bounds.lower.value
        covered = passage.exhausted and reads_on and self._begin.first
        position, sent = passage.settled(rows.position, rows.gaps, new_only=not covered)
        if rows.completed and not passage.read and reads_on and not bounds.nothing:
            position = self._at_upper(bounds, axis)
        since = None if position is None else axis.behind(position.value, self._options.lookback)
        self._kept.settle(
            position,
            axis.kind.value,
            since,
            sent,
            covered=covered,
            ended=rows.ended,
            completed=rows.completed,
        )

    def _at_upper(self, bounds: Bounds, axis: Axis) -> Position | None:
        """Where there was no row at all, and rows that come late are provided for: the end of what was read."""
        provided = self._options.delay or self._options.lookback
        if not provided or bounds.upper is None or axis.kind is ColumnKind.TEXT:
            return None
        return Position(bounds.upper)


def _of_another_shape(shape: TextTimes, column: str) -> str:
    return f"{column} IS NOT NULL AND {shape.others(column)}"
