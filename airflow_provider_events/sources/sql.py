"""Rows of a SQL query, read in chunks through any Airflow `DbApiHook`, never fetched whole.

With a `key_column` the source pages by key (`keyset`), else it reads with a cursor that streams (`cursors`).
The query is a single SELECT; one that changes tables is refused. Parameters and rows are never logged.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_events.exceptions import ConfigurationError, QueryError, SourceError
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
from airflow_provider_events.sources.keyset import Limit, Wrapped, key_pages, refuse_own_names
from airflow_provider_events.sources.window import Window, limits_of
from airflow_provider_events.values import kind

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

__all__ = ["RowChunk", "SqlSource", "bound_parameters", "numbered", "send_lineage", "without_terminator"]


class SqlSource:
    """One query over one hook. Nothing is opened before the first chunk is asked for.

    `total` is the number of rows once it is known: with `count_rows`, or where the driver tells; few do.

    :param hook: any `DbApiHook`.
    :param sql: one SELECT, Jinja rendered; a final `;` and comments do no harm. With `key_column` it becomes
        a subquery, so SQL Server takes no `WITH` and no `ORDER BY` in it.
    :param parameters: a mapping or a sequence, or the JSON text of one, in the driver's own style (`%(x)s`, `%s`,
        `:x`, `?`). Default none; then percent signs are just that.
    :param key_column: name of a unique, non-null column of the query, in any case; default none. Gives
        keyset pagination, whose only state is the last key. An index on the column keeps a page cheap. Each page is
        checked by one more query: only the database knows how it compares.
    :param chunk_size: rows in a chunk, default 1000.
    :param count_rows: whether the database counts the rows before the first one is read, by one more query; default
        False. The query becomes a subquery then, too.
    :param window: the interval whose rows are read; default none: all of them. The query becomes a subquery then, too.
    :raises ConfigurationError: `sql` is empty, `parameters` are neither, or `chunk_size` is below 1.
    """

    def __init__(
        self,
        hook: DbApiHook,
        sql: str,
        parameters: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        key_column: str | None = None,
        chunk_size: int = 1000,
        count_rows: bool = False,
        window: Window | None = None,
    ) -> None:
        if chunk_size < 1:
            raise ConfigurationError(f"chunk_size has to be at least 1, not {chunk_size}.")
        self._hook = hook
        self._sql = without_terminator(sql)
        if not self._sql:
            raise ConfigurationError("The SQL is empty.")
        self._parameters = bound_parameters(parameters)
        refuse_own_names(self._parameters)
        self._key_column = key_column
        self._chunk_size = chunk_size
        self._count_rows = count_rows
        self._window = window
        self.total: int | None = None

    @property
    def bounds_with_offset(self) -> list[str]:
        """The parameters that are moments, by name or place: times with an offset, and texts of such."""
        own = self._parameters or {}
        named = own.items() if isinstance(own, dict) else enumerate(own, start=1)
        return [str(name) for name, value in named if _has_offset(value)]

    @property
    def strategy(self) -> str:
        """How the rows are read, in words for the log."""
        if self._key_column is None:
            return self._access.strategy
        return f"keyset pagination on {self._key_column}"

    def chunks(self, *, after: Any | None = None, first_row: int = 1) -> Generator[RowChunk, None, None]:
        """Read the query from the start, or from behind a key.

        The first chunk comes even when it has no rows, so that the columns are known. The connection belongs
        to the returned generator: use it in one thread, and exhaust or `close()` it.

        :param after: with `key_column`: the last key that was read, of the type that the driver gave it with;
            default none.
        :param first_row: number of the first row to come, for the words of an error, default 1.
        :raises ConfigurationError: `after` without `key_column`.
        :raises KeyColumnError: while reading: the key column is missing, or not unique and non-null.
        :raises QueryError: while reading: the statement is at fault, its parameters, or a value in its rows.
        :raises SourceError: while reading: the database failed. No message holds a parameter or a value.
        """
        if self._key_column is None and after is not None:
            raise ConfigurationError("after needs a key_column.")
        return numbered(self._chunks(after, first_row), first_row)

    def count(self, limit: int) -> int:
        """The number of rows, which the database does not count beyond `limit`.

        :raises SourceError: the database failed.
        """
        _, limits = self._limits
        if limits is None:
            return 0
        access = paging(self._hook)
        with connected(access, self._sql) as connection:
            count = self._wrapped(access, connection, limits).count(limit)
        if count < limit:
            self.total = count
        return count

    def _chunks(self, after: Any | None, first_row: int) -> Generator[RowChunk, None, None]:
        columns, limits = self._limits
        if limits is None:
            yield RowChunk(columns, [])
        elif self._key_column is not None:
            yield from self._key_chunks(self._key_column, limits, after, first_row)
        else:
            yield from self._cursor_chunks(limits)

    @cached_property
    def _limits(self) -> tuple[tuple[str, ...], tuple[Limit, ...] | None]:
        """See `limits_of`; the same for each reading."""
        if self._window is None:
            return (), ()
        return limits_of(self._window, self._hook, self._sql, self._parameters)

    def _wrapped(self, access: Access, connection: Any, limits: Sequence[Limit]) -> Wrapped:
        option = "interval_column"
        return Wrapped(self._hook, access, connection, self._sql, self._parameters, [], option, limits)

    @cached_property
    def _access(self) -> Access:
        return streaming(self._hook) if self._key_column is None else paging(self._hook)

    def _key_chunks(
        self, key_column: str, limits: Sequence[Limit], after: Any | None, first_row: int
    ) -> Generator[RowChunk, None, None]:
        def keep(count: int) -> None:
            self.total = first_row - 1 + count

        pages = key_pages(
            self._hook,
            self._access,
            self._sql,
            self._parameters,
            key_column=key_column,
            after=after,
            size=self._chunk_size,
            on_count=keep if self._count_rows else None,
            within=limits,
        )
        with closing(pages):
            first = next(pages)
            send_lineage(self._hook, self._sql)
            yield first
            yield from pages

    def _cursor_chunks(self, limits: Sequence[Limit]) -> Generator[RowChunk, None, None]:
        with connected(self._access, self._sql) as connection:
            wrapped = self._wrapped(self._access, connection, limits) if limits or self._count_rows else None
            counted = wrapped.count() if wrapped and self._count_rows else None
            if wrapped and limits:
                opened = wrapped.executed(wrapped.keyset.unordered())
            else:
                opened = executed(self._access, connection, self._sql, self._parameters)
            with opened as cursor:
                send_lineage(self._hook, self._sql, cursor)
                self.total = (row_count(cursor) or self.total) if counted is None else counted
                rows = fetch(cursor, self._chunk_size)
                columns = columns_of(cursor)
                yield RowChunk(columns, rows)
                while rows := fetch(cursor, self._chunk_size):
                    yield RowChunk(columns, rows)


def send_lineage(hook: DbApiHook, sql: str, cursor: Any = None) -> None:
    """Tell Airflow's lineage of a query; reading through `get_conn` bypasses it. No parameters."""
    try:
        from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
    except ImportError:
        return
    send_sql_hook_lineage(context=hook, sql=sql, cur=cursor)


def numbered(chunks: Generator[RowChunk, None, None], first_row: int) -> Generator[RowChunk, None, None]:
    """The chunks; an error says behind which row it happened."""
    done = first_row - 1
    with closing(chunks):
        while True:
            try:
                chunk = next(chunks, None)
            except SourceError as error:
                if done or (isinstance(error, QueryError) and error.in_rows):
                    error.args = (f"{error} (after row {done})",)
                raise
            if chunk is None:
                return
            yield chunk
            done += len(chunk.rows)


def bound_parameters(parameters: object) -> Bound:
    """The parameters as drivers take them. A template renders to text, in which a driver would bind each letter."""
    read = parameters
    if isinstance(parameters, str):
        with suppress(ValueError):
            read = json.loads(parameters)
    if isinstance(read, Mapping):
        return dict(read) or None
    if isinstance(read, Sequence) and not isinstance(read, str | bytes | bytearray | memoryview):
        return tuple(read) or None
    if read is None and parameters is None:
        return None
    raise ConfigurationError(
        f"parameters: have to be a mapping or a list, not {kind(parameters)}; make each value a template, as in "
        '{"start": "{{ data_interval_start }}"}, or add | tojson to a template that gives all of them'
    )


def _has_offset(value: object) -> bool:
    if isinstance(value, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(value.strip())
    return isinstance(value, datetime) and value.utcoffset() is not None


def without_terminator(sql: str) -> str:
    """Cut the final semicolon, with the comments behind it."""
    from sqlparse import tokens
    from sqlparse.lexer import tokenize

    position, end = len(sql), len(sql)
    for token, text in reversed(list(tokenize(sql))):
        position -= len(text)
        if text == ";":
            end = position
        elif token not in tokens.Whitespace and token not in tokens.Comment:
            break
    return sql[:end].strip()
