"""From SQL rows to the sandbox, in real Airflow."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_events.exceptions import MappingError
from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator
from tests.conftest import DAGS, IDENTITY_KEYS

pytestmark = pytest.mark.airflow

ORDERS = 230
MAPPING = {
    "name": "purchase",
    "timestamp": "created_at",
    "id": "order_id",
    "properties": {"total_price": "total", "note": "note"},
    "timezone": "Europe/Bucharest",
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sqlite3.Connection:
    """A SQLite shop; times are text without a zone, every tenth note is NULL."""
    path = tmp_path / "shop.db"
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    database = sqlite3.connect(path)
    database.execute(
        "create table orders (order_id integer primary key, email text, created_at text, total real, note text)"
    )
    database.executemany(
        "insert into orders values (?, ?, ?, ?, ?)",
        [
            (n, f"customer{n % 100}@example.com", f"2026-03-01 09:{n % 60:02d}:00", n / 4, "gift" if n % 10 else None)
            for n in range(1, ORDERS + 1)
        ],
    )
    database.commit()
    return database


def sql_dag(dag_id: str, vendor: str, sql: str = "select * from orders", **options: Any) -> str:
    options = {"mapping": {**MAPPING, "identity": {IDENTITY_KEYS[vendor]: "email"}}, **options}
    arguments = "".join(f", {name}={value!r}" for name, value in options.items())
    return f"""
from datetime import datetime, timezone
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

with DAG("{dag_id}", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule=None):
    SqlToEventsOperator(task_id="sync", sql={sql!r}, sql_conn_id="shop", conn_id="{vendor}_default"{arguments})
"""


@pytest.mark.parametrize("key_column", [None, "order_id"])
@pytest.mark.parametrize("vendor", list(IDENTITY_KEYS))
def test_every_row_arrives(vendor: str, key_column: str | None, shop: Any, connections: Any, run_dag: Any) -> None:
    dag_id = f"sync_{vendor}_{key_column}"
    result = run_dag(sql_dag(dag_id, vendor, key_column=key_column), dag_id)
    report = result.returned["sync"]
    assert result.states["sync"] == "success"
    assert report["read"] == report["delivered"] == len(connections.events(vendor)) == ORDERS


def test_rows_become_the_documented_events(shop: Any, connections: Any, run_dag: Any) -> None:
    run_dag(sql_dag("wire", "bloomreach", "select * from orders where order_id in (9, 10)"), "wire")
    assert [event.wire for event in connections.events("bloomreach")] == [
        {
            "customer_ids": {"registered": "customer9@example.com"},
            "event_type": "purchase",
            "properties": {"total_price": 2.25, "note": "gift"},
            "timestamp": 1772348940.0,
        },
        {
            "customer_ids": {"registered": "customer10@example.com"},
            "event_type": "purchase",
            "properties": {"total_price": 2.5},
            "timestamp": 1772349000.0,
        },
    ]


def test_a_window_of_bound_parameters_from_a_sql_file(shop: Any, connections: Any, run_dag: Any) -> None:
    (DAGS / "window.sql").write_text(
        "select * from orders where created_at >= :begin and created_at < :end; -- {{ dag.dag_id }}"
    )
    parameters = {"begin": "2026-03-01 09:10:00", "end": "{{ '2026-03-01 09:12:00' }}"}
    result = run_dag(
        sql_dag("window", "bloomreach", "window.sql", parameters=parameters, key_column="order_id"), "window"
    )
    assert result.returned["sync"]["delivered"] == 8


@pytest.mark.parametrize(
    ("dag_id", "changes", "words"),
    [
        ("no_column", {"id": "order_no"}, ["'order_no'", "did you mean", "order_id, email, created_at, total, note"]),
        ("no_zone", {"timezone": None}, ["'created_at'", '"timezone": "Europe/Bucharest"']),
    ],
)
def test_a_mapping_that_does_not_fit_fails_before_the_first_request(
    dag_id: str,
    changes: dict[str, Any],
    words: list[str],
    shop: Any,
    connections: Any,
    run_dag: Any,
    caplog: Any,
    capfd: Any,
) -> None:
    mapping = {**MAPPING, "identity": {"registered": "email"}, **changes}
    result = run_dag(sql_dag(dag_id, "bloomreach", mapping=mapping, retries=2), dag_id)
    said = caplog.text + capfd.readouterr().out
    assert result.states["sync"] == "failed"
    assert connections.requests("bloomreach") == []
    assert all(word in said for word in words)


def test_an_empty_result_is_a_success(shop: Any, connections: Any, run_dag: Any) -> None:
    result = run_dag(sql_dag("empty", "webengage", "select * from orders where 1 = 0"), "empty")
    assert result.states["sync"] == "success"
    assert result.returned["sync"]["read"] == 0


def test_bad_rows_are_rejected_by_number_and_the_rest_arrives(
    shop: Any, connections: Any, run_dag: Any, tmp_path: Path
) -> None:
    shop.execute("update orders set email = null where order_id = 7")
    shop.execute("update orders set created_at = 'yesterday' where order_id = 8")
    shop.execute("update orders set note = ? where order_id = 9", ["x" * 1000])
    shop.commit()
    source = sql_dag("bad_rows", "webengage", max_rejected=3, rejected_path=str(tmp_path / "rejected.jsonl"))
    result = run_dag(source, "bad_rows")
    assert result.states["sync"] == "success"
    assert result.returned["sync"]["delivered"] == ORDERS - 3
    lines = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert [(line["row"], line["field"], line["data"]["order_id"]) for line in lines] == [
        (7, "identity", 7),
        (8, "timestamp", 8),
        (9, "properties.note", 9),
    ]


def test_a_database_that_is_not_there_is_tried_again_by_airflow(
    connections: Any, run_dag: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "no" / "shop.db")})
    )
    result = run_dag(sql_dag("absent", "bloomreach", retries=1, retry_delay=0.0), "absent")
    assert result.states["sync"] == "failed"
    assert result.tries["sync"] == 2


@pytest.mark.parametrize(
    ("dag_id", "sql", "words"),
    [
        ("broken_sql", "select * from order_lines", "no such table: order_lines"),
        (
            "broken_row",
            "select *, cast(x'ff' as text) as broken from orders",
            "in column 'broken' that Python cannot hold",
        ),
    ],
)
def test_what_no_retry_reads_fails_at_once_in_words(
    dag_id: str, sql: str, words: str, shop: Any, connections: Any, run_dag: Any, caplog: Any, capfd: Any
) -> None:
    result = run_dag(sql_dag(dag_id, "bloomreach", sql, retries=1, retry_delay=0.0), dag_id)
    said = caplog.text + capfd.readouterr().out
    assert result.states["sync"] == "failed"
    assert result.tries["sync"] == 1
    assert words in said


@pytest.mark.parametrize("count_rows", [True, False])
def test_the_delivery_knows_how_many_rows_there_are_where_they_are_counted(shop: Any, count_rows: bool) -> None:
    task = SqlToEventsOperator(
        task_id="sync",
        sql="select * from orders",
        sql_conn_id="shop",
        conn_id="x",
        key_column="order_id",
        count_rows=count_rows,
        mapping={**MAPPING, "identity": {"registered": "email"}},
    )
    hook: Any = None  # rows are read before there is a vendor
    source: Any = task.source(hook)

    next(iter(source.records()))

    assert source.total == (ORDERS if count_rows else None)


def test_a_mapping_is_checked_at_dag_parse() -> None:
    with pytest.raises(MappingError, match="exactly one of name"):
        SqlToEventsOperator(
            task_id="sync", sql="select 1", sql_conn_id="shop", conn_id="x", mapping={"identity": {"email": "email"}}
        )
