"""`docs/security.md`, "What is stored where": every place is searched after a run of everything.

Real Airflow with its database, a vendor that repeats all it is told, and marked keys and customers. What the page says
may be in a place is in `MAY_HOLD`, and nowhere else.
"""

from __future__ import annotations

import importlib
import json
import logging
import sqlite3
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from airflow_provider_events.cli.main import main
from airflow_provider_events.triggers.entry import EntryTrigger
from airflow_provider_events.triggers.waiting_list import pack
from tests.conftest import HOME, IDENTITY_KEYS
from tests.hooks.test_echo import EXTRAS, KEY
from tests.hostile import MANNERS, HostileVendor, hostile_vendor
from tests.spellings import Marks

pytestmark = pytest.mark.airflow

VENDORS = list(IDENTITY_KEYS)
# By where they come from: a query, an XCom, a file, the conf of a DAG run, the DAG file itself.
CUSTOMERS = {
    origin: {
        "who": f"ada.zq{origin}@zq{number}{origin}.example",
        "street": f"{number} {origin}-qz Street, Łódź {origin}",
    }
    for number, origin in enumerate(("row", "xcom", "file", "conf", "literal"), 31)
}
MARKS = Marks({"key": KEY, **{f"{o} {name}": text for o, marks in CUSTOMERS.items() for name, text in marks.items()}})

# Table, column or task → whose customers. No place may hold a key.
MAY_HOLD = {
    "dag_run.conf": {"conf"},
    "xcom of collect": {"xcom"},
    "xcom of split": {"xcom"},
    "xcom of wait": {"xcom"},
    "serialized_dag.data": {"literal"},
    "dag_code.source_code": {"literal"},
}
AIRFLOW = ".".join(version("apache-airflow").split(".")[:2])
# What some Airflows log by themselves at DEBUG, by words of such a line.
MAY_LOG: Mapping[str, set[str]] = {
    "2.11": {"Updating task params": {"conf"}},
    "3.0": {"Updating task params": {"conf"}, "msg=MaskSecret(": {"key"}, "msg=SetXCom(": {"xcom"}},
}.get(AIRFLOW, {})
REJECTED = set(CUSTOMERS)  # in the event and the data of a line

DRY = """
from datetime import datetime, timezone
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_events.operators.events import SendEventsOperator

with DAG("dry_{vendor}", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule=None, catchup=False):
    SendEventsOperator(task_id="dry", conn_id="{vendor}_refusing", events={file!r}, dry_run=True)
"""
DAG = """
import json
import logging
from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.operators.entries import FilterByEntryOperator, UpsertEntryOperator
from airflow_provider_events.operators.events import SendEventOperator, SendEventsOperator
from airflow_provider_events.sensors.entry import EntryExistsSensor
from airflow_provider_events.transfers.sql_to_entries import SqlToEntriesOperator
from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

VENDOR, ID, MANNERS, FILE, MARKED = {vendor!r}, {id!r}, {manners!r}, {file!r}, {marked!r}
REJECTING, MISSING, ACCEPTING = (f"{{VENDOR}}_{{manner}}" for manner in ("rejecting", "missing", "accepting"))
LITERAL = {{"name": "paid", "identity": {{ID: MARKED["who"]}}, "properties": {{"street": MARKED["street"]}}}}
MAPPING = {{"name": "paid", "identity": {{ID: "who"}}, "timestamp": "at", "id": "id", "properties": ["street"]}}
ENTRY = {{"identity": {{ID: "who"}}, "attributes": ["street"]}}
ROWS = {{"sql_conn_id": "shop", "sql": "select * from orders order by id"}}
ANY = {{"max_rejected": 99, "batch_size": 1}}


def conns(first, last=None):
    return [f"{{VENDOR}}_{{manner}}" for manner in MANNERS[first:last]]


with DAG({dag_id!r}, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule=None, catchup=False):

    @task(show_return_value_in_logs=False)  # else Airflow logs it
    def collect():
        with open({given!r}) as file:
            return json.load(file)

    @task
    def own_code():
        hook = EventsHook.for_connection(REJECTING)
        try:
            hook.send(LITERAL)
        except Exception:
            logging.getLogger("mine").exception("it failed: %r", hook)
        hook.deliver([LITERAL] * 3, max_rejected=0)

    events = collect()
    who = {{ID: "{{{{ dag_run.conf['who'] }}}}"}}

    def sending():
        street = {{"street": "{{{{ dag_run.conf['street'] }}}}"}}
        one = SendEventOperator.partial(task_id="one", name="paid", identity=who, properties=street)
        one.expand(conn_id=conns(0, 2))
        SendEventsOperator.partial(task_id="many", events=events, **ANY).expand(conn_id=conns(2, 4))
        SqlToEventsOperator.partial(task_id="rows", mapping=MAPPING, **ROWS, **ANY).expand(conn_id=conns(4, 6))
        SqlToEventsOperator(task_id="keyed", conn_id=conns(6)[0], mapping=MAPPING, key_column="id", **ROWS)
        cursor = {{"cursor_column": "id", "initial_value": "earliest", "cursor_name": f"stored_{{VENDOR}}"}}
        SqlToEventsOperator(task_id="behind", conn_id=ACCEPTING, mapping=MAPPING, **cursor, **ROWS)
        SendEventsOperator(task_id="file", conn_id=REJECTING, events=FILE, **ANY)
        SendEventsOperator(task_id="written", conn_id=f"{{VENDOR}}_half", events=[LITERAL] * 3, **ANY)
        SendEventsOperator(
            task_id="held", conn_id=MISSING, events=events, on_missing_entry="wait", missing_entry_timeout=0.3
        )
        SendEventsOperator(task_id="pending", conn_id=MISSING, events=events, pending_path={pending!r}, **ANY)
        SendEventsOperator(task_id="of_no_kind", conn_id=REJECTING, events="{{{{ dag_run.conf['who'] }}}}")
        SendEventsOperator(task_id="unmapped", conn_id=REJECTING, events=events, mapping=MAPPING, **ANY)
        SendEventOperator(task_id="ensured", conn_id=MISSING, ensure_entry=True, **LITERAL)
        own_code()

    def customers():
        attributes = {{"street": MARKED["street"]}}
        entry = UpsertEntryOperator.partial(task_id="entry", identity=who, attributes=attributes)
        entry.expand(conn_id=conns(6, 8))
        SqlToEntriesOperator(task_id="entries", conn_id=REJECTING, mapping=ENTRY, **ROWS, **ANY)
        split = FilterByEntryOperator.partial(task_id="split", events=events)
        split.expand(conn_id=[ACCEPTING, *conns(8, 9)])
        FilterByEntryOperator(task_id="misread", conn_id=ACCEPTING, events=events, mapping=MAPPING)
        identities = events.map(lambda event: event["identity"])
        wait = {{"identities": identities, "timeout": 0.5, "poke_interval": 0.2}}
        for mode, arguments in {modes!r}.items():
            for conn_id in {{ACCEPTING, MISSING, conns(9)[0]}}:
                EntryExistsSensor(task_id=f"wait_{{mode}}_{{conn_id}}", conn_id=conn_id, **wait, **arguments)

    {part}()
"""


class Found(NamedTuple):
    """A mark where none may be."""

    place: str
    marks: tuple[str, ...]
    around: str


@pytest.fixture(scope="module")
def hostile() -> Iterator[HostileVendor]:
    with hostile_vendor() as server:
        yield server


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where rejected events and checkpoints go."""
    for option in ("rejected_path", "checkpoint_path"):
        (tmp_path / option).mkdir()
        monkeypatch.setenv(f"AIRFLOW__EVENTS__{option.upper()}", str(tmp_path / option))
    return tmp_path


@pytest.fixture
def connections_to(hostile: HostileVendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostileVendor:
    """`vibetrace_rejecting` and so on, and a shop."""
    monkeypatch.setattr("airflow_provider_events.delivery.pacing.RetryPolicy.backoff", lambda *_: 400.0)
    for vendor in VENDORS:
        for manner in MANNERS:
            monkeypatch.setenv(
                f"AIRFLOW_CONN_{vendor}_{manner}".upper(), json.dumps(connection(hostile, vendor, manner))
            )
    shop = tmp_path / "shop.db"
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "sqlite", "host": str(shop)}))
    with closing(sqlite3.connect(shop)) as database:
        database.execute("create table orders (id integer primary key, who text, at text, street text)")
        row = CUSTOMERS["row"]
        for number in range(1, 4):
            database.execute("insert into orders values (?, ?, '2026-03-01T09:00:00Z', ?)", (number, *row.values()))
        database.commit()
    return hostile


def connection(hostile: HostileVendor, vendor: str, manner: str) -> dict[str, Any]:
    return {
        "conn_type": vendor,
        "host": hostile.url(manner),
        "login": "key-id" if vendor == "bloomreach" else None,
        "password": KEY,
        "extra": EXTRAS[vendor],
    }


def dag(vendor: str, part: str, folder: Path) -> str:
    """The run of everything, as a DAG file."""
    key = IDENTITY_KEYS[vendor]
    manners = sorted(MANNERS)
    turn = 3 * VENDORS.index(vendor)
    events = [event(key, "xcom")] * 3
    file = folder / "events.jsonl"
    file.write_text("".join(json.dumps(event(key, "file")) + "\n" for _ in range(3)))
    modes = {"poke": {}, "reschedule": {"mode": "reschedule"}, "deferred": {"deferrable": True}}
    given = folder / "collected.json"
    given.write_text(json.dumps(events))
    return DAG.format(
        dag_id=f"stored_{vendor}_{part}",
        part=part,
        vendor=vendor,
        id=key,
        manners=manners[turn:] + manners[:turn],
        file=str(file),
        marked=CUSTOMERS["literal"],
        given=str(given),
        pending=str(folder / "pending"),
        modes=modes,
    )


def event(key: str, origin: str) -> dict[str, Any]:
    marked = CUSTOMERS[origin]
    return {
        "name": "paid",
        "identity": {key: marked["who"]},
        "timestamp": "2026-03-01T09:00:00Z",
        "properties": {"street": marked["street"], "nested": [{"who": marked["who"]}]},
    }


def but(origins: set[str], marks: set[str]) -> tuple[str, ...]:
    """Those of the marks that are of other origins."""
    return tuple(sorted(mark for mark in marks if mark.split()[0] not in origins))


def in_database() -> Iterator[Found]:
    """Every row of every table of Airflow's database, whatever it is packed in; and its files, byte by byte."""
    freed: set[str] = set()
    with closing(sqlite3.connect(HOME / "airflow.db", timeout=30)) as database:
        database.text_factory = bytes
        tables = [name.decode() for (name,) in database.execute("select name from sqlite_master where type='table'")]
        assert {"dag_run", "task_instance", "xcom", "connection", "trigger"} <= set(tables)
        for table in tables:
            rows = database.execute(f'select * from "{table}"')
            columns = [name for name, *_ in rows.description]
            for row in rows:
                values = dict(zip(columns, row, strict=True))
                for column, value in values.items():
                    if value is None or not (marks := MARKS.found(value)):
                        continue
                    task = values["task_id"].decode().split("_")[0] if table == "xcom" else ""
                    place = f"xcom of {task}" if task else f"{table}.{column}"
                    freed |= marks
                    if wrong := but(MAY_HOLD.get(place, set()), marks):
                        yield Found(place, wrong, str(value)[:300])
    for path in HOME.glob("airflow.db*"):
        if left := MARKS.found(path.read_bytes()) - freed:
            yield Found(path.name, tuple(sorted(left)), "")


def in_files(folder: Path, may_hold: Callable[[Path], set[str]] = lambda path: set()) -> Iterator[Found]:
    """Every file below a folder, and every name."""
    for path in folder.rglob("*"):
        marks = MARKS.found(str(path)) | (MARKS.found(path.read_bytes()) if path.is_file() else set())
        if wrong := but(may_hold(path), marks):
            yield Found(str(path), wrong, path.read_text(errors="replace")[:300])


def in_reasons(folder: Path) -> Iterator[Found]:
    """What a line of rejected events says beside the event and its row."""
    for path in folder.rglob("*.jsonl"):
        for line in map(json.loads, path.read_text().splitlines()):
            said = {name: value for name, value in line.items() if name not in ("event", "data")}
            if wrong := but(set(), MARKS.found(json.dumps(said, ensure_ascii=False))):
                yield Found(str(path), wrong, repr(said))


def in_text(place: str, text: str) -> Iterator[Found]:
    """Lines of a log, or what a command printed."""
    for line in text.splitlines():
        origins = {origin for words, may in MAY_LOG.items() if words in line for origin in may}
        if wrong := but(origins, MARKS.found(line)):
            yield Found(place, wrong, line[:1000])


def run_command(*arguments: str) -> None:
    """A command of Airflow's, in this process."""
    parser = importlib.import_module("airflow.cli.cli_parser").get_parser()
    parsed = parser.parse_args(arguments)
    with suppress(SystemExit):
        parsed.func(parsed)


@pytest.mark.parametrize("part", ["sending", "customers"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_after_a_run_of_everything_no_place_holds_what_it_may_not(
    vendor: str,
    part: str,
    connections_to: HostileVendor,
    folders: Path,
    run_dag: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    connections_to.heard.clear()
    caplog.set_level(logging.DEBUG)
    result = run_dag(dag(vendor, part, folders), f"stored_{vendor}_{part}", run_conf=CUSTOMERS["conf"])
    assert result.states["collect"] == "success"
    rejected = list((folders / "rejected_path").rglob("*.jsonl"))
    for path in rejected[:3]:
        main(
            [
                "replay",
                str(path),
                "--conn-id",
                f"{vendor}_half",
                "--max-rejected",
                "9",
                "--rejected-path",
                str(path.parent),
            ]
        )
    monkeypatch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")
    for manner in MANNERS:
        run_command("connections", "test", f"{vendor}_{manner}")
    printed = "".join(capfd.readouterr())

    found = [*in_text("log", caplog.text), *in_text("output", printed), *in_database()]
    found += in_files(folders / "rejected_path", lambda path: REJECTED)
    found += in_reasons(folders / "rejected_path")
    found += in_files(folders / "checkpoint_path")
    found += in_files(folders / "pending", lambda path: {"xcom"})
    found += in_files(HOME / "logs")
    assert not found, "\n".join(map(str, found))
    sent = {"row", "xcom", "conf", *(("file", "literal") if part == "sending" else ())}
    if (vendor, part) == ("embeddables", "customers"):
        sent = set()  # it documents no upserts, and its entries are looked up by time
    assert bool(rejected) is bool(sent)
    assert {"key", *(f"{origin} who" for origin in sent)} <= MARKS.found("\n".join(connections_to.heard))


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_dry_run_shows_its_first_request_in_the_log_and_nowhere_else(
    vendor: str,
    connections_to: HostileVendor,
    folders: Path,
    run_dag: Any,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    connections_to.heard.clear()
    caplog.set_level(logging.DEBUG)
    file = folders / "events.jsonl"
    file.write_text(json.dumps(event(IDENTITY_KEYS[vendor], "file")) + "\n")
    result = run_dag(DRY.format(vendor=vendor, file=str(file)), f"dry_{vendor}")
    assert result.states["dry"] == "success"
    assert connections_to.heard == []
    shown = [*in_text("log", caplog.text), *in_text("output", "".join(capfd.readouterr()))]
    assert shown
    assert all("dry run, nothing was sent" in found.around and "key" not in found.marks for found in shown)
    assert not [*in_database(), *in_files(folders / "rejected_path"), *in_files(folders / "checkpoint_path")]


@pytest.fixture
def fernet_key(airflow_database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Airflow's key for its own database, which an installation has, and these tests mostly not."""
    from airflow.models import crypto

    forget = getattr(crypto.get_fernet, "cache_clear", lambda: None)  # Airflow 3; before, it is kept in a variable
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", b64encode(b"k" * 32).decode())
    monkeypatch.setattr(crypto, "_fernet", None, raising=False)
    forget()
    yield
    forget()


def test_rows_of_triggers_and_connections_are_encrypted_and_a_trigger_knows_no_key(
    fernet_key: None, hostile: HostileVendor
) -> None:
    from airflow.models import Connection
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session

    identities = pack([{"userId": CUSTOMERS["xcom"]["who"]}])
    row: Any = Trigger.from_object(EntryTrigger(conn_id="c", needed=1, deadline=0.0, identities=identities))
    assert MARKS.found(json.dumps(row.kwargs, default=str)) == {"xcom who"}, "the packed identities, and no key"
    rows = [row, Connection(conn_id="stored", **connection(hostile, "webengage", "missing"))]
    with create_session() as session:
        session.add_all(rows)
    found = list(in_database())
    with create_session() as session:
        for row in rows:
            session.delete(session.merge(row))
    assert not found
