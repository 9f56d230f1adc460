"""Windows over a user's query on real databases: each row is read by one of a series of intervals."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_events.exceptions import ConfigurationError, KeyColumnError, MappingError
from airflow_provider_events.sources.sql import SqlSource
from airflow_provider_events.sources.window import Window
from tests.servers import Database, databases

BUCHAREST = ZoneInfo("Europe/Bucharest")
NEW_YORK = ZoneInfo("America/New_York")
BACK = datetime(2026, 10, 25, 1, tzinfo=UTC)  # clocks of Bucharest go from four to three
FORWARD = datetime(2026, 3, 29, 1, tzinfo=UTC)  # and from three to four
POSTGRES, MARIADB = ("psycopg2", "psycopg"), ("mysqlclient", "mysql-connector-python")
SECOND = timedelta(seconds=1)


def clock(moment: datetime, zone: ZoneInfo) -> str:
    return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S.%f")


def utc(moment: datetime) -> str:
    return clock(moment, ZoneInfo("UTC"))


@dataclass(frozen=True)
class Kind:
    """A type of column, and how a moment is stored in it; `{}` takes it."""

    column: str
    stored: Any
    timezone: str | None = "Europe/Bucharest"
    literal: str = "'{}'"

    def value(self, moment: datetime) -> str:
        return self.literal.format(self.stored(moment))


def local(moment: datetime) -> str:
    return clock(moment, BUCHAREST)


KINDS = {
    "postgres": {
        "timestamptz": Kind("timestamptz", lambda moment: f"{utc(moment)}+00", None),
        "timestamptz beside local times": Kind("timestamptz", lambda moment: f"{utc(moment)}+00"),
        "timestamp": Kind("timestamp", local),
        "timestamp(0)": Kind("timestamp(0)", lambda moment: local(moment)[:19]),
        "epoch": Kind("bigint", lambda moment: int(moment.timestamp()), None),
        "epoch milliseconds": Kind("bigint", lambda moment: int(moment.timestamp() * 1000), None),
        "epoch float": Kind("double precision", lambda moment: moment.timestamp(), None),
        "epoch numeric": Kind("numeric(20, 6)", lambda moment: f"{moment.timestamp():.6f}", None),
    },
    "mysql": {
        "TIMESTAMP": Kind("TIMESTAMP(6) NULL", utc),
        "TIMESTAMP alone": Kind("TIMESTAMP(6) NULL", utc, None),
        "DATETIME": Kind("DATETIME(6)", local),
        "DATETIME(0)": Kind("DATETIME", lambda moment: local(moment)[:19]),
        "epoch": Kind("BIGINT", lambda moment: int(moment.timestamp()), None),
    },
    "sqlite": {
        "text": Kind("TEXT", lambda moment: local(moment)[:19]),
        "text with microseconds": Kind("TEXT", local),
        "ISO 8601 in UTC": Kind("TEXT", lambda moment: moment.isoformat().replace("+00:00", "Z"), None),
        "ISO 8601 with an offset": Kind("TEXT", lambda moment: moment.astimezone(UTC).isoformat(" "), None),
        "epoch": Kind("INTEGER", lambda moment: int(moment.timestamp()), None),
        "epoch microseconds": Kind("INTEGER", lambda moment: int(moment.timestamp() * 1_000_000), None),
        "epoch float": Kind("REAL", lambda moment: moment.timestamp(), None),
    },
}
DAYS = {"postgres": "date", "mysql": "DATE", "sqlite": "TEXT"}
CASES = [
    pytest.param(driver, kind, id=f"{driver}-{name}", marks=[] if family == "sqlite" else [pytest.mark.slow])
    for family, drivers in (("sqlite", ["sqlite"]), ("postgres", POSTGRES), ("mysql", MARIADB))
    for driver in drivers
    for name, kind in KINDS[family].items()
]


def family(database: Database) -> str:
    return {"sqlite": "sqlite", "psycopg2": "postgres", "psycopg": "postgres"}.get(database.driver, "mysql")


def fill(database: Database, column: str, values: list[str]) -> None:
    database.run(f"CREATE TABLE t (id int PRIMARY KEY, updated_at {column}, note varchar(20))")
    session = "SET time_zone = '+00:00'" if family(database) == "mysql" else "SELECT 1"
    rows = ", ".join(f"({n}, {value}, '5%')" for n, value in enumerate(values))
    database.run(session, f"INSERT INTO t VALUES {rows}")


def read(database: Database, window: Window | None, key_column: str | None = "id", **options: Any) -> list[int]:
    sql = options.pop("sql", "SELECT * FROM t WHERE note LIKE '5%' -- all")
    source = SqlSource(database.hook, sql, key_column=key_column, chunk_size=7, window=window, **options)
    ids = [row[0] for chunk in source.chunks() for row in chunk.rows]
    assert source.count(10_000) == len(ids)
    assert source.count(2) == min(2, len(ids))
    return ids


def series(around: datetime, step: timedelta) -> Iterator[tuple[datetime, datetime]]:
    return pairwise(around + n * step for n in range(-6, 8))


@pytest.mark.parametrize("key_column", ["id", None])
@pytest.mark.parametrize("around", [BACK, FORWARD], ids=["back", "forward"])
@pytest.mark.parametrize(("database", "kind"), CASES, indirect=["database"])
def test_each_row_is_read_by_one_interval(
    database: Database, kind: Kind, around: datetime, key_column: str | None
) -> None:
    """Rows at both edges of each, one second before and behind, and in between; clocks change in the middle."""
    moments = sorted(
        start + shift
        for start, _ in series(around, timedelta(hours=1))
        for shift in (-SECOND, timedelta(0), SECOND, timedelta(minutes=30))
    )
    fill(database, kind.column, [kind.value(moment) for moment in moments])
    found: list[int] = []
    for start, end in series(around, timedelta(hours=1)):
        window = Window("UPDATED_AT", start, end, kind.timezone)
        some = read(database, window, key_column)
        assert all(moments[n] < end for n in some), "before it was written"
        if kind.timezone is None:
            assert sorted(some) == [n for n, moment in enumerate(moments) if start <= moment < end]
        found += some
    assert sorted(found) == [n for n, moment in enumerate(moments) if moment >= around - timedelta(hours=6)]


@pytest.mark.parametrize("step", [timedelta(hours=1), timedelta(hours=7), timedelta(days=1)])
@databases("sqlite", "psycopg2", "psycopg", "mysqlclient", "mysql-connector-python")
def test_a_day_is_read_once_when_it_is_over(database: Database, step: timedelta) -> None:
    days = [f"'2026-10-{day}'" for day in range(20, 31)]
    fill(database, DAYS[family(database)], days)
    start = datetime(2026, 10, 22, 21, tzinfo=UTC)  # midnight of Bucharest
    found: list[int] = []
    for n in range(timedelta(days=5) // step):
        window = Window("updated_at", start + n * step, start + (n + 1) * step, "Europe/Bucharest")
        some = read(database, window)
        assert all(datetime(2026, 10, 21 + at, tzinfo=BUCHAREST) <= window.end for at in some), "before it was over"
        found += some
    assert found == sorted(set(found))
    assert found[:4] == [3, 4, 5, 6]


@databases("sqlite", "psycopg2", "mysqlclient")
def test_a_daily_run_reads_its_own_day(database: Database) -> None:
    fill(database, DAYS[family(database)], [f"'2026-10-{day}'" for day in range(20, 31)])
    start = datetime(2026, 10, 23, tzinfo=BUCHAREST)
    assert read(database, Window("updated_at", start, start + timedelta(days=1), "Europe/Bucharest")) == [3]


WRONG = {
    "sqlite": [
        ("TEXT", ["'yesterday'"], "text that does not say times"),
        ("TEXT", ["'2026-10-25 09:30:00'", "'2026-10-25T09:30:00'"], "more than one shape"),
        ("TEXT", ["'2026-10-25T09:30:00Z'", "'2026-10-25T09:30:00+02:00'"], "more than one shape"),
        ("", ["'2026-10-25 09:30:00'", "17"], "more than one shape|numbers"),
        ("INTEGER", ["0", "1793055600"], "numbers that do not all count"),
        ("INTEGER", ["17", "18"], "numbers that do not all count"),
        ("BLOB", ["x'00'"], "neither times nor numbers"),
    ],
    "postgres": [
        ("text", ["'2026-10-25 09:30:00'"], "text, which this database may sort otherwise"),
        ("bigint", ["17"], "numbers that do not all count"),
        ("time", ["'09:30'"], "neither times nor numbers"),
        ("bytea", ["'a'"], "neither times nor numbers|cannot|function"),
    ],
    "mysql": [
        ("VARCHAR(30)", ["'2026-10-25 09:30:00'"], "text, which this database may sort otherwise"),
        ("BIGINT", ["17"], "numbers that do not all count"),
        ("YEAR", ["2026"], "numbers that do not all count"),
    ],
}


@pytest.mark.parametrize(
    ("database", "column", "values", "words"),
    [
        pytest.param(driver, *case, id=f"{driver}-{case[0]}-{n}", marks=[] if name == "sqlite" else [pytest.mark.slow])
        for name, driver in (("sqlite", "sqlite"), ("postgres", "psycopg"), ("mysql", "mysqlclient"))
        for n, case in enumerate(WRONG[name])
    ],
    indirect=["database"],
)
def test_what_no_moment_can_be_compared_to_is_refused_in_words(
    database: Database, column: str, values: list[str], words: str
) -> None:
    fill(database, column, values)
    with pytest.raises(Exception, match=words) as caught:
        read(database, Window("updated_at", BACK, BACK + timedelta(hours=1), "UTC"))
    assert not getattr(caught.value, "retryable", True)


@pytest.mark.parametrize("key_column", ["id", None])
@databases("sqlite", "psycopg", "mysqlclient")
def test_a_null_belongs_to_no_interval(database: Database, key_column: str | None) -> None:
    stamp = {"sqlite": "TEXT", "postgres": "timestamp", "mysql": "DATETIME"}[family(database)]
    fill(database, stamp, ["'2026-10-25 09:30:00'", "NULL"])
    with pytest.raises(KeyColumnError, match=r"interval_column 'updated_at' holds NULL.*COALESCE"):
        read(database, Window("updated_at", BACK, BACK + timedelta(hours=1), "UTC"), key_column)


@pytest.mark.parametrize(("column", "words"), [("TEXT", "times without a zone"), ("TEXT day", "dates")])
@databases("sqlite")
def test_a_zone_that_is_missing_is_named_with_the_line_to_add(database: Database, column: str, words: str) -> None:
    value = "'2026-10-25'" if "day" in column else "'2026-10-25 09:30:00'"
    fill(database, "TEXT", [value])
    with pytest.raises(MappingError, match=rf"holds {words}: add \"timezone\""):
        read(database, Window("updated_at", BACK, BACK + timedelta(hours=1)))


@databases("sqlite", "psycopg", "mysqlclient")
def test_a_column_that_is_not_there_is_named_with_those_that_are(database: Database) -> None:
    fill(database, "int", ["1"])
    with pytest.raises(KeyColumnError, match=r"interval_column 'changed_at' has to be one column.*updated_at"):
        read(database, Window("changed_at", BACK, BACK + timedelta(hours=1)))


@pytest.mark.parametrize("key_column", ["id", None])
@databases("sqlite", "psycopg2", "psycopg", "mysqlclient", "mysql-connector-python")
def test_a_table_without_a_row_is_read_without_one(database: Database, key_column: str | None) -> None:
    stamp = {"sqlite": "TEXT", "postgres": "timestamptz", "mysql": "TIMESTAMP NULL"}[family(database)]
    database.run(f"CREATE TABLE t (id int PRIMARY KEY, updated_at {stamp}, note varchar(20))")
    assert read(database, Window("updated_at", BACK, BACK + timedelta(hours=1)), key_column) == []


@pytest.mark.parametrize("key_column", ["id", None])
@databases("sqlite", "psycopg2", "psycopg", "mysqlclient", "mysql-connector-python")
def test_bounds_are_bound_beside_the_querys_own_parameters(database: Database, key_column: str | None) -> None:
    stamp = {"sqlite": "TEXT", "postgres": "timestamp", "mysql": "DATETIME"}[family(database)]
    fill(database, stamp, [f"'2026-10-25 0{n}:00:00'" for n in range(8)])
    window = Window("updated_at", BACK, BACK + timedelta(hours=4), "UTC")
    percent = "5%" if database.driver == "sqlite" else "5%%"
    for parameters in ({"least": 2}, (2,)):
        sql = f"SELECT id, updated_at AS \"Changed%\" FROM t WHERE note LIKE '{percent}' AND id >= :least"
        if family(database) == "mysql":
            sql = sql.replace('"', "`")
        if isinstance(parameters, tuple):
            sql = database.positional(sql.replace(":least", "%s"))
        else:
            sql = database.named(sql, "least")
        sql = sql.replace("Changed%", "Changed" + percent[1:])
        changed = Window("changed%", window.start, window.end, "UTC")
        assert read(database, changed, key_column, sql=sql, parameters=parameters) == [2, 3, 4]


def test_a_parameter_does_not_take_the_name_of_a_bound(tmp_path: Any) -> None:
    hook: Any = None
    with pytest.raises(ConfigurationError, match="events_key_"):
        SqlSource(hook, "SELECT :events_key_1", {"events_key_1": 1})


@databases("sqlite")
def test_the_log_says_what_is_read(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    fill(database, "TEXT", ["'2026-10-25 09:30:00'"])
    with caplog.at_level(logging.INFO):
        read(database, Window("updated_at", BACK, BACK + timedelta(hours=1), "Europe/Bucharest"))
    assert "with updated_at from 2026-10-25 03:00:00 up to but not including 2026-10-25 04:00:00" in caplog.text


@databases("sqlite", "psycopg")
def test_zones_of_two_continents_read_their_own_clock(database: Database) -> None:
    stamp = {"sqlite": "TEXT", "postgres": "timestamp"}[family(database)]
    moment = datetime(2026, 11, 1, 5, 30, tzinfo=UTC)
    fill(database, stamp, [f"'{clock(moment, zone)[:19]}'" for zone in (NEW_YORK, BUCHAREST)])
    start = moment.replace(minute=0)
    for at, zone in enumerate(["America/New_York", "Europe/Bucharest"]):
        windows = [
            Window("updated_at", start + n * timedelta(hours=1), start + (n + 1) * timedelta(hours=1), zone)
            for n in range(2)
        ]
        assert [n for window in windows for n in read(database, window) if n == at] == [at]
