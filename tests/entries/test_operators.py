"""Upserts, splitting, and entries ensured before events, in real Airflow against the sandbox."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from airflow_provider_events.delivery import deferred
from airflow_provider_events.exceptions import ConfigurationError, InvalidEvent, MappingError
from airflow_provider_events.hooks import ensuring
from airflow_provider_events.operators.entries import UpsertEntryOperator, split_by_entry
from airflow_provider_events.sandbox import Sandbox
from airflow_provider_events.transfers.sql_to_entries import SqlToEntriesOperator
from tests.conftest import IDENTITY_KEYS
from tests.delivery.harness import odd_server
from tests.entries.vendors import VENDORS, add, connection, identity

pytestmark = pytest.mark.airflow

UPSERTING = [vendor for vendor in VENDORS if vendor != "embeddables"]
HEAD = """
from datetime import datetime, timezone
from airflow.providers.common.compat.sdk import DAG, task
from airflow_provider_events.operators.entries import FilterByEntryOperator, UpsertEntryOperator, split_by_entry
from airflow_provider_events.operators.events import SendEventOperator, SendEventsOperator
from airflow_provider_events.transfers.sql_to_entries import SqlToEntriesOperator
"""


@pytest.fixture
def vendors(events_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The sandbox, with connections that allow look-ups."""
    for vendor in VENDORS:
        monkeypatch.setenv(f"AIRFLOW_CONN_{vendor.upper()}_DEFAULT", connection(events_sandbox, vendor))
    return events_sandbox


def dag(dag_id: str, tasks: str) -> str:
    return (
        HEAD
        + f"""
with DAG({dag_id!r}, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule=None, params={{"n": "ada"}}):
    {tasks}
"""
    )


def bodies(sandbox: Sandbox, vendor: str) -> list[Any]:
    """What was written, body by body."""
    return [json.loads(r.body or b"null") for r in sandbox.requests(vendor) if r.method != "GET"]


# -- upserts -----------------------------------------------------------------------------------------------------------

WIRES: dict[str, tuple[str, Any]] = {
    "vibetrace": ("PUT /user/ada@example.com?upsert=true", {"city": "London", "email_opt": True}),
    "webengage": (
        "POST /v1/accounts/~sandbox/users",
        {"userId": "ada@example.com", "attributes": {"city": "London", "email_opt": True}},
    ),
}


@pytest.mark.parametrize("vendor", UPSERTING)
def test_one_entry(vendor: str, vendors: Sandbox, run_dag: Any) -> None:
    key = IDENTITY_KEYS[vendor]
    tasks = (
        f'UpsertEntryOperator(task_id="upsert", conn_id="{vendor}_default",'
        f' identity={{"{key}": "{{{{ params.n }}}}@example.com"}}, attributes={{"city": "London", "email_opt": True}})'
    )
    result = run_dag(dag(f"one_{vendor}", tasks), f"one_{vendor}")
    assert (result.returned["upsert"]["read"], result.returned["upsert"]["delivered"]) == (1, 1)
    [request] = vendors.requests(vendor)
    [body] = bodies(vendors, vendor)
    if vendor in WIRES:
        assert (f"{request.method} {request.path}", body) == WIRES[vendor]
    else:
        assert request.path.endswith("/customers")
        assert body.pop("update_timestamp") > 1.7e9
        assert body == {
            "customer_ids": {"registered": "ada@example.com"},
            "properties": {"city": "London", "email_opt": True},
        }
    assert vendors.summary()[vendor]["entries"] == 1


@pytest.mark.parametrize("vendor", UPSERTING)
def test_entries_from_an_xcom_travel_in_bulk(vendor: str, vendors: Sandbox, run_dag: Any) -> None:
    key = IDENTITY_KEYS[vendor]
    tasks = f"""
    @task
    def collect():
        return [{{"identity": {{"{key}": f"c{{n}}@example.com"}}, "attributes": {{"n": n}}}} for n in range(120)]

    UpsertEntryOperator(task_id="upsert", conn_id="{vendor}_default", entries=collect())
"""
    report = run_dag(dag(f"bulk_{vendor}", tasks), f"bulk_{vendor}").returned["upsert"]
    assert (report["read"], report["delivered"], report["rejected"]) == (120, 120, 0)
    assert report["requests"] == {"vibetrace": 120, "webengage": 5, "bloomreach": 3}[vendor]
    assert vendors.summary()[vendor]["entries"] == 120
    assert not vendors.violations(vendor)


@pytest.mark.parametrize("vendor", UPSERTING)
def test_entries_from_a_query(
    vendor: str, vendors: Sandbox, run_dag: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "crm.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE customers (id INTEGER PRIMARY KEY, email TEXT, city TEXT)")
        rows = [(f"c{n}@example.com", "London") for n in range(60)] + [(None, "Nowhere")]
        database.executemany("INSERT INTO customers (email, city) VALUES (?, ?)", rows)
    monkeypatch.setenv("AIRFLOW_CONN_CRM", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    tasks = (
        f'SqlToEntriesOperator(task_id="upsert", conn_id="{vendor}_default", sql_conn_id="crm", key_column="id",'
        f' sql="SELECT * FROM customers", max_rejected=1,'
        f' mapping={{"identity": {{"{IDENTITY_KEYS[vendor]}": "email"}}, "attributes": {{"home": "city"}}}})'
    )
    report = run_dag(dag(f"sql_{vendor}", tasks), f"sql_{vendor}").returned["upsert"]
    assert (report["read"], report["delivered"], report["rejected"]) == (61, 60, 1)
    assert vendors.summary()[vendor]["entries"] == 60


def test_embeddables_documents_no_upsert(vendors: Sandbox, run_dag: Any) -> None:
    tasks = (
        'UpsertEntryOperator(task_id="upsert", conn_id="embeddables_default", identity={"email": "a@b.c"}, retries=2)'
    )
    assert run_dag(dag("no_upsert", tasks), "no_upsert").states == {"upsert": "failed"}
    assert not vendors.requests("embeddables")


def test_bad_entries_are_rejected_one_by_one(vendors: Sandbox, run_dag: Any) -> None:
    tasks = """
    @task
    def collect():
        good = [{"identity": {"registered": f"c{n}"}, "attributes": {"n": n}} for n in range(3)]
        bad = [{"identity": {"registered": "null"}, "attributes": {"n": 1}}, {"identity": {"registered": "c"}},
               {"registered": "c"}, "c", {"identity": {}, "attributes": {}}]
        return good + bad

    UpsertEntryOperator(task_id="upsert", conn_id="bloomreach_default", entries=collect(), max_rejected=5)
"""
    report = run_dag(dag("bad_entries", tasks), "bad_entries").returned["upsert"]
    assert (report["read"], report["delivered"], report["rejected"]) == (8, 3, 5)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, ConfigurationError),
        ({"identity": {"email": "a"}, "entries": []}, ConfigurationError),
        ({"entries": [], "attributes": {"a": 1}}, ConfigurationError),
        ({"entries": [], "mapping": {"identity": {"email": "e"}, "name": "x"}}, MappingError),
        ({"entries": [], "mapping": {"attributes": ["a"]}}, MappingError),
        ({"entries": [], "mapping": "email"}, MappingError),
    ],
)
def test_arguments_are_checked_while_parsing(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        UpsertEntryOperator(task_id="upsert", conn_id="vibetrace_default", **arguments)
    if "mapping" in arguments:
        with pytest.raises(error):
            SqlToEntriesOperator(
                task_id="upsert", conn_id="c", sql_conn_id="d", sql="SELECT 1", mapping=arguments["mapping"]
            )


# -- ensured before tracking -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", UPSERTING)
@pytest.mark.parametrize("ensured", [False, True])
def test_entries_are_ensured_only_when_asked_to(vendor: str, ensured: bool, vendors: Sandbox, run_dag: Any) -> None:
    key = IDENTITY_KEYS[vendor]
    dag_id = f"ensured_{vendor}_{ensured}"
    option = ', ensure_entry={"source": "shop"}' if ensured else ""
    tasks = f"""
    SendEventsOperator(
        task_id="track", conn_id="{vendor}_default", on_missing_entry="skip"{option},
        events=[{{"name": "paid", "identity": {{"{key}": f"c{{n % 10}}@example.com"}}, "id": n}} for n in range(40)],
    )
"""
    report = run_dag(dag(dag_id, tasks), dag_id).returned["track"]
    assert report["delivered"] == (40 if ensured or vendor != "vibetrace" else 0)
    upserts = [
        r for r in vendors.requests(vendor) if r.path.endswith(("users", "upsert=true", "/batch")) and not r.events
    ]
    assert len(upserts) == ({"vibetrace": 10, "webengage": 1, "bloomreach": 1}[vendor] if ensured else 0)
    assert vendors.summary()[vendor]["strays"] == (10 if vendor == "bloomreach" and not ensured else 0)


def test_a_single_event_can_ensure_its_entry(vendors: Sandbox, run_dag: Any) -> None:
    tasks = (
        'SendEventOperator(task_id="track", conn_id="vibetrace_default", name="paid",'
        ' identity={"email": "{{ params.n }}@example.com"}, ensure_entry=True)'
    )
    assert run_dag(dag("ensured_one", tasks), "ensured_one").states == {"track": "success"}
    assert [r.method for r in vendors.requests("vibetrace")] == ["PUT", "POST"]
    assert json.loads(vendors.requests("vibetrace")[0].body or b"") == {}


class Slow:
    """A vendor that takes upserts at once, and sees the user at the third event."""

    def __init__(self, misses: int = 2) -> None:
        self.misses = misses
        self.requests: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """As documented."""
        self.requests.append(request.method)
        if request.method == "PUT":
            return web.json_response({"results": {"message": "User updated", "email": "ada@example.com"}})
        if self.requests.count("POST") <= self.misses:
            missing = {"message": "User not found", "description": "There is no such user"}
            return web.json_response({"errors": [missing]}, status=404)
        return web.json_response({"results": {"message": "Event created"}})


SENDING = {
    "one": 'SendEventOperator(task_id="track", conn_id="slow", name="paid", identity={"email": "ada@example.com"}, %s)',
    "many": (
        'SendEventsOperator(task_id="track", conn_id="slow", %s,'
        ' events=[{"name": "paid", "identity": {"email": "ada@example.com"}, "id": "1"}])'
    ),
    "skip": (
        'SendEventsOperator(task_id="track", conn_id="slow", on_missing_entry="skip", %s,'
        ' events=[{"name": "paid", "identity": {"email": "ada@example.com"}, "id": "1"}])'
    ),
    "fail": (
        'SendEventsOperator(task_id="track", conn_id="slow", on_missing_entry="fail", ordering="identity", %s,'
        ' events=[{"name": "paid", "identity": {"email": "ada@example.com"}, "id": "1"}])'
    ),
}


@pytest.mark.parametrize("sending", SENDING)
@pytest.mark.parametrize("ends", ["seen", "never seen", "not ensured"])
def test_an_entry_made_just_before_may_be_seen_a_little_later(
    sending: str, ends: str, run_dag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferred, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(ensuring, "ENTRY_DELAY_SECONDS", 30.0 if ends == "seen" else 0.3)
    vendor = Slow(2 if ends == "seen" else 1000)
    tasks = SENDING[sending] % ("retries=0" if ends == "not ensured" else "ensure_entry=True, retries=0")
    with odd_server(vendor.answer) as server:
        known = {"conn_type": "vibetrace", "host": server.url, "password": "vt"}
        monkeypatch.setenv("AIRFLOW_CONN_SLOW", json.dumps(known))
        dag_id = f"slow_{sending}_{ends.replace(' ', '_')}"
        states = run_dag(dag(dag_id, tasks), dag_id).states
    assert states == {"track": "success" if ends == "seen" or sending == "skip" else "failed"}
    if ends == "seen":
        assert vendor.requests == ["PUT", "POST", "POST", "POST"]
    elif ends == "never seen":
        assert vendor.requests.count("POST") in range(2, 6)  # as many as a busy machine gets done in that time
    else:
        assert vendor.requests == ["POST"]


def test_a_dry_run_ensures_nothing(vendors: Sandbox, run_dag: Any) -> None:
    tasks = (
        'SendEventsOperator(task_id="track", conn_id="vibetrace_default", ensure_entry=True, dry_run=True,'
        ' events=[{"name": "paid", "identity": {"email": "a@b.c"}}])'
    )
    assert run_dag(dag("ensured_dry", tasks), "ensured_dry").states == {"track": "success"}
    assert not vendors.requests("vibetrace")


def test_bloomreach_makes_no_customer_without_an_attribute(vendors: Sandbox, run_dag: Any) -> None:
    tasks = (
        'SendEventsOperator(task_id="track", conn_id="bloomreach_default", ensure_entry=True, retries=2,'
        ' events=[{"name": "paid", "identity": {"registered": "c"}}])'
    )
    assert run_dag(dag("ensured_bare", tasks), "ensured_bare").states == {"track": "failed"}
    assert not vendors.requests("bloomreach")


# -- splitting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", VENDORS)
def test_events_are_told_apart(vendor: str, vendors: Sandbox, run_dag: Any) -> None:
    add(vendors, vendor, ["a", "b"])
    key = IDENTITY_KEYS[vendor]
    tasks = f"""
    @task
    def collect():
        who = enumerate("axbya")
        return [{{"name": "paid", "identity": {{"{key}": f"{{c}}@example.com"}}, "id": n}} for n, c in who]

    split = FilterByEntryOperator(task_id="split", conn_id="{vendor}_default", events=collect())

    @task
    def ids(events):
        return [event["id"] for event in events]

    ids.override(task_id="existing")(split.output["existing"])
    ids.override(task_id="missing")(split.output["missing"])
"""
    returned = run_dag(dag(f"split_{vendor}", tasks), f"split_{vendor}").returned
    assert returned["split"] == {"existing": 3, "missing": 2}
    assert (returned["existing"], returned["missing"]) == ([0, 2, 4], [1, 3])
    if vendor != "embeddables":
        assert len(vendors.requests(vendor)) == 4  # the customer of two events is asked for once


def test_rows_are_told_apart_by_their_mapping(vendors: Sandbox) -> None:
    add(vendors, "vibetrace", ["a"])
    rows = [{"mail": "a@example.com", "x": 1}, {"mail": "b@example.com", "x": 2}]
    mapping = {"name": "paid", "identity": {"email": "mail"}}
    split = split_by_entry("vibetrace_default", rows, mapping)
    assert split == {"existing": rows[:1], "missing": rows[1:]}
    assert split_by_entry("vibetrace_default", []) == {"existing": [], "missing": []}


@pytest.mark.parametrize("bad", [{"name": "x"}, {"name": "x", "identity": {"phone": "1"}}, "x", None])
def test_an_event_without_a_usable_identity_is_named(bad: Any, vendors: Sandbox) -> None:
    events = [{"name": "x", "identity": {"email": "a@example.com"}}, bad]
    with pytest.raises(InvalidEvent, match=r"\\[1\\]".replace("\\\\", "\\")):
        split_by_entry("vibetrace_default", events)
    assert not vendors.requests("vibetrace")


def test_an_outage_tells_nothing_apart(vendors: Sandbox, run_dag: Any) -> None:
    vendors.fault("status", vendor="vibetrace", status=401)
    tasks = (
        'FilterByEntryOperator(task_id="split", conn_id="vibetrace_default", retries=2,'
        ' events=[{"name": "x", "identity": {"email": "a@example.com"}}])'
    )
    assert run_dag(dag("split_refused", tasks), "split_refused").states == {"split": "failed"}


def test_the_hook_answers_yes_or_no(vendors: Sandbox) -> None:
    from airflow_provider_events.hooks.base import EventsHook

    for vendor in VENDORS:
        add(vendors, vendor, ["a"])
        hook = EventsHook.for_connection(f"{vendor}_default")
        assert hook.entry_exists(identity(vendor, "a"))
        assert not hook.entry_exists(identity(vendor, "b"))
