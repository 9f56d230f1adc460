"""Cursors that stream: which one a hook's driver has, how to open it, and what its errors become.

| hook | cursor |
| --- | --- |
| `PostgresHook` | named (server-side) cursor of psycopg2 or psycopg |
| `MySqlHook` | `SSCursor` of mysqlclient, or mysql-connector-python's unbuffered cursor |
| SQLite, Snowflake, BigQuery, Trino, Databricks SQL | the plain one: `fetchmany` transfers what it returns |
| any other with a working `get_sqlalchemy_engine` | SQLAlchemy with `stream_results` |
| any other | the plain one, with a warning: many drivers hold the whole result in memory |

Hooks are told apart by class name, so that no database provider is imported that the user has not installed.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

from airflow_provider_events.exceptions import QueryError
from airflow_provider_events.sources.faults import connecting_failed, reading_failed
from airflow_provider_events.sources.mysql import ConnectorCursor, MySqlCursor
from airflow_provider_events.sources.postgres import postgres_cursor
from airflow_provider_events.sources.sessions import (
    mysql_session,
    plain_session,
    postgres_session,
    refuse_changes,
    sqlite_session,
)

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

__all__ = [
    "Access",
    "Bound",
    "RowChunk",
    "columns_of",
    "connected",
    "executed",
    "fetch",
    "paging",
    "row_count",
    "streaming",
]

log = logging.getLogger(__name__)

Bound: TypeAlias = dict[str, Any] | tuple[Any, ...] | None

PLAIN_CURSORS_THAT_STREAM = {
    "SqliteHook",
    "SnowflakeHook",
    "BigQueryHook",
    "TrinoHook",
    "DatabricksSqlHook",
}

MAX_ROW_COUNT = 2**63 - 1


@dataclass(frozen=True, slots=True)
class RowChunk:
    """Consecutive rows of a result.

    :param columns: the names of the columns, as the database spells them.
    :param rows: one tuple a row, with the values as the driver gave them.
    """

    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Access:
    """One way to read through a hook.

    :param strategy: its name, for the log.
    :param connect: opens a DB-API connection.
    :param cursor: opens a cursor that gives sequences (never dictionaries), and releases it.
    :param session: sets up a connection before it reads; whether the database refuses changes by it from then on.
    """

    strategy: str
    connect: Callable[[], Any]
    cursor: Callable[[Any], AbstractContextManager[Any]]
    session: Callable[[Any], bool] = plain_session


def streaming(hook: DbApiHook) -> Access:
    """The way to read one long result with a bounded number of rows in memory. Opens nothing."""
    classes = {cls.__name__: cls for cls in type(hook).__mro__}
    if "PostgresHook" in classes:
        driver = _postgres_driver(classes["PostgresHook"])
        return Access(
            f"PostgreSQL named cursor ({driver})",
            hook.get_conn,
            lambda connection: _closing(postgres_cursor(connection, driver, name=f"events_{uuid4().hex}")),
            lambda connection: postgres_session(connection, driver),
        )
    if "MySqlHook" in classes:
        # Closing such a cursor would read all the rest of its rows; it ends with its connection.
        if _uses_mysql_connector(hook):
            return Access(
                "unbuffered cursor (mysql-connector-python)",
                hook.get_conn,
                lambda connection: nullcontext(ConnectorCursor(connection.cursor(buffered=False), connection)),
                mysql_session,
            )
        unbuffered = _mysqlclient_cursor("SSCursor")
        return Access(
            "SSCursor (mysqlclient)",
            hook.get_conn,
            lambda connection: nullcontext(MySqlCursor(connection.cursor(unbuffered), connection)),
            mysql_session,
        )
    if PLAIN_CURSORS_THAT_STREAM & classes.keys():
        return Access("cursor with fetchmany", hook.get_conn, _plain_cursor, _plain_session(classes))
    try:
        engine = hook.get_sqlalchemy_engine()
    except Exception as error:
        log.warning(
            "%s has neither a known server-side cursor nor an SQLAlchemy engine (%s). "
            "The driver may hold the whole result in memory; a key_column avoids that.",
            type(hook).__name__,
            type(error).__name__,
        )
        return Access("client cursor", hook.get_conn, _plain_cursor)
    return Access("SQLAlchemy stream_results", lambda: _EngineConnection(engine), _plain_cursor)


def paging(hook: DbApiHook) -> Access:
    """The way to read many small results, each fetched whole. Opens nothing."""
    classes = {cls.__name__: cls for cls in type(hook).__mro__}
    if "PostgresHook" in classes:
        driver = _postgres_driver(classes["PostgresHook"])
        return Access(
            f"client cursor ({driver})",
            hook.get_conn,
            lambda connection: _closing(postgres_cursor(connection, driver)),
            lambda connection: postgres_session(connection, driver),
        )
    if "MySqlHook" in classes:
        if _uses_mysql_connector(hook):
            return Access(
                "client cursor (mysql-connector-python)",
                hook.get_conn,
                lambda connection: _closing(ConnectorCursor(connection.cursor(), connection)),
                mysql_session,
            )
        cursor_class = _mysqlclient_cursor("Cursor")
        return Access(
            "client cursor (mysqlclient)",
            hook.get_conn,
            lambda connection: _closing(MySqlCursor(connection.cursor(cursor_class), connection)),
            mysql_session,
        )
    return Access("client cursor", hook.get_conn, _plain_cursor, _plain_session(classes))


@contextmanager
def connected(access: Access, sql: str) -> Iterator[Any]:
    """An open connection for a query, closed at the end of the block. Nothing is changed, nor committed.

    :raises QueryError: the query changes tables, and the database would let it.
    :raises SourceError: the driver cannot connect.
    """
    try:
        connection = access.connect()
    except Exception as error:
        if (failed := connecting_failed(error)) is not None:
            raise failed from None
        raise
    with _closing(connection):
        try:
            reads_only = access.session(connection)
        except Exception as error:
            raise reading_failed(error, connection, doing="executing") from None
        if not reads_only:
            refuse_changes(sql)
        yield connection


@contextmanager
def executed(access: Access, connection: Any, sql: str, parameters: Bound) -> Iterator[Any]:
    """A cursor with a statement's result, released at the end of the block.

    Without parameters the driver is given none, so that it leaves percent signs alone.

    :raises QueryError: the statement is at fault, or its parameters, or a value that it makes.
    :raises SourceError: the driver failed otherwise.
    """
    try:
        managed = access.cursor(connection)
    except Exception as error:
        raise reading_failed(error, connection, doing="executing") from None
    with managed as cursor:
        try:
            if parameters is None:
                cursor.execute(sql)
            else:
                cursor.execute(sql, parameters)
        except Exception as error:
            raise reading_failed(error, connection, sql, doing="executing") from None
        yield cursor


def fetch(cursor: Any, size: int | None) -> list[tuple[Any, ...]]:
    """Up to `size` more rows, as tuples; `None` means all that are left.

    :raises QueryError: a row holds what cannot be read.
    :raises SourceError: the driver failed otherwise, as when the connection is lost.
    """
    try:
        rows = cursor.fetchall() if size is None else cursor.fetchmany(size)
    except Exception as error:
        raise reading_failed(error, getattr(cursor, "connection", None), doing="fetching") from None
    return list(map(tuple, rows))


def columns_of(cursor: Any) -> tuple[str, ...]:
    """The names of the columns of an executed statement (psycopg2's named cursor: once it was fetched from).

    :raises QueryError: the statement returns no rows by its nature.
    """
    if cursor.description is None:
        raise QueryError("The SQL returned no columns: a source needs one SELECT.", in_rows=False)
    return tuple(column[0] for column in cursor.description)


def row_count(cursor: Any) -> int | None:
    """How many rows an executed statement has, where the driver tells; some say 2**64 - 1 for "unknown"."""
    count = None
    with suppress(Exception):  # nothing depends on it
        count = cursor.rowcount
    return count if isinstance(count, int) and 0 < count < MAX_ROW_COUNT else None


@contextmanager
def _closing(resource: Any) -> Iterator[Any]:
    """`contextlib.closing` for what may be lost already: a failing close must not hide the first error."""
    try:
        yield resource
    finally:
        with suppress(Exception):
            resource.close()


def _plain_cursor(connection: Any) -> AbstractContextManager[Any]:
    return _closing(connection.cursor())


def _plain_session(classes: Container[str]) -> Callable[[Any], bool]:
    return sqlite_session if "SqliteHook" in classes else plain_session


def _postgres_driver(hook_class: type) -> str:
    """`psycopg` or `psycopg2`: the hook's module decides for all of its connections; older ones know one."""
    return "psycopg" if getattr(sys.modules[hook_class.__module__], "USE_PSYCOPG3", False) else "psycopg2"


def _uses_mysql_connector(hook: DbApiHook) -> bool:
    return bool(hook.connection_extra.get("client") == "mysql-connector-python")


def _mysqlclient_cursor(name: str) -> Any:
    return getattr(import_module("MySQLdb.cursors"), name)


class _EngineConnection:
    """An SQLAlchemy connection as a DB-API one. The SQL goes to the driver as it is."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._connection = engine.connect().execution_options(stream_results=True, no_parameters=True)

    def cursor(self) -> _EngineCursor:
        return _EngineCursor(self._connection)

    def close(self) -> None:
        self._connection.close()
        self._engine.dispose()


class _EngineCursor:
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._result: Any = None

    @property
    def description(self) -> list[tuple[str]] | None:
        return [(name,) for name in list(self._result.keys())] if self._result.returns_rows else None

    @property
    def rowcount(self) -> int:
        count: int = self._result.rowcount
        return count

    def execute(self, sql: str, parameters: Bound = None) -> None:
        self._result = self._connection.exec_driver_sql(sql, parameters)

    def fetchmany(self, size: int) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] = self._result.fetchmany(size)
        return rows

    def close(self) -> None:
        self._result.close()
