"""What Airflow stores of rendered templates, and shows to everybody who may see a task: no customer."""

from __future__ import annotations

import copy
import json
from collections import UserDict, deque
from types import MappingProxyType
from typing import Any

import pytest

from airflow_provider_events.operators.entries import FilterByEntryOperator, UpsertEntryOperator
from airflow_provider_events.operators.events import SendEventOperator, SendEventsOperator
from airflow_provider_events.sensors.entry import EntryExistsSensor

pytestmark = pytest.mark.airflow

FIELDS = [
    (SendEventOperator, "identity", {"name": "paid"}),
    (SendEventOperator, "properties", {"name": "paid", "identity": {"registered": "x"}}),
    (SendEventsOperator, "events", {}),
    (UpsertEntryOperator, "identity", {}),
    (UpsertEntryOperator, "attributes", {"identity": {"registered": "x"}}),
    (UpsertEntryOperator, "entries", {}),
    (FilterByEntryOperator, "events", {}),
    (EntryExistsSensor, "identity", {}),
    (EntryExistsSensor, "identities", {}),
]
FIELD = pytest.mark.parametrize(("operator", "field", "others"), FIELDS)

DAG = """
from datetime import datetime, timezone
from airflow.providers.common.compat.sdk import DAG, task
from airflow_provider_events.operators.entries import FilterByEntryOperator, UpsertEntryOperator
from airflow_provider_events.operators.events import SendEventOperator, SendEventsOperator
from airflow_provider_events.sensors.entry import EntryExistsSensor

def event(n):
    who = {"registered": f"customer{n}@example.com"}
    return {"name": "paid", "identity": who, "timestamp": "2026-03-01T09:00:00Z", "properties": {"phone": "0740 1234"}}

def as_event(row):
    return row | {"id": "i"}

start = datetime(2026, 1, 1, tzinfo=timezone.utc)
params = {"who": "customer1@example.com"}
with DAG("%s", start_date=start, schedule=None, params=params, render_template_as_native_obj=%s):
    @task
    def collect():
        return [event(n) for n in range(2)]

    @task
    def people():
        return [{"registered": f"customer{n}@example.com"} for n in range(2)]

    @task
    def who():
        return {"registered": "customer1@example.com"}

    events, customers = collect(), people()
    bloomreach = {"conn_id": "bloomreach_default"}
    text = "{{ ti.xcom_pull('collect') | tojson }}"
    SendEventsOperator(task_id="direct", events=events, **bloomreach)
    SendEventsOperator(task_id="text", events=text, **bloomreach).set_upstream(events.operator)
    SendEventsOperator(task_id="mapped_lazily", events=events.map(as_event), **bloomreach)
    FilterByEntryOperator(task_id="split", events=text, **bloomreach).set_upstream(events.operator)
    entry = {"identity": {"registered": "{{ params.who }}"}, "attributes": {"mail": "{{ params.who }}"}}
    UpsertEntryOperator(task_id="entries", entries=[entry], **bloomreach)
    UpsertEntryOperator(task_id="entry", **entry, **bloomreach)
    customer = who()
    SendEventOperator(task_id="one", name="paid", identity=customer, properties=entry["attributes"], **bloomreach)
    SendEventOperator.partial(task_id="each", name="paid", **bloomreach).expand(identity=customers)
    bloomreach |= {"timeout": 9}
    EntryExistsSensor(task_id="wait_one", identity=entry["identity"], **bloomreach)
    text = "{{ ti.xcom_pull('who') | tojson }}"
    EntryExistsSensor(task_id="wait_text", identity=text, **bloomreach).set_upstream(customer.operator)
    text = "{{ ti.xcom_pull('people') }}"
    EntryExistsSensor(task_id="wait_all", identities=text, **bloomreach).set_upstream(customers.operator)
"""


@pytest.mark.parametrize("native", [False, True])
def test_no_rendered_field_holds_a_customer(native: bool, connections: Any, run_dag: Any) -> None:
    connections.add_entries("bloomreach", [{"registered": f"customer{n}@example.com"} for n in range(2)])
    dag_id = f"rendered_{native}"
    result = run_dag(DAG % (dag_id, native), dag_id)
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.query(RenderedTaskInstanceFields).filter_by(dag_id=dag_id).all()
        shown = {row.task_id: row.rendered_fields for row in rows}
    assert len(shown) == 14
    stored = json.dumps(shown)
    assert "customer" not in stored
    # Airflow masks whatever was a password before in this process, and that of the tests' databases is a common word.
    shown = json.loads(stored.replace("***", "events"))
    assert "0740" not in json.dumps(shown)
    assert shown["direct"]["events"] == "<2 events>"
    assert shown["mapped_lazily"]["events"] == "<2 events>"
    assert shown["one"]["identity"] == "<1 ids>"
    assert shown["one"]["name"] == "paid"
    if not native:
        assert shown["text"]["events"].startswith("<events: a text of ")
    assert {task: state for task, state in result.states.items() if state != "success"} == {}


@FIELD
@pytest.mark.parametrize(
    "value",
    [
        [{"email": "ada@example.com"}],
        {"email": "ada@example.com"},
        '{"email": "ada@example.com"}',
        ("ada@example.com",),
        {"ada@example.com"},
        deque(["ada@example.com"]),
        UserDict({"email": "ada@example.com"}),
        40712345678,
        iter(["ada@example.com"]),
        b"ada@example.com",
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_was_rendered_prints_as_its_size(
    operator: Any, field: str, others: dict[str, Any], value: Any
) -> None:
    task = operator(task_id="t", conn_id="x", **others, **{field: []})
    setattr(task, field, value)
    for copied in (task, copy.copy(task), copy.deepcopy(task) if not hasattr(value, "__next__") else task):
        shown = getattr(copied, field)
        assert "ada" not in f"{shown} {shown!r}"
        assert "407" not in str(shown)
        with pytest.raises(TypeError):
            json.dumps(shown)  # else Airflow would store what it holds
    assert getattr(task, f"_{field}") is value


@FIELD
@pytest.mark.parametrize(
    "value", [deque(["ada@example.com"]), MappingProxyType({"email": "ada@example.com"}), iter(["ada@example.com"])]
)
def test_what_airflow_does_not_render_prints_as_its_size_from_the_beginning(
    operator: Any, field: str, others: dict[str, Any], value: Any
) -> None:
    task = operator(task_id="t", conn_id="x", **others, **{field: value})
    assert "ada" not in repr(getattr(task, field))


@FIELD
def test_a_template_is_shown_as_it_was_written(operator: Any, field: str, others: dict[str, Any]) -> None:
    template = "{{ ti.xcom_pull('collect') }}"
    assert getattr(operator(task_id="t", conn_id="x", **others, **{field: template}), field) == template


def test_a_field_that_is_rendered_twice_keeps_its_value() -> None:
    task = SendEventsOperator(task_id="send", conn_id="x", events=[{"name": "{{ name }}"}])
    for name in ("a", "b"):
        task.render_template_fields({"name": name})  # type: ignore[typeddict-unknown-key]  # a context of our own
    assert str(task.events) == "<1 events>"
    assert task._events == [{"name": "a"}]
