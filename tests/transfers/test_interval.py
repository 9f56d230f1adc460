"""A sync by interval in real Airflow: scheduled, manual, backfilled and triggered runs, retries, and what has none."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import airflow
import pytest

from airflow_provider_events._compat import AirflowFailException
from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.transfers.interval import interval_of
from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator
from tests.conftest import DAGS
from tests.operators.test_checkpoints import StateStore, context

pytestmark = pytest.mark.airflow

OLD = airflow.__version__.startswith("2.")
NOON = datetime(2026, 10, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MAPPING = {
    "name": "purchase",
    "identity": {"registered": "email"},
    "timestamp": "placed_at",
    "id": "order_id",
    "timezone": "Europe/Bucharest",
}
DAG_FILE = """
from datetime import datetime, timedelta, timezone
from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

with DAG("{dag_id}", start_date=datetime(2026, 10, 1, tzinfo=timezone.utc), schedule={schedule}, catchup=False):
    SqlToEventsOperator(
        task_id="sync",
        sql="SELECT * FROM orders",
        interval_column="placed_at",
        sql_conn_id="shop",
        conn_id="bloomreach_default",
        mapping={mapping!r},{options}
    )
"""
HOURLY = 'CronDataIntervalTimetable("0 * * * *", timezone="UTC")'


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sqlite3.Connection:
    """A shop with an order each quarter of an hour, for two days; times are local ones, as text."""
    path = tmp_path / "shop.db"
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    database = sqlite3.connect(path)
    database.execute("create table orders (order_id integer primary key, email text, placed_at text)")
    for n in range(192):
        placed = NOON - timedelta(days=1) + n * timedelta(minutes=15) + timedelta(hours=3)
        database.execute("insert into orders values (?, ?, ?)", (n, f"c{n}@example.com", f"{placed:%Y-%m-%d %H:%M:%S}"))
    database.commit()
    return database


def dag(dag_id: str, schedule: str = HOURLY, options: str = "") -> str:
    return DAG_FILE.format(dag_id=dag_id, schedule=schedule, options=options, mapping=MAPPING)


def at(logical_date: datetime | None) -> dict[str, Any]:
    """As `dag.test()` takes it."""
    return {"execution_date" if OLD else "logical_date": logical_date}


def orders(sandbox: Any) -> list[str]:
    return [event.wire["customer_ids"]["registered"] for event in sandbox.events("bloomreach")]


@pytest.mark.parametrize("options", ["", ' key_column="order_id",'])
def test_a_run_sends_the_rows_of_its_hour(shop: Any, connections: Any, run_dag: Any, options: str) -> None:
    dag_id = f"interval_{len(options)}"
    result = run_dag(dag(dag_id, options=options), dag_id, **at(NOON))
    assert result.state == "success"
    assert result.returned["sync"]["delivered"] == 4
    sent = orders(connections)
    assert len(sent) == 4
    placed = dict(shop.execute("select email, placed_at from orders").fetchall())
    hours = {placed[email][11:13] for email in sent}
    assert len(hours) == 1, "rows of more than one hour"


def placed_between(shop: Any, start: datetime, hours: int) -> set[str]:
    low, high = (f"{moment + timedelta(hours=3):%Y-%m-%d %H:%M:%S}" for moment in (start, start + hours * HOUR))
    return {
        row[0] for row in shop.execute("select email from orders where placed_at >= ? and placed_at < ?", (low, high))
    }


def test_a_backfill_sends_each_of_its_hours_once(
    shop: Any, connections: Any, run_dag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dag_id = "interval_backfill"
    first, hours = NOON - timedelta(hours=5), 4
    last = first + (hours - 1) * HOUR
    file = DAGS / f"{dag_id}.py"
    file.write_text(dag(dag_id))
    if OLD:
        airflow_command(monkeypatch, "dags", "backfill", "-s", first.isoformat(), "-e", last.isoformat(), dag_id)
    else:
        airflow_command(monkeypatch, "dags", "reserialize")
        create: Any = import_module("airflow.models.backfill")._create_backfill
        who = {"triggering_user_name": "test"} if "triggering_user_name" in signature(create).parameters else {}
        create(
            dag_id=dag_id,
            from_date=first,
            to_date=last,
            max_active_runs=1,
            reverse=False,
            dag_run_conf={},
            **who,
        )
        runs = as_they_are(monkeypatch)
        for n in range(hours):
            assert run_dag(dag(dag_id), dag_id, logical_date=first + n * HOUR).state == "success"
        assert runs == ["backfill"] * hours
    file.unlink(missing_ok=True)
    assert sorted(orders(connections)) == sorted(placed_between(shop, first, hours))


def airflow_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")  # it starts `airflow` itself
    subprocess.run([sys.executable, "-m", "airflow", *arguments], check=True, timeout=100, capture_output=True)


def as_they_are(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let `dag.test()` run what is there already; the types of these runs."""
    types: list[str] = []
    modules = [import_module("airflow.models.dagrun"), import_module("airflow.models.dag")]
    [(module, name)] = [
        (module, name)
        for module in modules
        for name in ("get_or_create_dagrun", "_get_or_create_dagrun")
        if hasattr(module, name)
    ]

    def existing(*, dag: Any, logical_date: datetime, session: Any, **ignored: Any) -> Any:
        run_class = modules[0].DagRun
        [run] = session.query(run_class).filter_by(dag_id=dag.dag_id, logical_date=logical_date)
        types.append(str(getattr(run.run_type, "value", run.run_type)))
        run.state, run.dag = "running", dag
        run.verify_integrity(
            session=session,
            **({"dag_version_id": run.created_dag_version_id} if hasattr(run, "created_dag_version_id") else {}),
        )
        session.commit()
        return run

    monkeypatch.setattr(module, name, existing)
    return types


@pytest.mark.parametrize(
    ("dag_id", "schedule", "logical_date", "words"),
    [
        (
            "at_cron",
            "CronTriggerTimetable('0 * * * *', timezone='UTC')",
            NOON,
            [
                "is empty, from 2026-10-24",
                "CronDataIntervalTimetable",
                "create_cron_data_intervals=True",
                "cursor_column",
            ],
        ),
        ("at_hand", "None", NOON, ["manual run is empty", "CronDataIntervalTimetable"]),
        ("at_asset", "None", None, ["manual run has no data interval", "no logical date", "cursor_column"]),
    ],
)
def test_a_run_without_an_interval_fails_in_words_before_anything_is_read(
    dag_id: str,
    schedule: str,
    logical_date: datetime | None,
    words: list[str],
    shop: Any,
    connections: Any,
    run_dag: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: Any,
    capfd: Any,
) -> None:
    if OLD and logical_date is None:
        pytest.skip("before Airflow 3 every run has a logical date")
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "sqlite", "host": "/nowhere/shop.db"}))
    source = "from airflow.timetables.trigger import CronTriggerTimetable\n" + dag(dag_id, schedule, "retries=2,")
    result = run_dag(source, dag_id, **at(logical_date))
    said = re.sub(r"\x1b\[[\d;]*m|\s+", "", caplog.text + capfd.readouterr().out)  # Airflow 3.0 colours and wraps it
    assert result.states["sync"] == "failed"
    assert [word for word in words if word.replace(" ", "") not in said] == []
    assert connections.requests("bloomreach") == []
    assert result.tries["sync"] == 1


def test_a_retry_reads_the_same_interval_again(shop: Any, connections: Any) -> None:
    """What the first try delivered counts, for the window is the same; in another one nothing of it does."""
    store = StateStore()
    connections.fault("status", vendor="bloomreach", status=403, after=1)
    with pytest.raises(AirflowFailException):
        sync(batch_size=2).execute(in_interval(store, NOON))
    connections.clear_faults()
    report = sync(batch_size=2).execute(in_interval(store, NOON, try_number=2, max_tries=5))
    assert (report["read"], report["resumed"], report["delivered"]) == (4, 2, 2)
    assert set(orders(connections)) == placed_between(shop, NOON, 1)

    store.data["events.checkpoint"]["completed"] = False
    other = sync(batch_size=2).execute(in_interval(store, NOON + HOUR, try_number=3, max_tries=5))
    assert (other["resumed"], other["delivered"]) == (0, 4)


def sync(**options: Any) -> SqlToEventsOperator:
    return SqlToEventsOperator(
        task_id="sync",
        sql="SELECT * FROM orders",
        interval_column="placed_at",
        key_column="order_id",
        sql_conn_id="shop",
        conn_id="bloomreach_default",
        mapping=MAPPING,
        max_in_flight=1,
        **options,
    )


def in_interval(store: StateStore, start: datetime, **changes: Any) -> Any:
    return {**context(store, **changes), "data_interval_start": start, "data_interval_end": start + HOUR}


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        (NOON, NOON, "is empty"),
        (NOON + HOUR, NOON, "is empty"),
        (None, NOON, "no data interval"),
        (NOON, None, "no data interval"),
    ],
)
def test_an_interval_that_is_none_is_refused(start: datetime | None, end: datetime | None, words: str) -> None:
    run = SimpleNamespace(run_type="scheduled")
    given: Any = {"dag_run": run, "data_interval_start": start, "data_interval_end": end}
    with pytest.raises(ConfigurationError, match=f"scheduled run.*{words}|of this scheduled run {words}"):
        interval_of(given)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"interval_column": " "}, "must not be empty"), ({"parameters": {"events_key_1": 1}}, "events_key_")],
)
def test_a_conflict_is_an_error_when_the_dag_is_parsed(options: dict[str, Any], words: str) -> None:
    given = {"sql": "SELECT 1", "sql_conn_id": "shop", "conn_id": "x", "mapping": MAPPING, **options}
    with pytest.raises(ConfigurationError, match=words):
        SqlToEventsOperator(task_id="sync", **given)


def test_entries_are_synced_by_interval_as_well(shop: Any, connections: Any, run_dag: Any) -> None:
    source = dag("interval_entries").replace("sql_to_events", "sql_to_entries").replace("SqlToEvents", "SqlToEntries")
    mapping = {"identity": {"registered": "email"}, "attributes": ["order_id"], "timezone": "Europe/Bucharest"}
    result = run_dag(source.replace(repr(MAPPING), repr(mapping)), "interval_entries", **at(NOON))
    assert result.returned["sync"]["delivered"] == 4
