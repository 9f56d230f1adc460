"""However a task ends: a report, what was read is sent, and nothing more after a kill."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from airflow_provider_events._compat import AirflowTaskTimeout
from airflow_provider_events.delivery import runtime
from airflow_provider_events.delivery.options import Ordering
from airflow_provider_events.exceptions import DeliveryInterrupted, EventsError, SourceError
from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.operators.entries import FilterByEntryOperator
from airflow_provider_events.operators.events import SendEventOperator, SendEventsOperator
from airflow_provider_events.sources.rows import EventRecords
from tests.delivery.harness import odd_server
from tests.until import until

pytestmark = pytest.mark.airflow

ENDLESS = 30.0  # seconds that no test waits


def event(n: int = 0) -> dict[str, Any]:
    who = {"registered": f"customer{n}"}
    return {"name": "paid", "identity": who, "timestamp": "2026-03-01T09:00:00Z", "properties": {"n": n}}


def broken(good: int, error: BaseException) -> Iterator[dict[str, Any]]:
    """A source that fails after some events."""
    yield from map(event, range(good))
    raise error


class Pushed:
    """A task instance, as far as operators look at it."""

    dag_id = run_id = task_id = "x"
    map_index, try_number, max_tries = -1, 1, 0

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep it."""
        self.xcoms[key] = value


def context() -> Any:
    return {"ti": Pushed()}


# -- a source that fails -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("good", [1, 499, 500, 501, 1234])
@pytest.mark.parametrize("ordering", ["none", "identity"])
@pytest.mark.parametrize("error", [RuntimeError("the generator's own"), SourceError("the database went away")])
def test_what_was_read_before_the_source_failed_is_sent(
    error: Exception, ordering: Ordering, good: int, connections: Any
) -> None:
    hook = EventsHook.for_connection("bloomreach_default")
    with pytest.raises(type(error)) as caught:
        hook.deliver(broken(good, error), ordering=ordering)
    assert caught.value is error
    assert len(connections.events("bloomreach")) == good
    assert hook.report is not None
    assert (hook.report.read, hook.report.delivered, hook.report.unsent) == (good, good, 0)
    if isinstance(error, EventsError):
        assert error.report == hook.report


def test_a_line_that_cannot_be_read_comes_after_those_before_it(connections: Any) -> None:
    with pytest.raises(RuntimeError):
        EventsHook.for_connection("bloomreach_default").deliver(
            broken(3, RuntimeError("no")), mapping={"name": "paid", "identity": {"registered": "name"}}
        )
    assert len(connections.events("bloomreach")) == 3


def test_rejected_rows_before_the_failure_are_in_the_report_and_the_file(connections: Any, tmp_path: Path) -> None:
    hook = EventsHook.for_connection("bloomreach_default")
    path = tmp_path / "rejected.jsonl"

    def source() -> Iterator[Any]:
        yield event()
        yield {"name": "paid", "identity": {}}
        raise SourceError("gone")

    with pytest.raises(SourceError) as caught:
        hook.deliver(source(), rejected_path=str(path))
    assert caught.value.report is not None
    assert (caught.value.report.delivered, caught.value.report.rejected) == (1, 1)
    assert len(path.read_text().splitlines()) == 1


@pytest.mark.parametrize("error", [RuntimeError("own"), SourceError("gone"), AirflowTaskTimeout("late")])
def test_the_report_is_an_xcom_where_the_source_fails(error: BaseException, connections: Any) -> None:
    events: Any = broken(700, error)
    operator = SendEventsOperator(task_id="t", conn_id="bloomreach_default", events=events)
    given = context()
    with pytest.raises((RuntimeError, SourceError, DeliveryInterrupted)):
        operator.execute(given)
    report = given["ti"].xcoms["return_value"]
    assert report["read"] == report["delivered"] + report["unsent"]
    if isinstance(error, Exception):
        assert report["delivered"] == 700


def test_execution_timeout_leaves_a_report_and_says_so(connections: Any) -> None:
    def late(*_: Any) -> None:
        raise AirflowTaskTimeout("late")

    events: Any = (event(n) for n in count())
    operator = SendEventsOperator(task_id="t", conn_id="bloomreach_default", events=events)
    given, before = context(), signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 1)
    try:
        with pytest.raises(DeliveryInterrupted, match="execution_timeout ended the delivery") as caught:
            operator.execute(given)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert caught.value.retryable
    assert caught.value.report is not None
    report = given["ti"].xcoms["return_value"]
    assert report == caught.value.report.to_dict()
    assert report["delivered"] == len(connections.events("bloomreach")) > 0


def test_a_query_that_fails_half_way_leaves_a_report(
    connections: Any, run_dag: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    path = tmp_path / "shop.db"
    database = sqlite3.connect(path)
    database.execute("create table orders (n integer primary key)")
    database.executemany("insert into orders values (?)", [(n,) for n in range(1, 3001)])
    database.commit()
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    result = run_dag(
        """
from datetime import datetime, timezone
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

with DAG("half_way", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule=None):
    SqlToEventsOperator(
        task_id="sync", sql_conn_id="shop", conn_id="bloomreach_default",
        sql="select n, case when n > 2500 then abs(-9223372036854775808) else n end as amount from orders",
        mapping={"name": "paid", "identity": {"registered": "n"}},
    )
""",
        "half_way",
    )
    report = result.returned["sync"]
    assert result.states == {"sync": "failed"}
    assert 1000 <= report["delivered"] == len(connections.events("bloomreach")) <= 2500
    assert report["unsent"] == 0


# -- kills -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def mute(connections: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The vendor takes a request and says nothing; the event tells that it has one."""
    asked = threading.Event()

    async def wait(request: web.Request) -> web.Response:
        asked.set()
        await asyncio.sleep(ENDLESS)
        return web.Response()

    with odd_server(wait) as server:
        connection = {**connections.connection("bloomreach"), "host": server.url}
        monkeypatch.setenv("AIRFLOW_CONN_MUTE", json.dumps(connection))
        yield asked


OPERATORS: dict[str, Callable[[], Any]] = {
    "SendEventOperator": lambda: SendEventOperator(task_id="t", conn_id="mute", **event()),
    "SendEventOperator with entry": lambda: SendEventOperator(
        task_id="t", conn_id="mute", ensure_entry={"a": 1}, **event()
    ),
    "FilterByEntryOperator": lambda: FilterByEntryOperator(task_id="t", conn_id="mute", events=[event()]),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_a_kill_ends_whatever_an_operator_waits_for(name: str, mute: threading.Event) -> None:
    operator = OPERATORS[name]()
    killed: list[float] = []

    def kill() -> None:
        assert mute.wait(10)
        killed.append(time.monotonic())
        operator.on_kill()

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        with pytest.raises(DeliveryInterrupted):
            operator.execute(context())
        assert time.monotonic() - killed[0] < ENDLESS / 2
        killing.result(10)


def test_nothing_begins_after_a_stop(connections: Any) -> None:
    hook = EventsHook.for_connection("bloomreach_default")
    hook.stop()
    for call in (
        lambda: hook.send(event()),
        lambda: hook.upsert({"registered": "c"}, {"a": 1}),
        lambda: hook.lookup([{"registered": "c"}]),
        lambda: hook.deliver([event()]),
    ):
        with pytest.raises(DeliveryInterrupted):
            call()
    assert connections.requests("bloomreach") == []


def test_a_thread_that_hangs_holds_up_no_end(connections: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name look-up that takes for ever: `execution_timeout` ends the task all the same."""
    hanging, release = threading.Event(), threading.Event()

    def getaddrinfo(*_: Any, **__: Any) -> Any:
        hanging.set()
        release.wait(ENDLESS)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(
        runtime, "_new_loop", asyncio.new_event_loop
    )  # uvloop asks the system without a thread of Python's

    async def main() -> None:
        await asyncio.get_running_loop().getaddrinfo("vendor.test", 443)

    class Late(BaseException):
        """As Airflow's timeout is."""

    before = time.monotonic()

    async def late() -> None:
        looking = asyncio.ensure_future(main())
        await until(hanging.is_set, 10)
        looking.cancel()
        raise Late

    with pytest.raises(Late):
        runtime.on_own_loop(late)
    release.set()
    assert time.monotonic() - before < ENDLESS / 2


def test_records_of_a_source_that_fails_at_once_are_none(connections: Any) -> None:
    with pytest.raises(RuntimeError):
        list(EventRecords(broken(0, RuntimeError("no"))).records())
