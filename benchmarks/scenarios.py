"""What is measured: each scenario is a list of cases, run in rounds so that a drift of the machine hits all alike."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from benchmarks.databases import postgres
from benchmarks.imports import modules
from benchmarks.job import Job
from benchmarks.measure import finish, measure
from benchmarks.profile import profile
from benchmarks.rows import sqlite_file
from benchmarks.sources import SOURCES
from benchmarks.wires import WIRES

__all__ = ["SCENARIOS", "Case", "Scenario", "Selection"]


@dataclass(frozen=True)
class Selection:
    """What the command line narrows down.

    :param quick: fewer rows: to see whether all works, not to learn numbers.
    """

    vendors: tuple[str, ...] = tuple(WIRES)
    clients: tuple[str, ...] = ()
    rows: int | None = None
    rounds: int | None = None
    quick: bool = False

    def wants(self, client: str) -> bool:
        """Whether a client is selected."""
        return not self.clients or client in self.clients

    def of(self, rows: int) -> int:
        """How many rows instead of so many."""
        return self.rows or (max(rows // 20, 100) if self.quick else rows)


@dataclass(frozen=True)
class Case:
    """One line of a table.

    :param key: what tells it from the other cases.
    :param rounds: how often it is run; fewer than the others where it takes long.
    """

    key: dict[str, Any]
    run: Callable[[], dict[str, Any]] = field(repr=False)
    rounds: int = 5


@dataclass(frozen=True)
class Scenario:
    """Cases that make one table."""

    name: str
    cases: Callable[[Selection], Iterable[Case]]


# Requests in flight: what the vendors' pages allow is fewer, so that nobody is held back by it.
IN_FLIGHT = {"embeddables": 64, "vibetrace": 64, "webengage": 16, "bloomreach": 16}
# Rows per client and run: one event per request, and many. Some seconds each; the figures are per event.
ROWS = {
    "ours": (100_000, 100_000),
    "c": (100_000, 100_000),
    "c-sql": (100_000, 100_000),
    "go": (100_000, 100_000),
    "aiohttp": (10_000, 100_000),
    "aiohttp-uvloop": (10_000, 100_000),
    "httpx": (3_000, 30_000),
    "httpx-async": (1_000, 10_000),
    "requests": (2_000, 25_000),
    "http-hook": (2_000, 0),
    "segment": (2_000, 20_000),
    "dlt": (1_000, 5_000),
}


def cpu(selection: Selection) -> Iterable[Case]:
    """Every client against every vendor."""
    database = str(sqlite_file(100_000))
    for vendor in selection.vendors:
        for client, rows in ROWS.items():
            count = rows[0 if WIRES[vendor].single else 1]
            if count and selection.wants(client):
                job = Job(client, vendor, selection.of(count), IN_FLIGHT[vendor], database=database)
                key = {"vendor": vendor, "client": client, "rows": job.rows, "in_flight": job.in_flight}
                yield Case(key, partial(measure, job))


def scaling(selection: Selection) -> Iterable[Case]:
    """Ours, from few rows to many, by each way of reading SQL."""
    sizes = [(size, 3 if size <= 100_000 else 1) for size in (10_000, 100_000, 1_000_000, 5_000_000)]
    plan = [("bloomreach", "sqlite", False, sizes), ("webengage", "sqlite", False, sizes)]
    plan += [("bloomreach", "sqlite", True, sizes[2:3]), ("bloomreach", "postgres", False, [sizes[0], *sizes[2:]])]
    plan += [("bloomreach", "postgres", True, sizes[2:3])]
    largest = selection.of(5_000_000)
    for vendor, database, keyset, wanted in plan:
        if vendor not in selection.vendors or not selection.wants("ours"):
            continue
        for size, rounds in wanted:
            job = Job("ours", vendor, selection.of(size), IN_FLIGHT[vendor], keyset=keyset)
            reading = "key_column" if keyset else "cursor"
            key = {"vendor": vendor, "database": database, "reading": reading, "rows": job.rows}
            yield Case(key, partial(from_database, job, database, largest), rounds)


def from_database(job: Job, database: str, rows: int) -> dict[str, Any]:
    """Measure, with the rows in that database."""
    where = str(sqlite_file(rows)) if database == "sqlite" else postgres(rows)
    return measure(replace(job, database=where))


LATENCIES = ((0, 64), (50, 16), (50, 64), (50, 256), (250, 64))
# Rounds of requests in flight: seconds enough to see the pace. The last client needs seconds for each.
WAVES = {0: 150, 50: 60, 250: 12}
SLOW_WAVES = {16: 40, 64: 12, 256: 4}


def latency(selection: Selection) -> Iterable[Case]:
    """One event per request, and answers that take their time."""
    database = str(sqlite_file(100_000))
    for milliseconds, in_flight in LATENCIES:
        for client in ("ours", "aiohttp", "httpx-async"):
            if selection.wants(client):
                waves = SLOW_WAVES[in_flight] if client == "httpx-async" else WAVES[milliseconds]
                waves = max(waves // 5, 2) if selection.quick else waves
                job = Job(client, "embeddables", waves * in_flight, in_flight, database=database)
                key = {"latency_ms": milliseconds, "in_flight": in_flight, "client": client, "rows": job.rows}
                yield Case(key, partial(measure, job, milliseconds), 3)


def bad_rows(selection: Selection) -> Iterable[Case]:
    """Rows without an identity, which are rejected into a file."""
    database = str(sqlite_file(100_000))
    for vendor in selection.vendors:
        for percent in (0, 1):
            if vendor in ("embeddables", "bloomreach"):
                rows = selection.of(100_000)
                job = Job("ours", vendor, rows, IN_FLIGHT[vendor], database=database, bad_percent=percent)
                yield Case({"vendor": vendor, "bad_percent": percent, "rows": rows}, partial(measure, job), 3)


def quota(selection: Selection) -> Iterable[Case]:
    """A quota of 100 requests a second, for some twenty seconds."""
    if "bloomreach" in selection.vendors:
        rows = selection.of(100_000)
        job = Job("ours", "bloomreach", rows, 32, database=str(sqlite_file(100_000)), requests_per_minute=6000)
        key = {"vendor": "bloomreach", "requests_per_minute": 6000, "rows": rows}
        yield Case(key, partial(measure, replace(job, warm_up=0)), 2)


def floor(selection: Selection) -> Iterable[Case]:
    """Everything but the network."""
    database = str(sqlite_file(100_000))
    for vendor in selection.vendors:
        rows = selection.of(100_000)
        job = Job("ours", vendor, rows, IN_FLIGHT[vendor], database=database, dry_run=True)
        yield Case({"vendor": vendor, "rows": rows}, partial(measure, job), 3)


def sources(selection: Selection) -> Iterable[Case]:
    """Everything but the network, for each kind of source."""
    database = str(sqlite_file(100_000))
    if "bloomreach" in selection.vendors:
        for source in SOURCES:
            rows = selection.of(100_000)
            job = Job("ours", "bloomreach", rows, IN_FLIGHT["bloomreach"], database=database, source=source)
            yield Case({"source": source, "rows": rows}, partial(measure, replace(job, dry_run=True)), 3)


def stubs(selection: Selection) -> Iterable[Case]:
    """The stub in C and the one in Python under the fastest client there is."""
    database = str(sqlite_file(100_000))
    for vendor in ("embeddables", "bloomreach"):
        for language in ("C", "Python"):
            job = Job("c", vendor, selection.of(100_000), IN_FLIGHT[vendor], database=database)
            key = {"vendor": vendor, "stub": language, "rows": job.rows}
            yield Case(key, partial(measure, job, pure_python=language == "Python"))


def instructions(selection: Selection) -> Iterable[Case]:
    """Counted, not timed: the same on every machine with the same Python."""
    for vendor in selection.vendors:
        yield Case({"vendor": vendor}, partial(finish, [sys.executable, "-m", "tests.delivery.test_costs", vendor]), 1)


def imports(selection: Selection) -> Iterable[Case]:
    """Each public module; a whole round is measured at its first."""
    measured: list[dict[str, dict[str, float]]] = []

    def one(name: str) -> dict[str, Any]:
        if not measured or name not in measured[-1]:
            measured.append(finish([sys.executable, "-m", "benchmarks.imports"]))
        return dict(measured[-1].pop(name))

    return [Case({"module": name}, partial(one, name)) for name in modules()]


def profiles(selection: Selection) -> Iterable[Case]:
    """What costs what, in one request per event and in many."""
    database = str(sqlite_file(200_000))
    for vendor, rows in (("bloomreach", 200_000), ("embeddables", 60_000)):
        if vendor in selection.vendors:
            job = Job("ours", vendor, selection.of(rows), IN_FLIGHT[vendor], database=database)
            yield Case({"vendor": vendor, "rows": job.rows}, partial(profile, job), 1)


SCENARIOS = {
    scenario.name: scenario
    for scenario in [
        Scenario("stubs", stubs),
        Scenario("cpu", cpu),
        Scenario("floor", floor),
        Scenario("sources", sources),
        Scenario("instructions", instructions),
        Scenario("latency", latency),
        Scenario("bad_rows", bad_rows),
        Scenario("quota", quota),
        Scenario("imports", imports),
        Scenario("scaling", scaling),
        Scenario("profile", profiles),
    ]
}
