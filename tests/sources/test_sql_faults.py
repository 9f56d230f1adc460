"""What a driver's error becomes: final where no retry helps, in words, and without a value."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest

from airflow_provider_events.exceptions import ConfigurationError, InvalidEvent, QueryError, SourceError
from airflow_provider_events.sources.faults import reading_failed
from airflow_provider_events.sources.mapping import EventMapping
from airflow_provider_events.sources.rows import SqlRecords
from airflow_provider_events.sources.sql import SqlSource
from airflow_provider_events.values import json_object
from tests.servers import Database, databases
from tests.sources.test_sql_keyset import MemoryHook

pytest_plugins = ["tests.servers"]

POSTGRESQL = databases("psycopg2", "psycopg")
MARIADB = databases("mysqlclient", "mysql-connector-python")
SECRET = "eva.o'hara-1984"


def failure(source: SqlSource) -> QueryError:
    with pytest.raises(QueryError) as raised:
        list(source.chunks())
    assert not raised.value.retryable
    assert raised.value.__context__ is None or raised.value.__suppress_context__
    assert len(str(raised.value)) < 600
    return raised.value


# -- the statement -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key_column", [None, "id"])
@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("SELECT id, title FROM nowhere WHERE title <> %s", "nowhere"),
        ("SELECT id, nothing FROM orders WHERE title <> %s", "nothing"),
        ("SELECT id, no_such_function(title) AS x FROM orders WHERE title <> %s", "no_such_function"),
        ("SELEKT id FROM orders WHERE title <> %s", "yntax"),
        ("SELECT id FROM orders WHER title <> %s", "yntax"),
    ],
)
def test_a_wrong_statement_is_final_and_says_why_beside_parameters(
    database: Database, sql: str, named: str, key_column: str | None
) -> None:
    database.run("CREATE TABLE orders (id INT NOT NULL PRIMARY KEY, title VARCHAR(50))")

    error = failure(SqlSource(database.hook, database.positional(sql), (SECRET,), key_column=key_column))

    assert named in str(error)
    assert "1984" not in str(error)
    assert "after row" not in str(error)


@pytest.mark.parametrize("parameters", [(1, 2), (1, 2, 3, 4), {"other": 1}], ids=str)
def test_parameters_that_do_not_fit_are_final(database: Database, parameters: Any) -> None:
    failure(SqlSource(database.hook, database.positional("SELECT %s AS a, %s AS b, %s AS c"), parameters))


@databases("sqlite", "psycopg2", "psycopg", "mysqlclient")
def test_a_parameter_that_the_driver_cannot_write_is_final_and_not_shown(database: Database) -> None:
    sql = database.positional("SELECT %s AS a")

    assert "eva" not in str(failure(SqlSource(database.hook, sql, ("eva\ud800",))))


def test_a_statement_without_rows_is_final(database: Database) -> None:
    database.run("CREATE TABLE t (k INT)")

    failure(SqlSource(database.hook, "UPDATE t SET k = 1"))


@MARIADB
def test_an_ambiguous_column_is_the_statements_fault_though_mysql_calls_it_a_constraint(database: Database) -> None:
    error = failure(SqlSource(database.hook, "SELECT k FROM (SELECT 1 AS k) a, (SELECT 2 AS k) b"))

    assert "'k'" in str(error)
    assert not error.in_rows


# -- values that a statement makes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("1 / (3 - n)", "a division by zero"),
        ("CAST(CASE WHEN n = 3 THEN 'eva' ELSE '1' END AS int)", "a text that is not of the type"),
        ("CAST(CASE WHEN n = 3 THEN 'eva' ELSE '2026-03-01' END AS date)", "a text that is no date"),
        ("exp(CASE WHEN n = 3 THEN 10000 ELSE 1 END)", "a number out of range"),
        ("convert_from(decode(CASE WHEN n = 3 THEN 'ff' ELSE '41' END, 'hex'), 'UTF8')", "bytes that are no text"),
        ("(SELECT 1 FROM generate_series(1, CASE WHEN n = 3 THEN 2 ELSE 1 END))", "a subquery with more than one row"),
    ],
)
@pytest.mark.parametrize("key_column", [None, "n"])
@POSTGRESQL
def test_a_value_that_postgresql_cannot_make_is_final(
    database: Database, expression: str, words: str, key_column: str | None
) -> None:
    sql = f"SELECT n, {expression} AS v FROM generate_series(1, 5) AS s(n)"

    error = failure(SqlSource(database.hook, sql, key_column=key_column, chunk_size=1))

    assert words in str(error)
    assert "eva" not in str(error)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("exp(10000)", "a number out of range"),
        ("9223372036854775807 + 1", "a number out of range"),
        ("(SELECT 1 UNION SELECT 2)", "a subquery with more than one row"),
        ("DATE '2026-13-01'", "a text that is no date"),
    ],
)
@MARIADB
def test_a_value_that_mariadb_cannot_make_is_final(database: Database, expression: str, words: str) -> None:
    assert words in str(failure(SqlSource(database.hook, f"SELECT 1 AS k, {expression} AS v")))


# -- values that Python cannot hold ------------------------------------------------------------------------------------


@pytest.mark.parametrize("key_column", [None, "n"])
@pytest.mark.parametrize(
    "value", ["DATE '0044-03-15 BC'", "DATE '12000-01-01'", "TIMESTAMP '12000-01-01'", "TIMESTAMPTZ '0044-03-15 BC'"]
)
@POSTGRESQL
def test_a_time_that_python_cannot_hold_is_final_and_names_rows_and_cast(
    database: Database, value: str, key_column: str | None
) -> None:
    kind = value.partition(" ")[0]
    sql = (
        f"SELECT n, CASE WHEN n = 8 THEN {value} ELSE {kind} '2026-03-01' END AS at FROM generate_series(1, 9) AS s(n)"
    )

    error = failure(SqlSource(database.hook, sql, key_column=key_column, chunk_size=3))

    assert str(error).endswith("(after row 6)")
    assert "cast the column in SQL (CAST(… AS text)" in str(error)
    assert not {"44", "12000"} & set(str(error).split())


@pytest.mark.parametrize("value", ["TIME '24:00'", "TIMETZ '24:00+02'"])
@POSTGRESQL
def test_midnight_at_the_end_of_a_day_is_none_at_its_beginning(database: Database, value: str) -> None:
    assert "(after row 0)" in str(failure(SqlSource(database.hook, f"SELECT {value} AS at")))

    [chunk] = SqlSource(database.hook, f"SELECT CAST({value} AS text) AS at, TIME '23:59' AS before").chunks()
    assert [str(part)[:5] for part in chunk.rows[0]] == ["24:00", "23:59"]


@pytest.mark.parametrize("value", ["DATE 'infinity'", "TIMESTAMPTZ '-infinity'"])
@databases("psycopg")
def test_an_infinite_time_is_final_with_psycopg_and_the_cast_that_is_named_helps(
    database: Database, value: str
) -> None:
    assert "(after row 0)" in str(failure(SqlSource(database.hook, f"SELECT {value} AS at")))

    [chunk] = SqlSource(database.hook, f"SELECT CAST({value} AS text) AS at").chunks()
    assert chunk.rows[0][0] in {"infinity", "-infinity"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (field, value)
        for field in ("timestamp", "properties.at", "id")
        for value in ("DATE 'infinity'", "DATE '-infinity'", "TIMESTAMPTZ 'infinity'", "TIMESTAMP '-infinity'")
        if not (field == "timestamp" and value.startswith("DATE"))  # a date is no time of an event
    ],
)
@pytest.mark.parametrize("timezone", ["UTC", "Europe/Bucharest", "America/New_York"])
@databases("psycopg2")
def test_an_infinite_time_that_psycopg2_reads_as_another_is_rejected_by_name(
    database: Database, value: str, timezone: str, field: str
) -> None:
    options = {} if field == "properties.at" else {field: "at"}
    mapping = EventMapping.of({"name": "x", "identity": {"registered": "c"}, "timezone": timezone} | options)
    source = SqlSource(database.hook, f"SELECT 'c-1' AS c, {value} AS at")

    [record] = next(SqlRecords(source, mapping).records())

    fault = record.fault
    if record.event is not None:
        with pytest.raises(InvalidEvent) as raised:
            json_object(record.event.properties, "properties")
        fault = raised.value
    assert fault is not None
    assert fault.field == field
    assert "the first or last one that Python has" in fault.reason


@pytest.mark.parametrize("key_column", [None, "id"])
@databases("sqlite")
def test_text_that_is_not_utf_8_is_final_and_its_column_named(database: Database, key_column: str | None) -> None:
    sql = "SELECT 1 AS id, CAST(x'ff65766140' AS TEXT) AS broken"

    error = failure(SqlSource(database.hook, sql, key_column=key_column))

    assert "in column 'broken'" in str(error)
    assert "CAST(… AS BLOB)" in str(error)
    assert "eva" not in str(error)
    [chunk] = SqlSource(database.hook, f"SELECT id, CAST(broken AS BLOB) AS b FROM ({sql})").chunks()
    assert chunk.rows[0][1] == b"\xffeva@"


def test_a_later_try_counts_from_the_first_row_of_all() -> None:
    hook: Any = MemoryHook([1, 2, 3])
    sql = "SELECT k, CASE WHEN k = 3 THEN CAST(x'ff' AS TEXT) END AS v FROM t"
    source = SqlSource(hook, sql, key_column="k", chunk_size=1)

    with pytest.raises(QueryError, match=r"\(after row 101\)"):
        list(source.chunks(first_row=101))


# -- what a retry may heal ---------------------------------------------------------------------------------------------


def told(base: str, *arguments: Any, **attributes: Any) -> Exception:
    """An error as a driver would make it."""
    error: Exception = type("Told", (type(base, (Exception,), {}),), attributes)(*arguments)
    return error


@pytest.mark.parametrize(
    ("attributes", "arguments", "base", "retryable"),
    [
        ({}, (1205, "Lock wait timeout exceeded"), "OperationalError", True),
        ({}, (1213, "Deadlock found"), "OperationalError", True),
        ({}, (2013, "Lost connection"), "OperationalError", True),
        ({}, (2014, "Commands out of sync"), "ProgrammingError", True),
        ({"sqlstate": "42000"}, (1226, "User has exceeded a resource"), "ProgrammingError", True),
        ({"sqlstate": "42000"}, (1064, "You have an error"), "ProgrammingError", False),
        ({"sqlstate": "40001"}, ("deadlock",), "OperationalError", True),
        ({"pgcode": "57014"}, ("canceled",), "OperationalError", True),
        ({"pgcode": "53300"}, ("too many",), "OperationalError", True),
        ({"pgcode": "22P02"}, ("invalid",), "DataError", False),
        ({"sqlite_errorname": "SQLITE_BUSY"}, ("locked",), "OperationalError", True),
        ({"sqlite_errorname": "SQLITE_ERROR"}, ("no such table",), "OperationalError", False),
        ({}, ("42S02", "[42S02] no such table"), "ProgrammingError", False),
        ({}, ("08S01", "[08S01] link failure"), "OperationalError", True),
        ({}, ("gone",), "InterfaceError", True),
        ({"sqlstate": "0A000"}, ("cached plan must not change result type",), "NotSupportedError", True),
        ({"sqlstate": "0A000"}, ("cross-database references are not implemented",), "NotSupportedError", False),
    ],
)
def test_whether_a_retry_helps_is_decided_by_the_code(
    attributes: dict[str, str], arguments: tuple[Any, ...], base: str, retryable: bool
) -> None:
    error = told(base, *arguments, **attributes)

    assert reading_failed(error, None, "SELECT 1", doing="executing").retryable is retryable


@pytest.mark.parametrize("error", [OSError("network"), RuntimeError("a bug"), MemoryError()])
def test_what_is_not_the_databases_fault_may_be_retried(error: Exception) -> None:
    assert reading_failed(error, None, doing="fetching").retryable


@pytest.mark.parametrize(
    ("words", "sql", "shown"),
    [
        ("Unknown column 'nope' in 'WHERE'", "SELECT 1 WHERE nope = %s", "Unknown column 'nope' in 'WHERE'"),
        ("Table 'shop.nope' doesn't exist", "SELECT * FROM nope", "Table 'shop.nope' does not exist"),
        ("near 'eva' at line 1", "SELECT %s", "near '…' at line 1"),
        ("near 'O'Hara' AND eva = 'x' at", "SELECT x = %s", "near '…'"),
        ("near 'it\\'s eva' at line 1", "SELECT %s", "near '…'"),
        ("mail eva@example.com is bad", "SELECT %s", "mail *** is bad"),
        ("two\nlines: eva", "SELECT 1", "two"),
    ],
)
def test_a_driver_is_quoted_with_what_stands_in_the_statement(words: str, sql: str, shown: str) -> None:
    assert (
        str(reading_failed(told("ProgrammingError", words), None, sql, doing="executing")).partition("Told: ")[2]
        == shown
    )


def test_sqlite_binds_nothing_into_its_words() -> None:
    with sqlite3.connect(":memory:") as connection, pytest.raises(sqlite3.OperationalError) as raised:
        connection.execute("SELECT json_extract('{}', ?)", ("eva",))

    failed = reading_failed(raised.value, connection, "SELECT json_extract('{}', ?)", doing="executing")

    assert not failed.retryable
    assert "eva" not in str(failed)


# -- parameters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rendered", [json.dumps([3, 9]), json.dumps({"low": 3, "high": 9})])
@databases("sqlite")
def test_parameters_that_render_to_json_are_bound_as_what_they_are(database: Database, rendered: str) -> None:
    sql = "SELECT ? AS a, ? AS b" if rendered.startswith("[") else "SELECT :low AS a, :high AS b"

    [chunk] = SqlSource(database.hook, sql, rendered).chunks()

    assert list(chunk.rows) == [(3, 9)]


@pytest.mark.parametrize(
    "parameters", ["2026", "2026-03-01T00:00:00+00:00", "[3", "'x'", "", "None", "{'a': 1}", b"ab", 7, {1, 2}, True]
)
@databases("sqlite")
def test_parameters_that_are_no_list_and_no_mapping_are_refused_in_words(database: Database, parameters: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^parameters: have to be a mapping or a list.*\| tojson") as raised:
        SqlSource(database.hook, "SELECT ?", parameters)

    assert "2026-03" not in str(raised.value)


# -- percent signs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key_column", [None, "e"])
@pytest.mark.parametrize("named", [False, True])
@databases("psycopg2", "psycopg", "mysqlclient", "mysql-connector-python")
def test_a_doubled_percent_sign_is_one_beside_parameters(
    database: Database, named: bool, key_column: str | None
) -> None:
    texts = "'100%%' AS a, '%%s' AS b, '%%shoes%%' AS c, '%%(x)s' AS d, '%%%%s' AS f"
    sql = f"SELECT {texts}, %(e)s AS e, 'x' LIKE '%%' AS g" if named else f"SELECT {texts}, %s AS e, 'x' LIKE '%%' AS g"
    source = SqlSource(database.hook, sql, {"e": "%s"} if named else ["%s"], key_column=key_column)

    [chunk] = source.chunks()

    assert [tuple(row[:6]) for row in chunk.rows] == [("100%", "%s", "%shoes%", "%(x)s", "%%s", "%s")]


def test_an_error_of_the_source_is_told_apart() -> None:
    assert issubclass(QueryError, SourceError)
