"""Keyset pagination: page after page in the order of a unique key, each starting behind the last key read.

No transaction and no cursor outlives a page, and the last key is all that is needed to continue. Each page is asked
for once more by the keys that it begins and ends with, as Python knows them: what the database then finds has to be the
page.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_events.exceptions import ConfigurationError, KeyColumnError, QueryError
from airflow_provider_events.shown import shown_names
from airflow_provider_events.sources.cursors import (
    Access,
    Bound,
    RowChunk,
    columns_of,
    connected,
    executed,
    fetch,
)
from airflow_provider_events.sources.mysql import MySqlCursor

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

__all__ = ["STYLES", "Keyset", "Limit", "Style", "Wrapped", "comparable", "key_pages", "refuse_own_names", "style_of"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Style:
    """How values are bound beside those of the query.

    :param in_sequence: the marker when the query has a sequence of parameters.
    :param in_mapping: the same for a mapping; takes the name.
    :param prefers_mapping: what our own values come in when the query has no parameters.
    :param reads_percent: whether `%%` stands for a percent sign as soon as anything is bound.
    """

    in_sequence: str
    in_mapping: str
    prefers_mapping: bool
    reads_percent: bool


STYLES = {
    "qmark": Style("?", ":{}", prefers_mapping=False, reads_percent=False),
    "format": Style("%s", "%({})s", prefers_mapping=False, reads_percent=True),
    "pyformat": Style("%s", "%({})s", prefers_mapping=True, reads_percent=True),
    "named": Style(":{}", ":{}", prefers_mapping=True, reads_percent=False),
}

BACKTICKS = {"mysql", "mariadb", "bigquery", "databricks", "hive", "spark"}
FETCH_FIRST = {"oracle", "db2", "ibm_db_sa"}
# Compare (a, b) > (x, y) by an index on both; the others do so where it is spelled out.
ROW_VALUES = {"postgresql", "sqlite"}

OWN_NAMES = "events_key_"
REMEDY = (
    "Name a column that is unique, not null and exact, as an integer, or leave key_column out to read with one cursor."
)
TRIES = 5  # rows that come or go between a page and its check are no fault


@dataclass(frozen=True, slots=True)
class Bind:
    """A value that the driver binds."""

    value: Any


Condition: TypeAlias = Sequence[str | Bind]


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound that the values of a column keep to.

    :param column: its name; in a `Keyset` as the database spells it.
    :param sign: `>=`, `>`, `<` or `<=`.
    """

    column: str
    sign: str
    value: Any


@dataclass(frozen=True, slots=True)
class Keyset:
    """A query wrapped for one driver, caller and key.

    :param sql: the query, without a terminator.
    :param parameters: the query's own parameters.
    :param key: the key column, as the database spells it; empty until that is known.
    :param dialect: SQLAlchemy's name of the database; it decides on quotes and on how to limit rows.
    :param style: how the driver binds values.
    :param leading: a column that rows are sorted by before the key; keys are pairs then. Default none.
    :param within: what all statements but `any_null` are limited to.
    """

    sql: str
    parameters: Bound
    key: str
    dialect: str
    style: Style
    leading: str | None = None
    within: tuple[Limit, ...] = ()

    def columns_only(self) -> tuple[str, Bound]:
        """A statement with all columns and no rows."""
        return self._statement("SELECT *", "", [["1 = 0"]])

    def any_null(self) -> tuple[str, Bound]:
        """A statement that returns a row if the key is NULL anywhere."""
        top, tail = self._limit(1)
        return self._statement(f"SELECT {top}1", tail, [[f"{self._quoted(self.key)} IS NULL"]])

    def how_many_null(self) -> tuple[str, Bound]:
        """A statement for the number of rows whose key is NULL."""
        return self._statement("SELECT COUNT(*)", "", [[f"{self._quoted(self.key)} IS NULL"]])

    def range(self) -> tuple[str, Bound]:
        """A statement for the least and the greatest key."""
        key = self._quoted(self.key)
        return self._statement(f"SELECT MIN({key}), MAX({key})", "", self._limits)

    def any_where(self, condition: Callable[[str], str]) -> tuple[str, Bound]:
        """A statement that returns a row if a condition holds anywhere.

        :param condition: SQL; takes the key, quoted.
        """
        top, tail = self._limit(1)
        return self._statement(f"SELECT {top}1", tail, [[condition(self._quoted(self.key))]])

    def how_many_at_most(self, limit: int) -> tuple[str, Bound]:
        """A statement for the number of rows, which does not count beyond `limit`."""
        top, tail = self._limit(limit)
        counted, parameters = self._statement(f"SELECT {top}1 AS one", tail, self._limits)
        return f"SELECT COUNT(*) FROM (\n{counted}\n) c", parameters

    def unordered(self) -> tuple[str, Bound]:
        """A statement for all rows, in any order."""
        return self._statement("SELECT *", "", self._limits)

    def rows(self) -> tuple[str, Bound]:
        """A statement for all rows, in order."""
        return self._statement("SELECT *", f" ORDER BY {self._order}", self._limits)

    def page(self, after: Any | None, limit: int) -> tuple[str, Bound]:
        """A statement for the next `limit` rows; from the start if `after` is None."""
        top, tail = self._limit(limit)
        conditions = [*self._limits, *self._compared(">", after)]
        return self._statement(f"SELECT {top}*", f" ORDER BY {self._order}{tail}", conditions)

    def how_many(self, after: Any | None) -> tuple[str, Bound]:
        """A statement for the number of rows; of those behind `after` if that is not None."""
        return self._statement("SELECT COUNT(*)", "", [*self._limits, *self._compared(">", after)])

    def counts(self, comparisons: Mapping[str, Any | None], limit: int) -> tuple[str, Bound]:
        """A statement for the keys that compare so, in order, and how often each is there; `limit` at most."""
        top, tail = self._limit(limit)
        conditions = [*self._limits, *(part for pair in comparisons.items() for part in self._compared(*pair))]
        tail = f" GROUP BY {self._order} ORDER BY {self._order}{tail}"
        return self._statement(f"SELECT {top}{self._order}, COUNT(*)", tail, conditions)

    @property
    def _order(self) -> str:
        return ", ".join(self._columns)

    @property
    def _columns(self) -> list[str]:
        return [self._quoted(column) for column in (self.leading, self.key) if column]

    @property
    def _limits(self) -> list[Condition]:
        return [[f"{self._quoted(limit.column)} {limit.sign} ", Bind(limit.value)] for limit in self.within]

    def _compared(self, sign: str, key: Any | None) -> list[Condition]:
        """The condition that a row's key compares so to another one; none where that is None."""
        if key is None:
            return []
        if self.leading is None:
            return [[f"{self._order} {sign} ", Bind(key)]]
        first, second = key
        if self.dialect in ROW_VALUES:
            return [[f"({self._order}) {sign} (", Bind(first), ", ", Bind(second), ")"]]
        column, key_column = self._columns
        parts: list[str | Bind] = [f"({column} {sign.rstrip('=')} ", Bind(first), f" OR ({column} = ", Bind(first)]
        return [[*parts, f" AND {key_column} {sign} ", Bind(second), "))"]]

    def _quoted(self, column: str) -> str:
        if self.dialect == "mssql":
            return f"q.[{column.replace(']', ']]')}]"
        quote = "`" if self.dialect in BACKTICKS else '"'
        return f"q.{quote}{column.replace(quote, quote * 2)}{quote}"

    def _limit(self, rows: int) -> tuple[str, str]:
        """What limits a SELECT: behind that word, and at the end."""
        if self.dialect == "mssql":
            return f"TOP ({rows}) ", ""
        return "", f" FETCH FIRST {rows} ROWS ONLY" if self.dialect in FETCH_FIRST else f" LIMIT {rows}"

    def _statement(self, select: str, tail: str, conditions: Sequence[Condition]) -> tuple[str, Bound]:
        parts = [part for condition in conditions for part in (" AND ", *condition)]
        parts[:1] = [" WHERE "] if parts else []
        values = [part.value for part in parts if isinstance(part, Bind)]
        keys = {f"{OWN_NAMES}{n}": value for n, value in enumerate(values, start=1)}
        parameters = self._beside_own(keys) if keys else self.parameters

        read = self.style.reads_percent and parameters is not None
        ours = _escaped if read else str
        # A query with parameters of its own has its percent signs escaped already.
        sql = _escaped(self.sql) if read and self.parameters is None else self.sql
        marker = self.style.in_mapping if isinstance(parameters, dict) else self.style.in_sequence
        names = iter(keys)
        where = "".join(marker.format(next(names)) if isinstance(part, Bind) else ours(part) for part in parts)
        # The line break ends a comment in the query's last line.
        return f"{ours(select)} FROM (\n{sql}\n) q{where}{ours(tail)}", parameters

    def _beside_own(self, keys: dict[str, Any]) -> Bound:
        """The query's parameters and ours, in the query's form, else in the one that the driver prefers."""
        if isinstance(self.parameters, dict):
            return self.parameters | keys
        if self.parameters is None and self.style.prefers_mapping:
            return keys
        return (self.parameters or ()) + tuple(keys.values())


class Wrapped:
    """A query as a subquery on an open connection, once the columns that are wanted are known to be there.

    :param names: of columns, in any case.
    :param option: what names them, for errors.
    :param within: what rows are limited to.
    :ivar columns: of the query; `positions`: of the wanted ones.
    :raises KeyColumnError: a column is not there, or MySQL sorts it otherwise than it compares it.
    """

    def __init__(
        self,
        hook: DbApiHook,
        access: Access,
        connection: Any,
        sql: str,
        parameters: Bound,
        names: Sequence[str],
        option: str,
        within: Sequence[Limit] = (),
    ) -> None:
        self._access = access
        self._connection = connection
        self._in_utc = False
        self._option = option
        self._query = Keyset(sql, parameters, "", hook.dialect_name, style_of(connection, hook))
        with executed(access, connection, *self._query.columns_only()) as cursor:
            fetch(cursor, None)
            self.columns = columns_of(cursor)
            self.positions = [_position(self.columns, name, option) for name in names]
            limited = [_position(self.columns, limit.column, option) for limit in within]
            self._within = tuple(
                replace(limit, column=self.columns[at]) for limit, at in zip(within, limited, strict=True)
            )
            if isinstance(cursor, MySqlCursor):
                for name, position in zip(names, self.positions, strict=True):
                    if cursor.is_numbered(position):
                        raise KeyColumnError(
                            f"{option} {name!r} is an ENUM or SET, which MySQL sorts by its number and compares by its "
                            f"text. {REMEDY}"
                        )
                moments = [self.columns[at] for at in (*self.positions, *limited) if cursor.is_moment(at)]
                self._in_utc = bool(moments)
        if self._in_utc:
            log.info("%s is a TIMESTAMP: the query runs with time_zone '+00:00'", shown_names(moments[:1]))
            with executed(access, connection, "SET time_zone = '+00:00'", None):
                pass

    @property
    def keyset(self) -> Keyset:
        """The query within its limits, in the order of the one column that is wanted, or of the two."""
        *leading, key = [self.columns[position] for position in self.positions] or [""]
        return replace(self._query, key=key, leading=leading[0] if leading else None, within=self._within)

    def count(self, limit: int | None = None) -> int:
        """The number of rows; `limit` if there are more."""
        statement = self.keyset.how_many(None) if limit is None else self.keyset.how_many_at_most(limit)
        [(count,)] = self.run(statement)
        return int(count)

    def run(self, statement: tuple[str, Bound]) -> list[tuple[Any, ...]]:
        """All rows of a statement."""
        with self.executed(statement) as cursor:
            return fetch(cursor, None)  # an unbuffered cursor of MySQL's is free once it was read to its end

    @contextmanager
    def executed(self, statement: tuple[str, Bound]) -> Iterator[Any]:
        """A cursor with a statement's rows."""
        with executed(self._access, self._connection, *statement) as cursor:
            if self._in_utc:
                cursor.know_moments()
            yield cursor

    def end(self) -> None:
        """End what the database shows of one moment: that of a page is the moment of its check as well."""
        # Drivers without transactions (BigQuery, Trino) refuse; there is nothing to end then.
        with suppress(Exception):
            self._connection.rollback()


def key_pages(
    hook: DbApiHook,
    access: Access,
    sql: str,
    parameters: Bound,
    *,
    key_column: str,
    after: Any | None,
    size: int,
    on_count: Callable[[int], None] | None = None,
    leading: str | None = None,
    within: Sequence[Limit] = (),
) -> Generator[RowChunk, None, None]:
    """Read page after page of at most `size` rows; the first page comes even when it is empty.

    :param on_count: takes the number of rows behind `after`, before the first page; default: they are not counted.
    :param leading: a column that rows are sorted by before the key, which is unique within its equal values then;
        `after` is a pair.
    :param within: what rows are limited to.
    :raises KeyColumnError: the key column is missing, holds a NULL or a value twice, or its values cannot be compared.
    :raises SourceError: the driver failed.
    """
    names = [key_column] if leading is None else [leading, key_column]
    with connected(access, sql) as connection:
        wrapped = Wrapped(hook, access, connection, sql, parameters, names, "key_column", within)
        keyset = wrapped.keyset
        if wrapped.run(keyset.any_null()):
            raise KeyColumnError(f"key_column {key_column!r} holds NULL, which no page would find. {REMEDY}")
        if on_count:
            on_count(wrapped.run(keyset.how_many(after))[0][0])
        wrapped.end()

        def key_of(row: Sequence[Any]) -> Any:
            if leading is None:
                return comparable(row[wrapped.positions[0]])
            return tuple(comparable(row[position]) for position in wrapped.positions)

        def page() -> tuple[list[tuple[Any, ...]], list[Any], bool]:
            """The next rows, their keys, and whether there are more."""
            for left in reversed(range(TRIES)):
                rows = wrapped.run(keyset.page(after, size + 1))
                keys = list(map(key_of, rows))
                _check_order(key_column, after, keys)
                more = len(rows) > size
                del rows[size:], keys[size:]
                if not keys:
                    wrapped.end()
                    break
                try:
                    found = wrapped.run(keyset.counts({">": after, "<=": keys[-1]}, size + 1))
                    itself = not first or wrapped.run(keyset.counts({">=": keys[-1], "<=": keys[-1]}, 1))
                except QueryError as error:
                    raise KeyColumnError(
                        f"key_column {key_column!r} cannot be compared to its own value as the driver gives it: "
                        f"{error}. {REMEDY}"
                    ) from None
                wrapped.end()
                if any(row[-1] != 1 for row in found):
                    fault = _repeated(key_column)
                elif [_found_key(row) for row in found] != keys or not itself:
                    fault = _inexact(key_column)
                else:
                    break
                if not left:
                    raise fault
            return rows, keys, more

        more, first = True, True
        while more:
            rows, keys, more = page()
            if rows or first:
                yield RowChunk(wrapped.columns, rows)
            first = False
            after = keys[-1] if keys else after


def refuse_own_names(parameters: object) -> None:
    """Make sure that no parameter of a query has a name that values of this package are bound by.

    :raises ConfigurationError: one has.
    """
    if isinstance(parameters, Mapping) and any(str(name).startswith(OWN_NAMES) for name in parameters):
        raise ConfigurationError(f"parameters: names that begin with {OWN_NAMES} are taken; give it another name")


def _found_key(row: Sequence[Any]) -> Any:
    *key, _ = map(comparable, row)
    return key[0] if len(key) == 1 else tuple(key)


def comparable(key: Any) -> Any:
    """A key that equals another one of the same moment: two times of one zone are compared by their clocks alone."""
    if isinstance(key, datetime) and (offset := key.utcoffset()) is not None:
        return key.replace(tzinfo=timezone(offset), fold=0)
    return key


def _position(columns: Sequence[str], name: str, option: str) -> int:
    """Where a column is: by its exact name, else by its name in any case."""
    for spelled in (str, str.lower):
        names = [spelled(column) for column in columns]
        if names.count(spelled(name)) == 1:
            return names.index(spelled(name))
    raise KeyColumnError(f"{option} {name!r} has to be one column of the query, which returns: {shown_names(columns)}.")


def _check_order(key_column: str, after: Any | None, keys: Sequence[Any]) -> None:
    """Every key has to differ from the one before; NULL and NaN, which no comparison finds, have no place."""
    parts = [part for key in keys for part in key] if keys and isinstance(keys[0], tuple) else keys
    if any(part is None or part != part for part in parts):
        raise KeyColumnError(f"key_column {key_column!r} holds NULL or NaN. {REMEDY}")
    if keys and keys[0] == after:
        raise KeyColumnError(
            f"key_column {key_column!r} returned the last key of a page once more: it is not unique, or it "
            f"loses precision on the way to Python. {REMEDY}"
        )
    if any(one == other for one, other in pairwise(keys)):
        raise _repeated(key_column)


def _repeated(key_column: str) -> KeyColumnError:
    return KeyColumnError(
        f"key_column {key_column!r} holds a value more than once (for text, the collation decides): "
        f"a page could end between such rows and lose some. {REMEDY}"
    )


def _inexact(key_column: str) -> KeyColumnError:
    return KeyColumnError(
        f"key_column {key_column!r}: the database does not find the rows of a page again by their keys: a key loses "
        f"precision on the way to Python, or is sorted otherwise than it is compared. {REMEDY}"
    )


def style_of(connection: Any, hook: DbApiHook) -> Style:
    """The style that the driver's module declares (PEP 249), else the one of the hook's placeholder."""
    package = type(connection).__module__
    while package:
        declared = getattr(sys.modules.get(package), "paramstyle", None)
        if declared in STYLES:
            return STYLES[declared]
        package = package.rpartition(".")[0]
    # Airflow's own BigQuery connection declares none, and binds mappings only.
    return STYLES["qmark" if hook.placeholder == "?" else "pyformat"]


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
