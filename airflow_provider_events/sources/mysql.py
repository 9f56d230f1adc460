"""MySQL and MariaDB: their two drivers give other values for the same column, and read other SQL; here they agree."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any, TypeAlias

__all__ = ["ConnectorCursor", "MySqlCursor", "time_text"]

Row: TypeAlias = Sequence[Any]

# Numbers of the protocol.
TIMESTAMP, TIME, BIT = 7, 11, 16
ENUM_FLAG, SET_FLAG = 256, 2048

_MARKER = re.compile(r"%(?:%(?P<before_name>\()?|\((?P<name>[^)]+)\)s|s)")


class MySqlCursor:
    """A cursor of mysqlclient whose `TIME` is text, as a clock shows it, and whose `BIT` is a whole number."""

    def __init__(self, cursor: Any, connection: Any) -> None:
        self._cursor = cursor
        self.connection = connection
        self._made: list[tuple[int, Callable[[Any], Any]]] = []

    @property
    def description(self) -> Sequence[Sequence[Any]] | None:
        """As the driver gives it."""
        columns: Sequence[Sequence[Any]] | None = self._cursor.description
        return columns

    @property
    def rowcount(self) -> int:
        """As the driver gives it."""
        count: int = self._cursor.rowcount
        return count

    def execute(self, sql: str, parameters: Any = None) -> None:
        """Run a statement; `%%` is a percent sign only beside parameters."""
        self._cursor.execute(sql, parameters)
        makers: dict[int, Callable[[Any], Any]] = {TIME: time_text, BIT: _whole}
        columns = enumerate(self._cursor.description or ())
        self._made = [(at, makers[column[1]]) for at, column in columns if column[1] in makers]

    def is_moment(self, at: int) -> bool:
        """Whether a column is a `TIMESTAMP`, which the session's time zone shows."""
        return bool(self._columns[at][1] == TIMESTAMP)

    def is_numbered(self, at: int) -> bool:
        """Whether a column is an `ENUM` or a `SET`, which is sorted by its number."""
        return bool(self._flags[at] & (ENUM_FLAG | SET_FLAG))

    def know_moments(self) -> None:
        """Give `TIMESTAMP` as aware times, in a session whose `time_zone` is `+00:00`."""
        self._made += [(at, _in_utc) for at in range(len(self._columns)) if self.is_moment(at)]

    @property
    def _columns(self) -> Sequence[Sequence[Any]]:
        return self.description or ()

    @property
    def _flags(self) -> Sequence[int]:
        flags: Sequence[int] = self._cursor.description_flags
        return flags

    def fetchmany(self, size: int) -> Sequence[Row]:
        """Up to `size` more rows."""
        return self._agreed(self._cursor.fetchmany(size))

    def fetchall(self) -> Sequence[Row]:
        """All rows that are left."""
        return self._agreed(self._cursor.fetchall())

    def close(self) -> None:
        """Release it."""
        self._cursor.close()

    def _agreed(self, rows: Sequence[Row]) -> Sequence[Row]:
        if not self._made:
            return rows
        changed = [list(row) for row in rows]
        for at, made in self._made:
            for row in changed:
                if row[at] is not None:
                    row[at] = made(row[at])
        return changed


class ConnectorCursor(MySqlCursor):
    """The same of mysql-connector-python, whose `SET` is text as well, and whose `%%` means a percent sign, too."""

    def execute(self, sql: str, parameters: Any = None) -> None:
        """As above."""
        super().execute(*_without_doubled(sql, parameters))
        if any(flags & SET_FLAG for flags in self._flags):
            self.connection.converter_class = _converter_with_sets()

    @property
    def _flags(self) -> Sequence[int]:
        return [column[7] for column in self._columns]


def time_text(value: timedelta) -> str:
    """A `TIME` of MySQL, between -838:59:59 and 838:59:59: `09:30:00`, or `-12:30:01.500000`."""
    seconds, fraction = divmod(abs(value), timedelta(seconds=1))
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    text = f"{'-' if value < timedelta() else ''}{hour:02}:{minute:02}:{second:02}"
    return f"{text}.{fraction.microseconds:06}" if fraction else text


def _in_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC)


def _whole(value: bytes | int) -> int:
    return value if isinstance(value, int) else int.from_bytes(value)


def _without_doubled(sql: str, parameters: Any) -> tuple[str, Any]:
    """The statement for a driver that looks for its markers only, and leaves `%%` as it is.

    With names, all that it takes for a marker is `%(name)s`, so values without a name get one. It reads `%(…)%` as a
    percent sign, which parts one from a name in parentheses.
    """
    if parameters is None or "%%" not in sql:
        return sql, parameters
    if isinstance(parameters, dict):
        return _MARKER.sub(lambda found: _single(found) or found[0], sql), parameters
    names: list[str] = []

    def marked(found: re.Match[str]) -> str:
        if single := _single(found):
            return single
        if found["name"]:
            return found[0]
        names.append(f"events_{len(names) + 1}")
        return f"%({names[-1]})s"

    named = _MARKER.sub(marked, sql)
    if len(names) != len(parameters):
        return sql, parameters  # the driver has the words for it
    return named, dict(zip(names, parameters, strict=True))


def _single(found: re.Match[str]) -> str:
    if not found[0].startswith("%%"):
        return ""
    return "%(events)%(" if found["before_name"] else "%"


def _converter_with_sets() -> type:
    """Reads a `SET` as the text that it is for the database, members in the order of the column's definition."""
    base: Any = import_module("mysql.connector.conversion").MySQLConverter

    class Converter(base):  # type: ignore[misc]  # the base is there only where the driver is
        def _set_to_python(self, value: bytes, dsc: Any = None) -> str:
            text: str = value.decode(self.charset)
            return text

    return Converter
