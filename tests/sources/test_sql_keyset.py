"""Keyset pagination: random keys and page sizes on SQLite, and the statements for databases not here."""

from __future__ import annotations

import sqlite3
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_events.exceptions import KeyColumnError
from airflow_provider_events.sources.cursors import paging
from airflow_provider_events.sources.keyset import STYLES, Keyset, Limit, Style, key_pages
from airflow_provider_events.sources.sql import SqlSource

INTEGERS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
BYTES = st.binary(max_size=8)
# The first example pays for imports.
NO_DEADLINE = settings(deadline=None)
KEYS = st.one_of(*(st.lists(values, unique=True, max_size=40) for values in (INTEGERS, FLOATS, TEXTS, BYTES)))


class MemoryHook:
    """What `SqlSource` needs of a `DbApiHook`, over an SQLite database in memory."""

    dialect_name = "sqlite"
    placeholder = "?"

    def __init__(self, keys: list[Any]) -> None:
        self.keys = keys

    def get_conn(self) -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:")
        rows = [key if isinstance(key, tuple) else (0, key) for key in self.keys]
        connection.execute("CREATE TABLE t (c, k)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
        connection.commit()
        return connection


def pages(keys: list[Any], size: int, after: Any | None = None) -> list[list[Any]]:
    hook: Any = MemoryHook(keys)
    source = SqlSource(hook, "SELECT k FROM t", key_column="k", chunk_size=size)
    return [[key for (key,) in chunk.rows] for chunk in source.chunks(after=after)]


def in_database_order(keys: list[Any]) -> list[Any]:
    return sorted(keys, key=lambda key: key.encode() if isinstance(key, str) else key)


@NO_DEADLINE
@given(KEYS, st.integers(1, 50))
def test_any_unique_keys_come_once_and_in_order(keys: list[Any], size: int) -> None:
    read = pages(keys, size)

    assert [key for page in read for key in page] == in_database_order(keys)
    assert all(len(page) == size for page in read[:-1])


@NO_DEADLINE
@given(KEYS.filter(bool), st.integers(1, 50), st.data())
def test_any_read_continues_behind_any_key(keys: list[Any], size: int, data: st.DataObject) -> None:
    ordered = in_database_order(keys)
    position = data.draw(st.integers(0, len(ordered) - 1))

    read = pages(keys, size, after=ordered[position])

    assert [key for page in read for key in page] == ordered[position + 1 :]


@NO_DEADLINE
@given(KEYS.filter(bool), st.integers(1, 50), st.data())
def test_any_repeated_or_missing_key_is_refused(keys: list[Any], size: int, data: st.DataObject) -> None:
    fault = data.draw(st.sampled_from([*keys, None]))
    position = data.draw(st.integers(0, len(keys)))

    with pytest.raises(KeyColumnError):
        pages([*keys[:position], fault, *keys[position:]], size)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_collation_decides_what_is_the_same(size: int) -> None:
    hook: Any = MemoryHook(["a", "A", "b"])
    source = SqlSource(hook, "SELECT k COLLATE NOCASE AS k FROM t", key_column="k", chunk_size=size)

    with pytest.raises(KeyColumnError, match="the collation decides"):
        list(source.chunks())


@pytest.mark.parametrize("value", [float("nan"), None])
def test_values_without_an_order_are_no_keys(monkeypatch: pytest.MonkeyPatch, value: float | None) -> None:
    """SQLite stores no NaN; other databases hand it out, and a NULL may appear after the check for them."""
    monkeypatch.setattr("airflow_provider_events.sources.keyset.fetch", lambda cursor, size: [(value,)])
    monkeypatch.setattr(Keyset, "any_null", lambda self: self.columns_only())
    hook: Any = MemoryHook([1])
    source = SqlSource(hook, "SELECT k FROM t", key_column="k")

    with pytest.raises(KeyColumnError):
        list(source.chunks())


def test_a_key_that_loses_precision_is_refused_instead_of_read_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with MySQL's FLOAT: `> the key as Python knows it` finds the same row again."""
    page = Keyset.page

    def imprecise(keyset: Keyset, after: Any | None, limit: int) -> Any:
        return page(keyset, None if after is None else after - 1e-9, limit)

    monkeypatch.setattr(Keyset, "page", imprecise)

    with pytest.raises(KeyColumnError, match="loses precision"):
        pages([1.5, 2.5, 3.5], size=1)


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        ("postgresql", 'SELECT * FROM (\nQ\n) q WHERE q."k" > ? ORDER BY q."k" LIMIT 9'),
        ("default", 'SELECT * FROM (\nQ\n) q WHERE q."k" > ? ORDER BY q."k" LIMIT 9'),
        ("mysql", "SELECT * FROM (\nQ\n) q WHERE q.`k` > ? ORDER BY q.`k` LIMIT 9"),
        ("databricks", "SELECT * FROM (\nQ\n) q WHERE q.`k` > ? ORDER BY q.`k` LIMIT 9"),
        ("oracle", 'SELECT * FROM (\nQ\n) q WHERE q."k" > ? ORDER BY q."k" FETCH FIRST 9 ROWS ONLY'),
        ("ibm_db_sa", 'SELECT * FROM (\nQ\n) q WHERE q."k" > ? ORDER BY q."k" FETCH FIRST 9 ROWS ONLY'),
        ("mssql", "SELECT TOP (9) * FROM (\nQ\n) q WHERE q.[k] > ? ORDER BY q.[k]"),
    ],
)
def test_a_page_in_the_words_of_each_database(dialect: str, expected: str) -> None:
    assert Keyset("Q", None, "k", dialect, STYLES["qmark"]).page(5, 9) == (expected, (5,))


@pytest.mark.parametrize(
    ("dialect", "quoted"), [("postgresql", 'q."a""]`b"'), ("mysql", 'q.`a"]``b`'), ("mssql", 'q.[a"]]`b]')]
)
def test_a_key_cannot_leave_its_quotes(dialect: str, quoted: str) -> None:
    sql, _ = Keyset("Q", None, 'a"]`b', dialect, STYLES["qmark"]).page(None, 9)

    assert f" ORDER BY {quoted}" in sql


@pytest.mark.parametrize(
    ("style", "own", "condition", "bound"),
    [
        (STYLES["qmark"], None, "> ?", (5,)),
        (STYLES["qmark"], (1, 2), "> ?", (1, 2, 5)),
        (STYLES["qmark"], {"x": 1}, "> :events_key_1", {"x": 1, "events_key_1": 5}),
        (STYLES["format"], None, "> %s", (5,)),
        (STYLES["format"], {"x": 1}, "> %(events_key_1)s", {"x": 1, "events_key_1": 5}),
        (STYLES["pyformat"], None, "> %(events_key_1)s", {"events_key_1": 5}),
        (STYLES["pyformat"], (1,), "> %s", (1, 5)),
        (STYLES["named"], None, "> :events_key_1", {"events_key_1": 5}),
        (STYLES["named"], (1,), "> :events_key_1", (1, 5)),
    ],
)
def test_the_key_is_bound_as_the_query_binds(style: Style, own: Any, condition: str, bound: Any) -> None:
    sql, parameters = Keyset("Q", own, "k", "default", style).page(5, 9)

    assert f'WHERE q."k" {condition} ORDER BY' in sql
    assert parameters == bound


@pytest.mark.parametrize(
    ("style", "own", "after", "query", "column"),
    [
        (STYLES["pyformat"], None, None, "10%", '"5%"'),
        (STYLES["pyformat"], None, 5, "10%%", '"5%%"'),
        (STYLES["pyformat"], (1,), None, "10%", '"5%%"'),
        (STYLES["qmark"], None, 5, "10%", '"5%"'),
    ],
)
def test_percent_signs_are_escaped_when_the_driver_reads_them(
    style: Style, own: Any, after: Any, query: str, column: str
) -> None:
    sql, _ = Keyset("10%", own, "5%", "default", style).page(after, 9)

    assert f"(\n{query}\n)" in sql
    assert sql.endswith(f"ORDER BY q.{column} LIMIT 9")


@pytest.mark.parametrize(
    ("module", "declared", "placeholder", "expected"),
    [
        ("oracledb.connection", "named", "%s", "> :events_key_1"),
        ("pyodbc", "qmark", "%s", "> ?"),
        ("airflow_made.hooks.bigquery", None, "%s", "> %(events_key_1)s"),
        ("somewhere", None, "?", "> ?"),
        ("strange.driver", "numeric", "?", "> ?"),
    ],
)
def test_the_style_is_the_drivers_own(
    monkeypatch: pytest.MonkeyPatch, module: str, declared: str | None, placeholder: str, expected: str
) -> None:
    statements: list[str] = []

    class Cursor:
        description = (("k",),)

        def execute(self, sql: str, parameters: Any = None) -> None:
            statements.append(sql)

        def fetchall(self) -> list[tuple[Any, ...]]:
            return []

        def close(self) -> None: ...

    Connection = type("Connection", (), {"__module__": module, "cursor": lambda self: Cursor(), "close": id})
    if declared:
        package: Any = ModuleType(module.partition(".")[0])
        package.paramstyle = declared
        monkeypatch.setitem(sys.modules, package.__name__, package)
    hook: Any = SimpleNamespace(get_conn=Connection, dialect_name="default", placeholder=placeholder)

    list(SqlSource(hook, "SELECT k", key_column="k").chunks(after=1))

    assert expected in statements[-1]


PAIRS = st.lists(st.tuples(st.integers(0, 4), INTEGERS), unique=True, max_size=40)


def pair_pages(pairs: list[tuple[int, int]], size: int, after: Any = None, within: Any = ()) -> list[list[Any]]:
    """The pairs in pages."""
    hook: Any = MemoryHook(pairs)
    pages = key_pages(
        hook, paging(hook), "SELECT c, k FROM t", None, key_column="K", after=after, size=size, leading="c",
        within=within,
    )  # fmt: skip
    return [list(chunk.rows) for chunk in pages]


@NO_DEADLINE
@given(PAIRS, st.integers(1, 50), st.integers(0, 5), st.integers(0, 5))
def test_pairs_come_once_in_order_and_within_limits(
    pairs: list[tuple[int, int]], size: int, lowest: int, highest: int
) -> None:
    read = pair_pages(pairs, size, within=[Limit("C", ">=", lowest), Limit("c", "<=", highest)])

    expected = sorted(pair for pair in pairs if lowest <= pair[0] <= highest)
    assert [pair for page in read for pair in page] == expected
    assert all(len(page) == size for page in read[:-1])


@NO_DEADLINE
@given(PAIRS.filter(bool), st.integers(1, 50), st.data())
def test_pairs_continue_behind_any_pair(pairs: list[tuple[int, int]], size: int, data: st.DataObject) -> None:
    ordered = sorted(pairs)
    position = data.draw(st.integers(0, len(ordered) - 1))

    read = pair_pages(pairs, size, after=ordered[position])

    assert [pair for page in read for pair in page] == ordered[position + 1 :]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_pair_that_is_there_twice_is_refused(size: int) -> None:
    with pytest.raises(KeyColumnError):
        pair_pages([(1, 1), (1, 2), (1, 2), (2, 2)], size)


@pytest.mark.parametrize(
    ("dialect", "where", "order"),
    [
        ("postgresql", 'q."c" <= ? AND (q."c", q."k") > (?, ?)', 'q."c", q."k" LIMIT 3'),
        ("sqlite", 'q."c" <= ? AND (q."c", q."k") > (?, ?)', 'q."c", q."k" LIMIT 3'),
        ("mysql", "q.`c` <= ? AND (q.`c` > ? OR (q.`c` = ? AND q.`k` > ?))", "q.`c`, q.`k` LIMIT 3"),
        ("oracle", 'q."c" <= ? AND (q."c" > ? OR (q."c" = ? AND q."k" > ?))', 'q."c", q."k" FETCH FIRST 3 ROWS ONLY'),
        ("mssql", "q.[c] <= ? AND (q.[c] > ? OR (q.[c] = ? AND q.[k] > ?))", "q.[c], q.[k]"),
    ],
)
def test_a_pair_in_the_words_of_each_database(dialect: str, where: str, order: str) -> None:
    sql, bound = Keyset("Q", None, "k", dialect, STYLES["qmark"], "c", (Limit("c", "<=", 9),)).page((5, 6), 3)

    assert sql.endswith(f"FROM (\nQ\n) q WHERE {where} ORDER BY {order}")
    assert bound == ((9, 5, 6) if where.count("?") == 3 else (9, 5, 5, 6))
