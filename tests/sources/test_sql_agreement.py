"""The table of types in the guide: what each driver reads of a column, and what goes on the wire."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from airflow_provider_events.contract import BulkRecords
from airflow_provider_events.sources.mapping import EventMapping
from airflow_provider_events.sources.rows import EventRecords, SqlRecords
from airflow_provider_events.sources.sql import SqlSource
from airflow_provider_events.values import json_object
from tests.servers import Database, databases
from tests.vendors.wires import T, vendor

pytest_plugins = ["tests.servers"]

GUIDE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text()
CODECS = [*map(vendor, ("bloomreach", "webengage")), *(vendor(name).upserts() for name in ("bloomreach", "webengage"))]
UUID_TEXT = "6f1c1c3e-0d6b-4d52-9a7e-0a3a4b1f6f10"

# Column's type -> an expression of it, and its value on the wire by either driver.
POSTGRESQL: dict[str, tuple[str, Any]] = {
    "smallint, integer, bigint": ("9223372036854775807::bigint", 9223372036854775807),
    "real, double precision": ("1.5::float8", 1.5),
    "numeric": ("39.80::numeric", 39.8),
    "numeric without decimal places": ("7::numeric", 7),
    "money": ("'12.5'::money", "$12.50"),
    "boolean": ("true", True),
    "text, varchar, char, enum": ("'Zoë'::text", "Zoë"),
    "uuid": (f"'{UUID_TEXT}'::uuid", UUID_TEXT),
    "date": ("DATE '2026-03-01'", "2026-03-01"),
    "timestamp": ("TIMESTAMP '2026-03-01 09:30:00.5'", "2026-03-01T07:30:00.500000Z"),
    "timestamptz": ("TIMESTAMPTZ '2026-03-01 09:30:00+02'", "2026-03-01T07:30:00Z"),
    "time": ("TIME '09:30:00'", "09:30:00"),
    "timetz": ("TIMETZ '09:30:00+02'", "09:30:00+02:00"),
    "interval": ("INTERVAL '1 day 90 seconds'", 86490.0),
    "bytea": (r"'\x00ff'::bytea", "AP8="),
    "json, jsonb": ("""'{"a": [1, null]}'::jsonb""", {"a": [1, None]}),
    "arrays": ("ARRAY[1, 2]", [1, 2]),
    "arrays of inet, cidr": ("ARRAY['10.0.0.1'::inet]", ["10.0.0.1"]),
    "arrays of uuid": (f"ARRAY['{UUID_TEXT}'::uuid, NULL]", [UUID_TEXT, None]),
    "arrays of ranges": ("ARRAY['[1,5)'::int4range]", ["[1,5)"]),
    "arrays of money, bit, xml, point": ("ARRAY['12.5'::money]", ["$12.50"]),
    "inet": ("'10.0.0.1'::inet", "10.0.0.1"),
    "cidr": ("'10.0.0.0/8'::cidr", "10.0.0.0/8"),
    "macaddr": ("'08:00:2b:01:02:03'::macaddr", "08:00:2b:01:02:03"),
    "bit": ("B'101'", "101"),
    "ranges": ("'[1,5)'::int4range", "[1,5)"),
    "multiranges": ("'{[1,2]}'::int4multirange", "{[1,3)}"),
    "records": ("ROW(1, 'a')", "(1,a)"),
    "point and other shapes": ("'(1,2)'::point", "(1,2)"),
    "xml": ("'<a/>'::xml", "<a/>"),
    "tsvector": ("'a cat'::tsvector", "'a' 'cat'"),
}
MARIADB: dict[str, tuple[str, Any]] = {
    "TINYINT to BIGINT, YEAR": ("BIGINT UNSIGNED", 18446744073709551615),
    "BOOLEAN": ("BOOLEAN", 1),
    "BIT(1)": ("BIT(1)", 1),
    "BIT(n)": ("BIT(16)", 300),
    "FLOAT, DOUBLE": ("DOUBLE", 1.5),
    "DECIMAL": ("DECIMAL(9, 2)", 39.8),
    "CHAR, VARCHAR, TEXT": ("VARCHAR(20)", "Zoë"),
    "ENUM": ("ENUM('x', 'a')", "x"),
    "SET": ("SET('z', 'a', 'm')", "z,m"),
    "empty SET": ("SET('z', 'a')", ""),
    "DATE": ("DATE", "2026-03-01"),
    "DATETIME, TIMESTAMP": ("DATETIME(6)", "2026-03-01T07:30:00.500000Z"),
    "TIME": ("TIME", "09:30:00"),
    "TIME below zero": ("TIME(6)", "-12:30:01.500000"),
    "TIME above a day": ("TIME(6)", "838:59:59"),
    "BINARY, VARBINARY, BLOB": ("BLOB", "AP8="),
    "JSON": ("JSON", '{"a": 1}'),
    "UUID": ("UUID", UUID_TEXT),
    "INET4, INET6": ("INET6", "::1"),
}
LITERALS = {
    "BIT(n)": "300", "BIT(1)": "b'1'", "TINYINT to BIGINT, YEAR": "18446744073709551615", "BOOLEAN": "true",
    "FLOAT, DOUBLE": "1.5", "DECIMAL": "39.80", "DATETIME, TIMESTAMP": "'2026-03-01 09:30:00.5'",
    "BINARY, VARBINARY, BLOB": "x'00ff'",
}  # fmt: skip
SQLITE: dict[str, tuple[str, Any]] = {
    "INTEGER": ("7", 7),
    "REAL": ("1.5", 1.5),
    "TEXT": ("'2026-03-01 09:30:00'", "2026-03-01 09:30:00"),
    "BLOB": ("x'00ff'", "AP8="),
}


LINE = re.compile(r"^\| (PostgreSQL|MySQL|SQLite) \| `(.+?)` \| (.+?) \| `(.*?)` \|$", re.MULTILINE)
TOLD = {(server, kind): (reads, sent) for server, kind, reads, sent in LINE.findall(GUIDE)}
SERVERS = {"PostgreSQL": POSTGRESQL, "MySQL": MARIADB, "SQLite": SQLITE}


def read_and_sent(database: Database, sql: str, key_column: str | None) -> tuple[str, Any]:
    """The kind that the driver gives, and what goes on the wire, which is the same bytes in bulk and by itself."""
    mapping = EventMapping.of({"name": "x", "identity": {"userId": "c"}, "timezone": "Europe/Bucharest"})
    chunk = next(SqlRecords(SqlSource(database.hook, sql, key_column=key_column), mapping, key_column).records())
    [record] = chunk
    assert record.event is not None
    assert record.data is not None
    for codec in CODECS:
        by_itself = codec.encode(replace(record.event, timestamp=T))
        for rows in (chunk, *EventRecords([record.data], mapping).records()):
            assert isinstance(rows, BulkRecords)
            assert rows.encoded(codec, T) == [by_itself]
    sent = orjson.loads(orjson.dumps(json_object(record.event.properties, "properties")))["v"]
    return type(record.data["v"]).__name__, sent


@pytest.mark.parametrize("kind", POSTGRESQL)
@databases("psycopg2", "psycopg")
def test_both_drivers_of_postgresql_send_the_same(database: Database, kind: str) -> None:
    expression, expected = POSTGRESQL[kind]

    for key_column in (None, "c"):
        reads, sent = read_and_sent(database, f"SELECT 'c-1' AS c, {expression} AS v", key_column)
        assert (sent, type(sent)) == (expected, type(expected))
    by_driver = TOLD["PostgreSQL", kind][0].split(" or ")
    assert reads == by_driver[0 if database.driver == "psycopg2" else -1]


@pytest.mark.parametrize("kind", MARIADB)
@databases("mysqlclient", "mysql-connector-python")
def test_both_drivers_of_mysql_send_the_same(database: Database, kind: str) -> None:
    column, expected = MARIADB[kind]
    database.run(
        f"CREATE TABLE t (c VARCHAR(9) NOT NULL, v {column}, w {column})",
        f"INSERT INTO t VALUES ('c-1', {LITERALS.get(kind, repr(expected))}, NULL)",
    )

    for key_column in (None, "c"):
        reads, sent = read_and_sent(database, "SELECT c, v, w FROM t", key_column)
        assert (sent, type(sent)) == (expected, type(expected))
    assert reads == TOLD["MySQL", kind][0]


@pytest.mark.parametrize("kind", SQLITE)
@databases("sqlite")
def test_sqlite_sends_what_it_holds(database: Database, kind: str) -> None:
    expression, expected = SQLITE[kind]

    assert read_and_sent(database, f"SELECT 'c-1' AS c, {expression} AS v", None) == (TOLD["SQLite", kind][0], expected)


def test_the_guide_has_a_line_for_each_type() -> None:
    tried = {
        (server, kind): orjson.dumps(sent).decode()
        for server, types in SERVERS.items()
        for kind, (_, sent) in types.items()
    }

    assert {line: sent for line, (_, sent) in TOLD.items()} == tried


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("TIME(3)", ["'-10:00:00.5'", "'-01:00:00'", "'00:00:00'", "'09:30:00.25'", "'100:00:00'"]),
        ("BIT(16)", ["1", "2", "255", "256", "300"]),
    ],
)
@databases("mysqlclient", "mysql-connector-python")
def test_a_key_that_is_read_otherwise_comes_once_and_can_be_continued_behind(
    database: Database, column: str, values: list[str]
) -> None:
    database.run(
        f"CREATE TABLE t (k {column} NOT NULL)",
        f"INSERT INTO t VALUES {', '.join(f'({value})' for value in values)}",
    )
    source = SqlSource(database.hook, "SELECT k FROM t", key_column="k", chunk_size=2)

    keys = [key for chunk in source.chunks() for (key,) in chunk.rows]

    assert len(keys) == len(set(keys)) == 5
    assert [key for chunk in source.chunks(after=keys[2]) for (key,) in chunk.rows] == keys[3:]


@databases("mysqlclient", "mysql-connector-python")
def test_what_is_said_of_zero_dates_helps(database: Database) -> None:
    database.hook.run(
        [
            "SET sql_mode = ''",
            "CREATE TABLE t (n INT, d DATE NOT NULL, at DATETIME NOT NULL)",
            "INSERT INTO t VALUES (1, '0000-00-00', '0000-00-00 00:00:00'), (2, '2026-03-01', '2026-03-01 09:30:00')",
        ]
    )

    def events(sql: str) -> list[Any]:
        mapping = EventMapping.of({"name": "x", "identity": {"registered": "n"}, "timestamp": "at", "timezone": "UTC"})
        return [record for chunk in SqlRecords(SqlSource(database.hook, sql), mapping).records() for record in chunk]

    broken, whole = events("SELECT n, at FROM t ORDER BY n")
    assert broken.fault is not None
    assert "COALESCE(NULLIF(…, 0), …)" in broken.fault.reason
    assert "WHERE … > 0" in broken.fault.reason

    assert events("SELECT n, at FROM t WHERE at > 0")[0].event == whole.event
    fallback = "TIMESTAMP '2000-01-01 00:00:00'"
    mended = events(f"SELECT n, COALESCE(NULLIF(at, 0), {fallback}) AS at FROM t ORDER BY n")
    assert [record.event.timestamp.year for record in mended] == [2000, 2026]
    assert len(events("SELECT n, NULLIF(d, 0) AS d, at FROM t WHERE at > 0")) == 1
