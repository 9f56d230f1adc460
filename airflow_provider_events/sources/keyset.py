"""Keyset pagination: page after page in the order of a unique key, each starting behind the last key read.

No transaction and no cursor outlives a page, and the last key is all that is needed to continue. Each page is asked
for once more by the keys that it begins and ends with, as Python knows them: what the database then finds has to be the
page.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from airflow_provider_events.exceptions import KeyColumnError, QueryError
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

__all__ = ["STYLES", "Keyset", "Style", "comparable", "key_pages", "style_of"]

log = logging.getLogger(__name__)

KEY_PARAMETERS = ("events_key_1", "events_key_2")


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

REMEDY = (
    "Name a column that is unique, not null and exact, as an integer, or leave key_column out to read with one cursor."
)
TRIES = 5  # rows that come or go between a page and its check are no fault


@dataclass(frozen=True, slots=True)
class Keyset:
    """A query wrapped for one driver, caller and key.

    :param sql: the query, without a terminator.
    :param parameters: the query's own parameters.
    :param key: the key column, as the database spells it; empty until that is known.
    :param dialect: SQLAlchemy's name of the database; it decides on quotes and on how to limit rows.
    :param style: how the driver binds values.
    """

    sql: str
    parameters: Bound
    key: str
    dialect: str
    style: Style

    def columns_only(self) -> tuple[str, Bound]:
        """A statement with all columns and no rows."""
        return self._statement("SELECT *", " WHERE 1 = 0")

    def any_null(self) -> tuple[str, Bound]:
        """A statement that returns a row if the key is NULL anywhere."""
        top, tail = self._limit(1)
        return self._statement(f"SELECT {top}1", f" WHERE {self._column} IS NULL{tail}")

    def page(self, after: Any | None, limit: int) -> tuple[str, Bound]:
        """A statement for the next `limit` rows; from the start if `after` is None."""
        top, tail = self._limit(limit)
        return self._statement(f"SELECT {top}*", f" ORDER BY {self._column}{tail}", {">": after})

    def how_many(self, after: Any | None) -> tuple[str, Bound]:
        """A statement for the number of rows; of those behind `after` if that is not None."""
        return self._statement("SELECT COUNT(*)", "", {">": after})

    def counts(self, comparisons: Mapping[str, Any | None], limit: int) -> tuple[str, Bound]:
        """A statement for the keys that compare so, in order, and how often each is there; `limit` at most."""
        top, tail = self._limit(limit)
        tail = f" GROUP BY {self._column} ORDER BY {self._column}{tail}"
        return self._statement(f"SELECT {top}{self._column}, COUNT(*)", tail, comparisons)

    @property
    def _column(self) -> str:
        if self.dialect == "mssql":
            return f"q.[{self.key.replace(']', ']]')}]"
        quote = "`" if self.dialect in BACKTICKS else '"'
        return f"q.{quote}{self.key.replace(quote, quote * 2)}{quote}"

    def _limit(self, rows: int) -> tuple[str, str]:
        """What limits a SELECT: behind that word, and at the end."""
        if self.dialect == "mssql":
            return f"TOP ({rows}) ", ""
        return "", f" FETCH FIRST {rows} ROWS ONLY" if self.dialect in FETCH_FIRST else f" LIMIT {rows}"

    def _statement(
        self, select: str, tail: str, comparisons: Mapping[str, Any | None] | None = None
    ) -> tuple[str, Bound]:
        """`comparisons`: what the key is compared to, by operator; None leaves a comparison out."""
        compared = {sign: value for sign, value in (comparisons or {}).items() if value is not None}
        keys = dict(zip(KEY_PARAMETERS, compared.values(), strict=False))
        parameters = self._beside_own(keys) if keys else self.parameters

        read = self.style.reads_percent and parameters is not None
        ours = _escaped if read else str
        # A query with parameters of its own has its percent signs escaped already.
        sql = _escaped(self.sql) if read and self.parameters is None else self.sql
        marker = self.style.in_mapping if isinstance(parameters, dict) else self.style.in_sequence
        where = " AND ".join(
            f"{ours(self._column)} {sign} {marker.format(name)}" for sign, name in zip(compared, keys, strict=True)
        )
        # The line break ends a comment in the query's last line.
        text = f"{ours(select)} FROM (\n{sql}\n) q{' WHERE ' if where else ''}{where}{ours(tail)}"
        return text, parameters

    def _beside_own(self, keys: dict[str, Any]) -> Bound:
        """The query's parameters and ours, in the query's form, else in the one that the driver prefers."""
        if isinstance(self.parameters, dict):
            return self.parameters | keys
        if self.parameters is None and self.style.prefers_mapping:
            return keys
        return (self.parameters or ()) + tuple(keys.values())


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
) -> Generator[RowChunk, None, None]:
    """Read page after page of at most `size` rows; the first page comes even when it is empty.

    :param on_count: takes the number of rows behind `after`, before the first page; default: they are not counted.
    :raises KeyColumnError: the key column is missing, holds a NULL or a value twice, or its values cannot be compared.
    :raises SourceError: the driver failed.
    """
    with connected(access, sql) as connection:
        in_utc = False

        def run(statement: tuple[str, Bound]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
            with executed(access, connection, *statement) as cursor:
                if in_utc:
                    cursor.know_moments()
                return columns_of(cursor), fetch(cursor, None)

        def end() -> None:
            """End what the database shows of one moment: that of a page is the moment of its check as well."""
            # Drivers without transactions (BigQuery, Trino) refuse; there is nothing to end then.
            with suppress(Exception):
                connection.rollback()

        dialect, style = hook.dialect_name, style_of(connection, hook)
        with executed(access, connection, *Keyset(sql, parameters, "", dialect, style).columns_only()) as cursor:
            columns = columns_of(cursor)
            fetch(cursor, None)
            position = _key_position(columns, key_column)
            if isinstance(cursor, MySqlCursor):
                if cursor.is_numbered(position):
                    raise KeyColumnError(
                        f"key_column {key_column!r} is an ENUM or SET, which MySQL sorts by its number and compares by "
                        f"its text. {REMEDY}"
                    )
                in_utc = cursor.is_moment(position)
        if in_utc:
            log.info("key_column %r is a TIMESTAMP: the query runs with time_zone '+00:00'", key_column)
            with executed(access, connection, "SET time_zone = '+00:00'", None):
                pass
        keyset = Keyset(sql, parameters, columns[position], dialect, style)
        if run(keyset.any_null())[1]:
            raise KeyColumnError(f"key_column {key_column!r} holds NULL, which no page would find. {REMEDY}")
        if on_count:
            on_count(run(keyset.how_many(after))[1][0][0])
        end()

        def page() -> tuple[list[tuple[Any, ...]], list[Any], bool]:
            """The next rows, their keys, and whether there are more."""
            for left in reversed(range(TRIES)):
                _, rows = run(keyset.page(after, size + 1))
                keys = [comparable(row[position]) for row in rows]
                _check_order(key_column, after, keys)
                more = len(rows) > size
                del rows[size:], keys[size:]
                if not keys:
                    end()
                    break
                try:
                    _, found = run(keyset.counts({">": after, "<=": keys[-1]}, size + 1))
                    itself = not first or run(keyset.counts({">=": keys[-1], "<=": keys[-1]}, 1))[1]
                except QueryError as error:
                    raise KeyColumnError(
                        f"key_column {key_column!r} cannot be compared to its own value as the driver gives it: "
                        f"{error}. {REMEDY}"
                    ) from None
                end()
                if any(count != 1 for _, count in found):
                    fault = _repeated(key_column)
                elif [comparable(key) for key, _ in found] != keys or not itself:
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
                yield RowChunk(columns, rows)
            first = False
            after = keys[-1] if keys else after


def comparable(key: Any) -> Any:
    """A key that equals another one of the same moment: two times of one zone are compared by their clocks alone."""
    if isinstance(key, datetime) and (offset := key.utcoffset()) is not None:
        return key.replace(tzinfo=timezone(offset), fold=0)
    return key


def _key_position(columns: Sequence[str], key_column: str) -> int:
    """Where the key is among the columns: by its exact name, else by its name in any case."""
    for spelled in (str, str.lower):
        names = [spelled(column) for column in columns]
        if names.count(spelled(key_column)) == 1:
            return names.index(spelled(key_column))
    raise KeyColumnError(
        f"key_column {key_column!r} has to be one column of the query, which returns: {shown_names(columns)}."
    )


def _check_order(key_column: str, after: Any | None, keys: Sequence[Any]) -> None:
    """Every key has to differ from the one before; NULL and NaN, which no comparison finds, have no place."""
    if any(key is None or key != key for key in keys):
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
