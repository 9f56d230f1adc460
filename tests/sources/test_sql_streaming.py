"""Nothing is fetched whole, nothing is left open, nothing is told that should not be."""

from __future__ import annotations

import json
import logging
import sqlite3
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.sql.hooks.sql import DbApiHook
from sqlalchemy.engine import URL, make_url

from airflow_provider_events.exceptions import QueryError, SourceError
from airflow_provider_events.sources.sql import SqlSource
from tests.servers import Database, Server, databases

pytest_plugins = ["tests.servers"]

SERIES = {
    "sqlite": "WITH RECURSIVE s(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM s LIMIT {rows}) "
    "SELECT id, printf('%0500d', id) AS padding FROM s",
    "postgres": "SELECT id, lpad(id::text, 500, '0') AS padding FROM generate_series(1, {rows}) AS s(id)",
    "mysql": "SELECT seq AS id, lpad(seq, 500, '0') AS padding FROM seq_1_to_{rows}",
}
OTHER_BACKENDS = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
OPEN_CONNECTIONS = {
    "postgres": f"SELECT count(*) {OTHER_BACKENDS}",
    "mysql": "SELECT count(*) FROM information_schema.processlist "
    "WHERE user = 'events' AND id <> connection_id() AND command <> 'Killed'",
}


def series(database: Database, rows: int) -> str:
    """A query for that many rows of half a kilobyte."""
    return SERIES[database.hook.conn_type].format(rows=rows)


def wait_until_closed(database: Database) -> None:
    """A server notices a closed connection a moment later than its client."""
    for _ in range(1000):
        [(count,)] = database.hook.get_records(OPEN_CONNECTIONS[database.hook.conn_type])
        if count == 0:
            return
    raise AssertionError("The source left a connection open")


def python_peak(source: SqlSource) -> int:
    """Bytes that Python held at most while the source was read to its end."""
    tracemalloc.start()
    try:
        for _ in source.chunks():
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("key_column", [None, "id"])
@databases("sqlite", "psycopg2", "psycopg", "mysqlclient", "mysql-connector-python")
def test_memory_does_not_grow_with_the_rows(database: Database, key_column: str | None) -> None:
    """Python's own memory; that the driver holds no rows either is what the next tests are about."""
    few, many = 400, 4000
    peaks = []
    for rows in (few, few, many):
        database.run("DROP TABLE IF EXISTS t", f"CREATE TABLE t AS {series(database, rows)}")
        peaks.append(python_peak(SqlSource(database.hook, "SELECT * FROM t", key_column=key_column, chunk_size=100)))

    assert peaks[2] < peaks[1] + 200_000, "4,000 rows of 500 bytes would be 2 MB"


@databases("psycopg2", "psycopg")
def test_postgresql_keeps_the_rows_on_the_server(database: Database) -> None:
    sql = "SELECT id, (SELECT string_agg(name, ',') FROM pg_cursors) FROM generate_series(1, 5) AS s(id)"
    chunks = SqlSource(database.hook, sql, chunk_size=2).chunks()

    rows = [row for chunk in chunks for row in chunk.rows]

    assert len(rows) == 5
    assert all(cursors.startswith("events_") for _, cursors in rows)


@databases("psycopg2", "psycopg")
def test_postgresql_transfers_only_what_was_asked_for(database: Database) -> None:
    sql = "SELECT pg_advisory_lock(n)::text FROM generate_series(1, 1000000) n"
    chunks = SqlSource(database.hook, sql, chunk_size=10).chunks()

    next(chunks)
    [(computed,)] = database.hook.get_records("SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory'")
    chunks.close()

    assert computed == 10


@databases("mysqlclient", "mysql-connector-python")
def test_mariadb_is_still_sending_after_the_first_chunk(database: Database) -> None:
    chunks = SqlSource(database.hook, series(database, 10_000_000), chunk_size=10).chunks()

    next(chunks)
    states = database.hook.get_records(
        "SELECT state FROM information_schema.processlist WHERE info LIKE '%seq_1_to_10000000' AND command = 'Query'"
    )
    chunks.close()

    assert len(states) == 1


@pytest.mark.parametrize("key_column", [None, "id"])
@databases("psycopg2", "psycopg", "mysqlclient", "mysql-connector-python")
def test_an_early_close_releases_the_connection_at_once(database: Database, key_column: str | None) -> None:
    chunks = SqlSource(database.hook, series(database, 3_000_000), key_column=key_column, chunk_size=10).chunks()
    if key_column:
        database.run("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1), (2), (3)")
        chunks = SqlSource(database.hook, "SELECT id FROM t", key_column=key_column, chunk_size=1).chunks()

    next(chunks)
    chunks.close()

    wait_until_closed(database)


@databases("mysqlclient", "mysql-connector-python")
def test_an_early_close_does_not_transfer_the_rest(database: Database) -> None:
    """Which a polite `cursor.close()` does: a task that was told to stop would read on, for minutes."""

    def bytes_sent() -> int:
        [(_, count)] = database.hook.get_records("SHOW GLOBAL STATUS LIKE 'Bytes_sent'")
        return int(count)

    before = bytes_sent()
    chunks = SqlSource(database.hook, series(database, 200_000), chunk_size=10).chunks()
    next(chunks)
    chunks.close()
    wait_until_closed(database)

    assert bytes_sent() - before < 50_000_000, "200,000 rows of 500 bytes are 100 MB"


@pytest.mark.parametrize("key_column", [None, "id"])
@databases("psycopg2", "psycopg", "mysqlclient", "mysql-connector-python")
def test_the_end_and_an_error_release_the_connection(database: Database, key_column: str | None) -> None:
    list(SqlSource(database.hook, "SELECT 1 AS id", key_column=key_column).chunks())
    with pytest.raises(SourceError):
        list(SqlSource(database.hook, "SELECT id FROM nowhere", key_column=key_column).chunks())

    wait_until_closed(database)


@databases("psycopg2", "psycopg")
def test_no_transaction_is_open_between_pages(database: Database) -> None:
    sql = "SELECT id FROM generate_series(1, 9) AS s(id)"
    source = SqlSource(database.hook, sql, key_column="id", chunk_size=2)

    for _ in source.chunks():
        assert database.hook.get_records(f"SELECT state {OTHER_BACKENDS}") == [("idle",)]


@pytest.mark.parametrize("key_column", [None, "id"])
@databases("psycopg2", "psycopg", "mysqlclient", "mysql-connector-python")
def test_a_lost_connection_can_be_retried(database: Database, key_column: str | None) -> None:
    database.run("CREATE TABLE t (id INT PRIMARY KEY, padding VARCHAR(600))")
    database.run(f"INSERT INTO t {series(database, 20_000)}")
    chunks = SqlSource(database.hook, "SELECT * FROM t", key_column=key_column, chunk_size=10).chunks()
    next(chunks)

    if database.hook.conn_type == "postgres":
        database.run(f"SELECT pg_terminate_backend(pid) {OTHER_BACKENDS}")
    else:
        [(identity,)] = database.hook.get_records(
            "SELECT id FROM information_schema.processlist WHERE user = 'events' AND id <> connection_id()"
        )
        database.run(f"KILL {identity}")

    with pytest.raises(SourceError, match=r"could not be read: (psycopg|MySQLdb|mysql)\S+") as raised:
        list(chunks)
    assert raised.value.retryable
    assert "0000" not in str(raised.value)
    wait_until_closed(database)


@databases("psycopg2", "psycopg", "mysqlclient")
def test_a_server_that_is_not_there_can_be_retried(database: Database) -> None:
    database.hook.connection.port = 1

    with pytest.raises(SourceError, match=r"No connection to the database: .*Error") as raised:
        next(SqlSource(database.hook, "SELECT 1").chunks())

    assert raised.value.retryable


@databases("sqlite")
def test_everything_happens_in_the_reading_thread(database: Database) -> None:
    source = SqlSource(database.hook, series(database, 100), chunk_size=10)
    seen: list[Any] = []

    reader = threading.Thread(target=lambda: seen.extend(row for chunk in source.chunks() for row in chunk.rows))
    reader.start()
    reader.join()

    assert len(seen) == 100


@pytest.mark.parametrize("key_column", [None, "id"])
@databases("sqlite")
def test_nothing_is_opened_before_the_first_chunk(
    database: Database, monkeypatch: pytest.MonkeyPatch, key_column: str | None
) -> None:
    opened: list[sqlite3.Connection] = []
    connect = type(database.hook).get_conn

    def counting(hook: Any) -> sqlite3.Connection:
        opened.append(connect(hook))
        return opened[-1]

    monkeypatch.setattr(type(database.hook), "get_conn", counting)
    chunks = SqlSource(database.hook, "SELECT 1 AS id", key_column=key_column).chunks()
    assert opened == []

    next(chunks)
    chunks.close()

    [connection] = opened
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


@pytest.mark.parametrize("key_column", [None, "id"])
@databases("sqlite")
def test_a_value_that_cannot_be_read_is_not_quoted(database: Database, key_column: str | None) -> None:
    sql = "SELECT 1 AS id, CAST(x'ff65766140' AS TEXT) AS broken"

    with pytest.raises(SourceError, match=r"sqlite3\.OperationalError") as raised:
        list(SqlSource(database.hook, sql, key_column=key_column).chunks())

    assert "eva@" not in str(raised.value)


@pytest.mark.parametrize("key_column", [None, "id"])
def test_parameters_and_rows_are_never_logged(
    database: Database, caplog: pytest.LogCaptureFixture, key_column: str | None
) -> None:
    caplog.set_level(logging.DEBUG)
    sql = database.positional("SELECT 1 AS id, %s AS email")
    source = SqlSource(database.hook, sql, ("eva@example.com",), key_column=key_column)

    list(source.chunks())

    assert "eva@example.com" not in caplog.text


@pytest.mark.parametrize("key_column", [None, "id"])
@databases("sqlite")
def test_lineage_learns_of_the_query_and_of_no_parameter(
    database: Database, monkeypatch: pytest.MonkeyPatch, key_column: str | None
) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "airflow.providers.common.sql.hooks.lineage.send_sql_hook_lineage", lambda **told: sent.append(told)
    )

    list(SqlSource(database.hook, "SELECT ? AS id", (1,), key_column=key_column, chunk_size=1).chunks())

    [told] = sent
    assert (told["context"], told["sql"]) == (database.hook, "SELECT ? AS id")
    assert "sql_parameters" not in told


@databases("sqlite")
def test_a_provider_without_lineage_is_fine(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "airflow.providers.common.sql.hooks.lineage", None)

    [chunk] = SqlSource(database.hook, "SELECT 1").chunks()

    assert list(chunk.rows) == [(1,)]


class UnknownHook(DbApiHook):
    """A hook that no one told us of, with an SQLAlchemy engine."""

    conn_name_attr = "unknown_conn_id"
    conn_type = "unknown"

    @property
    def sqlalchemy_url(self) -> URL:
        return make_url(self.connection.extra_dejson["url"])


class EnginelessHook(DbApiHook):
    """A hook with a plain DB-API connection and nothing else."""

    conn_name_attr = "engineless_conn_id"
    conn_type = "engineless"
    _placeholder = "?"

    def get_conn(self) -> sqlite3.Connection:
        return sqlite3.connect(str(self.connection.host))

    def get_sqlalchemy_engine(self, engine_kwargs: Any = None) -> Any:
        raise NotImplementedError  # as hooks do that have no engine


@pytest.fixture
def unknown_postgres(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[UnknownHook]:
    url = f"postgresql+psycopg2://{postgres.user}@{postgres.host}:{postgres.port}/{postgres.database}"
    connection = {"conn_type": "unknown", "extra": {"url": url}}
    monkeypatch.setenv("AIRFLOW_CONN_UNKNOWN", json.dumps(connection))
    return UnknownHook(unknown_conn_id="unknown")


@pytest.mark.slow
@pytest.mark.parametrize("parameters", [[3], {"least": 3}])
def test_an_unknown_hook_streams_through_sqlalchemy(unknown_postgres: UnknownHook, parameters: Any) -> None:
    marker = "%s" if isinstance(parameters, list) else "%(least)s"
    sql = f"SELECT id, statement FROM generate_series(1, 5) s(id), pg_cursors WHERE id >= {marker};"
    source = SqlSource(unknown_postgres, sql, parameters, chunk_size=2)

    chunks = list(source.chunks())

    assert source.strategy == "SQLAlchemy stream_results"
    assert chunks[0].columns == ("id", "statement")
    assert [row[0] for chunk in chunks for row in chunk.rows] == [3, 4, 5]
    assert all(type(row) is tuple for chunk in chunks for row in chunk.rows)


@pytest.mark.slow
def test_sqlalchemy_leaves_percent_signs_and_colons_alone(unknown_postgres: UnknownHook) -> None:
    [chunk] = SqlSource(unknown_postgres, "SELECT '5 %s :x %(y)s' WHERE 'a' LIKE 'a%'").chunks()

    assert list(chunk.rows) == [("5 %s :x %(y)s",)]


@pytest.mark.slow
def test_an_error_through_sqlalchemy_tells_nothing_of_parameters(unknown_postgres: UnknownHook) -> None:
    source = SqlSource(unknown_postgres, "SELECT nope, %s", ["eva@example.com"])

    with pytest.raises(
        QueryError, match=r"psycopg2\.errors\.UndefinedColumn \(42703\): column \"nope\" does not exist$"
    ):
        list(source.chunks())


@pytest.mark.slow
def test_a_statement_without_rows_is_refused_through_sqlalchemy(unknown_postgres: UnknownHook) -> None:
    with pytest.raises(SourceError):
        list(SqlSource(unknown_postgres, "SET statement_timeout = 0").chunks())


@pytest.mark.parametrize("key_column", [None, "id"])
def test_a_hook_without_an_engine_is_read_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, key_column: str | None
) -> None:
    connection = {"conn_type": "engineless", "host": str(tmp_path / "events.db")}
    monkeypatch.setenv("AIRFLOW_CONN_ENGINELESS", json.dumps(connection))
    hook = EnginelessHook(engineless_conn_id="engineless")
    source = SqlSource(hook, "SELECT 1 AS id UNION ALL SELECT 2", key_column=key_column, chunk_size=1)

    rows = [row for chunk in source.chunks() for row in chunk.rows]

    assert rows == [(1,), (2,)]
    assert ("a key_column avoids that" in caplog.text) is (key_column is None)
    assert source.strategy == ("keyset pagination on id" if key_column else "client cursor")
