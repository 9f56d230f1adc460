"""Options that take templates, and what a source without rows makes of a task."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_events.exceptions import ConfigurationError, MappingError
from airflow_provider_events.operators.entries import FilterByEntryOperator, UpsertEntryOperator
from airflow_provider_events.operators.events import SendEventsOperator
from airflow_provider_events.transfers.sql_to_entries import SqlToEntriesOperator
from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

pytestmark = pytest.mark.airflow

HEAD = """
from datetime import datetime, timezone
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_events.operators.events import SendEventsOperator
from airflow_provider_events.transfers.sql_to_entries import SqlToEntriesOperator
from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

params = {"column": "email", "key": "n", "allowed": "2", "dry": "true", "name": "paid"}
with DAG("%s", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule=None, params=params,
         render_template_as_native_obj=%s):
"""


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sqlite3.Connection:
    """Ten rows; two of them have no email."""
    path = tmp_path / "people.db"
    monkeypatch.setenv("AIRFLOW_CONN_PEOPLE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    database = sqlite3.connect(path)
    database.execute("create table people (n integer primary key, email text)")
    database.executemany(
        "insert into people values (?, ?)", [(n, f"customer{n}@example.com" if n > 2 else None) for n in range(1, 11)]
    )
    database.commit()
    return database


@pytest.mark.parametrize("native", [False, True])
def test_options_take_params_and_show_as_they_were_rendered(
    native: bool, people: sqlite3.Connection, connections: Any, run_dag: Any
) -> None:
    dag_id = f"templated_{native}"
    result = run_dag(
        HEAD % (dag_id, native)
        + """
    query = {"sql": "select * from people", "sql_conn_id": "people", "conn_id": "bloomreach_default"}
    options = {"key_column": "{{ params.key }}", "max_rejected": "{{ params.allowed }}", **query}
    identity = {"registered": "{{ params.column }}"}
    SqlToEventsOperator(task_id="events", mapping={"name": "{{ params.name }}", "identity": identity}, **options)
    SqlToEntriesOperator(task_id="entries", mapping={"identity": identity, "attributes": ["n"]}, **options)
    SqlToEventsOperator(
        task_id="dry", mapping={"name": "paid", "identity": identity}, dry_run="{{ params.dry }}", **options
    )
""",
        dag_id,
    )
    assert result.states == {"events": "success", "entries": "success", "dry": "success"}
    assert [result.returned[task]["delivered"] for task in ("events", "entries", "dry")] == [8, 8, 0]
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.query(RenderedTaskInstanceFields).filter_by(dag_id=dag_id).all()
        shown = {row.task_id: row.rendered_fields for row in rows}
    assert shown["events"]["mapping"] == {"name": "paid", "identity": {"registered": "email"}}
    assert (shown["events"]["key_column"], str(shown["events"]["max_rejected"])) == ("n", "2")
    assert str(shown["dry"]["dry_run"]).lower() == "true"


def test_a_template_that_gives_something_else_is_said_when_the_task_starts(
    people: sqlite3.Connection, connections: Any, run_dag: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    result = run_dag(
        HEAD % ("templated_wrong", False)
        + """
    events = {"events": [{"name": "a"}], "conn_id": "bloomreach_default", "retries": 2}
    SendEventsOperator(task_id="number", max_rejected="{{ params.column }}", **events)
    SendEventsOperator(task_id="boolean", dry_run="{{ params.column }}", **events)
    SendEventsOperator(task_id="mapping", mapping={"name": "{{ '' }}", "identity": {"registered": "e"}}, **events)
""",
        "templated_wrong",
    )
    assert set(result.states.values()) == {"failed"}
    assert set(result.tries.values()) == {1}  # no retry can help
    output = capfd.readouterr()
    words = output.out + output.err
    assert "max_rejected has to be a number" in words
    assert "dry_run has to be true or false" in words
    assert "mapping: name: must not be empty" in words
    assert connections.events("bloomreach") == []


@pytest.mark.parametrize(("policy", "state"), [("succeed", "success"), ("skip", "skipped"), ("fail", "failed")])
def test_a_source_without_rows(
    policy: str, state: str, people: sqlite3.Connection, connections: Any, run_dag: Any
) -> None:
    result = run_dag(
        HEAD % (f"empty_{policy}", False)
        + f"""
    common = {{"conn_id": "bloomreach_default", "on_empty": "{policy}"}}
    query = {{"sql": "select * from people where n < 0", "sql_conn_id": "people", **common}}
    mapping = {{"name": "paid", "identity": {{"registered": "email"}}}}
    SqlToEventsOperator(task_id="query", mapping=mapping, **query)
    SqlToEntriesOperator(task_id="entries", mapping={{"identity": {{"registered": "email"}}}}, **query)
    SendEventsOperator(task_id="list", events=[], **common)
    SendEventsOperator(task_id="dry", events=[], dry_run=True, **common)
    event = {{"name": "a", "identity": {{"registered": "c"}}}}
    SendEventsOperator(task_id="one", events=[event], **common)
""",
        f"empty_{policy}",
    )
    assert result.states.pop("one") == "success"
    assert result.states == dict.fromkeys(("query", "entries", "list", "dry"), state)


def test_a_source_that_is_still_empty_is_asked_again_by_airflows_retries(connections: Any, run_dag: Any) -> None:
    result = run_dag(
        HEAD % ("empty_retried", False)
        + """
    from datetime import timedelta
    retried = {"retries": 1, "retry_delay": timedelta(0)}
    SendEventsOperator(task_id="list", conn_id="bloomreach_default", events=[], on_empty="fail", **retried)
""",
        "empty_retried",
    )
    assert (result.state, result.tries) == ("failed", {"list": 2})


SQL = {"sql": "select 1", "sql_conn_id": "people"}


@pytest.mark.parametrize(
    ("operator", "options", "error"),
    [
        (SendEventsOperator, {"on_empty": "ignore"}, "on_empty has to be one of succeed, skip, fail, not 'ignore'"),
        (SendEventsOperator, {"max_rejected": "many"}, "max_rejected has to be a number"),
        (SendEventsOperator, {"dry_run": "maybe"}, "dry_run has to be true or false"),
        (SendEventsOperator, {"dry_run": 1}, "dry_run has to be true or false"),
        (SendEventsOperator, {"mapping": {"name": "a"}}, "mapping: identity"),
        (FilterByEntryOperator, {"events": [], "mapping": {"name": "a"}}, "mapping: identity"),
        (UpsertEntryOperator, {"entries": [], "mapping": {"columns": "a"}}, "mapping: 'columns' is not one of"),
        (SqlToEventsOperator, {**SQL, "mapping": {"name": "a"}}, "mapping: identity"),
        (SqlToEntriesOperator, {**SQL, "mapping": {"columns": "a"}}, "mapping: 'columns' is not one of"),
    ],
)
def test_what_is_no_template_is_checked_at_dag_parse(operator: Any, options: dict[str, Any], error: str) -> None:
    with pytest.raises((ConfigurationError, MappingError), match=error):
        operator(task_id="t", conn_id="x", **options)


@pytest.mark.parametrize(
    ("operator", "options"),
    [
        (SendEventsOperator, {"max_rejected": "{{ params.n }}", "dry_run": "{{ params.dry }}"}),
        (SendEventsOperator, {"mapping": {"name": "{{ params.n }}", "identity": {"email": "{{ params.c }}"}}}),
        (UpsertEntryOperator, {"entries": [], "mapping": "{{ params.mapping }}"}),
        (FilterByEntryOperator, {"events": [], "mapping": "{{ params.mapping }}"}),
        (SqlToEventsOperator, {**SQL, "mapping": {"name": "{% if x %}a{% endif %}"}}),
        (SqlToEntriesOperator, {**SQL, "mapping": {"identity": {"email": "{{ params.c }}"}}}),
    ],
)
def test_a_template_is_left_for_the_task(operator: Any, options: dict[str, Any]) -> None:
    operator(task_id="t", conn_id="x", **options)
