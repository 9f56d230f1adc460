"""The rows of one interval of time: from its start up to but not including its end, by a column of the query."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from airflow_provider_events.exceptions import KeyColumnError, MappingError
from airflow_provider_events.sources.bounds import Column, ColumnKind, EpochUnit, TextTimes, column_of, local_bound
from airflow_provider_events.sources.cursors import Bound, connected, paging
from airflow_provider_events.sources.keyset import Limit, Wrapped

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

__all__ = ["Window", "limits_of"]

log = logging.getLogger(__name__)

REMEDY = "Name a column of times that is never NULL, or make one in SQL, as by CAST or COALESCE."


@dataclass(frozen=True, slots=True)
class Window:
    """An interval of a column.

    :param column: its name, in any case.
    :param start: the first moment that belongs to it, with a zone.
    :param end: the first moment behind it, with a zone.
    :param timezone: IANA name of the zone of times without one, and of dates.
    """

    column: str
    start: datetime
    end: datetime
    timezone: str | None = None


def limits_of(
    window: Window, hook: DbApiHook, sql: str, parameters: Bound
) -> tuple[tuple[str, ...], tuple[Limit, Limit] | None]:
    """The columns of a query, and what its rows are limited to; None where it has no row at all.

    :raises KeyColumnError: the column is not there, holds a NULL, or nothing that a moment can be compared to.
    :raises MappingError: its times or dates belong to a zone that is not known.
    :raises SourceError: the driver failed.
    """
    access = paging(hook)
    with connected(access, sql) as connection:
        wrapped = Wrapped(hook, access, connection, sql, parameters, [window.column], "interval_column")
        if wrapped.run(wrapped.keyset.any_null()):
            raise KeyColumnError(f"interval_column {window.column!r} holds NULL, which is in no interval. {REMEDY}")
        column = column_of(wrapped)
        if column.kind is None:
            return wrapped.columns, None
        if column.kind is ColumnKind.TEXT:
            _check_shape(window, column, wrapped)
    start, end = (_bound(window, column, moment) for moment in (window.start, window.end))
    log.info(
        "reading rows with %s from %s up to but not including %s (%s%s); the data interval is %s to %s",
        window.column,
        start,
        end,
        column.kind.value,
        f", {window.timezone}" if window.timezone and column.kind is not ColumnKind.MOMENT else "",
        window.start,
        window.end,
    )
    return wrapped.columns, (Limit(window.column, ">=", start), Limit(window.column, "<", end))


def _bound(window: Window, column: Column, moment: datetime) -> Any:
    """What the column is compared to at a moment."""
    if column.kind is ColumnKind.MOMENT:
        return moment.astimezone(UTC)
    if column.kind is ColumnKind.LOCAL:
        return local_bound(moment, _zone(window, ColumnKind.LOCAL))
    if column.kind is ColumnKind.DAY:
        return local_bound(moment, _zone(window, ColumnKind.DAY)).date()
    if column.kind is ColumnKind.NUMBER and (unit := EpochUnit.of(column.least, column.greatest)):
        return unit.bound(moment)
    if column.kind is ColumnKind.TEXT and (shape := TextTimes.of(column.least)):
        return shape.bound(moment, None if shape.kind is ColumnKind.MOMENT else _zone(window, shape.kind))
    what = {
        ColumnKind.NUMBER: "numbers that do not all count the seconds (or milli-, micro-, nanoseconds) since 1970",
        ColumnKind.TEXT: "text that does not say times as ISO 8601 does (2026-03-01 09:30:00)",
    }
    raise _unfit(window, what.get(column.kind or ColumnKind.OTHER, ColumnKind.OTHER.value))


def _check_shape(window: Window, column: Column, wrapped: Wrapped) -> None:
    """Make sure that texts sort as their times do."""
    keyset = wrapped.keyset
    if keyset.dialect != "sqlite":
        raise _unfit(window, "text, which this database may sort otherwise than its times")
    shape = TextTimes.of(column.least)
    if shape and wrapped.run(keyset.any_where(shape.others)):
        raise _unfit(window, "text of more than one shape, whose order is not that of its times")


def _zone(window: Window, kind: ColumnKind) -> ZoneInfo:
    if window.timezone is None:
        raise MappingError(
            f'interval_column {window.column!r} holds {kind.value}: add "timezone": "Europe/Bucharest" (the zone they '
            f'are in, or "UTC") to the mapping, or cast them in SQL'
        )
    return ZoneInfo(window.timezone)


def _unfit(window: Window, what: str) -> KeyColumnError:
    return KeyColumnError(f"interval_column {window.column!r} holds {what}. {REMEDY}")
