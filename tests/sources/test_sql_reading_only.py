"""A source changes no table: the session refuses, or the statement is refused before it runs."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from airflow_provider_events.exceptions import QueryError
from airflow_provider_events.sources.sessions import refuse_changes
from airflow_provider_events.sources.sql import SqlSource
from tests.servers import Database, databases

pytest_plugins = ["tests.servers"]

CHANGING = [
    "DELETE FROM t",
    "DELETE FROM t RETURNING k",
    "INSERT INTO t VALUES (3) RETURNING k",
    "UPDATE t SET k = k + 1 WHERE k = 2",
    "DROP TABLE t",
    "CREATE TABLE u AS SELECT * FROM t",
]


def refused(source: SqlSource) -> str:
    with pytest.raises(QueryError) as raised:
        list(source.chunks())
    assert not raised.value.retryable
    assert "after row" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("key_column", [None, "k"])
def test_a_query_that_changes_tables_is_refused_and_changes_none(database: Database, key_column: str | None) -> None:
    # MyISAM has no transaction that could be rolled back.
    engine = " ENGINE=MyISAM" if database.driver.startswith("mysql") else ""
    database.run(f"CREATE TABLE t (k INT){engine}", "INSERT INTO t VALUES (1), (2)")

    for sql in CHANGING:
        refused(SqlSource(database.hook, sql, key_column=key_column))

        assert list(database.hook.get_records("SELECT k FROM t ORDER BY k")) == [(1,), (2,)]


@databases("sqlite", "mysqlclient", "mysql-connector-python")
def test_words_say_what_is_wrong_with_such_a_query(database: Database) -> None:
    database.run("CREATE TABLE t (k INT)", "INSERT INTO t VALUES (1)")

    assert "the SQL changes tables; a source needs one SELECT" in refused(SqlSource(database.hook, CHANGING[1]))


@pytest.mark.parametrize("key_column", [None, "k"])
@databases("psycopg2", "psycopg")
def test_a_function_that_changes_tables_is_refused_as_well(database: Database, key_column: str | None) -> None:
    database.run(
        "CREATE TABLE t (k INT)",
        "CREATE FUNCTION change() RETURNS INT LANGUAGE sql AS 'INSERT INTO t VALUES (3) RETURNING k'",
    )

    assert "changes tables" in refused(SqlSource(database.hook, "SELECT change() AS k", key_column=key_column))
    assert database.hook.get_records("SELECT k FROM t") == []


class AutocommitHook:
    """A database whose driver commits each statement, and whose session nobody has set up."""

    dialect_name = "default"
    placeholder = "?"
    connection_extra: dict[str, Any] = {}  # noqa: RUF012 (as the hook has it)

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.executescript("CREATE TABLE t (k INT); INSERT INTO t VALUES (1), (2)")

    def get_conn(self) -> Any:
        connection = self.connection

        class Open:
            cursor = connection.cursor
            rollback = connection.rollback

            def close(self) -> None: ...

        return Open()


@pytest.mark.parametrize("sql", [*CHANGING, "WITH gone AS (SELECT 1) DELETE FROM t", "-- SELECT\nDELETE FROM t"])
def test_where_the_database_would_let_it_the_statement_never_runs(sql: str) -> None:
    hook: Any = AutocommitHook()

    assert "only reads" in refused(SqlSource(hook, sql))
    assert hook.connection.execute("SELECT k FROM t").fetchall() == [(1,), (2,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1; DELETE FROM t",
        "SELECT 1 DELETE FROM t",
        "SELECT * INTO copied FROM t",
        "WITH d AS (DELETE FROM t RETURNING k) SELECT * FROM d",
        "WITH d AS (UPDATE t SET k = 1 RETURNING k) SELECT * FROM d",
        "WITH s AS (SELECT 1) MERGE INTO t USING s ON 1 = 1 WHEN MATCHED THEN DELETE",
        "SELECT * FROM FINAL TABLE (INSERT INTO t VALUES (1))",
        "SELECT 1; TRUNCATE TABLE t",
        "EXEC change_everything",
        "CALL change_everything()",
        "REPLACE INTO t VALUES (1)",
        "BEGIN; DELETE FROM t; COMMIT",
        "GRANT ALL ON t TO anybody",
        "",
    ],
)
def test_statements_that_may_change_something(sql: str) -> None:
    with pytest.raises(QueryError, match="only reads"):
        refuse_changes(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'DELETE FROM t' AS k -- DROP TABLE t",
        'SELECT "update", [delete], q.insert FROM t q',
        "SELECT REPLACE(name, 'a', 'b') AS replaced, INSERT(name, 1, 2, 'x') FROM t",
        "SELECT * REPLACE (name AS n) FROM t",
        "(SELECT 1) UNION (SELECT 2)",
        "WITH a AS (SELECT 1 AS k), b (k) AS (VALUES (2)) SELECT k FROM a UNION SELECT k FROM b",
        "VALUES (1)",
        "/* a */ select k from t for update",
        "SELECT updated_at, created_at, CASE WHEN deleted THEN 1 END FROM t",
        "SELECT COUNT(update), (merge) FROM t",
        "TABLE t",
        "SHOW TABLES",
        "SELECT EXTRACT(HOUR FROM at), TRUNCATE(x, 2) FROM t INNER MERGE JOIN u ON 1 = 1",
    ],
)
def test_statements_that_only_read(sql: str) -> None:
    refuse_changes(sql)
