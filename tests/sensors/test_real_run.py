"""Scheduler, triggerer, API server and DAG processor as in production: who waits, and what a restart forgets.

The triggerer is killed while tasks wait on it. Afterwards logs and database are searched for what profiles hold.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_events.sandbox import Sandbox
from tests.entries.vendors import PROFILE, VENDORS, add, connection, identity

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

MODES = ("poke", "reschedule", "deferrable")
NAMES = ("present", "soon", "late", "never")
TRIES = 240  # half seconds until a state has to be reached

DAG = """
from datetime import datetime, timezone
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_events.sensors.entry import EntryExistsSensor

KEYS = {keys!r}
MODES = {{
    "poke": {{"mode": "poke", "poke_interval": 2}},
    # An executor that is slow to report the last look may fail a task that has begun the next one: Airflow's own race.
    "reschedule": {{"mode": "reschedule", "poke_interval": 10}},
    "deferrable": {{"deferrable": True, "poke_interval": 2}},
}}

with DAG("entries", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule="@once", catchup=False):
    for vendor, key in KEYS.items():
        for mode, arguments in MODES.items():
            EntryExistsSensor(
                task_id=f"{{vendor}}_{{mode}}",
                conn_id=f"{{vendor}}_default",
                identities=[{{key: f"{{mode}}-{{name}}@example.com"}} for name in {names!r}],
                require=3,
                timeout=300,
                **arguments,
            )
    for mode, arguments in MODES.items():
        EntryExistsSensor(
            task_id=f"never_{{mode}}",
            conn_id="vibetrace_default",
            identities=[{{"email": f"{{mode}}-present@example.com"}}, {{"email": "nobody@example.com"}}],
            timeout=10,
            soft_fail=mode == "reschedule",
            **arguments,
        )
"""


class Deployment:
    """An Airflow of four processes, each in a process group of its own."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self._home = home
        self._environment = environment
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def airflow(self, *command: str) -> None:
        """A command that ends."""
        subprocess.run(
            [sys.executable, "-m", "airflow", *command], env=self._environment, check=True, capture_output=True
        )

    def start(self, *command: str) -> None:
        """A component; it logs to a file."""
        with (self._home / "logs" / f"{command[0]}.log").open("ab") as output:
            self._running[command[0]] = subprocess.Popen(
                [sys.executable, "-m", "airflow", *command],
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, component: str) -> None:
        """End a component and its children without giving them a chance."""
        process = self._running.pop(component)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """End what runs."""
        for component in list(self._running):
            self.kill(component)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What is in the metadata database."""
        with contextlib.closing(sqlite3.connect(self._home / "airflow.db", timeout=20)) as database:
            return database.execute(query).fetchall()

    def states(self) -> dict[str, str]:
        """States by task id."""
        return dict(self.rows("SELECT task_id, state FROM task_instance"))

    def until(self, reached: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        """Wait for the tasks to reach a state."""
        for _ in range(TRIES):
            if reached(states := self.states()):
                return states
            time.sleep(0.5)
        logs = "".join(path.read_text(errors="replace")[-1500:] for path in (self._home / "logs").glob("*.log"))
        raise AssertionError(f"{states}\n{logs}")


@pytest.fixture
def deployment(events_sandbox: Sandbox, tmp_path: Path) -> Iterator[Deployment]:
    """A migrated database, the DAG above, and nothing running yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for folder in ("dags", "logs", "waiting"):
        (tmp_path / folder).mkdir()
    keys = {vendor: next(iter(identity(vendor, ""))) for vendor in VENDORS}
    (tmp_path / "dags" / "entries.py").write_text(DAG.format(keys=keys, names=NAMES))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")},
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API_AUTH__JWT_SECRET": "a-secret-of-this-test-alone-which-is-long-enough-for-every-algorithm",
        "AIRFLOW__API__SECRET_KEY": "another-one",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(tmp_path / "logs"),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "4",
        "AIRFLOW__EVENTS__CHECKPOINT_PATH": f"file://{tmp_path / 'waiting'}",
        **{f"AIRFLOW_CONN_{vendor.upper()}_DEFAULT": connection(events_sandbox, vendor) for vendor in VENDORS},
    }
    made = Deployment(tmp_path, environment)
    made.airflow("db", "migrate")
    try:
        made.start("api-server", "--port", str(port), "--workers", "1")
        made.start("scheduler")
        made.start("dag-processor")
        made.start("triggerer")
        yield made
    finally:
        made.stop()


def test_all_modes_under_a_real_scheduler_and_triggerer(
    deployment: Deployment, events_sandbox: Sandbox, tmp_path: Path
) -> None:
    for vendor in VENDORS:
        add(events_sandbox, vendor, [f"{mode}-present" for mode in MODES])
    deferred = [f"{vendor}_deferrable" for vendor in VENDORS]
    polling = [f"{vendor}_{mode}" for vendor in VENDORS for mode in ("poke", "reschedule")]
    deployment.until(
        lambda states: (
            all(states.get(name) == "deferred" for name in deferred)
            and all(states.get(name) in ("running", "up_for_reschedule") for name in polling)
        )
    )
    for vendor in VENDORS:
        add(events_sandbox, vendor, [f"{mode}-soon" for mode in MODES])
    progress = [tmp_path / "waiting"]
    for _ in range(TRIES):
        progress = list((tmp_path / "waiting").rglob("progress.json"))
        if len(progress) == len(VENDORS):
            break
        time.sleep(0.5)
    assert len(progress) == len(VENDORS), "what a trigger finds is kept while it waits"

    deployment.kill("triggerer")
    deployment.start("triggerer")
    for vendor in VENDORS:
        add(events_sandbox, vendor, [f"{mode}-late" for mode in MODES], appears_after=5)

    waiting = [*deferred, *polling, *(f"never_{mode}" for mode in MODES)]
    states = deployment.until(lambda states: all(states.get(n) in ("success", "failed", "skipped") for n in waiting))
    deployment.stop()

    assert {name: states[name] for name in [*deferred, *polling]} == dict.fromkeys([*deferred, *polling], "success")
    assert [states[f"never_{mode}"] for mode in MODES] == ["failed", "skipped", "failed"]
    returned = {
        task: json.loads(value)
        for task, value in deployment.rows("SELECT task_id, value FROM xcom WHERE key='return_value'")
    }
    for vendor in VENDORS:
        for mode in MODES:
            names = [identity(vendor, f"{mode}-{name}") for name in NAMES]
            assert returned[f"{vendor}_{mode}"] == {"found": names[:3], "missing": names[3:]}
    for vendor in VENDORS:
        assert asked_once_found(events_sandbox, vendor) == {}, f"{vendor}: asked again for what was found"
        assert not events_sandbox.violations(vendor)
    assert not [path for path in (tmp_path / "waiting").rglob("*") if path.name in ("identities", "progress.json")]
    assert found_in(tmp_path, PROFILE.encode()) == []


def asked_once_found(sandbox: Sandbox, vendor: str) -> dict[str, int]:
    """Identities for which the answer was yes more than once."""
    if vendor == "embeddables":  # every look but the first asks for what has changed since
        windows = [request.path for request in sandbox.requests(vendor)]
        assert all("updated_after" in path for path in windows)
        return {}
    yes: Counter[str] = Counter()
    for request in sandbox.requests(vendor):
        if request.status in (200, 201):
            text = request.path + (request.body or b"").decode()
            yes.update(f"{mode}-{name}" for mode in MODES for name in NAMES if f"{mode}-{name}@" in text)
    if vendor == "vibetrace":  # two tasks of each mode wait for the one that is there
        yes.subtract(f"{mode}-present" for mode in MODES)
    return {name: count for name, count in yes.items() if count > 1}


def found_in(home: Path, needle: bytes) -> list[Path]:
    """Files that hold `needle`: logs of tasks and components, the database, and whatever else there is."""
    searched = [path for path in home.rglob("*") if path.is_file()]
    assert any(path.name == "airflow.db" for path in searched)
    assert len([path for path in searched if path.suffix == ".log"]) > len(VENDORS) * len(MODES)
    return [path for path in searched if needle in path.read_bytes()]
