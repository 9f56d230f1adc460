"""One run: a fresh stub on one core, the client in a process of its own on another, and accounts that must agree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.build import FOLDER, program
from benchmarks.job import Job
from benchmarks.rows import export, query
from benchmarks.stub import stub

__all__ = [
    "COMPILED",
    "ROOT",
    "STUB_CORE",
    "Failed",
    "cores",
    "finish",
    "job_command",
    "measure",
    "temporary",
]

ROOT = Path(__file__).parent.parent
COMPILED = ("c", "c-sql", "go")
TIMEOUT_SECONDS = 600


class Failed(Exception):
    """A run that gives no number; the message says why."""


def cores() -> tuple[int, int]:
    """The client's core and the stub's; the same one on a machine that has no two."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1 if len(allowed) == 1 else 1]


CLIENT_CORE, STUB_CORE = cores()


def measure(job: Job, latency_ms: float = 0, *, pure_python: bool = False) -> dict[str, Any]:
    """Run a job; what it took, and what the stub says of it.

    :param latency_ms: how long each answer takes.
    :param pure_python: answered by the other stub.
    :raises Failed: the client failed, or not every event arrived.
    """
    with temporary() as folder:
        captured = capture(job) if job.client == "c" else None
        with stub(STUB_CORE, latency_ms, pure_python=pure_python) as server:
            job = replace(job, url=server.url, folder=str(folder))
            if captured is not None:
                command = [str(program("limit.c")), str(captured), str(server.port), str(job.in_flight)]
            elif job.client == "c-sql":
                words = [job.database, query(job.rows), job.vendor, str(server.port), str(job.in_flight)]
                command = [str(program("limit_sql.c")), *words]
            elif job.client == "go":
                rows = export(Path(job.database), job.rows)
                command = [str(program("peer.go")), str(rows), server.url, job.vendor, str(job.in_flight)]
            else:
                command = job_command(job)
            before = server.stats()
            taken = finish(command)
            after = server.stats()
        taken["stub"] = {**after, "cpu_seconds": after["cpu_seconds"] - before["cpu_seconds"]}
        if job.bad_percent:
            taken["rejected_lines"] = Path(folder, f"rejected-{job.rows}.jsonl").read_bytes().count(b"\n")
        compare(job, taken)
        return {**summary(job, taken), **taken}


def job_command(job: Job) -> list[str]:
    """What runs a job of a client in Python."""
    return [sys.executable, "-m", "benchmarks.child", json.dumps(job.to_dict())]


def summary(job: Job, taken: dict[str, Any]) -> dict[str, Any]:
    """The figures per event."""
    return {
        "cpu_us": taken["cpu_seconds"] / job.rows * 1e6,
        "events_per_second": job.rows / taken["seconds"],
    }


def compare(job: Job, taken: dict[str, Any]) -> None:
    """Whether everything that was read arrived, once.

    :raises Failed: it did not.
    """
    stats = taken["stub"]
    arrived = stats["events"]
    warm = taken.get("warm", 0)
    expected = job.rows - job.bad
    delivered = expected if job.client == "c" else taken["delivered"]
    if job.client in COMPILED and (taken["refused"] or taken["requests"] != stats["requests"]):
        raise Failed(f"{taken['requests']} requests sent, {stats['requests']} arrived, {taken['refused']} refused")
    if job.dry_run:
        arrived = 0 if arrived else expected + warm  # nothing may arrive
    if taken.get("rejected_lines", job.bad) != job.bad:
        raise Failed(f"{job.bad} rows to reject, and {taken['rejected_lines']} are in the file of rejected events")
    if delivered != expected or arrived != expected + warm or stats["malformed"]:
        raise Failed(f"{expected} events to deliver; the client says {delivered}, and {arrived - warm} arrived")


def finish(command: Sequence[str], *, json_expected: bool = True) -> dict[str, Any]:
    """Run a client to its end, on its core; the JSON of its last line.

    :param json_expected: False for what prints something else; then nothing is returned.
    :raises Failed: it failed, or took too long.
    """
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
        preexec_fn=lambda: os.sched_setaffinity(0, {CLIENT_CORE}),
    )
    try:
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise Failed(f"not done after {TIMEOUT_SECONDS} s") from None
    if process.returncode:
        raise Failed(f"ended with {process.returncode}: {last_line(err)}")
    result: dict[str, Any] = json.loads(out.splitlines()[-1]) if json_expected else {}
    return result


def last_line(text: str) -> str:
    """What a traceback ends in."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "nothing said"


def environment() -> dict[str, str]:
    """The user's own, without any Airflow settings but a home of its own."""
    home = FOLDER / "airflow"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "PYTHON"))}
    return {
        **kept,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "PYTHONHASHSEED": "0",
    }


def capture(job: Job) -> Path:
    """The requests of our own delivery of this job, as they came; made anew in every run of the command."""
    file = FOLDER / f"requests-{job.vendor}-{job.rows}.bin"
    if file not in _captured:
        with stub(STUB_CORE, capture=file) as server, temporary() as folder:
            finish(job_command(replace(job, client="ours", url=server.url, folder=str(folder), warm_up=0)))
        _captured.add(file)
    return file


_captured: set[Path] = set()


@contextmanager
def temporary() -> Iterator[Path]:
    """A folder until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=FOLDER))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
