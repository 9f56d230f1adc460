"""Runs of a sync by cursor, one after the other, with Airflow's stores in memory: a database, a vendor, a clock."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_events.hooks import cursor_store
from airflow_provider_events.sources.cursor_bounds import Planner
from airflow_provider_events.sources.incremental import CursorRecords
from airflow_provider_events.sources.passage import Part, Passage
from airflow_provider_events.transfers.sql_to_events import SqlDeliveryOperator, SqlToEventsOperator
from tests.delivery.harness import number_of
from tests.servers import Database

NAME = "cursor:d.sync"
MAPPING = {
    "name": "paid",
    "identity": {"registered": "customer"},
    "timestamp": "at",
    "id": "n",
    "properties": ["n"],
    "timezone": "Europe/Bucharest",
}


class Down(Exception):
    """What a store says that is down."""


class States:
    """A state store as Airflow's accessors are: JSON values, never None. `down`: how many calls are to fail."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.calls: list[str] = []
        self.down = 0

    def _called(self, call: str) -> None:
        self.calls.append(call)
        if self.down:
            self.down -= 1
            raise Down("no answer")

    def get(self, key: str, default: Any = None) -> Any:
        """The value."""
        self._called(f"get {key}")
        return self.data.get(key, default)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        """Keep it."""
        assert value is not None
        self._called(f"set {key}")
        self.data[key] = json.loads(json.dumps(value))

    def __getitem__(self, asset: Any) -> States:
        return self


COLUMNS = {"sqlite": "TEXT", "psycopg2": "TIMESTAMPTZ", "psycopg": "TIMESTAMPTZ"}


class Sync:
    """A task that is run again and again.

    :param database: where its rows are.
    :param options: of the operator.
    """

    def __init__(self, database: Database, sandbox: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.database = database
        self.sandbox = sandbox
        self.vendor = options.pop("vendor", "bloomreach")
        self.kind: type[SqlDeliveryOperator] = options.pop("kind", SqlToEventsOperator)
        mapping = {**MAPPING, "identity": {{"bloomreach": "registered"}.get(self.vendor, "email"): "customer"}}
        self.options: dict[str, Any] = {
            "sql": "SELECT n, customer, at FROM orders",
            "cursor_column": "at",
            "initial_value": "earliest",
            "mapping": mapping,
            **options,
        }
        self.cursors = States()
        self.runs: dict[str, States] = {}
        self.pushed: dict[str, Any] = {}
        self._count = 0
        # Airflow before 3.3 has no such stores, and this package the same ways around them.
        monkeypatch.setattr(cursor_store, "HAS_STATE_STORES", True)
        monkeypatch.setattr(cursor_store, "Asset", lambda **fields: SimpleNamespace(**fields))
        monkeypatch.setattr(cursor_store.older_stores, "__defaults__", (States(),))

    def table(self, column: str | None = None) -> None:
        """Make its table, with an index on the cursor."""
        column = column or COLUMNS.get(self.database.driver, "DATETIME(6)")
        self.database.run(
            f"CREATE TABLE orders (n INT PRIMARY KEY, customer VARCHAR(40), at {column})",
            "CREATE INDEX orders_at ON orders (at, n)",
        )

    def add(self, *rows: tuple[int, str | int | None]) -> None:
        """Rows: number, and value of the cursor."""
        values = (f"({n}, 'customer{n % 100}@example.com', {'NULL' if at is None else repr(at)})" for n, at in rows)
        if rows:
            self.database.run(f"INSERT INTO orders VALUES {', '.join(values)}")

    def operator(self, **changes: Any) -> SqlDeliveryOperator:
        """The task."""
        options = {**self.options, **changes}
        conn_id = f"{self.vendor}_default"
        return self.kind(task_id="sync", sql_conn_id=self.database.conn_id, conn_id=conn_id, **options)

    def context(self, run_id: str, *, kind: str = "scheduled", max_tries: int = 3, try_number: int = 1) -> Any:
        """Of a try."""
        ti = SimpleNamespace(
            dag_id="d", run_id=run_id, task_id="sync", map_index=-1, try_number=try_number, max_tries=max_tries,
            xcom_push=lambda key, value: self.pushed.update({key: value}),
        )  # fmt: skip
        return {
            "ti": ti,
            "dag_run": SimpleNamespace(run_type=kind, start_date=None),
            "dag": SimpleNamespace(max_active_runs=1),
            "task_state_store": self.runs.setdefault(run_id, States()),
            "asset_state_store": self.cursors,
        }

    def run(
        self, run_id: str | None = None, *, kind: str = "scheduled", max_tries: int = 3, **changes: Any
    ) -> dict[str, Any]:
        """One try of a run, by default of a new one; its report."""
        if run_id is None:
            self._count += 1
            run_id = f"run {self._count}"
        report: dict[str, Any] = self.operator(**changes).execute(self.context(run_id, kind=kind, max_tries=max_tries))
        return report

    @property
    def record(self) -> dict[str, Any]:
        """The stored cursor."""
        record: dict[str, Any] = self.cursors.data[NAME]
        return record

    @property
    def value(self) -> Any:
        """The stored value."""
        return self.record["value"][1] if NAME in self.cursors.data else None

    def arrived(self) -> list[int]:
        """The rows that the vendor accepted, in order of their arrival, doubled ones included."""
        return [
            number_of(self.vendor, event.wire)
            for event in self.sandbox.events(self.vendor, None)
            if event.outcome in ("accepted", "duplicate")
        ]


@contextmanager
def while_reading(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> Iterator[None]:
    """Do something once, when the first rows have been read; the rows come in pages of two."""
    done: list[None] = []
    add = Passage.add

    def adding(passage: Passage, part: Part) -> None:
        add(passage, part)
        if not done:
            done.append(None)
            act()

    with monkeypatch.context() as patched:
        patched.setattr(Passage, "add", adding)
        patched.setattr(CursorRecords.__init__, "__kwdefaults__", {"chunk_size": 2})
        yield
    assert done


def by_the_clock(monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    """What the database's clock shows from now on."""
    monkeypatch.setattr(Planner, "_clock", lambda records, wrapped: now)
