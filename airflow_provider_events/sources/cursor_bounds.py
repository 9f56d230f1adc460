"""What one try of a sync by cursor reads: from where, up to where, by the database's clock."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from zoneinfo import ZoneInfo

from airflow_provider_events.exceptions import ConfigurationError, CursorError, MappingError
from airflow_provider_events.sources.bounds import ColumnKind, TextTimes, column_of
from airflow_provider_events.sources.cursor_axis import Axis, CursorOptions
from airflow_provider_events.sources.cursor_state import Position
from airflow_provider_events.sources.cursors import connected, paging
from airflow_provider_events.sources.kept_cursor import AS_GIVEN, Begin
from airflow_provider_events.sources.keyset import Keyset, Limit, Wrapped
from airflow_provider_events.sources.mapping import EventMapping

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

__all__ = ["AnyCursor", "Bounds", "Planner"]

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


class AnyCursor(Protocol):
    """A cursor for one try: the stored one (`KeptCursor`), or one as it would be."""

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


class Planner:
    """Finds the bounds of one try.

    :param begin: where the stored cursor says that it begins.
    :param mapping: knows the zone of columns that have none.
    """

    def __init__(
        self,
        hook: DbApiHook,
        sql: str,
        parameters: dict[str, Any] | tuple[Any, ...] | None,
        mapping: EventMapping,
        options: CursorOptions,
        kept: AnyCursor,
        begin: Begin,
    ) -> None:
        self._hook = hook
        self._sql = sql
        self._parameters = parameters
        self._mapping = mapping
        self._options = options
        self._kept = kept
        self._begin = begin

    def plan(self) -> Bounds:
        """What this try reads, by the database's clock.

        :raises CursorError: the column does not fit the stored cursor, or holds NULL.
        :raises ConfigurationError: an option does not fit the column.
        :raises SourceError: the database or a store gives no answer.
        """
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
        return now.astimezone(UTC)  # type: ignore[no-any-return]  # drivers have no types

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


def _of_another_shape(shape: TextTimes, column: str) -> str:
    return f"{column} IS NOT NULL AND {shape.others(column)}"
