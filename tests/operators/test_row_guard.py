"""How many rows a run may send: counted before the first request, compared with earlier runs, let pass by a person."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import airflow
import pytest

from airflow_provider_events.delivery.row_limits import COUNTED_FURTHER
from airflow_provider_events.exceptions import ConfigurationError, TooManyRows
from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.operators.events import SendEventsOperator
from airflow_provider_events.sources.sql import SqlSource
from tests.servers import Database

pytestmark = pytest.mark.airflow

OLD = airflow.__version__.startswith("2.")
DAY = datetime(2026, 3, 1, tzinfo=UTC)
MAPPING = {"name": "purchase", "identity": {"registered": "email"}, "id": "order_id", "properties": ["order_id"]}
DAG_FILE = """
from datetime import datetime, timezone
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

with DAG("{dag_id}", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule=None, params={{"allowed": 9}}):
    SqlToEventsOperator(
        task_id="sync",
        sql="SELECT * FROM orders",
        sql_conn_id="shop",
        conn_id="bloomreach_default",
        mapping={mapping!r},
        retries=2,
        {options}
    )
"""


class Shop:
    """A shop with as many orders as a test wants."""

    def __init__(self, path: Path) -> None:
        self.database = sqlite3.connect(path)
        self.database.execute("create table orders (order_id integer primary key, email text)")

    def has(self, orders: int) -> None:
        self.database.execute("delete from orders")
        self.database.executemany("insert into orders values (?, ?)", [(n, f"c{n}@example.com") for n in range(orders)])
        self.database.commit()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    path = tmp_path / "shop.db"
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    return Shop(path)


class Sync:
    """A DAG whose runs follow each other by a day."""

    def __init__(self, dag_id: str, options: str, run_dag: Any) -> None:
        self._source = DAG_FILE.format(dag_id=dag_id, options=options, mapping=MAPPING)
        self._dag_id = dag_id
        self._run_dag = run_dag
        self._day = DAY

    def run(self, conf: dict[str, Any] | None = None, day: int | None = None) -> Any:
        """The next run's result."""
        self._day += timedelta(days=1)
        date = self._day if day is None else DAY + timedelta(days=day)
        when = {"execution_date" if OLD else "logical_date": date}
        return self._run_dag(self._source, self._dag_id, run_conf=conf, **when)


def said(caplog: Any, capfd: Any) -> str:
    """What the log says; Airflow 3.0 colours and wraps it."""
    return re.sub(r"\x1b\[[\d;]*m|\s+", "", caplog.text + capfd.readouterr().out)


@pytest.mark.parametrize("options", ["max_rows=9,", "max_rows='{{ params.allowed }}', key_column='order_id',"])
def test_more_rows_than_max_rows_stop_the_run_before_the_first_request(
    options: str, shop: Shop, connections: Any, run_dag: Any, caplog: Any, capfd: Any
) -> None:
    sync = Sync(f"max_rows_{len(options)}", options, run_dag)
    shop.has(9)
    assert sync.run().returned["sync"]["delivered"] == 9
    connections.reset()
    shop.has(10)
    result = sync.run()
    words = said(caplog, capfd)
    assert (result.states["sync"], result.tries["sync"]) == ("failed", 1)
    assert "10rowsaretobesent,andnomorethan9areletthrough(max_rows=9).Nothingwassent." in words
    assert '{"events_max_rows":10}' in words
    assert connections.requests("bloomreach") == []


@pytest.mark.parametrize("conf", [{"events_max_rows": 12}, {"events_max_rows": {"sync": 12, "other": 1}}])
def test_a_runs_configuration_lets_it_pass(conf: dict[str, Any], shop: Shop, connections: Any, run_dag: Any) -> None:
    sync = Sync(f"let_pass_{len(str(conf))}", "max_rows=9, max_growth=1,", run_dag)
    shop.has(8)
    sync.run()
    shop.has(12)
    assert sync.run().states["sync"] == "failed"
    assert sync.run(conf).returned["sync"]["delivered"] == 12
    shop.has(13)
    assert sync.run(conf).states["sync"] == "failed"


@pytest.mark.parametrize("value", ["many", -1, True, {"sync": "12"}, [12]])
def test_a_configuration_that_is_no_number_is_refused(
    value: Any, shop: Shop, connections: Any, run_dag: Any, caplog: Any, capfd: Any
) -> None:
    shop.has(1)
    result = Sync(f"conf_{type(value).__name__}", "max_rows=9,", run_dag).run({"events_max_rows": value})
    assert result.states["sync"] == "failed"
    assert "events_max_rowsoftherun'sconfigurationhastobeawholenumberofrows" in said(caplog, capfd)


def test_a_run_is_compared_with_the_median_of_the_runs_before_it(
    shop: Shop, connections: Any, run_dag: Any, caplog: Any, capfd: Any
) -> None:
    sync = Sync("growth", "max_growth=2.5,", run_dag)
    for orders in (4, 40, 0, 4):  # the first is compared with none, and the second is too many
        shop.has(orders)
        result = sync.run()
        assert result.states["sync"] == ("failed" if orders == 40 else "success")
    words = said(caplog, capfd)
    assert "noearlierrunofthistaskhassentanything" in words
    assert "40rowsaretobesent,andnomorethan10areletthrough(max_growth=2.5times4,themedianofthelast1runs)" in words
    shop.has(10)
    assert sync.run().returned["sync"]["delivered"] == 10
    shop.has(11)
    assert sync.run().states["sync"] == "failed"


def test_a_failed_run_and_a_later_one_do_not_count(shop: Shop, connections: Any, run_dag: Any) -> None:
    sync = Sync("growth_failed", "max_growth=3,", run_dag)
    shop.has(4)
    sync.run(day=5)
    shop.database.execute("update orders set email = null where order_id > 1")
    shop.database.commit()
    assert sync.run(day=6).states["sync"] == "failed"  # two of four are rejected
    shop.has(12)
    assert sync.run(day=7).states["sync"] == "success"  # three times four
    shop.has(13)
    assert sync.run(day=4).states["sync"] == "success"  # nothing was before


def test_no_run_looks_at_another_task_or_dag(shop: Shop, connections: Any, run_dag: Any) -> None:
    shop.has(2)
    Sync("growth_of_one", "max_growth=2,", run_dag).run()
    shop.has(20)
    assert Sync("growth_of_other", "max_growth=2,", run_dag).run(day=9).states["sync"] == "success"


def test_a_dry_run_is_guarded_and_not_remembered(shop: Shop, connections: Any, run_dag: Any) -> None:
    shop.has(10)
    assert Sync("dry", "max_rows=9, dry_run=True,", run_dag).run().states["sync"] == "failed"
    dry = Sync("dry_growth", "max_growth=2, dry_run=True,", run_dag)
    dry.run()
    shop.has(100)
    assert dry.run().states["sync"] == "success"


def test_entries_that_are_ensured_are_not_made_before_the_rows_are_counted(
    shop: Shop, connections: Any, run_dag: Any
) -> None:
    shop.has(10)
    assert Sync("ensured", "max_rows=9, ensure_entry={'vip': True},", run_dag).run().states["sync"] == "failed"
    assert connections.requests("bloomreach") == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_rows": 0}, "max_rows has to be a whole number of at least 1"),
        ({"max_rows": 1.5}, "max_rows"),
        ({"max_rows": True}, "max_rows"),
        ({"max_growth": 0}, "max_growth has to be a number above 0"),
        ({"max_growth": "ten"}, "max_growth"),
        ({"max_growth": float("nan")}, "max_growth"),
        ({"max_growth": float("inf")}, "max_growth"),
    ],
)
def test_a_wrong_limit_is_an_error_when_the_dag_is_parsed(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        SendEventsOperator(task_id="t", conn_id="x", events=[], **options)


# -- the hook, and how it is counted ---------------------------------------------------------------------------------


def events(number: int) -> list[dict[str, Any]]:
    return [{"name": "e", "identity": {"registered": f"c{n}"}, "properties": {"n": n}} for n in range(number)]


def test_the_hook_counts_a_list(connections: Any) -> None:
    hook = EventsHook.for_connection("bloomreach_default")
    with pytest.raises(TooManyRows, match=r"6 rows .* no more than 5 .*raise max_rows to 6$"):
        hook.deliver(events(6), max_rows=5)
    assert connections.requests("bloomreach") == []
    assert hook.deliver(events(5), max_rows=5).delivered == 5


def test_a_generator_is_refused_where_it_is_to_be_counted(connections: Any) -> None:
    hook = EventsHook.for_connection("bloomreach_default")
    with pytest.raises(ConfigurationError, match="cannot be counted before it is read"):
        hook.deliver((event for event in events(2)), max_rows=5)


def test_a_file_is_counted_no_further_than_needed(connections: Any, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text("\n\n".join(map(json.dumps, events(6))) + "\n")
    operator = SendEventsOperator(task_id="t", conn_id="bloomreach_default", events=str(file))
    source = operator.source(EventsHook.for_connection("bloomreach_default"))
    assert [source.count(limit) for limit in (3, 6, 7)] == [3, 6, 6]


def test_far_too_many_rows_are_not_counted_to_the_last(connections: Any, caplog: pytest.LogCaptureFixture) -> None:
    hook = EventsHook.for_connection("bloomreach_default")
    with pytest.raises(TooManyRows, match=f"more than {2 * COUNTED_FURTHER - 1} rows"):
        hook.deliver(events(2 * COUNTED_FURTHER), max_rows=1)


@pytest.fixture
def numbers(database: Database) -> Database:
    database.run(
        "CREATE TABLE n (id int PRIMARY KEY)", f"INSERT INTO n VALUES {', '.join(f'({n})' for n in range(50))}"
    )
    return database


@pytest.mark.parametrize("key_column", ["id", None])
def test_databases_count_no_further_than_needed(numbers: Database, key_column: str | None) -> None:
    source = SqlSource(numbers.hook, "SELECT id FROM n WHERE id >= 10 -- forty;", key_column=key_column)
    assert [source.count(limit) for limit in (1, 39, 40, 41, 1000)] == [1, 39, 40, 40, 40]
    assert source.total == 40


def test_what_was_counted_is_known_to_the_progress(numbers: Database, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        source = SqlSource(numbers.hook, "SELECT id FROM n")
        source.count(51)
        next(source.chunks())
    assert source.total == 50
