"""Keyset pagination: page after page in the order of a unique key, each starting behind the last key read.

No transaction and no cursor outlives a page, and the last key is all that is needed to continue.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from airflow_provider_events.exceptions import KeyColumnError
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

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

__all__ = ["STYLES", "Keyset", "Style", "key_pages"]

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

REMEDY = "Name a column that is unique and not null, or leave key_column out to read with one cursor."


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

    def key_counts(self, after: Any | None, last: Any) -> tuple[str, Bound]:
        """A statement that counts the rows, and the keys, after `after` and up to `last`."""
        counts = f"SELECT COUNT(*), COUNT(DISTINCT {self._column})"
        return self._statement(counts, "", {">": after, "<=": last})

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
) -> Generator[RowChunk, None, None]:
    """Read page after page of at most `size` rows; the first page comes even when it is empty.

    :raises KeyColumnError: the key column is missing, holds a NULL, or holds a value twice.
    :raises SourceError: the driver failed.
    """
    with connected(access) as connection:

        def run(statement: tuple[str, Bound]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
            with executed(access, connection, *statement) as cursor:
                answer = columns_of(cursor), fetch(cursor, None)
            # Drivers without transactions (BigQuery, Trino) refuse; there is nothing to end then.
            with suppress(Exception):
                connection.rollback()
            return answer

        dialect, style = hook.dialect_name, _style(connection, hook)
        columns, _ = run(Keyset(sql, parameters, "", dialect, style).columns_only())
        position = _key_position(columns, key_column)
        keyset = Keyset(sql, parameters, columns[position], dialect, style)
        if run(keyset.any_null())[1]:
            raise KeyColumnError(f"key_column {key_column!r} holds NULL, which no page would find. {REMEDY}")

        rows: list[tuple[Any, ...]] = []
        more, first = True, True
        while more:
            _, rows = run(keyset.page(after, size + 1))
            keys = [row[position] for row in rows]
            _check_order(key_column, after, keys)
            more = len(rows) > size
            del rows[size:], keys[size:]
            if any(isinstance(key, str) for key in keys):
                [(row_count, key_count)] = run(keyset.key_counts(after, keys[-1]))[1]
                if row_count != key_count:
                    raise _repeated(key_column)
            if rows or first:
                yield RowChunk(columns, rows)
            first = False
            after = keys[-1] if keys else after


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


def _style(connection: Any, hook: DbApiHook) -> Style:
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
