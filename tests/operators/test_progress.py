"""The progress of a delivery in Airflow's task state store, for the UI: live, last, and never in the way."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import Any

import airflow
import pytest

from airflow_provider_events.delivery import checkpoint_writer, job
from airflow_provider_events.exceptions import RejectedNotWritten
from airflow_provider_events.operators.checkpoints import KEY, PROGRESS_KEY
from tests.operators.test_checkpoints import EVENTS, StateStore, context, killed, paced, send

__all__ = ["paced"]

HAS_STATE_STORE = tuple(map(int, airflow.__version__.split(".")[:2])) >= (3, 3)


class Remembering(StateStore):
    """Keeps every value of the progress, and which threads wrote anything."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.shown: list[dict[str, Any]] = []
        self.threads: set[str] = set()
        self.calls = self.most_calls = 0
        self._error = error

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self.calls += 1
        self.most_calls = max(self.most_calls, self.calls)
        self.threads.add(threading.current_thread().name)
        try:
            if key == PROGRESS_KEY and self._error:
                raise self._error
            super().set(key, value, retention=retention)
        finally:
            self.calls -= 1
        if key == PROGRESS_KEY:
            self.shown.append(value)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures and saves several times a second."""
    monkeypatch.setattr(job, "PROGRESS_SECONDS", 0.2)
    monkeypatch.setattr(checkpoint_writer, "SAVE_SECONDS", 0.1)


def test_the_figures_are_there_while_it_runs_and_when_it_is_over(paced: Any) -> None:
    store = Remembering()
    report = send().execute(context(store))
    assert len(store.shown) >= 4, "300 events at 200 a second"
    assert ["ended" in each for each in store.shown] == [False] * (len(store.shown) - 1) + [True]
    assert any(each["delivered"] < 300 and "ends_at" in each for each in store.shown)
    last = store.data[PROGRESS_KEY]
    assert {name: last[name] for name in ("read", "delivered", "requests", "retries", "total")} == {
        "read": 300,
        "delivered": report["delivered"],
        "requests": report["requests"],
        "retries": report["retries"],
        "total": 300,
    }
    assert datetime.fromisoformat(last["updated_at"]).tzinfo is not None


def test_the_same_figures_are_in_the_log(paced: Any, caplog: pytest.LogCaptureFixture) -> None:
    store = Remembering()
    with caplog.at_level("INFO"):
        send().execute(context(store))
    logged = [record.__dict__["events_progress"] for record in caplog.records if hasattr(record, "events_progress")]
    assert all(each in logged for each in store.shown[:-1])
    assert store.shown[-1]["delivered"] == logged[-1]["delivered"]


def test_after_a_kill_the_last_figures_are_there(paced: Any) -> None:
    store = Remembering()
    report = killed(paced, send(), context(store))
    last = store.data[PROGRESS_KEY]
    assert (last["ended"], last["delivered"], "ends_at" in last) == (True, report["delivered"], False)


def test_a_retry_counts_what_was_resumed(paced: Any) -> None:
    store = Remembering()
    first = killed(paced, send(), context(store))
    send().execute(context(store, try_number=2))
    last = store.data[PROGRESS_KEY]
    assert (last["resumed"], last["delivered"]) == (first["delivered"], 300 - first["delivered"])


def test_saves_come_one_at_a_time_and_not_on_the_thread_of_the_loop_or_of_the_task(paced: Any) -> None:
    store = Remembering()
    send().execute(context(store))
    assert {thread.partition("_")[0] for thread in store.threads} == {"events-checkpoint", "events-observer"}
    assert store.most_calls == 1


def test_a_store_that_cannot_show_it_is_one_warning(paced: Any, caplog: pytest.LogCaptureFixture) -> None:
    store = Remembering(ConnectionError("supervisor"))
    report = send().execute(context(store))
    assert report["delivered"] == 300
    assert store.data[KEY]["completed"]
    warnings = [message for message in caplog.messages if "the delivery goes on" in message]
    assert warnings == ["StateStoreProgress failed (ConnectionError); the delivery goes on"]


def test_figures_are_shown_although_rejected_rows_cannot_be_written(
    paced: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_events.delivery.dead_letter import DeadLetterFile

    def full(dead_letters: DeadLetterFile) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DeadLetterFile, "flush", full)
    store = Remembering()
    with pytest.raises(RejectedNotWritten):
        send([{"name": ""}, *EVENTS], rejected_path=str(tmp_path), max_rejected=5).execute(context(store))
    assert KEY not in store.data
    assert store.data[PROGRESS_KEY]["ended"]


def test_files_of_checkpoints_hold_none(paced: Any, tmp_path: Any) -> None:
    report = send(checkpoint_path=str(tmp_path)).execute(context())
    assert report["delivered"] == 300
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []  # and that of the checkpoint is gone


@pytest.mark.airflow
@pytest.mark.skipif(not HAS_STATE_STORE, reason="needs Airflow 3.3's state store")
def test_airflows_own_store_has_it(connections: Any, run_dag: Any) -> None:
    result = run_dag(
        """
from datetime import datetime, timezone
from airflow.sdk import DAG, task
from airflow_provider_events.operators.events import SendEventsOperator


def look(context, result):
    context["ti"].xcom_push(key="progress", value=context["task_state_store"].get("events.progress"))


with DAG("shown", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule=None):
    @task
    def collect():
        return [{"name": "order_paid", "identity": {"userId": "u"}, "properties": {"n": n}} for n in range(200)]

    send = SendEventsOperator(
        task_id="send", conn_id="webengage_default", events=collect(), post_execute=look
    )

    @task
    def shown(ti=None):
        return ti.xcom_pull(task_ids="send", key="progress")

    send >> shown()
""",
        "shown",
    )
    assert result.state == "success"
    shown = result.returned["shown"]
    assert (shown["ended"], shown["read"], shown["total"], shown["delivered"]) == (True, 200, 200, 200)
