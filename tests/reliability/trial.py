"""One scenario of the matrix: a task of a real Airflow, a sandbox of its own, what goes wrong, and the accounts."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import httpx

from airflow_provider_events.delivery.checkpoint_writer import SAVE_SECONDS
from airflow_provider_events.sandbox import Sandbox
from tests.conftest import CUSTOMERS, IDENTITY_KEYS
from tests.delivery.harness import sent_numbers
from tests.reliability.cluster import Cluster, Task, until

__all__ = ["DAGS", "RATES", "Result", "Scenario", "Trial", "lines"]

TASK = "send"
ENDED = ("success", "failed")
SAVE_LATENCY_SECONDS = 1.5  # of one save on a busy machine, on top of the interval

# requests per minute, events per request, requests in flight: what the trials are run at
RATES = {
    "embeddables": (12_000, 1, 16),
    "vibetrace": (12_000, 1, 16),
    "webengage": (500, 25, 8),
    "bloomreach": (6_000, 50, 32),
}
DEDUPLICATES = ("vibetrace", "bloomreach")  # Vibetrace: confirmations, which is what the trials send

SQL = "SELECT n, customer, name, at FROM orders WHERE n > :low AND n <= :high ORDER BY n"
MAPPING = {"name_column": "name", "timestamp": "at", "id": "n", "properties": ["n"], "timezone": "UTC"}

DAGS = f'''
import json
import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

for name, options in json.loads(os.environ["EVENTS_SCENARIOS"]).items():
    with DAG(name, schedule=None) as dag:
        timeout = options.pop("execution_timeout", None)
        windows = options.pop("windows")
        common = dict(
            task_id="{TASK}",
            retry_delay=timedelta(seconds=3),
            execution_timeout=timeout and timedelta(seconds=timeout),
            conn_id=name,
            sql_conn_id=name + "_source",
            **options,
        )
        if len(windows) == 1:
            SqlToEventsOperator(parameters=windows[0], **common)
        else:
            SqlToEventsOperator.partial(**common).expand(parameters=windows)
    globals()[name] = dag
'''


@dataclass(frozen=True)
class Scenario:
    """What goes wrong, and what may come of it.

    :param name: of its DAG and connection.
    :param title: for the table.
    :param vendor: connection type.
    :param count: rows in the source; every 50th is no event.
    :param act: makes things go wrong, from the moment at which the run was triggered. Default: nothing does.
    :param prepare: called before the run is triggered.
    :param doubled: how many events may be there twice, if not as many as the vendor's rate and window say.
    :param kills: how many ends without a warning there are; each may double what one window holds.
    :param end: state in which the task has to end.
    :param arrive: whether all events have to arrive.
    :param operator: arguments of the operator.
    :param connection: extra of the connection.
    :param windows: upper bounds of the rows of each mapped task; empty for one task that takes them all.
    :param source: connection to the database, if it is not a SQLite file.
    :param alone: nothing else may run at the same time.
    :param says: what the log of the first or last try has to hold.
    """

    name: str
    title: str
    vendor: str
    count: int
    act: Callable[[Trial], None] = lambda trial: None
    prepare: Callable[[Trial], None] = lambda trial: None
    doubled: Callable[[Trial], int] | None = None
    kills: int = 0
    end: str = "success"
    arrive: bool = True
    operator: Mapping[str, Any] = field(default_factory=dict)
    connection: Mapping[str, Any] = field(default_factory=dict)
    windows: tuple[int, ...] = ()
    source: str | None = None
    alone: bool = False
    says: str = ""


@dataclass(frozen=True)
class Result:
    """One line of the matrix."""

    scenario: Scenario
    tries: int
    end: str
    lost: int
    doubled: int
    allowed: int
    merged: int
    rejected: int
    resumed: int
    seconds: float
    problems: tuple[str, ...]


class Trial:
    """A scenario while it runs.

    :param folder: for its database and its rejected events.
    """

    def __init__(self, scenario: Scenario, folder: Path, sandbox: Sandbox) -> None:
        self.scenario = scenario
        self.vendor = scenario.vendor
        self.folder = folder
        self.sandbox = sandbox
        self.random = Random()
        self.cluster: Cluster
        self.tasks: list[Task] = []
        self.rejected_path = folder / "rejected"
        self.extra_events = 0
        folder.mkdir(parents=True)
        if scenario.source is None:
            with closing(sqlite3.connect(folder / "source.db")) as database, database:
                database.execute("CREATE TABLE orders (n INTEGER PRIMARY KEY, customer, name, at)")
                database.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", lines(scenario))
        if self.vendor in ("embeddables", "vibetrace"):
            sandbox.add_entries(self.vendor, [{"email": email} for email in CUSTOMERS])

    # -- what the DAG file and the processes are told ------------------------------------------------------------------

    def options(self) -> dict[str, Any]:
        """Arguments of the operator."""
        bounds = (0, *(self.scenario.windows or (self.scenario.count,)))
        return {
            "sql": SQL if self.scenario.source is None else SQL.replace(":low", "%(low)s").replace(":high", "%(high)s"),
            "mapping": {**MAPPING, "identity": {IDENTITY_KEYS[self.vendor]: "customer"}},
            "rejected_path": str(self.rejected_path),
            "max_rejected": self.scenario.count,
            "retries": 8,
            "windows": [{"low": low, "high": high} for low, high in pairwise(bounds)],
            **self.scenario.operator,
        }

    def environment(self) -> dict[str, str]:
        """Its two connections."""
        name = f"AIRFLOW_CONN_{self.scenario.name.upper()}"
        rate = RATES[self.vendor][0] / max(1, len(self.scenario.windows))
        connection = self.sandbox.connection(self.vendor)
        extra = {**connection["extra"], "requests_per_minute": rate, **self.scenario.connection}
        source = {"conn_type": "sqlite", "host": str(self.folder / "source.db")}
        return {
            name: json.dumps({**connection, "extra": extra}),
            f"{name}_SOURCE": self.scenario.source or json.dumps(source),
        }

    # -- what an act needs ---------------------------------------------------------------------------------------------

    @property
    def task(self) -> Task:
        """The only task instance."""
        (task,) = self.tasks
        return task

    def accepted(self) -> int:
        """Events that the vendor took, those taken twice included."""
        return self.sandbox.summary()[self.vendor]["accepted"]

    def past(self, fraction: float) -> None:
        """Wait until so much of the rows has arrived."""
        wanted = fraction * self.scenario.count
        until(lambda: self.accepted() >= wanted, 90 + self.expected_seconds(), f"{wanted:.0f} events")

    def pid(self, attempt: int = 1, task: Task | None = None) -> int:
        """The process of a try, as soon as it runs."""
        return until(lambda: (task or self.task).pid(attempt), 90, f"try {attempt} running")

    def kill(self, attempt: int = 1, number: signal.Signals = signal.SIGKILL, task: Task | None = None) -> None:
        """Send the task's process a signal."""
        os.kill(self.pid(attempt, task), number)

    def in_state(self, *states: str) -> None:
        """Wait for a state."""
        until(lambda: self.task.state() in states, 120 + self.expected_seconds(), f"{self.scenario.name} in {states}")

    def expected_seconds(self) -> float:
        """How long the delivery takes when nothing goes wrong."""
        rate, batch, _ = RATES[self.vendor]
        return self.scenario.count / (rate / 60 * batch)

    def window(self) -> int:
        """How many events the time between two saves and the requests in flight hold."""
        rate, batch, in_flight = RATES[self.vendor]
        return int(rate / 60 * batch * (SAVE_SECONDS + SAVE_LATENCY_SECONDS)) + batch * in_flight

    def execute(self, statement: str) -> None:
        """Change the source."""
        with closing(sqlite3.connect(self.folder / "source.db")) as database, database:
            database.execute(statement)

    # -- the run -------------------------------------------------------------------------------------------------------

    def run(self, cluster: Cluster) -> Result:
        """Trigger the DAG, let things go wrong, wait for the end, and do the accounts."""
        from time import monotonic

        started = monotonic()
        self.cluster = cluster
        problems: list[str] = []
        try:
            self.scenario.prepare(self)
            run_id = cluster.trigger(self.scenario.name)
            indices = range(len(self.scenario.windows)) if self.scenario.windows else (-1,)
            self.tasks = [Task(cluster, self.scenario.name, run_id, TASK, index) for index in indices]
            self.scenario.act(self)
            seconds = 240 + self.expected_seconds()
            until(lambda: all(task.state() in ENDED for task in self.tasks), seconds, "the end")
        except (TimeoutError, OSError) as error:
            problems.append(f"{type(error).__name__}: {error}")
        return self._judged(problems, monotonic() - started)

    def keep_logs(self, folder: Path) -> None:
        """Write the logs of all tries there."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, task in enumerate(self.tasks):
            for attempt in range(1, int(task.now().get("try_number") or 0) + 1):
                with suppress(httpx.HTTPError):
                    (folder / f"{self.scenario.name}-{number}-{attempt}.log").write_text(task.log(attempt))

    def _judged(self, problems: list[str], seconds: float) -> Result:
        scenario = self.scenario
        state = [task.now() for task in self.tasks]
        ends = {str(now.get("state")) for now in state}
        sent = Counter(sent_numbers(self.sandbox, self.vendor))
        valid = {n for n, customer, *_ in lines(scenario) if customer is not None}
        doubled = sent.total() - len(sent) - self.extra_events
        lost = len(valid - sent.keys())
        allowed = scenario.doubled(self) if scenario.doubled else scenario.kills * self.window()
        if self.vendor in DEDUPLICATES:
            allowed = 0
        if ends != {scenario.end}:
            problems.append(f"ended {', '.join(ends)} instead of {scenario.end}")
        if lost and scenario.arrive:
            problems.append(f"{lost} lost")
        if doubled > allowed:
            problems.append(f"{doubled} doubled, {allowed} allowed")
        if sent.keys() - valid:
            problems.append("events that are in no row")
        reports = [task.report() for task in self.tasks]
        files = [Path(report["rejected_path"]) for report in reports if report.get("rejected_path")]
        rejected = sorted(json.loads(line)["row"] for file in files for line in file.read_text().splitlines())
        if scenario.end == "success" and ends == {"success"}:
            bad = scenario.count - len(valid)
            totals = Counter[str]()
            for report in reports:
                totals.update({name: value for name, value in report.items() if isinstance(value, int)})
            problems += [
                f"the report says {name} {got} instead of {wanted}"
                for name, got, wanted in (
                    ("read", totals["read"], scenario.count),
                    ("delivered + resumed", totals["delivered"] + totals["resumed"], len(valid)),
                    ("rejected", totals["rejected"], bad),
                    ("unsent", totals["unsent"], 0),
                )
                if got != wanted
            ]
            if len(rejected) != bad or (len(files) == 1 and len(set(rejected)) != bad):
                problems.append(f"{len(rejected)} lines in the rejected file instead of {bad}")
        if scenario.says and not any(
            scenario.says in task.log(attempt)
            for task, now in zip(self.tasks, state, strict=True)
            for attempt in range(1, int(now["try_number"]) + 1)
        ):
            problems.append(f"no log says {scenario.says!r}")
        if violations := self.sandbox.violations(self.vendor):
            problems.append(f"careless request: {violations[0]}")
        return Result(
            scenario,
            tries=max((int(now.get("try_number") or 0) for now in state), default=0),
            end=", ".join(sorted(ends)),
            lost=lost,
            doubled=doubled,
            allowed=allowed,
            merged=self.sandbox.summary()[self.vendor]["duplicate"],
            rejected=len(rejected),
            resumed=sum(report.get("resumed", 0) for report in reports),
            seconds=seconds,
            problems=tuple(problems),
        )


def lines(scenario: Scenario) -> list[tuple[int, str | None, str, str]]:
    """The rows of the source: number, customer, event, time. Every 50th has no customer and is no event."""
    name = "confirmation" if scenario.vendor == "vibetrace" else "order_paid"
    return [
        (
            n,
            None if n % 50 == 0 else CUSTOMERS[n % len(CUSTOMERS)],
            name,
            f"2026-03-01 {n // 3600 % 24:02d}:{n // 60 % 60:02d}:{n % 60:02d}",
        )
        for n in range(1, scenario.count + 1)
    ]
