"""A month of hourly runs on PostgreSQL with everything that happens in a month; and random histories of a few days.

The clock is ours: rows are written and committed at its times, and runs read it as the database's. What is delivered is
what the sandbox got. A killed run delivers, and nothing that it would have kept is kept.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_events._compat import AirflowFailException
from airflow_provider_events.cli.cursor_admin import moved
from airflow_provider_events.exceptions import CursorNotMoved, EventsError
from airflow_provider_events.sources import kept_cursor
from airflow_provider_events.sources.cursor_bounds import Planner
from airflow_provider_events.sources.cursor_state import CursorRecord, Position
from airflow_provider_events.sources.incremental import CursorRecords
from tests.servers import Database, databases
from tests.transfers.syncs import MAPPING, NAME, Sync, while_reading

pytest_plugins = ["tests.servers"]

BEGIN = datetime(2026, 10, 1, tzinfo=UTC)
LOOKBACK = timedelta(minutes=15)
HAPPENINGS = (
    "run",
    "run",
    "run",
    "run",
    "killed",
    "store down",
    "cleared",
    "dry run",
    "clock back",
    "skipped",
    "vendor fails",
    "reset",
)


@dataclass
class Month:
    """A history: rows that are written, some late, and what happens each hour."""

    sync: Sync
    monkeypatch: pytest.MonkeyPatch
    random: random.Random
    now: datetime = BEGIN
    shift: timedelta = timedelta(0)
    rows: int = 0
    late: list[tuple[datetime, int, datetime]] = field(default_factory=list)
    allowed: int = 0
    repeats: int = 0
    doubled: Counter[str] = field(default_factory=Counter)
    come_late: int = 0
    happened: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.monkeypatch.setattr(Planner, "_clock", lambda records, wrapped: self.now + self.shift)

    def write(self, count: int) -> None:
        """Rows of the past hour: many at one time, and some that are committed later than they say."""
        written: list[tuple[int, str]] = []
        moment = self.now
        for _ in range(count):
            self.rows += 1
            if self.random.random() < 0.6:
                moment = self.now - timedelta(seconds=self.random.randrange(1, 3500))
            if self.random.random() < 0.15:  # not there yet for the run that comes now
                said = self.now - timedelta(seconds=self.random.randrange(1, 840))
                self.late.append((self.now, self.rows, said))
            else:
                written.append((self.rows, f"{moment:%Y-%m-%d %H:%M:%S}+00"))
        self.sync.add(*written)

    def commit_late(self) -> None:
        """What was late is there now, a little after the last run."""
        self.come_late += len(self.late)
        self.sync.add(*((n, f"{said:%Y-%m-%d %H:%M:%S}+00") for _, n, said in self.late))
        self.late = []

    def hour(self, happening: str) -> None:
        """One hour, and what happens at its end."""
        self.now += timedelta(hours=1)
        before, doubled = self.now, self._doubled()
        self.commit_late()
        # Late ones say a time within lookback of the run that has not seen them: runs are an hour apart.
        self.write(self.random.randrange(0, 8))
        self.happened[happening] += 1
        run = f"hour {self.happened.total()}"
        match happening:
            case "killed":
                self._killed(run)
                self.sync.run(run)
            case "store down":
                self.sync.cursors.down = self.random.choice([1, 2, 8])
                try:
                    self.sync.run(run)
                except (EventsError, AirflowFailException):
                    self.sync.cursors.down = 0
                    self.sync.run(run)
                self.sync.cursors.down = 0
            case "cleared":
                self.sync.run(run)
                self.sync.run(run, max_tries=9)
            case "dry run":
                self.sync.run(f"{run} dry", dry_run=True)
                self.sync.run(run)
            case "clock back":
                self.shift = -timedelta(minutes=90)
                self.sync.run(run)
                self.shift = timedelta(0)
                self.sync.run(f"{run} right")
            case "vendor fails":
                fault = self.sync.sandbox.fault
                fault("status", vendor="bloomreach", status=403, after=self.random.randrange(0, 4))
                try:
                    self.sync.run(run)
                except AirflowFailException:
                    self.sync.sandbox.clear_faults()
                    self.sync.run(run)
                self.sync.sandbox.clear_faults()
            case "reset":
                self._reset(run)
            case "skipped":
                # The hour has no run: nothing that is late may say a time before the next run's lookback.
                self.commit_late()
            case _:
                self.sync.run(run)
        assert self.now == before
        self.doubled[happening] += self._doubled() - doubled

    def _doubled(self) -> int:
        """How many arrived once more so far."""
        arrived = self.sync.arrived()
        return len(arrived) - len(set(arrived))

    def beside(self, run: str) -> None:
        """An hour in which another run reads while one does."""
        self.now += timedelta(hours=1)
        self.commit_late()
        self.write(6)
        self.sync.add((self.rows + 1, f"{self.now - timedelta(minutes=1):%Y-%m-%d %H:%M:%S}+00"))
        self.rows += 1
        self.happened["two runs"] += 1

        def other() -> None:
            self.sync.run(f"{run} too")

        with while_reading(self.monkeypatch, other):
            self.sync.run(run)
        self.allowed += 20

    def _reset(self, run: str) -> None:
        """A person sets the cursor three hours back, and what lies behind is sent again."""
        if self.sync.value is not None:
            record = CursorRecord.from_dict(self.sync.record)
            earlier = Position(record.position.value - timedelta(hours=3))
            self.sync.cursors.data[NAME] = moved(record, "reset", earlier, record.kind, dict(record.of)).to_dict()
        before = self.sync.arrived()
        report = self.sync.run(run)
        self.allowed += sum((Counter(before) & Counter(self.sync.arrived()[-report["read"] or None :])).values())

    def _killed(self, run: str) -> None:
        """Everything is delivered, and the process is gone before the cursor's write."""
        with self.monkeypatch.context() as patched:

            def gone(records: Any, rows: Any) -> None:
                raise CursorNotMoved("killed")

            patched.setattr(CursorRecords, "settled", gone)
            with pytest.raises(CursorNotMoved):
                self.sync.run(run)

    def check(self) -> None:
        """Each row arrived; how often, where the vendor keeps each; and the cursor stands behind the last one."""
        self.now += timedelta(hours=1)
        self.commit_late()
        self.now += timedelta(minutes=1)
        self.sync.run("last")
        assert self.sync.run("after the last")["read"] == 0
        arrived = Counter(self.sync.arrived())
        assert set(arrived) == set(range(1, self.rows + 1)), "missed"
        kept = Counter(event.outcome for event in self.sync.sandbox.events("bloomreach", None))
        assert kept["accepted"] == self.rows, "the vendor that tells repetitions has each row once"
        repeats = arrived.total() - self.rows
        most = 10 * (self.happened["killed"] + self.happened["cleared"] + self.happened["store down"])
        assert repeats <= most + self.allowed, (repeats, self.happened)
        self.repeats = repeats
        assert not any(self.doubled[quiet] for quiet in ("run", "skipped", "dry run", "clock back", "vendor fails"))
        [(greatest,)] = self.sync.database.hook.get_records("SELECT max(at) FROM orders")
        if greatest is not None:
            assert datetime.fromisoformat(self.sync.value) >= greatest


@pytest.fixture
def month(database: Database, connections: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a history; stores are asked again at once."""
    monkeypatch.setattr(kept_cursor.patiently, "sleep", lambda seconds: None)

    def make(seed: int, columns: Any) -> Month:
        connections.reset()
        database.run("DROP TABLE IF EXISTS orders")
        options = {"cursor_column": columns, "lookback": LOOKBACK, "initial_value": BEGIN.isoformat(), "batch_size": 1}
        sync = Sync(database, connections, monkeypatch, **options)
        sync.options["mapping"] = {**MAPPING, "timezone": None}
        sync.table()
        return Month(sync, monkeypatch, random.Random(seed))

    return make


@pytest.mark.parametrize("columns", ["at", ("at", "n")], ids=["one column", "two columns"])
@databases("psycopg2")
def test_random_histories(month: Any, columns: Any) -> None:
    @settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**32), st.lists(st.sampled_from(HAPPENINGS), min_size=2, max_size=12))
    def history(seed: int, happenings: list[str]) -> None:
        made = month(seed, columns)
        for happening in happenings:
            made.hour(happening)
        made.check()

    history()


@databases("psycopg2")
def test_a_month_of_hourly_runs(month: Any) -> None:
    """A day and a half by default, which takes half a minute; EVENTS_MONTH_HOURS=720 makes the table of the docs."""
    made = month(2026, ("at", "n"))
    for hour in range(int(os.environ.get("EVENTS_MONTH_HOURS", "36"))):
        if hour % 24 == 23:
            made.beside(f"beside {hour}")
        else:
            made.hour(made.random.choice(HAPPENINGS))
    made.check()
    print({"rows": made.rows, "repeated": made.repeats, "late": made.come_late, **made.happened}, made.doubled)
