"""Raw results: written as they are, read for tables and plots."""

from __future__ import annotations

import json
import os
import platform
import re
import sqlite3
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import cores

__all__ = ["RESULTS", "Figure", "Results", "machine"]

RESULTS = Path(__file__).parent / "results"
TO = "\N{EN DASH}"
PACKAGES = (
    "apache-airflow",
    "aiohttp",
    "dlt",
    "httptools",
    "httpx",
    "orjson",
    "pydantic-core",
    "requests",
    "segment-analytics-python",
    "uvloop",
)


@dataclass(frozen=True)
class Figure:
    """A median with its spread."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        """Of all rounds."""
        return cls(median(values), min(values), max(values))

    def text(self, spread: bool = True) -> str:
        """As a table shows it."""
        return f"{number(self.median)} ({number(self.low)}{TO}{number(self.high)})" if spread else number(self.median)


def number(value: float) -> str:
    """Three digits that count; thousands apart."""
    size = abs(value)
    digits = 0 if size >= 100 or size == 0 else 1 if size >= 10 else 2
    return f"{value:,.{digits}f}"


@dataclass
class Results:
    """All runs of a scenario.

    :param runs: each with its case's `key`, its `round`, and its `result`, or `failed`, the words of what went wrong.
    """

    scenario: str
    machine: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]

    @cached_property
    def keys(self) -> list[dict[str, Any]]:
        """The cases in their order."""
        found: list[dict[str, Any]] = []
        for run in self.runs:
            if run["key"] not in found:
                found.append(run["key"])
        return found

    def of(self, key: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
        """The runs of one case that went well, by their round."""
        return {run["round"]: run["result"] for run in self.runs if run["key"] == key and "result" in run}

    def failure(self, key: Mapping[str, Any]) -> str:
        """Why a case has no number; empty if all its runs went well."""
        return next((run["failed"] for run in self.runs if run["key"] == key and "failed" in run), "")

    def figure(self, key: Mapping[str, Any], value: str | Callable[[Mapping[str, Any]], float]) -> Figure | None:
        """A value of a case over its rounds; None if a run failed."""
        read = value if callable(value) else lambda result: float(result[value])
        values = [read(result) for result in self.of(key).values()]
        return Figure.of(values) if values and not self.failure(key) else None

    def ratio(self, key: Mapping[str, Any], to: Mapping[str, Any] | None, value: str) -> Figure | None:
        """How often one case's value goes into another's: within each round, then over the rounds."""
        if to is None or self.failure(key) or self.failure(to):
            return None
        ones, others = self.of(key), self.of(to)
        values = [ones[n][value] / others[n][value] for n in ones if n in others]
        return Figure.of(values) if values else None

    def write(self, folder: Path) -> Path:
        """One line per run, so that a change can be read."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.scenario}.json"
        runs = ",\n".join(f"  {json.dumps(run)}" for run in self.runs)
        facts = json.dumps(self.machine)
        path.write_text(f'{{"scenario": "{self.scenario}",\n "machine": {facts},\n "runs": [\n{runs}\n]}}\n')
        return path

    @classmethod
    def read(cls, scenario: str, folder: Path) -> Results | None:
        """What was written; None if nothing was."""
        path = folder / f"{scenario}.json"
        return cls(**json.loads(path.read_text())) if path.exists() else None


def machine() -> dict[str, Any]:
    """Where, and with what, the runs were made."""
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "cores_used": len(set(cores())),
        "memory_gib": round(int(memory[1]) / 1024**2, 1) if memory else None,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "gcc": said("gcc", "-dumpfullversion"),
        "go": said("go", "version").removeprefix("go version go").partition(" ")[0],
        "packages": {name: installed(name) for name in PACKAGES},
    }


def said(*command: str) -> str:
    """A program's first line; empty without it."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.partition("\n")[0].strip()
    except OSError:
        return ""


def installed(name: str) -> str | None:
    """A package's version."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
