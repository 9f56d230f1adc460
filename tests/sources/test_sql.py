"""What every driver has to keep: order, completeness, resumption, parameters, keys that can be trusted."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_events.exceptions import ConfigurationError, KeyColumnError, SourceError
from airflow_provider_events.sources.cursors import row_count
from airflow_provider_events.sources.mapping import EventMapping
from airflow_provider_events.sources.rows import SqlRecords
from airflow_provider_events.sources.sql import SqlSource
from tests.servers import DRIVERS, Database, databases
from tests.sources.test_sql_keyset import MemoryHook

pytest_plugins = ["tests.servers"]

STRATEGIES = {
    "sqlite": "cursor with fetchmany",
    "psycopg2": "PostgreSQL named cursor (psycopg2)",
    "psycopg": "PostgreSQL named cursor (psycopg)",
    "mysqlclient": "SSCursor (mysqlclient)",
    "mysql-connector-python": "unbuffered cursor (mysql-connector-python)",
}
ORDERS = [(number, f"order {number}") for number in range(1, 12)]
ALL_ORDERS = "SELECT id, title FROM orders ORDER BY id"


@pytest.fixture
def shop(database: Database) -> Database:
    """A database with 11 orders, inserted out of order."""
    values = ", ".join(f"({number}, '{title}')" for number, title in reversed(ORDERS))
    database.run(
        "CREATE TABLE orders (id INT NOT NULL PRIMARY KEY, title VARCHAR(50))",
        f"INSERT INTO orders VALUES {values}",
    )
    return database


def read(source: SqlSource, **start: Any) -> list[tuple[Any, ...]]:
    return [row for chunk in source.chunks(**start) for row in chunk.rows]


@pytest.mark.parametrize("chunk_size", [1, 3, 10, 11, 12, 1000])
@pytest.mark.parametrize("key_column", [None, "id"])
def test_rows_come_in_order_and_complete(shop: Database, key_column: str | None, chunk_size: int) -> None:
    source = SqlSource(shop.hook, ALL_ORDERS, key_column=key_column, chunk_size=chunk_size)

    chunks = list(source.chunks())

    assert [row for chunk in chunks for row in chunk.rows] == ORDERS
    assert {chunk.columns for chunk in chunks} == {("id", "title")}
    assert {len(chunk.rows) for chunk in chunks[:-1]} <= {chunk_size}
    assert len(chunks) == -(-len(ORDERS) // chunk_size)


def test_the_strategy_is_known_before_anything_is_opened(shop: Database) -> None:
    assert SqlSource(shop.hook, ALL_ORDERS).strategy == STRATEGIES[shop.driver]
    assert SqlSource(shop.hook, ALL_ORDERS, key_column="id").strategy == "keyset pagination on id"


@pytest.mark.parametrize("key_column", [None, "id"])
def test_an_empty_result_still_has_its_columns(shop: Database, key_column: str | None) -> None:
    source = SqlSource(shop.hook, "SELECT id, title FROM orders WHERE 1 = 0", key_column=key_column)

    [chunk] = source.chunks()

    assert (chunk.columns, list(chunk.rows)) == (("id", "title"), [])


def test_a_source_can_be_read_again(shop: Database) -> None:
    source = SqlSource(shop.hook, ALL_ORDERS, chunk_size=4)

    assert read(source) == read(source) == ORDERS


@pytest.mark.parametrize("done", range(13))
@databases("sqlite", "psycopg2", "mysqlclient")
def test_a_later_read_continues_where_the_first_ended(shop: Database, done: int) -> None:
    source = SqlSource(shop.hook, ALL_ORDERS, chunk_size=4, key_column="id")

    assert read(source, after=done) == ORDERS[done:]


@pytest.mark.parametrize("key_column", [None, "id"])
def test_parameters_are_bound_in_the_drivers_own_style(shop: Database, key_column: str | None) -> None:
    sql = "SELECT id, title FROM orders WHERE id BETWEEN {} AND {} AND title <> {} ORDER BY id"
    sequence = SqlSource(
        shop.hook,
        shop.positional(sql.format("%s", "%s", "%s")),
        [3, 9, "it's"],
        key_column=key_column,
        chunk_size=2,
    )
    mapping = SqlSource(
        shop.hook,
        shop.named(sql.format(":low", ":high", ":not"), "low", "high", "not"),
        {"low": 3, "high": 9, "not": "it's"},
        key_column=key_column,
        chunk_size=2,
    )

    assert read(sequence) == read(mapping) == ORDERS[2:9]


@pytest.mark.parametrize("key_column", [None, "id"])
@pytest.mark.parametrize("parameters", [None, [], {}])
def test_percent_signs_need_no_care_without_parameters(shop: Database, key_column: str | None, parameters: Any) -> None:
    sql = "SELECT id, title, '100 %s % (x)' AS share FROM orders WHERE title LIKE 'order 1%' ORDER BY id"

    rows = read(SqlSource(shop.hook, sql, parameters, key_column=key_column, chunk_size=2))

    assert rows == [(number, f"order {number}", "100 %s % (x)") for number in (1, 10, 11)]


def test_percent_signs_beside_parameters_follow_the_driver(shop: Database) -> None:
    percent = "%" if shop.driver == "sqlite" else "%%"
    sql = shop.positional(f"SELECT id FROM orders WHERE title LIKE 'order 1{percent}' AND id > %s ORDER BY id")

    rows = read(SqlSource(shop.hook, sql, (1,), key_column="id", chunk_size=1))

    assert rows == [(10,), (11,)]


@pytest.mark.parametrize(
    "sql",
    [
        "{};",
        "{} ; ;\n",
        "{} -- the end",
        "{}; -- the end; really",
        "-- start;\n{} /* a; b */;\n/* c */ -- d\n",
        "{} -- it's;",
    ],
)
@pytest.mark.parametrize("key_column", [None, "id"])
def test_terminators_and_comments_do_no_harm(shop: Database, key_column: str | None, sql: str) -> None:
    query = "SELECT id, ';--' AS mark FROM orders ORDER BY id"
    source = SqlSource(shop.hook, sql.format(query), key_column=key_column, chunk_size=6)

    assert read(source) == [(number, ";--") for number, _ in ORDERS]


def test_the_key_is_found_in_any_case(shop: Database) -> None:
    assert read(SqlSource(shop.hook, ALL_ORDERS, key_column="ID", chunk_size=4)) == ORDERS


@pytest.mark.parametrize("column", ["the key", "50% off %s", "select", "semi;colon--"])
def test_an_unusual_key_name_is_quoted(database: Database, column: str) -> None:
    quote = "`" if database.driver.startswith("mysql") else '"'
    database.run(
        f"CREATE TABLE odd ({quote}{column}{quote} INT NOT NULL)",
        "INSERT INTO odd VALUES (1), (2), (3)",
    )

    assert read(SqlSource(database.hook, "SELECT * FROM odd", key_column=column, chunk_size=1)) == [
        (1,),
        (2,),
        (3,),
    ]


@pytest.mark.parametrize("column", ["nope", "", 'id" OR 1=1 --', "id` OR 1=1 --", "id; DROP TABLE orders"])
def test_an_unknown_key_is_refused_with_the_columns_there_are(shop: Database, column: str) -> None:
    source = SqlSource(shop.hook, ALL_ORDERS, key_column=column)

    with pytest.raises(KeyColumnError, match="which returns: id, title") as raised:
        read(source)

    assert not raised.value.retryable
    assert read(SqlSource(shop.hook, ALL_ORDERS)) == ORDERS


@pytest.mark.parametrize(
    ("columns", "key_column", "value"),
    [
        ('id AS id, -id AS "ID"', "id", 1),
        ('id AS id, -id AS "ID"', "ID", -11),
        ('id AS id, -id AS "ID"', "Id", None),
        ("id AS id, -id AS id", "id", None),
    ],
)
@databases("psycopg2", "psycopg")
def test_an_ambiguous_key_is_refused(shop: Database, columns: str, key_column: str, value: int | None) -> None:
    chunks = SqlSource(shop.hook, f"SELECT {columns} FROM orders", key_column=key_column).chunks()

    if value is None:
        with pytest.raises(KeyColumnError, match="has to be one column"):
            next(chunks)
    else:
        assert value in next(chunks).rows[0]


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 4, 5, 6])
def test_a_null_key_is_refused_before_the_first_chunk(database: Database, chunk_size: int) -> None:
    database.run("CREATE TABLE t (k INT)", "INSERT INTO t VALUES (1), (2), (3), (4), (NULL)")
    chunks = SqlSource(database.hook, "SELECT k FROM t", key_column="k", chunk_size=chunk_size).chunks()

    with pytest.raises(KeyColumnError, match="'k' holds NULL"):
        next(chunks)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("keys", [[1, 1], [1, 2, 2, 3], [1, 2, 3, 3], [1, 2, 3, 4, 4]])
@databases("sqlite", "psycopg", "mysqlclient")
def test_a_repeated_key_is_refused_wherever_a_page_ends(database: Database, keys: list[int], chunk_size: int) -> None:
    database.run("CREATE TABLE t (k INT)", f"INSERT INTO t VALUES {', '.join(f'({key})' for key in keys)}")
    chunks = SqlSource(database.hook, "SELECT k FROM t", key_column="k", chunk_size=chunk_size).chunks()
    seen: list[int] = []

    with pytest.raises(KeyColumnError, match="'k' holds a value more than once"):
        seen.extend(key for chunk in chunks for (key,) in chunk.rows)

    assert seen == keys[: len(seen)]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 100])
def test_text_keys(database: Database, chunk_size: int) -> None:
    keys = ["", "Zoë", "a", "b%s", "c'; --", "čaj", "日本"]
    database.run("CREATE TABLE t (k VARCHAR(20) NOT NULL)")
    for key in keys:
        database.run(f"INSERT INTO t VALUES ('{key.replace(chr(39), chr(39) * 2)}')")
    source = SqlSource(database.hook, "SELECT k FROM t", key_column="k", chunk_size=chunk_size)

    rows = read(source)

    assert sorted(key for (key,) in rows) == sorted(keys)
    for done, (key,) in enumerate(rows):
        assert read(source, after=key) == rows[done + 1 :]


@pytest.mark.parametrize("chunk_size", [1, 2, 3])
@pytest.mark.parametrize("same", ["aA", ["a", "á"], ["x", "x "]], ids=["case", "accent", "trailing space"])
@databases("mysqlclient", "mysql-connector-python")
def test_texts_that_the_collation_holds_for_the_same_are_repeated_keys(
    database: Database, same: list[str], chunk_size: int
) -> None:
    database.run(
        "CREATE TABLE t (k VARCHAR(20) NOT NULL)",
        f"INSERT INTO t VALUES ('{same[0]}'), ('{same[1]}'), ('z')",
    )

    with pytest.raises(KeyColumnError, match="more than once"):
        read(SqlSource(database.hook, "SELECT k FROM t", key_column="k", chunk_size=chunk_size))


@pytest.mark.parametrize("keys", ["aA", ["x", "x "]])
@databases("sqlite", "psycopg2", "psycopg")
def test_texts_that_only_look_alike_are_good_keys(database: Database, keys: list[str]) -> None:
    database.run("CREATE TABLE t (k TEXT NOT NULL)", f"INSERT INTO t VALUES ('{keys[0]}'), ('{keys[1]}')")

    rows = read(SqlSource(database.hook, "SELECT k FROM t", key_column="k", chunk_size=1))

    assert {key for (key,) in rows} == set(keys)


def test_rows_that_come_and_go_between_pages(shop: Database) -> None:
    chunks = SqlSource(shop.hook, ALL_ORDERS, key_column="id", chunk_size=5).chunks()
    first = next(chunks)

    shop.run("DELETE FROM orders WHERE id > 5", "INSERT INTO orders VALUES (0, 'late'), (20, 'new')")

    assert list(first.rows) == ORDERS[:5]
    assert [row for chunk in chunks for row in chunk.rows] == [(20, "new")]


@pytest.mark.parametrize("key_column", [None, "id"])
def test_a_wrong_statement_names_the_drivers_error(shop: Database, key_column: str | None) -> None:
    source = SqlSource(shop.hook, "SELECT id FROM no_such_table", key_column=key_column)

    driver_error = rf"{DRIVERS[shop.driver]}\S*(Error|UndefinedTable) .*no_such_table"

    with pytest.raises(SourceError, match=driver_error) as raised:
        read(source)

    assert not raised.value.retryable
    assert raised.value.__suppress_context__


@pytest.mark.parametrize("key_column", [None, "id"])
def test_an_error_tells_nothing_of_parameters(shop: Database, key_column: str | None) -> None:
    sql = shop.positional("SELECT id, no_such_column FROM orders WHERE title = %s")

    with pytest.raises(SourceError) as raised:
        read(SqlSource(shop.hook, sql, ("eva@example.com",), key_column=key_column))

    assert "eva" not in str(raised.value)


def test_a_statement_without_rows_is_refused(shop: Database) -> None:
    with pytest.raises(SourceError):
        read(SqlSource(shop.hook, "UPDATE orders SET title = 'x'"))

    assert read(SqlSource(shop.hook, ALL_ORDERS)) == ORDERS


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        ({"chunk_size": 0}, {}),
        ({"sql": " ;\n"}, {}),
        ({}, {"after": 1}),
    ],
)
@databases("sqlite")
def test_arguments_that_do_not_fit_are_refused_at_once(
    database: Database, arguments: dict[str, Any], start: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError):
        SqlSource(database.hook, **{"sql": ALL_ORDERS} | arguments).chunks(**start)


# -- how many there are ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key_column", [None, "id"])
def test_the_number_of_rows_is_right_or_unknown(shop: Database, key_column: str | None) -> None:
    """None of these drivers knows it of a cursor that streams."""
    source = SqlSource(shop.hook, ALL_ORDERS, key_column=key_column)
    read(source)
    assert source.total is None


@pytest.mark.parametrize(
    ("told", "total"),
    [(11, 11), (-1, None), (0, None), (None, None), (2**64 - 1, None), (2**63 - 1, None), ("11", None)],
)
def test_what_a_driver_tells_of_the_number_of_rows(told: Any, total: int | None) -> None:
    assert row_count(SimpleNamespace(rowcount=told)) == total
    assert row_count(SimpleNamespace()) is None


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"begin": "2026-03-01 09:00:00+00:00", "n": 1}, "begin"),
        ({"begin": "2026-03-01T09:00:00Z"}, "begin"),
        ({"begin": "2026-03-01", "end": datetime(2026, 3, 1, tzinfo=UTC)}, "end"),
        (["2026-03-01T09:00:00.123-05:00"], "1"),
        ({"begin": "2026-03-01 09:00:00", "day": "2026-03-01", "word": "+00:00", "naive": datetime(2026, 3, 1)}, None),
        (None, None),
    ],
    ids=str,
)
@pytest.mark.parametrize("zone", ["Europe/Bucharest", None])
def test_a_bound_with_an_offset_beside_local_times_is_a_warning(
    parameters: Any, named: str | None, zone: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    hook: Any = MemoryHook([])
    mapping = EventMapping.of({"name": "x", "identity": {"registered": "k"}, "timezone": zone})
    source = SqlSource(hook, "SELECT k FROM t", parameters, key_column="k")

    with contextlib.suppress(SourceError):  # parameters that the query does not have
        list(SqlRecords(source, mapping).records())

    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == (1 if named and zone else 0)
    for warning in warnings:
        assert f"parameters {named} are times with an offset" in warning
        assert "2026" not in warning
        assert "in_timezone('Europe/Bucharest')" in warning


@pytest.mark.parametrize("key_column", [None, "id"])
def test_rows_are_counted_first_where_that_is_asked_for(shop: Database, key_column: str | None) -> None:
    sql = shop.named("SELECT id, title FROM orders WHERE id > :low -- ten", "low")
    source = SqlSource(shop.hook, sql, {"low": 1}, key_column=key_column, chunk_size=3, count_rows=True)
    assert source.total is None

    chunks = source.chunks()
    first = next(chunks)

    assert source.total == 10
    assert sorted(row for chunk in (first, *chunks) for row in chunk.rows) == ORDERS[1:]


def test_rows_before_a_key_that_is_gone_on_from_count_as_well(shop: Database) -> None:
    source = SqlSource(shop.hook, ALL_ORDERS, key_column="id", count_rows=True)

    assert read(source, after=4, first_row=5) == ORDERS[4:]
    assert source.total == len(ORDERS)


@pytest.mark.parametrize("key_column", [None, "id"])
def test_no_rows_are_counted_as_none(shop: Database, key_column: str | None) -> None:
    source = SqlSource(shop.hook, "SELECT * FROM orders WHERE id > 99", key_column=key_column, count_rows=True)

    assert read(source) == []
    assert source.total == 0
