"""Rows behind a cursor that is kept from run to run: each row once, late ones too.

With one cursor column the rows come from one ordered query; with a second one, unique within equal values of the
first, from page after page (`keyset`). What was sent and is read again is told by its digest, and passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_events.events import Record
from airflow_provider_events.exceptions import CursorError
from airflow_provider_events.row_data import dump_key
from airflow_provider_events.sources.bounds import ColumnKind
from airflow_provider_events.sources.cursor_axis import Axis, CursorOptions
from airflow_provider_events.sources.cursor_bounds import AnyCursor, Bounds, Planner
from airflow_provider_events.sources.cursor_state import DIGEST_BYTES, Position, SentRows
from airflow_provider_events.sources.cursors import RowChunk, connected, fetch, paging, streaming
from airflow_provider_events.sources.keyset import Wrapped, comparable, key_pages
from airflow_provider_events.sources.mapping import EventMapping
from airflow_provider_events.sources.passage import Part, Passage, RowDigests
from airflow_provider_events.sources.rows import MappedRows, SqlRecords
from airflow_provider_events.sources.sql import bound_parameters, numbered, send_lineage, without_terminator
from airflow_provider_events.values import kind as kind_of

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

__all__ = ["CursorRecords"]

log = logging.getLogger(__name__)


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
        self.bounds  # noqa: B018  the access is what finds them

    @cached_property
    def bounds(self) -> Bounds:
        """See `plan`."""
        planner = Planner(
            self._hook, self._sql, self._parameters, self._mapping, self._options, self._kept, self._begin
        )
        bounds = planner.plan()
        if not self._begin.fixed and bounds.axis is not None:
            self._kept.freeze(bounds.lower, bounds.upper, bounds.axis.kind.value)
        self._say(bounds)
        return bounds

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
