"""Moments as bounds of a query: what a column is compared to, in the column's own type and zone.

| what the column holds | what a moment becomes |
| --- | --- |
| times with a zone | itself |
| times without one | the clock of the mapping's `timezone` at that moment |
| dates | the day of the mapping's `timezone` at that moment |
| text (SQLite has no times) | text of the same shape |
| numbers | seconds, milliseconds, microseconds or nanoseconds since 1970 |

A clock goes back in autumn, and shows an hour twice. As a bound it never goes back: of such an hour only the second
counts, so that bounds one after the other cut any column into windows that neither overlap nor leave anything out, and
no window ends before its last row could be written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any, NamedTuple, Self

from airflow_provider_events.sources.cursors import fetch
from airflow_provider_events.sources.keyset import Wrapped
from airflow_provider_events.sources.mysql import MySqlCursor

__all__ = ["Column", "ColumnKind", "EpochUnit", "TextTimes", "column_of", "local_bound"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_SECOND, LAST_SECOND = 946_684_800, 4_102_444_800  # 2000 and 2100
MICROSECOND = timedelta(microseconds=1)

_TIME_TEXT = re.compile(
    r"\d{4}-\d\d-\d\d(?:(?P<separator>[ T])\d\d:\d\d:\d\d(?:\.\d+)?(?P<suffix>Z|[+-]\d\d(?::?\d\d)?)?)?"
)


class ColumnKind(Enum):
    """What a column holds; the value is how an error calls it."""

    MOMENT = "times with a zone"
    LOCAL = "times without a zone"
    DAY = "dates"
    NUMBER = "numbers"
    TEXT = "text"
    OTHER = "values that are neither times nor numbers"

    @classmethod
    def of(cls, value: object) -> ColumnKind:
        """The kind of a column that holds such a value."""
        if isinstance(value, datetime):
            return cls.LOCAL if value.utcoffset() is None else cls.MOMENT
        if isinstance(value, date):
            return cls.DAY
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            return cls.NUMBER
        return cls.TEXT if isinstance(value, str) else cls.OTHER


# What drivers say of a column before there is a row: PostgreSQL's object ids, and the numbers of MySQL's protocol.
POSTGRES_TYPES = {1184: ColumnKind.MOMENT, 1114: ColumnKind.LOCAL, 1082: ColumnKind.DAY}
MYSQL_TYPES = {7: ColumnKind.MOMENT, 12: ColumnKind.LOCAL, 10: ColumnKind.DAY}


class Column(NamedTuple):
    """What is known of a column of a query.

    :param kind: None for one without a value.
    :param least: its least value, where the driver does not tell the kind without one; `greatest` likewise.
    """

    kind: ColumnKind | None
    least: Any = None
    greatest: Any = None


def column_of(wrapped: Wrapped) -> Column:
    """The one column that is wanted of a query.

    :raises SourceError: the driver failed.
    """
    with wrapped.executed(wrapped.keyset.columns_only()) as cursor:
        fetch(cursor, None)
        kind = _declared(cursor, wrapped.positions[0])
    if kind is not None:
        return Column(kind)
    [(least, greatest)] = wrapped.run(wrapped.keyset.range())
    return Column(None if least is None else ColumnKind.of(least), least, greatest)


def _declared(cursor: Any, position: int) -> ColumnKind | None:
    """The kind that the driver tells, where it is one of PostgreSQL's or MySQL's."""
    code = cursor.description[position][1]
    return (MYSQL_TYPES if isinstance(cursor, MySqlCursor) else POSTGRES_TYPES).get(code) if type(code) is int else None


def local_bound(moment: datetime, zone: tzinfo) -> datetime:
    """The clock of a zone at a moment, without going back: as the first of an hour that comes twice, its begin.

    :param moment: with a zone.
    :returns: a time without a zone.
    """
    local = moment.astimezone(zone)
    again = local.replace(fold=1)
    repeated = _offset(local) - _offset(again)
    if local.fold or repeated <= timedelta(0):
        return local.replace(tzinfo=None, fold=0)
    before, behind = moment.astimezone(UTC), moment.astimezone(UTC) + repeated
    while behind - before > MICROSECOND:  # where the clock goes back
        middle = before + (behind - before) // 2
        if _offset(middle.astimezone(zone)) == _offset(again):
            behind = middle
        else:
            before = middle
    return behind.astimezone(zone).replace(tzinfo=None, fold=0)


def _offset(moment: datetime) -> timedelta:
    return moment.utcoffset() or timedelta(0)


@dataclass(frozen=True, slots=True)
class TextTimes:
    """Texts of one shape that sort as their times do: a date, or date and time, all with the same zone or all without.

    :param separator: between date and time; empty for dates.
    :param suffix: what says the zone, as `Z` or `+02:00`; empty where nothing does.
    """

    separator: str
    suffix: str

    @classmethod
    def of(cls, text: str) -> Self | None:
        """The shape of a text; None for one that is no time."""
        found = _TIME_TEXT.fullmatch(text)
        return cls(found["separator"] or "", found["suffix"] or "") if found else None

    @property
    def kind(self) -> ColumnKind:
        """What such texts stand for."""
        if not self.separator:
            return ColumnKind.DAY
        return ColumnKind.MOMENT if self.suffix else ColumnKind.LOCAL

    def bound(self, moment: datetime, zone: tzinfo | None) -> str:
        """The moment's second as such a text, without the suffix: what begins with it is not less, whatever follows.

        :param zone: of texts that do not say it.
        """
        offset = datetime.fromisoformat(f"2000-01-01T00:00:00{self.suffix}").tzinfo
        clock = moment.astimezone(offset).replace(tzinfo=None) if offset else local_bound(moment, zone or UTC)
        if not self.separator:
            return clock.date().isoformat()
        return clock.isoformat(self.separator, "seconds")

    def others(self, column: str) -> str:
        """A condition of SQLite's for values that are of another shape.

        :param column: quoted.
        """
        digits = "[0-9]"
        day = "-".join(digits * n for n in (4, 2, 2))
        if not self.separator:
            return f"(typeof({column}) <> 'text' OR {column} NOT GLOB '{day}')"
        pattern = f"{day}{self.separator}{':'.join([digits * 2] * 3)}*{self.suffix}"
        fraction = f"substr({column}, 20, length({column}) - {19 + len(self.suffix)})"
        return (
            f"(typeof({column}) <> 'text' OR {column} NOT GLOB '{pattern}' OR "
            f"{fraction} <> '' AND ({fraction} NOT GLOB '.[0-9]*' OR {fraction} GLOB '?*[^0-9]*'))"
        )


class EpochUnit(Enum):
    """In what a number counts since 1970; the value is how many make a second."""

    SECONDS = 1
    MILLISECONDS = 1_000
    MICROSECONDS = 1_000_000
    NANOSECONDS = 1_000_000_000

    @classmethod
    def of(cls, *values: Any) -> Self | None:
        """The unit in which all values are times between 2000 and 2100; None where there is none."""
        for unit in cls:
            if all(FIRST_SECOND <= value / unit.value < LAST_SECOND for value in values):
                return unit
        return None

    def bound(self, moment: datetime) -> int | float:
        """The moment as such a number."""
        exact = Fraction((moment - EPOCH) // MICROSECOND * self.value, 1_000_000)
        return exact.numerator if exact.denominator == 1 else float(exact)
