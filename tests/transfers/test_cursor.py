"""Syncs by cursor, run after run on real databases: the failure table, line by line, and what else may happen."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_events._compat import AirflowFailException
from airflow_provider_events.delivery.offsets import Settled
from airflow_provider_events.exceptions import (
    ConfigurationError,
    CursorNotMoved,
    SourceError,
    VendorUnavailable,
)
from airflow_provider_events.sources import kept_cursor
from airflow_provider_events.transfers.sql_to_entries import SqlToEntriesOperator
from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator
from tests.servers import Database, databases, with_database
from tests.transfers.syncs import MAPPING, Sync, by_the_clock, while_reading

pytest_plugins = ["tests.servers"]

EVERY = databases("sqlite", "psycopg2", "psycopg", "mysqlclient", "mysql-connector-python")
THREE = databases("sqlite", "psycopg2", "mysqlclient")
REAL = databases("psycopg2")
KEYED = {"cursor_column": ("at", "n")}
ONE_OR_TWO = pytest.mark.parametrize("options", [{}, KEYED], ids=["one column", "two columns"])


@pytest.fixture
def sync(database: Database, connections: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a sync of a table of this test; its stores are asked again without a pause."""
    monkeypatch.setattr(kept_cursor.patiently, "sleep", lambda seconds: None)

    def make(column: str | None = None, **options: Any) -> Sync:
        made = Sync(database, connections, monkeypatch, **options)
        made.table(column)
        return made

    return make


def at(minute: int, second: float = 0, hour: int = 10) -> str:
    """A time of the first of November."""
    return f"2026-11-01 {hour:02}:{minute:02}:{second:0{9 if second % 1 else 2}.{6 if second % 1 else 0}f}"


@ONE_OR_TWO
@EVERY
def test_each_run_sends_what_is_new(sync: Any, options: Any) -> None:
    task = sync(**options)
    task.add((1, at(1)), (2, at(2)), (3, at(2)))
    assert task.run()["delivered"] == 3
    assert task.run()["read"] == 0
    task.add((4, at(2)), (5, at(3)))
    assert task.run()["read"] == 2
    assert task.run()["read"] == 0
    assert task.arrived() == [1, 2, 3, 4, 5]


@ONE_OR_TWO
@THREE
def test_entries_by_cursor(sync: Any, options: Any) -> None:
    mapping = {"identity": {"registered": "customer"}, "attributes": ["n"], "timezone": "Europe/Bucharest"}
    task = sync(kind=SqlToEntriesOperator, mapping=mapping, **options)
    task.add((1, at(1)), (2, at(2)))
    assert task.run()["delivered"] == 2
    task.add((3, at(3)))
    assert task.run()["delivered"] == 1
    assert task.run()["read"] == 0


# -- the failure table -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"initial_value": None}, 'needs an initial_value, with which the first run begins: "now", "earliest"'),
        ({"cursor_column": None}, "initial_value needs a cursor_column"),
        ({"cursor_column": ("a", "b", "c")}, "the name of a column, or of two"),
        ({"cursor_column": ("at", "AT")}, "has to be another one"),
        ({"key_column": "n"}, "key_column beside cursor_column"),
        ({"interval_column": "at"}, "interval_column beside cursor_column"),
        ({"lookback": "15 minutes"}, "lookback has to be a timedelta"),
        ({"lookback": timedelta(minutes=-1)}, "lookback has to be a timedelta"),
        ({"cursor_delay": 30}, "cursor_delay has to be a timedelta"),
        ({"on_cursor_null": "skip"}, "on_cursor_null has to be 'fail' or 'exclude'"),
    ],
)
def test_nothing_stored_and_no_initial_value_is_an_error_when_the_dag_is_parsed(options: Any, words: str) -> None:
    given = {"cursor_column": "at", "initial_value": "now", "mapping": MAPPING, **options}
    with pytest.raises(ConfigurationError, match=words):
        SqlToEventsOperator(task_id="t", sql="SELECT 1", sql_conn_id="w", conn_id="v", **given)


@REAL
def test_asset_inactive_or_renamed_connection_id(sync: Any, connections: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task = sync(initial_value="now")
    task.run()
    for name, words in {"conn_id": "conn_id", "sql_conn_id": "sql_conn_id"}.items():
        monkeypatch.setenv("AIRFLOW_CONN_RENAMED", os.environ["AIRFLOW_CONN_BLOOMREACH_DEFAULT"])
        if name == "sql_conn_id":
            monkeypatch.setenv("AIRFLOW_CONN_RENAMED", os.environ["AIRFLOW_CONN_WAREHOUSE"])
        operator = task.operator()
        setattr(operator, name, "renamed")
        with pytest.raises(AirflowFailException, match=f"another query: {words} changed .* cursor adopt d.sync"):
            operator.execute(task.context("renamed"))

    class NotFound(Exception):
        error = type("Error", (), {"error": "ErrorType.ASSET_NOT_FOUND"})

    def get(key: str, default: Any = None) -> Any:
        raise NotFound

    monkeypatch.setattr(task.cursors, "get", get)
    with pytest.raises(AirflowFailException, match=r"no cursor for 'd.sync'.*not active.*It may be stored under"):
        task.run()


@REAL
def test_a_renamed_dag_does_not_begin_anew(sync: Any) -> None:
    task = sync(initial_value="now")
    task.run()
    context = task.context("first of the new name")
    context["ti"].dag_id = "renamed"
    with pytest.raises(AirflowFailException, match=r"no cursor for 'renamed.sync'; it may be stored under 'd.sync'"):
        task.operator().execute(context)
    task.operator(cursor_name="d.sync").execute(context)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("TIMESTAMP", "stored as times with a zone, and cursor_column 'at' holds times without a zone"),
        ("BIGINT", "stored as times with a zone, and cursor_column 'at' holds numbers"),
    ],
)
@REAL
def test_stored_aware_and_column_naive_or_a_number(sync: Any, column: str, words: str) -> None:
    task = sync()
    task.add((1, at(1)))
    task.run()
    task.database.run("DROP TABLE orders")
    task.table(column)
    task.add((2, 5 if column == "BIGINT" else at(2)))
    with pytest.raises(AirflowFailException, match=words):
        task.run()
    assert task.arrived() == [1]


@ONE_OR_TWO
@EVERY
def test_null_cursor(sync: Any, options: Any, caplog: pytest.LogCaptureFixture) -> None:
    task = sync(**options)
    task.add((1, at(1)), (2, None), (3, None))
    with pytest.raises(AirflowFailException, match="cursor_column 'at' holds NULL"):
        task.run()
    report = task.run(on_cursor_null="exclude")
    assert (report["read"], report["delivered"], report["skipped"]) == (3, 1, 2)
    assert "2 rows skipped: cursor is NULL" in caplog.text


@ONE_OR_TWO
@THREE
def test_equal_values_across_a_page_or_run_end(sync: Any, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task = sync(**options)
    task.add(*((n, at(1)) for n in range(1, 8)))
    with while_reading(monkeypatch, lambda: None):
        task.run()
        task.add((8, at(1)), (9, at(1)), (10, at(2)))
        task.run()
        task.run()
    assert sorted(task.arrived()) == list(range(1, 11))


@REAL
def test_more_than_2000_equal_values_and_no_tie_breaker_and_no_checkpoint_path(sync: Any, tmp_path: Path) -> None:
    task = sync(vendor="embeddables", max_rejected=0)
    task.add(*((n, at(1)) for n in range(1, 2100)))
    for _ in range(2):
        with pytest.raises(
            AirflowFailException, match='name a second column, cursor_column=\\("at", "<unique column>"\\)'
        ):
            task.run()
    assert max(Counter(task.arrived()).values()) == 1

    report = task.run(checkpoint_path=str(tmp_path))
    assert report["rejected"] == 0
    assert sorted(task.arrived()) == list(range(1, 2100))
    assert task.run(checkpoint_path=str(tmp_path))["read"] == 0
    with pytest.raises(AirflowFailException, match=r"the file .* is gone, .* or checkpoint_path is another one"):
        task.run()


@ONE_OR_TWO
@THREE
def test_late_commit_within_and_beyond_lookback(sync: Any, options: Any) -> None:
    task = sync(lookback=timedelta(minutes=15), **options)
    task.add((1, at(1)), (2, at(30)))
    task.run()
    task.add((3, at(15)), (4, at(14, 59)), (5, at(29)))
    report = task.run()
    assert report["read"] == 2
    assert task.run()["read"] == 0
    assert sorted(task.arrived()) == [1, 2, 3, 5]  # 4 came later than lookback provides for, and is missed
    task.add((6, at(31)))
    task.run()
    task.add((7, at(17)))
    task.run()
    assert sorted(task.arrived()) == [1, 2, 3, 5, 6, 7]


@ONE_OR_TWO
@THREE
def test_row_updated_during_the_read(sync: Any, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task = sync(**options, initial_value=at(0))
    task.add(*((n, at(n)) for n in range(1, 8)))

    def update() -> None:
        task.database.run(f"UPDATE orders SET at = '{at(40)}' WHERE n = 5")

    with while_reading(monkeypatch, (lambda: None) if task.database.driver == "sqlite" else update):
        task.run()
    update()
    task.run()
    assert set(task.arrived()) == set(range(1, 8))
    assert Counter(task.arrived())[5] <= 2
    times = [event.wire["timestamp"] for event in task.sandbox.events("bloomreach")]
    assert times[-1] == max(times)


@ONE_OR_TWO
@THREE
def test_cursor_in_the_future(
    sync: Any, options: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    task = sync(**options)
    task.add((1, at(1)), (2, "2031-05-05 10:00:00"))
    assert task.run()["read"] == 1
    assert "1 rows are beyond upper" in caplog.text
    by_the_clock(monkeypatch, datetime(2031, 5, 6, tzinfo=UTC))
    assert task.run()["read"] == 1
    assert task.arrived() == [1, 2]


@ONE_OR_TWO
@THREE
def test_clock_goes_back(
    sync: Any, options: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    task = sync(**options)
    task.add((1, at(30)))
    task.run()
    before = task.record
    task.add((2, at(31)), (3, at(29)))
    by_the_clock(monkeypatch, datetime(2026, 11, 1, 7, 0, tzinfo=UTC))
    assert task.run()["read"] == 0
    assert "clock, less cursor_delay, is behind the cursor" in caplog.text
    assert task.record == before
    monkeypatch.undo()
    assert sorted(task.arrived()) == [1]


@ONE_OR_TWO
@REAL
def test_rejected_row_in_the_middle_with_and_without_rejected_path(sync: Any, options: Any, tmp_path: Path) -> None:
    task = sync(**options)
    task.add(*((n, at(n)) for n in range(1, 6)))
    task.database.run("UPDATE orders SET customer = NULL WHERE n = 3")
    with pytest.raises(AirflowFailException, match="1 of 5"):
        task.run()
    assert task.arrived() == [1, 2, 4, 5]
    assert task.value.startswith("2026-11-01T10:02")
    with pytest.raises(AirflowFailException, match="1 of"):
        task.run()
    assert task.arrived() == [1, 2, 4, 5]

    with pytest.raises(AirflowFailException):
        task.run(rejected_path=str(tmp_path))
    assert task.value.startswith("2026-11-01T10:05")
    assert task.run()["read"] == 0
    assert task.arrived() == [1, 2, 4, 5]


@ONE_OR_TWO
@REAL
def test_a_row_that_is_pending_is_kept_and_the_cursor_passes_it(sync: Any, options: Any, tmp_path: Path) -> None:
    task = sync(vendor="embeddables", pending_path=str(tmp_path), max_rejected=5, **options)
    task.add(*((n, at(n)) for n in range(1, 6)))
    task.database.run("UPDATE orders SET customer = 'late@example.com' WHERE n = 3")
    assert task.run()["pending"] == 1
    assert task.value.startswith("2026-11-01T10:05")
    task.sandbox.add_entries("embeddables", [{"email": "late@example.com"}])
    task.add((6, at(6)))
    report = task.run()
    assert (report["read"], report["healed"]) == (1, 1)
    assert sorted(task.arrived()) == [1, 2, 3, 4, 5, 6]


@ONE_OR_TWO
@REAL
def test_a_rejected_row_that_is_mended_is_sent_and_what_was_sent_behind_it_is_not(sync: Any, options: Any) -> None:
    task = sync(**options)
    task.add(*((n, at(n)) for n in range(1, 6)))
    task.database.run("UPDATE orders SET customer = NULL WHERE n = 3")
    with pytest.raises(AirflowFailException):
        task.run()
    task.database.run("UPDATE orders SET customer = 'c' WHERE n = 3")
    task.add((6, at(6)))
    assert task.run()["read"] == 2
    assert task.arrived() == [1, 2, 4, 5, 3, 6]
    assert task.value.startswith("2026-11-01T10:06")


@REAL
def test_state_store_down_at_start(sync: Any) -> None:
    task = sync()
    task.add((1, at(1)))
    task.cursors.down = 10**6
    with pytest.raises(SourceError, match=r"gives no answer .* nothing was sent") as raised:
        task.run()
    assert raised.value.retryable
    assert task.arrived() == []
    task.cursors.down = 0
    task.run()
    assert task.arrived() == [1]


@REAL
def test_state_store_down_at_end(sync: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task = sync()
    task.add(*((n, at(n)) for n in range(1, 8)))

    def down() -> None:
        task.cursors.down = 10**6

    with while_reading(monkeypatch, down), pytest.raises(CursorNotMoved, match="delivered, cursor not moved") as raised:
        task.run("r")
    assert raised.value.retryable
    assert task.pushed["return_value"]["delivered"] == 7
    task.cursors.down = 0
    task.run("r")
    assert set(task.arrived()) == set(range(1, 8))
    assert task.value.startswith("2026-11-01T10:07")


@REAL
def test_state_store_down_in_the_middle(sync: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls fail and are made again: nobody notices."""
    task = sync()
    task.add(*((n, at(n)) for n in range(1, 8)))

    def down() -> None:
        task.cursors.down = 2

    with while_reading(monkeypatch, down):
        assert task.run()["delivered"] == 7
    assert task.value.startswith("2026-11-01T10:07")


@ONE_OR_TWO
@REAL
def test_two_runs_at_once(
    sync: Any, options: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    task = sync(**options, initial_value=at(0))
    task.add(*((n, at(n)) for n in range(1, 8)))

    def other() -> None:
        task.add((8, at(8)))
        task.run()

    with while_reading(monkeypatch, other):
        task.run()
    assert "another run moved the cursor 'd.sync' meanwhile" in caplog.text
    assert task.value.startswith("2026-11-01T10:08")
    assert set(task.arrived()) == set(range(1, 9))
    assert max(Counter(task.arrived()).values()) <= 2
    assert task.run()["read"] == 0


@ONE_OR_TWO
@REAL
def test_task_retried_days_later_after_others_ran(sync: Any, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task = sync(**options)
    task.add(*((n, at(n)) for n in range(1, 6)))
    by_the_clock(monkeypatch, datetime(2026, 11, 1, 10, 5, 30, tzinfo=UTC))
    with monkeypatch.context() as patched:
        patched.setattr("airflow_provider_events.delivery.job.Engine.run", lambda engine, rows: unavailable())
        with pytest.raises(VendorUnavailable):
            task.run("first")
    task.add((6, at(6)))
    by_the_clock(monkeypatch, datetime(2026, 11, 1, 11, 0, tzinfo=UTC))
    task.run("second")
    after_second = task.value
    task.add((7, at(4, 30)), (8, at(8)))
    report = task.run("first")
    assert report["read"] == 0
    assert task.value == after_second
    assert sorted(task.arrived()) == [1, 2, 3, 4, 5, 6]
    task.run("third")
    assert sorted(task.arrived()) == [1, 2, 3, 4, 5, 6, 8]  # no lookback provides for 7


async def unavailable() -> None:
    """What a vendor's outage ends with."""
    raise VendorUnavailable("no answer")


@pytest.mark.parametrize("schedule", [None, "@hourly"])
def test_catchup_with_a_cursor_warns_when_the_dag_is_parsed(schedule: str | None) -> None:
    """Where there are runs of the past at all: Airflow 2 has catchup on by default."""
    from airflow.providers.common.compat.sdk import DAG

    with (
        warnings.catch_warnings(record=True) as caught,
        DAG("d", start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=schedule, catchup=True),
    ):
        warnings.simplefilter("always")
        SqlToEventsOperator(
            task_id="t", sql="SELECT 1", sql_conn_id="w", conn_id="v", mapping=MAPPING, cursor_column="at",
            initial_value="now",
        )  # fmt: skip
    told = [str(warning.message) for warning in caught if "catchup=True" in str(warning.message)]
    assert len(told) == (schedule is not None)
    assert all("runs of the past all read the live cursor" in words for words in told)


@pytest.mark.parametrize(
    ("provided", "moves"),
    [({}, False), ({"cursor_delay": timedelta(minutes=1)}, True), ({"lookback": timedelta(minutes=1)}, True)],
)
@REAL
def test_window_with_no_rows(sync: Any, provided: Any, moves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    task = sync(**provided, initial_value="2026-11-01T09:00:00Z")
    by_the_clock(monkeypatch, datetime(2026, 11, 1, 9, 30, tzinfo=UTC))
    task.run()
    assert task.value == (
        "2026-11-01T09:29:00+00:00"
        if "cursor_delay" in provided
        else "2026-11-01T09:30:00+00:00"
        if moves
        else "2026-11-01T09:00:00+00:00"
    )
    by_the_clock(monkeypatch, datetime(2026, 11, 1, 10, 30, tzinfo=UTC))
    task.add((1, at(29, 30, hour=9)))
    task.run()
    assert task.arrived() == [1]


# -- beside the table --------------------------------------------------------------------------------------------------

CHILD = """
import json, sys
from types import SimpleNamespace
from airflow_provider_events.hooks import cursor_store
from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

options = json.loads(sys.argv[1])
cursor_store.HAS_STATE_STORES = False  # files keep the cursor, which outlive this process
task = SqlToEventsOperator(task_id="sync", sql_conn_id="warehouse", conn_id="bloomreach_default", **options)
ti = SimpleNamespace(dag_id="d", run_id="r", task_id="sync", map_index=-1, try_number=1, max_tries=3,
                     xcom_push=lambda key, value: None, xcom_pull=lambda *args, **kwargs: None)
print(json.dumps(task.execute({"ti": ti, "dag_run": SimpleNamespace(run_type="scheduled", start_date=None),
                               "dag": SimpleNamespace(max_active_runs=1)})))
"""


@ONE_OR_TWO
@REAL
def test_sigkill_between_delivery_and_the_cursors_write(
    sync: Any, options: Any, tmp_path: Path, connections: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process is killed after its first checkpoint: the next one sends again what came in seconds."""
    connection = connections.connection("bloomreach")
    extra = {**connection["extra"], "requests_per_minute": 6000, "batch_size": 1, "max_in_flight": 2}
    monkeypatch.setenv("AIRFLOW_CONN_BLOOMREACH_DEFAULT", json.dumps({**connection, "extra": extra}))
    monkeypatch.setenv("AIRFLOW__EVENTS__CURSOR_PATH", str(tmp_path))
    task = sync(**options)
    task.add(*((n, at(n // 50, n % 50)) for n in range(1, 401)))
    given = json.dumps({**task.options, "checkpoint_path": str(tmp_path / "checkpoints")})
    command = [sys.executable, "-c", CHILD, given]

    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 25
        while len(task.arrived()) < 300 and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    before = len(task.arrived())
    assert before < 400
    ended = subprocess.run(command, check=False, capture_output=True, timeout=25)
    assert ended.returncode == 0, ended.stderr[-2000:]

    arrived = Counter(task.arrived())
    assert set(arrived) == set(range(1, 401))
    doubled = sum(count - 1 for count in arrived.values())
    assert doubled <= 250  # two seconds at a hundred a second, and what was in flight
    assert json.loads(ended.stdout.splitlines()[-1])["unsent"] == 0


@ONE_OR_TWO
@THREE
def test_a_clear_of_last_weeks_run_sends_its_rows_again_and_moves_nothing(
    sync: Any, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = sync(**options, mapping={**MAPPING, "id": None, "timestamp": None})
    for run in range(1, 4):
        by_the_clock(monkeypatch, datetime(2026, 11, run, 12, tzinfo=UTC))
        task.add(*((10 * run + n, f"2026-11-0{run} 0{n}:00:00") for n in range(1, 4)))
        task.run(f"day {run}")
    before = task.record
    report = task.run("day 2", max_tries=7)
    assert report["delivered"] == 3
    assert Counter(task.arrived()) == Counter({11: 1, 12: 1, 13: 1, 21: 2, 22: 2, 23: 2, 31: 1, 32: 1, 33: 1})
    assert task.record["value"] == before["value"]
    assert task.run("day 4")["read"] == 0


@ONE_OR_TWO
@REAL
def test_a_retry_after_a_finished_try_sends_nothing_again(sync: Any, options: Any) -> None:
    """As when the worker died after the last row, before Airflow heard of it."""
    task = sync(**options)
    task.add((1, at(1)), (2, at(2)))
    task.run("r")
    assert task.run("r")["read"] == 0


@ONE_OR_TWO
@REAL
def test_entries_that_are_ensured_first_move_nothing_and_what_is_known_stays_bounded(sync: Any, options: Any) -> None:
    """The rows are read twice, by one try; only the events' delivery says what is settled."""
    task = sync(lookback=timedelta(minutes=5), ensure_entry={"home": "city"}, **options)
    for minute in range(10, 50, 10):
        task.add((minute, at(minute)), (minute + 1, at(minute + 1)))
        assert task.run()["delivered"] == 2
        assert len(task.record["sent"]) == 44  # two digests
    assert Counter(task.arrived()).total() == 8


@pytest.mark.parametrize("initial_value", ["now", "earliest"])
@REAL
def test_a_dry_run_moves_nothing(sync: Any, initial_value: str) -> None:
    task = sync(initial_value=initial_value)
    task.add((1, at(1)))
    report = task.run(dry_run=True)
    assert report["read"] == (1 if initial_value == "earliest" else 0)
    assert task.cursors.data == {}
    assert not any(call.startswith("set") for states in task.runs.values() for call in states.calls)
    task.run()
    before = task.record
    task.add((2, at(2)))
    task.run(dry_run=True)
    assert task.record == before


def test_a_backfill_is_refused_and_each_mapped_task_needs_a_name() -> None:
    from airflow_provider_events.transfers.cursor import check_run

    context: Any = {"ti": SimpleNamespace(map_index=-1), "dag_run": SimpleNamespace(run_type="backfill")}
    with pytest.raises(ConfigurationError, match="use interval_column for backfills"):
        check_run(context, None)
    context = {"ti": SimpleNamespace(map_index=2), "dag_run": SimpleNamespace(run_type="manual")}
    with pytest.raises(ConfigurationError, match="a cursor_name of its own"):
        check_run(context, None)
    check_run(context, "mine")


@pytest.mark.parametrize(
    ("sql", "refused"),
    [
        ("SELECT n, customer, at\nFROM orders -- of all shops", False),
        ("/* orders */ SELECT n,  customer, at FROM orders;", False),
        ("SELECT n, customer, at FROM orders WHERE n > 1", True),
    ],
)
@REAL
def test_a_changed_query_is_refused_and_a_comment_is_no_change(sync: Any, sql: str, refused: bool) -> None:
    task = sync()
    task.add((1, at(1)))
    task.run()
    if not refused:
        assert task.run(sql=sql)["read"] == 0
        return
    with pytest.raises(AirflowFailException, match="another query: sql changed"):
        task.run(sql=sql)
    with pytest.raises(AirflowFailException, match="cursor_column changed"):
        task.run(cursor_column="n", initial_value=1)


# -- clocks and precision ----------------------------------------------------------------------------------------------

BUCHAREST = ZoneInfo("Europe/Bucharest")
CHANGES = {"autumn": datetime(2026, 10, 24, 22, tzinfo=UTC), "spring": datetime(2026, 3, 28, 22, tzinfo=UTC)}


@pytest.mark.parametrize("lookback", [None, timedelta(minutes=20)])
@pytest.mark.parametrize("change", CHANGES)
@THREE
def test_local_times_over_a_change_of_the_clock(
    sync: Any, change: str, lookback: timedelta | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row each ten minutes by the shop's own clock, a run each half hour; with lookback, some are late."""
    columns = {"psycopg2": "TIMESTAMP", "mysqlclient": "DATETIME", "sqlite": "TEXT"}
    task = sync(None, lookback=lookback, mapping={**MAPPING, "timestamp": None})
    task.database.run("DROP TABLE orders")
    task.table(columns[task.database.driver])
    late: list[tuple[int, str]] = []
    for n in range(1, 43):
        now = CHANGES[change] + timedelta(minutes=10 * n)
        written = (n, now.astimezone(BUCHAREST).strftime("%Y-%m-%d %H:%M:%S"))
        task.add(*late)
        late = [written] if lookback and n % 4 == 3 else []
        if not late:
            task.add(written)
        if n % 3 == 0:
            by_the_clock(monkeypatch, now + timedelta(seconds=5))
            task.run()
    by_the_clock(monkeypatch, CHANGES[change] + timedelta(days=1))
    task.run()
    assert Counter(task.arrived()) == Counter(range(1, 43))


@pytest.mark.parametrize(
    ("database", "column", "times"),
    [
        with_database("psycopg2", "TIMESTAMPTZ", ["10:01:00.000001", "10:01:00.000002", "10:01:00.000003"]),
        with_database("psycopg2", "TIMESTAMPTZ(0)", ["10:01:00", "10:01:00", "10:01:01"]),
        with_database("mysqlclient", "DATETIME(6)", ["10:01:00.000001", "10:01:00.000002", "10:01:00.000003"]),
        with_database("mysqlclient", "TIMESTAMP", ["10:01:00", "10:01:00", "10:01:01"]),
        with_database("mysqlclient", "DATETIME", ["10:01:00", "10:01:00", "10:01:01"]),
        with_database("sqlite", "TEXT", ["10:01:00.000000001", "10:01:00.000000002", "10:01:00.000000003"]),
        with_database("sqlite", "TEXT", ["10:01:00.123456789", "10:01:00.123456789", "10:01:00.999999999"]),
        with_database("sqlite", "TEXT", ["10:01:00", "10:01:00", "10:01:01"]),
    ],
    indirect=["database"],
)
@ONE_OR_TWO
def test_microseconds_nanoseconds_and_whole_seconds(sync: Any, options: Any, column: str, times: list[str]) -> None:
    """Whatever the precision: what is written between two runs with the least difference comes once."""
    task = sync(column, **options, mapping={**MAPPING, "timestamp": None})
    for n, time_of_day in enumerate(times, start=1):
        task.add((n, f"2026-11-01 {time_of_day}"))
        assert task.run()["read"] == 1
    assert task.run()["read"] == 0
    assert task.arrived() == [1, 2, 3]


@ONE_OR_TWO
@EVERY
def test_numbers(sync: Any, options: Any) -> None:
    task = sync("BIGINT", **options, lookback=5, mapping={**MAPPING, "timestamp": None}, initial_value=100)
    task.add((1, "99"), (2, "100"), (3, "2000000000000"))
    assert task.run()["read"] == 2
    task.add((4, "1999999999996"), (5, "1999999999994"), (6, "2000000000001"))
    assert task.run()["read"] == 2
    assert sorted(task.arrived()) == [2, 3, 4, 6]


@REAL
def test_numbers_from_now_on(sync: Any) -> None:
    task = sync("BIGINT", initial_value="now", mapping={**MAPPING, "timestamp": None})
    task.add((1, "7"))
    assert task.run()["read"] == 0
    task.add((2, "8"))
    assert task.run()["read"] == 1
    with pytest.raises(AirflowFailException, match="cursor_delay is for times"):
        task.run(cursor_delay=timedelta(minutes=1))
    with pytest.raises(AirflowFailException, match="lookback has to be a number"):
        task.run(lookback=timedelta(minutes=1))


@THREE
def test_from_now_on_with_a_table_that_is_empty(sync: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes between the first run and the second one is not lost."""
    task = sync(initial_value="now")
    by_the_clock(monkeypatch, datetime(2026, 11, 1, 7, tzinfo=UTC))
    assert task.run()["read"] == 0
    task.add((1, "2026-11-01 08:30:00"), (2, "2026-11-01 11:00:00"))
    by_the_clock(monkeypatch, datetime(2026, 11, 1, 12, tzinfo=UTC))
    task.run()
    assert task.arrived()[-1] == 2
    assert task.run()["read"] == 0


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("REAL", "0.1", "loses precision"),
        ("TEXT", "yesterday", "holds text that is not of times of one shape"),
        ("BOOLEAN", "1", "boolean"),
        ("TIME", "10:00", "values that are neither times nor numbers"),
    ],
)
@REAL
def test_a_column_that_is_no_cursor_is_refused(sync: Any, column: str, value: str, words: str) -> None:
    task = sync(column, mapping={**MAPPING, "timestamp": None})
    task.add((1, value))
    with pytest.raises(AirflowFailException, match=words):
        task.run()
    assert task.arrived() == []


@pytest.mark.parametrize(
    ("sql", "column"),
    [
        ('SELECT n, customer, at, COALESCE(at, at) AS "Changed 100%" FROM orders', "changed 100%"),
        ("SELECT n, customer, at, n * 2 AS place FROM orders", "place"),
        (
            "WITH o AS (SELECT * FROM orders) SELECT n, customer, at, GREATEST(at, at) AS latest FROM o ORDER BY n",
            "latest",
        ),
    ],
)
@ONE_OR_TWO
@databases("psycopg2", "psycopg")
def test_a_cursor_column_that_is_an_alias_or_an_expression(sync: Any, sql: str, column: str, options: Any) -> None:
    columns = (column, "n") if options else column
    task = sync(sql=sql, cursor_column=columns)
    task.add((1, at(1)), (2, at(2)))
    assert task.run()["read"] == 2
    task.add((3, at(3)))
    assert task.run()["read"] == 1
    with pytest.raises(AirflowFailException, match="has to be one column of the query"):
        task.run(cursor_column="nowhere", cursor_name="other")


# -- many rows ---------------------------------------------------------------------------------------------------------


@ONE_OR_TWO
@REAL
def test_a_million_equal_values_in_flat_memory(
    sync: Any, options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read, noted and read again without a vendor; with a second column nothing at all has to be known.

    This takes up to a minute: fewer rows would not show what grows with them.
    """
    task = sync(**options)
    task.database.run(
        "INSERT INTO orders SELECT n, 'c', '2026-11-01 10:00' FROM generate_series(1, 1000000) n", "ANALYZE orders"
    )

    def read(run: str) -> int:
        operator = task.operator(checkpoint_path=str(tmp_path))
        operator.begin(task.context(run))
        source: Any = operator.source(SimpleNamespace())
        rows = 0
        for chunk in source.records():
            rows += len(chunk)
            if rows % 100_000 == 0:
                source.settled(Settled(rows))
        source.settled(Settled(rows, (), True, True))
        return rows

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read("first") == 1_000_000
    assert read("second") == 0
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 200  # MB: 16 bytes a row, some times
    assert len(json.dumps(task.record)) < 1000
