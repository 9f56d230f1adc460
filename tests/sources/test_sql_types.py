"""Values come as the driver gives them: no source converts, so that one place can."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from airflow_provider_events.sources.sql import SqlSource
from tests.servers import Database, databases

pytest_plugins = ["tests.servers"]

UUID_TEXT = "6f1c1c3e-0d6b-4d52-9a7e-0a3a4b1f6f10"


def only_value(database: Database, expression: str, key_column: str | None) -> Any:
    sql = f"SELECT 1 AS k, {expression} AS v"
    [chunk] = SqlSource(database.hook, sql, key_column=key_column).chunks()
    assert chunk.columns == ("k", "v")
    [(_, value)] = chunk.rows
    return value


@pytest.mark.parametrize("key_column", [None, "k"])
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("TIMESTAMPTZ '2026-03-01 09:30:00.123456+02'", datetime(2026, 3, 1, 7, 30, 0, 123456, UTC)),
        ("TIMESTAMP '2026-03-01 09:30:00.123456'", datetime(2026, 3, 1, 9, 30, 0, 123456)),
        ("DATE '2026-03-01'", date(2026, 3, 1)),
        ("INTERVAL '90 seconds'", timedelta(seconds=90)),
        ("12345678901234567890.10::numeric", Decimal("12345678901234567890.10")),
        ("9223372036854775807::bigint", 9223372036854775807),
        ("""'{"a": [1, null]}'::jsonb""", {"a": [1, None]}),
        ("""'{"a": [1, null]}'::json""", {"a": [1, None]}),
        ("ARRAY[1, 2]", [1, 2]),
        ("true", True),
        ("NULL::text", None),
        ("'Zoë'::text", "Zoë"),
    ],
)
@databases("psycopg2", "psycopg")
def test_postgresql_values(database: Database, expression: str, expected: object, key_column: str | None) -> None:
    value = only_value(database, expression, key_column)

    assert (value, type(value)) == (expected, type(expected))


@databases("psycopg2", "psycopg")
def test_postgresql_uuid_differs_by_driver(database: Database) -> None:
    expected = {"psycopg2": UUID_TEXT, "psycopg": UUID(UUID_TEXT)}

    assert only_value(database, f"'{UUID_TEXT}'::uuid", None) == expected[database.driver]


@databases("psycopg2", "psycopg")
def test_postgresql_bytes_and_nan(database: Database) -> None:
    assert bytes(only_value(database, r"'\x00ff'::bytea", None)) == b"\x00\xff"
    assert math.isnan(only_value(database, "'NaN'::float8", None))
    assert only_value(database, "'NaN'::numeric", None).is_nan()


@pytest.mark.parametrize(
    ("column_type", "literals"),
    [
        ("uuid", [f"'{UUID_TEXT[:-1]}{digit}'" for digit in "0123456"]),
        ("timestamptz", [f"'2026-03-01 09:30:00.12345{digit}+02'" for digit in "0123456"]),
        ("timestamp", [f"'2026-03-01 09:30:00.12345{digit}'" for digit in "0123456"]),
        ("date", [f"'2026-03-0{digit}'" for digit in "1234567"]),
        ("numeric", [f"12345678901234567890.1{digit}" for digit in "0123456"]),
        ("bigint", [f"922337203685477580{digit}" for digit in "0123456"]),
        ("smallint", list("0123456")),
        ("float8", [f"0.{digit}" for digit in "0123456"]),
        ("bytea", [rf"'\x0{digit}'" for digit in "0123456"]),
        ("text", [f"'{digit}'" for digit in "abcdefg"]),
        ("char(9)", [f"'{digit}'" for digit in "abcdefg"]),
        ("interval", [f"'{digit} minutes'" for digit in "0123456"]),
    ],
)
@databases("psycopg2", "psycopg")
def test_keys_of_every_type(database: Database, column_type: str, literals: list[str]) -> None:
    database.run(
        f"CREATE TABLE t (k {column_type} NOT NULL PRIMARY KEY)",
        f"INSERT INTO t VALUES {', '.join(f'({literal})' for literal in literals)}",
    )
    source = SqlSource(database.hook, "SELECT k FROM t", key_column="k", chunk_size=2)

    keys = [key for chunk in source.chunks() for (key,) in chunk.rows]
    later = [key for chunk in source.chunks(after=keys[2]) for (key,) in chunk.rows]

    assert len(keys) == len(literals)
    assert later == keys[3:]


@pytest.mark.parametrize("key_column", [None, "k"])
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("TIMESTAMP('2026-03-01 09:30:00.123456')", datetime(2026, 3, 1, 9, 30, 0, 123456)),
        ("DATE('2026-03-01')", date(2026, 3, 1)),
        ("CAST('12.50' AS DECIMAL(9, 2))", Decimal("12.50")),
        ("9223372036854775807", 9223372036854775807),
        ("NULL", None),
        ("'Zoë'", "Zoë"),
    ],
)
@databases("mysqlclient", "mysql-connector-python")
def test_mariadb_values(database: Database, expression: str, expected: object, key_column: str | None) -> None:
    value = only_value(database, expression, key_column)

    assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize("key_column", [None, "k"])
@pytest.mark.parametrize(
    ("expression", "expected"),
    [("1", 1), ("1.5", 1.5), ("'Zoë'", "Zoë"), ("x'00ff'", b"\x00\xff"), ("NULL", None)],
)
@databases("sqlite")
def test_sqlite_values(database: Database, expression: str, expected: object, key_column: str | None) -> None:
    value = only_value(database, expression, key_column)

    assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize("key_column", [None, "k"])
@databases("psycopg2", "psycopg", "mysqlclient")
def test_rows_are_tuples_whatever_cursor_the_connection_asks_for(database: Database, key_column: str | None) -> None:
    cursors = {
        "psycopg2": ["dictcursor", "realdictcursor", "namedtuplecursor"],
        "psycopg": ["dictcursor", "namedtuplecursor"],
        "mysqlclient": ["dictcursor", "ssdictcursor", "sscursor"],
    }
    for cursor in cursors[database.driver]:
        database.hook.connection.extra = json.dumps({"cursor": cursor})

        [chunk] = SqlSource(database.hook, "SELECT 1 AS k, 'x' AS v", key_column=key_column).chunks()

        assert [(type(row), row) for row in chunk.rows] == [(tuple, (1, "x"))]
