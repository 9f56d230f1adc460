"""Errors with all their frames and variables, as error trackers print them, hold neither key nor customer."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import pytest

from airflow_provider_events._compat import AirflowException
from airflow_provider_events.contract import Answer, EventColumns, EventContent, Request
from airflow_provider_events.delivery.batching import Batch
from airflow_provider_events.delivery.encoding import Chunk, EncodedRow
from airflow_provider_events.events import Event, Record, Rejection
from airflow_provider_events.exceptions import EventsError, InvalidEvent
from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.http.contract import Endpoint
from airflow_provider_events.operators.entries import FilterByEntryOperator
from airflow_provider_events.operators.events import SendEventOperator, SendEventsOperator
from airflow_provider_events.sensors.entry import EntryExistsSensor
from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator
from tests.conftest import IDENTITY_KEYS
from tests.delivery.harness import VENDORS
from tests.http.conftest import Certificates

KEY = "k3y-Mark-of-the-connection"
CUSTOMER = "ada.mark@example.com"


def event_of(vendor: str, **changes: Any) -> dict[str, Any]:
    identity = {IDENTITY_KEYS[vendor]: CUSTOMER}
    return {"name": "signed_up", "identity": identity, "properties": {"street": CUSTOMER}, **changes}


class Printed(dict[str, Any]):
    """An operator's context; Airflow's own frames hold it, too."""

    def __repr__(self) -> str:
        return "<Context>"


def context() -> Any:
    """What an operator is given."""
    return Printed(ti=Instance())


class Instance:
    """A task instance, as far as operators look at it."""

    dag_id = run_id = task_id = "x"
    map_index, try_number, max_tries = -1, 1, 0

    def xcom_push(self, **_: Any) -> None:
        """Forget it."""


CALLS: dict[str, Callable[[str], Any]] = {
    "send": lambda vendor: EventsHook.for_connection("marked").send(event_of(vendor)),
    "asend": lambda vendor: asyncio.run(EventsHook.for_connection("marked").asend(event_of(vendor))),
    "invalid": lambda vendor: EventsHook.for_connection("marked").send(event_of(vendor, id=1.5)),
    "unknown field": lambda vendor: EventsHook.for_connection("marked").send(event_of(vendor, **{CUSTOMER: 1})),
    "deliver": lambda vendor: EventsHook.for_connection("marked").deliver([event_of(vendor)] * 3),
    "upsert": lambda vendor: EventsHook.for_connection("marked").upsert({"email": CUSTOMER}, {"street": CUSTOMER}),
    "lookup": lambda vendor: EventsHook.for_connection("marked").lookup([{"email": CUSTOMER}]),
    "SendEventOperator": lambda vendor: SendEventOperator(task_id="t", conn_id="marked", **event_of(vendor)).execute(
        context()
    ),
    "SendEventsOperator": lambda vendor: SendEventsOperator(
        task_id="t", conn_id="marked", events=[event_of(vendor)]
    ).execute(context()),
    "FilterByEntryOperator": lambda vendor: FilterByEntryOperator(
        task_id="t", conn_id="marked", events=[event_of(vendor)]
    ).execute(context()),
    "EntryExistsSensor": lambda vendor: EntryExistsSensor(
        task_id="t", conn_id="marked", identity={"email": CUSTOMER}, soft_fail=True
    ).poke(context()),
}


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and whatever is behind it, shown or not."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("trouble", ["refused", "unreachable", "misconfigured"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_no_variable_of_any_frame_holds_a_key_or_a_customer(
    vendor: str, trouble: str, connections: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_events.delivery.pacing.RetryPolicy.backoff", lambda *_: 400.0)
    connection = {**connections.connection(vendor), "password": KEY}
    if vendor == "webengage":
        connection["extra"] = {**connection["extra"], "existence_check": "portability"}
    if trouble == "unreachable":
        connection["host"] = "http://127.0.0.1:1"
    if trouble == "misconfigured":
        connection["extra"] = {**connection["extra"], "unknown": KEY}
    monkeypatch.setenv("AIRFLOW_CONN_MARKED", json.dumps(connection))
    for name, call in CALLS.items():
        assert_alone(partial(call, vendor), name)


def assert_alone(call: Callable[[], Any], name: str) -> None:
    """It fails with one error, whose frames below this file show neither key nor customer."""
    with pytest.raises((EventsError, AirflowException)) as caught:
        call()
    assert len(list(chain(caught.value))) == 1, name
    below = caught.value.__traceback__
    while below and below.tb_frame.f_code.co_filename == __file__:
        below = below.tb_next
    trace = traceback.TracebackException(type(caught.value), caught.value, below, capture_locals=True)
    shown = "".join(trace.format())
    for private in (KEY, CUSTOMER, quote(CUSTOMER)):
        assert private not in shown, name


@pytest.mark.parametrize("trouble", ["untrusted", "silent", "closed", "no HTTP"])
def test_nor_where_the_network_is_at_fault(
    trouble: str, connections: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("airflow_provider_events.delivery.pacing.RetryPolicy.backoff", lambda *_: 400.0)
    connection = {**connections.connection("bloomreach"), "password": KEY}
    connection["extra"] = {**connection["extra"], "timeout": 0.2}
    tls = Certificates(tmp_path).server() if trouble == "untrusted" else None
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with suppress(OSError):
                    if tls:
                        client = tls.wrap_socket(client, server_side=True)
                    if trouble == "no HTTP":
                        client.sendall(client.recv(65536) + b"\r\n\r\n")
                    if trouble == "silent":
                        held.append(client)
                        continue
                client.close()

        Thread(target=serve, daemon=True).start()
        connection["host"] = f"http{'s' if tls else ''}://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("AIRFLOW_CONN_MARKED", json.dumps(connection))
        for name, call in CALLS.items():
            assert_alone(partial(call, "bloomreach"), name)
        server.shutdown(socket.SHUT_RDWR)
    for client in held:
        client.close()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sql": "SELECT nothing FROM people"},
        {"sql": "SELECT * FROM people WHERE email = :e", "parameters": {"f": CUSTOMER}},
        {"sql": "SELECT email, json_extract(email, '$.a') AS at FROM people"},
        {"key_column": "email"},
        {"key_column": "nothing"},
        {"mapping": {"name": "x", "identity": {"registered": "nothing"}}},
    ],
)
def test_nor_where_the_rows_are_at_fault(
    changes: dict[str, Any], connections: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "people.db")) as database:
        database.execute("CREATE TABLE people (email TEXT, at TEXT)")
        database.executemany("INSERT INTO people VALUES (?, ?)", [(CUSTOMER, CUSTOMER)] * 3)
        database.commit()
    monkeypatch.setenv("AIRFLOW_CONN_PEOPLE", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "people.db")}))
    monkeypatch.setenv("AIRFLOW_CONN_MARKED", json.dumps(connections.connection("bloomreach")))
    mapping = {"name": "x", "identity": {"registered": "email"}, "timestamp": "at"}
    options = {"sql": "SELECT * FROM people", "mapping": mapping, **changes}
    task = SqlToEventsOperator(task_id="t", conn_id="marked", sql_conn_id="people", **options)
    assert_alone(lambda: task.execute(context()), str(changes))


@pytest.mark.parametrize(
    ("vendor", "fields"),
    [
        ("embeddables", "'API key' (password), 'Project ID' (extra key 'project_id')"),
        ("vibetrace", "'API key' (password)"),
        ("webengage", "(password), 'License code' (extra key 'license_code')"),
        ("bloomreach", "'API key ID' (login), 'API secret or public token' (password), 'Project token' (extra key"),
    ],
)
@pytest.mark.parametrize("kind", ["send", "deliver", "SendEventOperator", "SendEventsOperator", "test"])
def test_a_refusal_says_which_connection_where_it_leads_and_what_to_look_at(
    kind: str, vendor: str, fields: str, connections: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MARKED", json.dumps({**connections.connection(vendor), "password": KEY}))
    url = EventsHook.for_connection("marked").vendor.base_url
    if kind == "test":
        good, said = EventsHook.for_connection("marked").test_connection()
        assert not good
    else:
        with pytest.raises((EventsError, AirflowException)) as caught:
            CALLS[kind](vendor)
        said = str(caught.value)
        assert said.startswith(f"connection 'marked': {EventsHook.for_connection('marked').vendor.label} at {url}: ")
    assert url in said
    assert fields in said


def test_a_wrong_single_event_says_which_connection(connections: Any) -> None:
    where = r"^connection 'vibetrace_default': Vibetrace at .*: identity: "
    with pytest.raises(InvalidEvent, match=where) as caught:
        EventsHook.for_connection("vibetrace_default").send({"name": "x", "identity": {}})
    assert caught.value.field == "identity"


def test_what_carries_customers_prints_as_its_size() -> None:
    event = Event("signed_up", {"email": CUSTOMER}, None, {"p": CUSTOMER})
    data = CUSTOMER.encode()
    record = Record(1, event, {"email": CUSTOMER})
    rejection = Rejection(1, "invalid", "no")
    row = EncodedRow(1, CUSTOMER, data, record)
    carriers = [
        event,
        record,
        row,
        EncodedRow(1, CUSTOMER, b"", record, rejection),
        Chunk([1], [CUSTOMER], [data], [record], {}),
        Batch.of([row], ()),
        EventContent("v", "n", {"email": CUSTOMER}, None, {"p": CUSTOMER}, CUSTOMER),
        EventColumns("v", ["n"], [{"email": CUSTOMER}], None, [{"p": CUSTOMER}], [CUSTOMER]),
        Request("POST", f"/user/{CUSTOMER}", data, {"Authorization": KEY}),
        Answer(200, {"x": KEY}, data),
        Endpoint("https://api.example.com", {"Authorization": KEY}, proxy=f"http://u:{KEY}@p:1"),
    ]
    shown = repr(carriers)
    for private in (CUSTOMER, KEY):
        assert private not in shown
    assert f"{len(data)} bytes" in shown
