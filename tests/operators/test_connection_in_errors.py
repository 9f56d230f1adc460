"""Each error that a task ends with names the connection that it concerns: the vendor's, or the database's."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_events._compat import BaseHook
from airflow_provider_events.exceptions import EventsError
from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.operators.entries import FilterByEntryOperator, UpsertEntryOperator, split_by_entry
from airflow_provider_events.operators.events import SendEventOperator, SendEventsOperator
from airflow_provider_events.sensors.entry import EntryExistsSensor
from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

pytestmark = pytest.mark.airflow

VENDOR = "vibetrace_default"
PAID = {"name": "paid", "identity": {"email": "customer1@example.com"}, "properties": {}}
MAPPING = {"name": "paid", "identity": {"email": "email"}, "properties": ["total"]}


@pytest.fixture
def shop(connections: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The sandbox, and a database with two orders."""
    path = tmp_path / "shop.db"
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    monkeypatch.setenv("AIRFLOW_CONN_UNHEARD", json.dumps({"conn_type": "unheard_of"}))
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table orders (id integer, email text, total real)")
        database.executemany("insert into orders values (?, 'customer1@example.com', 1)", [(1,), (1,)])
        database.commit()
    return connections


def sql(query: str = "select * from orders", **options: Any) -> SqlToEventsOperator:
    given = {"sql_conn_id": "shop", "mapping": MAPPING, "sql": query, **options}
    return SqlToEventsOperator(task_id="t", conn_id=VENDOR, **given)


def events(value: Any, **options: Any) -> SendEventsOperator:
    return SendEventsOperator(task_id="t", conn_id=VENDOR, events=value, **options)


OPERATORS: dict[str, tuple[str, Callable[[], Any]]] = {
    # of the rows
    "no such table": ("sql_conn_id 'shop'", lambda: sql("select * from nothing")),
    "no query": ("sql_conn_id 'shop'", lambda: sql("selec")),
    "parameters that do not fit": ("sql_conn_id 'shop'", lambda: sql("select * from orders where id = :n")),
    "a query that changes": ("sql_conn_id 'shop'", lambda: sql("delete from orders")),
    "a key that is not unique": ("sql_conn_id 'shop'", lambda: sql(key_column="id", batch_size=1)),
    "a key that is not there": ("sql_conn_id 'shop'", lambda: sql(key_column="nothing")),
    "a column that is not there": (
        "sql_conn_id 'shop'",
        lambda: sql(mapping={**MAPPING, "properties": ["nothing"]}),
    ),
    "no rows": ("sql_conn_id 'shop'", lambda: sql("select * from orders where id = 7", on_empty="fail")),
    "more rows than allowed": ("sql_conn_id 'shop'", lambda: sql(max_rows=1)),
    "no provider": ("sql_conn_id 'unheard'", lambda: sql(sql_conn_id="unheard")),
    "no database": ("sql_conn_id 'webengage_default'", lambda: sql(sql_conn_id="webengage_default")),
    # of the events
    "events of a wrong kind": ("connection 'vibetrace_default'", lambda: events(5)),
    "a text that is no list": ("connection 'vibetrace_default'", lambda: events("no list")),
    "no event": ("connection 'vibetrace_default'", lambda: events([], on_empty="fail")),
    "no file": ("connection 'vibetrace_default'", lambda: events("/nowhere.jsonl")),
    "nothing but rejected ones": ("connection 'vibetrace_default'", lambda: events([5, 6])),
    "more events than allowed": ("connection 'vibetrace_default'", lambda: events([PAID] * 2, max_rows=1)),
    "an identity that is none": (
        "connection 'vibetrace_default'",
        lambda: SendEventOperator(task_id="t", conn_id=VENDOR, name="paid", identity={"phone": 1}),
    ),
    "an entry that is none": (
        "connection 'vibetrace_default'",
        lambda: UpsertEntryOperator(task_id="t", conn_id=VENDOR, entries=5),  # type: ignore[arg-type]  # that it is refused
    ),
    "no upserts": (
        "connection 'embeddables_default'",
        lambda: UpsertEntryOperator(task_id="t", conn_id="embeddables_default", identity={"email": "a@example.com"}),
    ),
    # of look-ups
    "no list to split": (
        "connection 'vibetrace_default'",
        lambda: FilterByEntryOperator(task_id="t", conn_id=VENDOR, events="no list"),
    ),
    "an event without a customer": (
        "connection 'vibetrace_default'",
        lambda: FilterByEntryOperator(task_id="t", conn_id=VENDOR, events=[{"name": "paid"}]),
    ),
    "an identity without a look-up": (
        "connection 'vibetrace_default'",
        lambda: FilterByEntryOperator(task_id="t", conn_id=VENDOR, events=[{**PAID, "identity": {"_id": "1"}}]),
    ),
    "a vendor without look-ups": (
        "connection 'webengage_default'",
        lambda: EntryExistsSensor(task_id="t", conn_id="webengage_default", identity={"userId": "1"}),
    ),
    "a sensor's identity that is none": (
        "connection 'vibetrace_default'",
        lambda: EntryExistsSensor(task_id="t", conn_id=VENDOR, identities=[{"email": ""}]),
    ),
    "a sensor's identity without a look-up": (
        "connection 'vibetrace_default'",
        lambda: EntryExistsSensor(task_id="t", conn_id=VENDOR, identity={"_id": "1"}),
    ),
    "more than there are": (
        "connection 'vibetrace_default'",
        lambda: EntryExistsSensor(task_id="t", conn_id=VENDOR, identity={"email": "a@example.com"}, require=2),
    ),
    "nobody in time": (
        "connection 'vibetrace_default'",
        lambda: EntryExistsSensor(
            task_id="t", conn_id=VENDOR, identity={"email": "nobody@example.com"}, timeout=0, poke_interval=0.1
        ),
    ),
    "nobody in time, deferred": (
        "connection 'vibetrace_default'",
        lambda: EntryExistsSensor(
            task_id="t", conn_id=VENDOR, identity={"email": "nobody@example.com"}, timeout=0, deferrable=True
        ),
    ),
    # of the connection
    "no such connection": ("nowhere", lambda: SendEventsOperator(task_id="t", conn_id="nowhere", events=[])),
    "no such database": ("nowhere", lambda: sql(sql_conn_id="nowhere")),
    "a connection of another type": (
        "connection 'shop'",
        lambda: SendEventsOperator(task_id="t", conn_id="shop", events=[]),
    ),
}


class Ti:
    """As much of a task instance as the operators look at."""

    dag_id, run_id, task_id, map_index, try_number, max_tries = "d", "r", "t", -1, 1, 0
    start_date = None

    def xcom_push(self, **_: Any) -> None:
        """Nowhere."""


def failure(call: Callable[[], Any]) -> Exception:
    """What a call ends with."""
    try:
        call()
    except Exception as error:
        return error
    pytest.fail("it ended well")


@pytest.mark.parametrize("case", OPERATORS)
def test_the_error_of_a_task_names_the_connection(case: str, shop: Any) -> None:
    named, operator = OPERATORS[case]
    words = str(failure(lambda: operator().execute({"ti": Ti(), "dag_run": None, "task": None})))
    assert named in words, words
    assert words.count("connection '") + words.count("conn_id '") <= 1, f"one of them: {words}"
    assert "nobody@example.com" not in words


def stopped(hook: EventsHook) -> EventsHook:
    hook.stop()
    return hook


HOOK: dict[str, Callable[[EventsHook], Any]] = {
    "an event that is none": lambda hook: hook.send({"name": "paid"}),
    "an event of another vendor": lambda hook: hook.send({**PAID, "identity": {"userId": "1"}}),
    "a customer without an entry": lambda hook: hook.send({**PAID, "identity": {"email": "nobody@example.com"}}),
    "an upsert of nobody": lambda hook: hook.upsert({}),
    "a delivery of nothing": lambda hook: hook.deliver(5),  # type: ignore[arg-type]  # that it is refused
    "a delivery of the rejected": lambda hook: hook.deliver([{"name": "paid"}]),
    "a wrong option": lambda hook: hook.deliver([], batch_size=0),
    "an unknown option": lambda hook: hook.deliver([], batchsize=1),  # type: ignore[call-arg]  # that it is refused
    "a wrong mapping": lambda hook: hook.deliver([], mapping={"nam": "x"}),
    "a look-up of nobody": lambda hook: hook.lookup([{}]),
    "a look-up by another id": lambda hook: hook.entry_exists({"_id": "1"}),
    "a hook that was stopped": lambda hook: stopped(hook).send(PAID),
}


@pytest.mark.parametrize("case", HOOK)
def test_the_error_of_a_hook_names_the_connection(case: str, shop: Any) -> None:
    error = failure(lambda: HOOK[case](EventsHook.for_connection(VENDOR)))
    assert isinstance(error, EventsError)
    assert str(error).startswith("connection 'vibetrace_default'"), str(error)
    assert str(error).count("connection 'vibetrace_default'") == 1


def test_split_by_entry_names_it_too(shop: Any) -> None:
    with pytest.raises(EventsError, match=r"^connection 'vibetrace_default'"):
        split_by_entry(VENDOR, [{"name": "paid"}])


def test_airflow_itself_names_a_connection_that_is_not_there(shop: Any) -> None:
    with pytest.raises(Exception, match="nowhere"):
        BaseHook.get_connection("nowhere")
