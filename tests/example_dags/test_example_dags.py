"""The example DAGs: every one parses without a connection, serializes, and is run against the sandbox."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from textwrap import indent
from typing import Any
from zoneinfo import ZoneInfo

import airflow
import pytest

from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.sandbox import Sandbox
from airflow_provider_events.sandbox.shop import fill_shop, known_emails, read_orders
from tests.example_dags.conftest import FOLDER, RunExample, load
from tests.servers import Database, databases

pytestmark = pytest.mark.airflow

FILES = {
    "embeddables_events": "embeddables_events.py",
    "vibetrace_events": "vibetrace_events.py",
    "webengage_events": "webengage_events.py",
    "bloomreach_events": "bloomreach_events.py",
    "hourly_event_sync": "hourly_event_sync.py",
    "hourly_cursor_sync": "hourly_cursor_sync.py",
    "cursor_sync_on_asset": "cursor_sync_on_asset.py",
    "events_demo": "demo.py",
    "replay_rejected_events": "replay_rejected_events.py",
    "events_retry_policy": "retry_policy.py",
    "events_shared_quota": "shared_quota.py",
    "entries_wait_then_track": "entries_wait_then_track.py",
    "entries_wait_while_tracking": "entries_wait_while_tracking.py",
    "entries_split_and_upsert": "entries_split_and_upsert.py",
}
ALL_FILES = sorted(path for path in FOLDER.glob("*.py") if path.name not in ("__init__.py", "run_demo.py"))
ORDERS = 200


@pytest.fixture
def no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for a connection or a variable fails."""
    from airflow.providers.common.compat.sdk import BaseHook, Variable

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("asked for while parsing")

    for name in [name for name in os.environ if name.startswith(("AIRFLOW_CONN_", "AIRFLOW_VAR_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(BaseHook, "get_connection", refuse)
    monkeypatch.setattr(Variable, "get", refuse)


@pytest.fixture
def shop(events_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The demo's shop, its customers known to the sandbox, and all connections leading there."""
    path = tmp_path / "shop.db"
    fill_shop(path, ORDERS)
    emails = [*known_emails(path), "ada@example.com", "grace@example.com"]
    for vendor in ("embeddables", "vibetrace"):
        events_sandbox.add_entries(vendor, [{"email": email} for email in emails])
    for vendor in ("embeddables", "vibetrace", "webengage", "bloomreach"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{vendor.upper()}_DEFAULT", json.dumps(events_sandbox.connection(vendor)))
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    return path


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # Airflow's own, about .airflowignore
@pytest.mark.usefixtures("no_connections")
def test_the_folder_parses_whole(airflow_database: None) -> None:
    bag = load(FOLDER)
    assert not bag.import_errors
    assert set(bag.dags) >= set(FILES)
    parsed = {Path(dag.fileloc).name for dag in bag.dags.values()}
    assert parsed == {path.name for path in ALL_FILES}


@pytest.mark.usefixtures("no_connections")
@pytest.mark.parametrize("path", ALL_FILES, ids=lambda path: path.stem)
def test_each_dag_serializes(path: Path, airflow_database: None) -> None:
    module = import_module("airflow.serialization.serialized_objects")
    serialization = getattr(module, "DagSerialization", None) or module.SerializedDAG  # Airflow before 3.2
    bag = load(path)
    assert bag.dags
    for dag in bag.dags.values():
        again = serialization.from_dict(json.loads(json.dumps(serialization.to_dict(dag))))
        assert set(again.task_dict) == set(dag.task_dict)


@pytest.mark.parametrize("path", ALL_FILES, ids=lambda path: path.stem)
def test_each_dag_explains_itself(path: Path, airflow_database: None) -> None:
    for dag in load(path).dags.values():
        assert dag.doc_md
        assert dag.tags


def source(dag_id: str) -> str:
    """The text of an example's file; without retries, as a test that fails should not wait for them."""
    return (FOLDER / FILES[dag_id]).read_text().replace('"retries": 3', '"retries": 0')


def test_embeddables_example(shop: Path, events_sandbox: Sandbox, run_example: RunExample) -> None:
    result = run_example("embeddables_events", source("embeddables_events"))

    arrived = Counter(event.wire["custom_event_name"] for event in events_sandbox.events("embeddables"))
    assert arrived["consultation_booked"] == 1
    assert arrived["invoice_paid"] == 2
    orders = [order for order in read_orders(shop) if order.email and order.customer_id]
    report = result.returned["send_orders"]
    assert report["read"] == len(orders)
    assert report["skipped"] == sum(not order.filled_in_form for order in orders) > 0
    assert arrived.total() == 3 + report["delivered"]
    assert not events_sandbox.violations("embeddables")


def test_vibetrace_example(shop: Path, events_sandbox: Sandbox, run_example: RunExample) -> None:
    result = run_example("vibetrace_events", source("vibetrace_events"))

    events = [event.wire["event"] for event in events_sandbox.events("vibetrace")]
    assert [event for event in events if "generic" in event] == [
        {"generic": {"generic": {"event_name": "loyalty_club_joined", "tier": "silver"}}}
    ]
    assert sorted(event["update"]["city"] for event in events if "update" in event) == ["London", "New York"]
    orders = {event["confirmation"]["generic"]["orderId"] for event in events if "confirmation" in event}
    assert len(orders) == result.returned["send_orders"]["delivered"] > 0


def test_webengage_example(shop: Path, events_sandbox: Sandbox, run_example: RunExample) -> None:
    result = run_example("webengage_events", source("webengage_events"))

    arrived = Counter(event.wire["eventName"] for event in events_sandbox.events("webengage"))
    customers = result.returned["send_sign_ups"]["read"]
    assert arrived == {"Subscription Renewed": 1, "Cart Abandoned": 2, "Signed Up": customers}
    carts = [e.wire for e in events_sandbox.events("webengage") if e.wire["eventName"] == "Cart Abandoned"]
    assert carts[0]["eventTime"] == "2026-03-01T09:30:00+0200"
    assert carts[0]["eventData"] == {"Cart Value": 39.8, "Items": 2}
    assert not events_sandbox.violations("webengage")


def test_bloomreach_example(shop: Path, events_sandbox: Sandbox, run_example: RunExample) -> None:
    result = run_example("bloomreach_events", source("bloomreach_events"))

    arrived = Counter(event.wire["event_type"] for event in events_sandbox.events("bloomreach"))
    delivered = result.returned["send_purchases"]["delivered"]
    assert arrived == {"segment_entered": 1, "parcel_delivered": 3, "purchase": delivered}
    assert delivered > 0


def test_a_second_run_doubles_nothing_where_the_vendor_deduplicates(
    shop: Path, events_sandbox: Sandbox, run_example: RunExample
) -> None:
    first = run_example("bloomreach_events", source("bloomreach_events")).returned["send_purchases"]["delivered"]
    run_example("bloomreach_events", source("bloomreach_events"))
    arrived = Counter(event.wire["event_type"] for event in events_sandbox.events("bloomreach"))
    assert arrived["purchase"] == first


# -- the hourly sync -------------------------------------------------------------------------------------------------

MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
UPDATES = [MIDNIGHT + timedelta(minutes=20 * n) for n in range(-1, 8)]  # from 23:40 to 02:20, on the full hours too


def sync_hour(text: str, run_example: RunExample, hour: int, dag_id: str) -> Any:
    """A run of the hour that starts at `hour` o'clock: one that is started by hand takes the last whole hour."""
    logical_date = "execution_date" if airflow.__version__.startswith("2.") else "logical_date"
    ended = run_example(dag_id, text, **{logical_date: MIDNIGHT + timedelta(hours=hour + 1)})
    return ended.returned["send_orders"]["delivered"]


def hours_of(sandbox: Sandbox) -> Counter[int]:
    """How many events arrived with a time in each hour."""
    times = [datetime.fromtimestamp(event.wire["timestamp"], UTC) for event in sandbox.events("bloomreach")]
    return Counter((moment - MIDNIGHT) // timedelta(hours=1) for moment in times)


def check_hours(text: str, sandbox: Sandbox, run_example: RunExample, dag_id: str = "hourly_event_sync") -> None:
    assert sync_hour(text, run_example, 0, dag_id) == 3
    assert hours_of(sandbox) == {0: 3}
    assert sync_hour(text, run_example, 1, dag_id) == 3
    assert hours_of(sandbox) == {0: 3, 1: 3}


def test_hourly_sync_sends_each_row_in_exactly_one_run_as_pasted(
    events_sandbox: Sandbox, shop: Path, run_example: RunExample
) -> None:
    """On SQLite, whose times are ISO text: local ones of the shop."""
    zone = ZoneInfo("Europe/Bucharest")
    with closing(sqlite3.connect(shop)) as database, database:
        database.execute("DELETE FROM orders")
        database.executemany(
            "INSERT INTO orders VALUES (?, ?, 'order_paid', ?, 10.5, 'EUR', NULL, NULL)",
            [
                (n, n + 1, moment.astimezone(zone).replace(tzinfo=None).isoformat(" "))
                for n, moment in enumerate(UPDATES)
            ],
        )
    check_hours(source("hourly_event_sync"), events_sandbox, run_example)


@databases("psycopg2", "psycopg")
def test_hourly_sync_on_postgresql(
    database: Database,
    events_sandbox: Sandbox,
    shop: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_example: RunExample,
) -> None:
    times = ", ".join(
        f"({n}, {n}, 'order_paid', '{moment.isoformat()}', 10.5, 'EUR')" for n, moment in enumerate(UPDATES)
    )
    database.run(
        "CREATE TABLE orders (order_id int, customer_id int, status text, placed_at timestamptz, total numeric, "
        "currency text)",
        f"INSERT INTO orders VALUES {times}",
    )
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", os.environ["AIRFLOW_CONN_WAREHOUSE"])
    text = source("hourly_event_sync").replace('            "timezone": "Europe/Bucharest",\n', "")
    # Airflow keeps each version of a DAG whose runs it keeps, and warns when it deletes a run of several.
    moments = text.replace('dag_id="hourly_event_sync"', 'dag_id="hourly_moments"')
    check_hours(moments, events_sandbox, run_example, "hourly_moments")


@databases("psycopg", "mysqlclient")
def test_hourly_sync_of_local_times(
    database: Database,
    events_sandbox: Sandbox,
    shop: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_example: RunExample,
) -> None:
    """As the example says it for a column without a zone."""
    zone = ZoneInfo("Europe/Bucharest")
    times = ", ".join(
        f"({n}, {n}, 'order_paid', '{moment.astimezone(zone):%F %T}', 10.5, 'EUR')" for n, moment in enumerate(UPDATES)
    )
    column = "timestamp" if database.driver == "psycopg" else "datetime"
    database.run(
        f"CREATE TABLE orders (order_id int, customer_id int, status text, placed_at {column}, total numeric(9, 2), "
        "currency text)",
        f"INSERT INTO orders VALUES {times}",
    )
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", os.environ["AIRFLOW_CONN_WAREHOUSE"])
    check_hours(source("hourly_event_sync"), events_sandbox, run_example)


def test_hourly_sync_begins_with_the_last_hour_and_needs_no_more_than_the_connections(airflow_database: None) -> None:
    dag = load(FOLDER / "hourly_event_sync.py").dags["hourly_event_sync"]
    task = dag.task_dict["send_orders"]
    assert not dag.catchup
    assert dag.max_active_runs == 1
    assert "{{" not in task.sql  # the window is bound by the driver


def test_rejected_rows_are_replayed_from_the_ui(
    events_sandbox: Sandbox, shop: Path, run_example: RunExample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__EVENTS__ALLOWED_PATHS", str(tmp_path))
    """Rows that never became an event, corrected in their file, and sent by a DAG run that names it."""
    hook = EventsHook.for_connection("bloomreach_default")
    rows = [{"who": f"customer{n}", "amount": n} for n in range(5)] + [{"who": None, "amount": 5}]
    mapping = {"name": "paid", "identity": {"registered": "who"}}
    report = hook.deliver(rows, mapping=mapping, rejected_path=str(tmp_path), max_rejected=1)
    assert (report.delivered, report.rejected) == (5, 1)
    path = Path(str(report.rejected_path).removeprefix("file://"))
    (line,) = map(json.loads, path.read_text().splitlines())
    assert line["event"] is None
    line["data"]["who"] = "customer5"
    corrected = tmp_path / "corrected.jsonl"
    corrected.write_text(json.dumps(line) + "\n")

    conf = {"file": str(corrected)}
    rehearsed = run_example(
        "replay_rejected_events", source("replay_rejected_events"), run_conf={**conf, "dry_run": True}
    )
    assert rehearsed.returned["send_again"]["unsent"] == 1
    assert len(events_sandbox.events("bloomreach")) == 5
    again = run_example("replay_rejected_events", source("replay_rejected_events"), run_conf=conf)
    assert again.returned["send_again"]["delivered"] == 1
    mended = {**mapping, "name": "refunded"}
    run_example("replay_rejected_events", source("replay_rejected_events"), run_conf={**conf, "mapping": mended})
    assert [event.wire["event_type"] for event in events_sandbox.events("bloomreach")][5:] == ["paid", "refunded"]


# -- everything as pasted --------------------------------------------------------------------------------------------

NO_DATA_YET = {"events_demo", "replay_rejected_events"}  # the demo has its own command; a file is named by the user


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What the documented command prints, for as long as it serves."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shop = tmp_path_factory.mktemp("shop") / "shop.db"
    command = ["-m", "airflow_provider_events", "sandbox", "--with-shop", str(shop), "--port", str(port)]
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        printed: dict[str, str] = {}
        while "AIRFLOW_CONN_SHOP" not in printed:
            line = process.stdout.readline()
            assert line, "the command ended"
            if line.startswith("export "):
                name, _, value = shlex.split(line)[1].partition("=")
                printed[name] = value
        yield printed
        process.send_signal(signal.SIGINT)


@pytest.mark.parametrize("dag_id", sorted(set(FILES) - NO_DATA_YET))
def test_each_example_runs_as_pasted_with_what_one_command_made(
    dag_id: str, exported: dict[str, str], monkeypatch: pytest.MonkeyPatch, run_example: RunExample
) -> None:
    for name in [name for name in os.environ if name.startswith(("AIRFLOW_CONN_", "AIRFLOW_VAR_"))]:
        monkeypatch.delenv(name)
    for name, value in exported.items():
        monkeypatch.setenv(name, value)
    text = source(dag_id)
    ended = run_example(dag_id, text)
    reports = [value for value in ended.returned.values() if isinstance(value, dict) and "delivered" in value]
    assert all(report["delivered"] for report in reports)
    assert reports or "SqlToEventsOperator" not in text
    tasks = load(FOLDER / FILES[dag_id]).dags[dag_id].tasks
    assert {task.pool for task in tasks} == {"default_pool"}  # no other is there: the task would never start


@pytest.mark.parametrize(
    ("dag_id", "vendor"), [("hourly_cursor_sync", "bloomreach"), ("cursor_sync_on_asset", "webengage")]
)
def test_cursor_examples_send_each_order_once_in_three_runs(
    dag_id: str, vendor: str, shop: Path, events_sandbox: Sandbox, run_example: RunExample
) -> None:
    """Airflow's own stores keep the cursor from run to run: an asset's state from 3.3 on, before that Variables."""
    # Other tests run the example as it is, and their cursor is still there.
    text = source(dag_id).replace(f'dag_id="{dag_id}"', f'dag_id="{dag_id}_thrice"')
    text = text.replace("customer_id IS NOT NULL", "customer_id IS NOT NULL AND 1 = 1")

    def read() -> int:
        return int(run_example(f"{dag_id}_thrice", text).returned["send_orders"]["read"])

    orders = len([order for order in read_orders(shop) if order.customer_id])
    runs = [read()]
    with closing(sqlite3.connect(shop)) as database:
        database.execute("CREATE TEMP TABLE late AS SELECT * FROM orders WHERE customer_id IS NOT NULL LIMIT 1")
        database.execute(
            "UPDATE late SET (order_id, placed_at) = (SELECT max(order_id) + 1, max(placed_at) FROM orders)"
        )
        database.execute("INSERT INTO orders SELECT * FROM late")
        database.commit()
    runs += [read(), read()]

    assert runs == [orders, 1, 0]
    assert len(events_sandbox.events(vendor, None)) == orders + 1


@databases("psycopg2")
def test_the_dag_of_the_readme_runs_three_hours_in_a_row(
    database: Database, events_sandbox: Sandbox, shop: Path, tmp_path: Path, run_example: RunExample
) -> None:
    """Its first block, as it is but for the folder; three runs of an hourly schedule send each order once."""
    rows = ", ".join(f"({n}, 'c{n}', '{MIDNIGHT + timedelta(minutes=20 * n):%Y-%m-%d %H:%M}Z', 9.5)" for n in range(9))
    database.run(
        "CREATE TABLE orders (order_id int PRIMARY KEY, customer_id text, paid_at timestamptz, total numeric)",
        f"INSERT INTO orders VALUES {rows}",
    )
    text = (FOLDER.parent / "README.md").read_text()
    block = text.split("```python\n", 1)[1].split("```", 1)[0]
    imports, _, task = block.partition("\n\n")
    dag = [
        "from datetime import datetime, timezone",
        "from airflow.providers.common.compat.sdk import DAG",
        "from airflow.timetables.interval import CronDataIntervalTimetable",
        imports,
        "hourly = CronDataIntervalTimetable('0 * * * *', timezone='UTC')",
        "with DAG('readme', schedule=hourly, start_date=datetime(2026, 3, 1, tzinfo=timezone.utc), catchup=False):",
        indent(task.replace("s3://company-airflow/rejected", str(tmp_path)), "    "),
    ]
    logical_date = "execution_date" if airflow.__version__.startswith("2.") else "logical_date"
    sent = [
        run_example("readme", "\n".join(dag), **{logical_date: MIDNIGHT + timedelta(hours=hour)}).returned["purchases"]
        for hour in (1, 2, 3)
    ]
    assert [report["delivered"] for report in sent] == [3, 3, 3]
    assert len(events_sandbox.events("bloomreach", None)) == 9
