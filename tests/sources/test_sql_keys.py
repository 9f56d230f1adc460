"""Keys of every type on the real servers: each row comes once, or the read ends in words before its first row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_events.exceptions import KeyColumnError, SourceError
from airflow_provider_events.row_data import dump_key, load_key
from airflow_provider_events.sources.keyset import Keyset, comparable
from airflow_provider_events.sources.mapping import EventMapping
from airflow_provider_events.sources.rows import SqlRecords
from airflow_provider_events.sources.sql import SqlSource
from tests.servers import Database, databases

pytest_plugins = ["tests.servers"]

PAGE = 4
AUTUMN = datetime(2026, 10, 24, 23, tzinfo=UTC)  # Bucharest's clock shows 03:00 to 04:00 twice from an hour later
READ, REFUSED, LATER = "read", "refused before the first row", "refused where the fault is"

# The column, and expressions for ten keys with n from 0 to 9; those that are refused are not what Python makes of them.
POSTGRES: dict[str, tuple[str, str, str | dict[str, str]]] = {
    "timestamptz": ("timestamptz", "timestamptz '2026-10-24 23:00Z' + n * interval '20 minutes'", READ),
    "timestamp": ("timestamp", "timestamp '2026-10-25 02:00' + n * interval '20 minutes'", READ),
    "timetz": ("timetz", "timetz '09:00+02' + n * interval '20 minutes'", READ),
    "date": ("date", "date '2026-03-01' + n", READ),
    "interval in seconds": ("interval", "n * interval '90 seconds'", READ),
    "interval in years": ("interval", "(n + 1) * interval '1 year'", REFUSED),
    "money": ("money", "(n * 1500.25)::numeric::money", READ),
    "numeric": ("numeric", "12345678901234567890.1 + n", READ),
    "numeric NaN": ("numeric", "CASE n WHEN 9 THEN 'NaN'::numeric ELSE n END", LATER),
    "float8": ("float8", "n / 3.0::float8", READ),
    "float4": ("float4", "(n + 1) / 3.0::float4", REFUSED),
    "uuid": ("uuid", "md5(n::text)::uuid", READ),
    "bytea": ("bytea", "decode(md5(n::text), 'hex')", READ),
    "inet": ("inet", "inet '10.0.0.0' + n * 7", READ),
    "bit varying": ("varbit", "n::bit(16)::varbit", READ),
    "char(n)": ("char(8)", "'k' || n", READ),
    "enum": ("mood", "(enum_range(NULL::mood))[n + 1]", READ),
    "array": ("int[]", "ARRAY[n, 2]", {"psycopg2": READ, "psycopg": REFUSED}),
    "composite": ("pair", "ROW(n, 'x')::pair", REFUSED),
    "range": ("int4range", "int4range(n, 100)", READ),
    "text in another collation": ('text COLLATE "C"', "CASE n % 2 WHEN 0 THEN 'a' ELSE 'A' END || n", READ),
    "text, the same in a collation": ("text COLLATE nocase", "CASE n WHEN 9 THEN 'K8' ELSE 'k' || n END", LATER),
}  # fmt: skip
MYSQL = {
    "TIMESTAMP": ("TIMESTAMP(6)", "FROM_UNIXTIME(1793055600 + seq * 1200)", READ),
    "DATETIME": ("DATETIME(6)", "TIMESTAMP '2026-10-25 02:00:00.000001' + INTERVAL seq * 20 MINUTE", READ),
    "DATE": ("DATE", "DATE '2026-03-01' + INTERVAL seq DAY", READ),
    "a zero date": ("DATE", "IF(seq = 9, 0, DATE '2026-03-01' + INTERVAL seq DAY)", REFUSED),
    "TIME": ("TIME(3)", "SEC_TO_TIME((CAST(seq AS SIGNED) - 4) * 360000.5)", READ),
    "YEAR": ("YEAR", "2000 + seq", READ),
    "BIT(16)": ("BIT(16)", "seq * 300", READ),
    "ENUM": ("ENUM('z','b','y','a','x','c','w','d','v','e')", "seq + 1", REFUSED),
    "SET": ("SET('z','b','y','a')", "seq + 1", REFUSED),
    "FLOAT": ("FLOAT", "(seq + 1) / 3", REFUSED),
    "DOUBLE": ("DOUBLE", "(seq + 1) / 3", READ),
    "DECIMAL": ("DECIMAL(40, 10)", "12345678901234567890.1 + seq", READ),
    "VARBINARY": ("VARBINARY(16)", "UNHEX(MD5(seq))", READ),
    "VARCHAR": ("VARCHAR(20)", "CONCAT(IF(seq % 2, 'ä', 'Z'), seq, ' ')", READ),
    "VARCHAR, the same in a collation": ("VARCHAR(20)", "IF(seq = 9, 'K8 ', CONCAT('k', seq))", LATER),
    "UUID": ("UUID", "CONCAT(LPAD(HEX(seq * 37), 8, '0'), '-0000-1000-8000-', LPAD(HEX(200 - seq), 12, '0'))", READ),
    "INET6": ("INET6", "CONCAT('::', HEX(seq * 7 + 1))", READ),
}  # fmt: skip


def check(database: Database, expected: str) -> None:
    source = SqlSource(database.hook, "SELECT k, n FROM t", key_column="k", chunk_size=PAGE)
    read: list[int] = []
    try:
        for chunk in source.chunks():
            read += [n for _, n in chunk.rows]
            assert len(read) <= 10, "endless"
    except SourceError as error:
        assert type(error) is KeyColumnError  # noqa: PT017 (what was read before it counts as well)
        assert expected == LATER or (expected == REFUSED and not read)
    else:
        assert expected == READ
        assert sorted(read) == list(range(10))


@pytest.mark.parametrize("case", POSTGRES)
@databases("psycopg2", "psycopg")
def test_each_row_of_postgresql_comes_once_or_none_comes(database: Database, case: str) -> None:
    column, expression, expected = POSTGRES[case]
    database.run(
        "CREATE TYPE mood AS ENUM ('z', 'b', 'y', 'a', 'x', 'c', 'w', 'd', 'v', 'e')",
        "CREATE TYPE pair AS (a int, b text)",
        "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        f"CREATE TABLE t (k {column}, n int)",
        f"INSERT INTO t SELECT {expression}, n FROM generate_series(0, 9) n",
    )

    check(database, expected if isinstance(expected, str) else expected[database.driver])


@pytest.mark.parametrize("case", MYSQL)
@databases("mysqlclient", "mysql-connector-python")
def test_each_row_of_mysql_comes_once_or_none_comes(database: Database, case: str) -> None:
    column, expression, expected = MYSQL[case]
    database.run(
        "SET sql_mode = ''",
        "SET GLOBAL time_zone = 'SYSTEM'",
        f"CREATE TABLE t (k {column} NULL, n int)",
        f"INSERT INTO t SELECT {expression}, seq FROM seq_0_to_9",
    )

    check(database, expected)


@pytest.fixture
def autumn(database: Database) -> Iterator[Database]:
    """A database whose sessions have a local zone, and 40 rows over the hour that its clock repeats, by index."""
    moments = [AUTUMN + timedelta(minutes=10 * n) for n in range(40)]
    if database.driver.startswith("mysql"):
        change = int(datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp())
        database.run(
            "REPLACE INTO mysql.time_zone VALUES (1, 'N')",
            "REPLACE INTO mysql.time_zone_name VALUES ('Here', 1)",
            "REPLACE INTO mysql.time_zone_transition_type VALUES (1, 0, 10800, 1, 'EEST'), (1, 1, 7200, 0, 'EET')",
            f"REPLACE INTO mysql.time_zone_transition VALUES (1, {change - 15_000_000}, 0), (1, {change}, 1)",
            "CREATE TABLE t (k TIMESTAMP(6) NULL UNIQUE, n int)",
            "SET time_zone = '+00:00'",
            *(f"INSERT INTO t VALUES ('{moment:%F %T.%f}', {n})" for n, moment in enumerate(moments)),
            "SET GLOBAL time_zone = 'Here'",
        )
        yield database
        database.run("SET GLOBAL time_zone = 'SYSTEM'")
    else:
        database.run(
            "CREATE TABLE t (k timestamptz UNIQUE, n int)",
            *(f"INSERT INTO t VALUES ('{moment.isoformat()}', {n})" for n, moment in enumerate(moments)),
            "ALTER DATABASE events SET timezone TO 'Europe/Bucharest'",
        )
        yield database
        database.run("ALTER DATABASE events RESET timezone")


@pytest.mark.parametrize("size", [1, 5, 7, 100])
@databases("psycopg2", "psycopg", "mysqlclient", "mysql-connector-python")
def test_the_repeated_hour_of_autumn_is_read_once_at_its_moments(autumn: Database, size: int) -> None:
    mapping = EventMapping.of(
        {"name": "x", "identity": {"registered": "n"}, "timestamp": "k", "timezone": "Europe/Bucharest"}
    )
    source = SqlSource(autumn.hook, "SELECT * FROM t", key_column="k", chunk_size=size)

    records = [record for some in SqlRecords(source, mapping, "k").records() for record in some]

    times = [record.event.timestamp for record in records if record.event and record.event.timestamp]
    assert [time.astimezone(UTC) for time in times] == [AUTUMN + timedelta(minutes=10 * n) for n in range(40)]


@databases("psycopg2", "psycopg", "mysqlclient", "mysql-connector-python")
def test_a_key_of_the_repeated_hour_is_known_again_by_a_retry(autumn: Database) -> None:
    mapping = EventMapping.of({"name": "x", "identity": {"registered": "n"}, "timestamp": "k"})
    source = SqlSource(autumn.hook, "SELECT * FROM t", key_column="k", chunk_size=7)
    records = SqlRecords(source, mapping, "k")

    def keys(after: Any = None) -> list[Any]:
        return [key for some in records.records(after) for key in records.keys(some) or ()]

    read = keys()

    assert [load_key(json.loads(json.dumps(dump_key(key)))) for key in read] == read
    assert [len(keys(load_key(dump_key(key)))) for key in read] == list(reversed(range(40)))


def test_times_of_one_zone_are_compared_by_their_moments() -> None:
    zone = ZoneInfo("Europe/Bucharest")
    first, second = (datetime(2026, 10, 25, 3, 30, tzinfo=zone, fold=fold) for fold in (0, 1))

    assert first == second  # as Python has it
    assert comparable(second) - comparable(first) == timedelta(hours=1)
    assert comparable(first) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert comparable(datetime.min.replace(tzinfo=zone)) != comparable(datetime.max.replace(tzinfo=zone))


@databases("sqlite", "psycopg", "mysqlclient")
def test_rows_that_come_between_a_page_and_its_check_are_no_fault(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.run("CREATE TABLE t (k int UNIQUE)", "INSERT INTO t VALUES (10), (20), (30)")
    coming = iter([11, 12, 13])
    counts = Keyset.counts

    def after_another_row(keyset: Keyset, *arguments: Any) -> Any:
        if (key := next(coming, None)) is not None:
            database.run(f"INSERT INTO t VALUES ({key})")
        return counts(keyset, *arguments)

    monkeypatch.setattr(Keyset, "counts", after_another_row)
    source = SqlSource(database.hook, "SELECT k FROM t", key_column="k", chunk_size=2)

    keys = [key for chunk in source.chunks() for (key,) in chunk.rows]

    # Page and check are of one moment where the database has such; else the page is read once more.
    assert keys == ([10, 11, 12, 13, 20, 30] if database.driver == "sqlite" else [10, 20, 30])
