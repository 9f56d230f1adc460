"""Rows of a SQL query, read in chunks through any Airflow `DbApiHook`, never fetched whole.

With a `key_column` the source pages by key (`keyset`), else it reads with a cursor that streams (`cursors`).
The query is a single SELECT; what it changes is rolled back. Parameters and rows are never logged.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.sources.cursors import (
    Access,
    Bound,
    RowChunk,
    columns_of,
    connected,
    executed,
    fetch,
    paging,
    row_count,
    streaming,
)
from airflow_provider_events.sources.keyset import key_pages

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

__all__ = ["RowChunk", "SqlSource"]


class SqlSource:
    """One query over one hook. Nothing is opened before the first chunk is asked for.

    `total` is the number of rows once the driver has told; few do, and never for a `key_column`.

    :param hook: any `DbApiHook`.
    :param sql: one SELECT, Jinja rendered; a final `;` and comments do no harm. With `key_column` it becomes
        a subquery, so SQL Server takes no `WITH` and no `ORDER BY` in it.
    :param parameters: a mapping or a sequence, in the driver's own style (`%(x)s`, `%s`, `:x`, `?`).
        Default none; then percent signs are just that.
    :param key_column: name of a unique, non-null column of the query, in any case; default none. Gives
        keyset pagination, whose only state is the last key. An index on the column keeps a page cheap. A text
        key costs one more query a page: only the database knows which texts its collation holds for the same.
    :param chunk_size: rows in a chunk, default 1000.
    :raises ConfigurationError: `sql` is empty, or `chunk_size` is below 1.
    """

    def __init__(
        self,
        hook: DbApiHook,
        sql: str,
        parameters: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        key_column: str | None = None,
        chunk_size: int = 1000,
    ) -> None:
        if chunk_size < 1:
            raise ConfigurationError(f"chunk_size has to be at least 1, not {chunk_size}.")
        self._hook = hook
        self._sql = _without_terminator(sql)
        if not self._sql:
            raise ConfigurationError("The SQL is empty.")
        self._parameters = _bound(parameters)
        self._key_column = key_column
        self._chunk_size = chunk_size
        self.total: int | None = None

    @property
    def strategy(self) -> str:
        """How the rows are read, in words for the log."""
        if self._key_column is None:
            return self._access.strategy
        return f"keyset pagination on {self._key_column}"

    def chunks(self, *, after: Any | None = None) -> Generator[RowChunk, None, None]:
        """Read the query from the start, or from behind a key.

        The first chunk comes even when it has no rows, so that the columns are known. The connection belongs
        to the returned generator: use it in one thread, and exhaust or `close()` it.

        :param after: with `key_column`: the last key that was read, of the type that the driver gave it with;
            default none.
        :raises ConfigurationError: `after` without `key_column`.
        :raises KeyColumnError: while reading: the key column is missing, or not unique and non-null.
        :raises SourceError: while reading: the database failed; the message names no parameter and no value.
        """
        if self._key_column is not None:
            return self._key_chunks(self._key_column, after)
        if after is not None:
            raise ConfigurationError("after needs a key_column.")
        return self._cursor_chunks()

    @cached_property
    def _access(self) -> Access:
        return streaming(self._hook) if self._key_column is None else paging(self._hook)

    def _key_chunks(self, key_column: str, after: Any | None) -> Generator[RowChunk, None, None]:
        pages = key_pages(
            self._hook,
            self._access,
            self._sql,
            self._parameters,
            key_column=key_column,
            after=after,
            size=self._chunk_size,
        )
        with closing(pages):
            first = next(pages)
            self._send_lineage()
            yield first
            yield from pages

    def _cursor_chunks(self) -> Generator[RowChunk, None, None]:
        with (
            connected(self._access) as connection,
            executed(self._access, connection, self._sql, self._parameters) as cursor,
        ):
            self._send_lineage(cursor)
            self.total = row_count(cursor)
            rows = fetch(cursor, self._chunk_size)
            columns = columns_of(cursor)
            yield RowChunk(columns, rows)
            while rows := fetch(cursor, self._chunk_size):
                yield RowChunk(columns, rows)

    def _send_lineage(self, cursor: Any = None) -> None:
        """Tell Airflow's lineage of the query; reading through `get_conn` bypasses it. No parameters."""
        try:
            from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
        except ImportError:
            return
        send_sql_hook_lineage(context=self._hook, sql=self._sql, cur=cursor)


def _bound(parameters: Mapping[str, Any] | Sequence[Any] | None) -> Bound:
    if not parameters:
        return None
    return dict(parameters) if isinstance(parameters, Mapping) else tuple(parameters)


def _without_terminator(sql: str) -> str:
    """Cut the final semicolon, with the comments behind it."""
    from sqlparse import tokens
    from sqlparse.lexer import tokenize

    position, end = len(sql), len(sql)
    for kind, text in reversed(list(tokenize(sql))):
        position -= len(text)
        if text == ";":
            end = position
        elif kind not in tokens.Whitespace and kind not in tokens.Comment:
            break
    return sql[:end].strip()
