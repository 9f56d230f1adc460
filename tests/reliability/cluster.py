"""A real Airflow: api-server, scheduler with LocalExecutor and dag-processor, each a process group of its own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

__all__ = ["INTERRUPTED", "Cluster", "Task", "free_port", "until"]

START_SECONDS = 120.0
CHECKOUT = Path(__file__).parents[2]

T = TypeVar("T")

INTERRUPTED = threading.Event()  # ends all waiting, in whatever thread


def until(condition: Callable[[], T | None], seconds: float, what: str) -> T:
    """What the condition gives as soon as that is something.

    :raises TimeoutError: it gave nothing in all this time.
    """
    deadline = time.monotonic() + seconds
    while not (got := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not in {seconds:.0f} s: {what}")
        if INTERRUPTED.wait(0.05):
            raise TimeoutError(f"interrupted: {what}")
    return got


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Cluster:
    """Runs in a new AIRFLOW_HOME from `start` (or `with`) to `stop`.

    :param dags: text of the one DAG file.
    :param environment: more variables of its processes: connections, and what the DAG file reads.
    """

    def __init__(self, dags: str, environment: Mapping[str, str] | None = None) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="events-cluster-"))
        (self.home / "dags").mkdir()
        (self.home / "dags" / "reliability.py").write_text(dags)
        self.database = self.home / "airflow.db"
        self._port = free_port()
        self._url = f"http://127.0.0.1:{self._port}"
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")},
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.home / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self._url}/execution/",
            "AIRFLOW__API__BASE_URL": self._url,
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            # A scheduler ends where it waits for a lock in vain, and the usual five seconds are few on a busy machine.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}?timeout=60",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.home / "logs"),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
            "PYTHONPATH": str(CHECKOUT),
            **(environment or {}),
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._client = httpx.Client(base_url=self._url, timeout=30.0)

    def __enter__(self) -> Self:
        """Start."""
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def start(self) -> Self:
        """Returns once the scheduler is at work and knows the DAGs."""
        self._run("db", "migrate")
        for name in ("api-server", "scheduler", "dag-processor"):
            self.begin(name)
        until(self._ready, START_SECONDS, f"a ready Airflow; its logs are in {self.home}")
        return self

    def stop(self) -> None:
        """End all processes, and remove the home."""
        for name in list(self._processes):
            self.end(name, signal.SIGTERM)
        self._client.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def begin(self, name: str) -> None:
        """Start one component."""
        more = ("--port", str(self._port), "--workers", "1") if name == "api-server" else ()
        with (self.home / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "airflow", name, *more],
                env=self._environment,
                cwd=self.home,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def end(self, name: str, number: signal.Signals) -> None:
        """Send a component's process group a signal, and wait for its end; after 15 s it is killed."""
        process = self._processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """A call of the REST API; the decoded answer."""
        answer = self._client.request(method, f"/api/v2{path}", headers=self._authorization(), **arguments)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def trigger(self, dag_id: str) -> str:
        """Start a run of a DAG; its id. On SQLite the API server answers 500 while another process is writing."""

        def begun() -> str | None:
            try:
                run: str = self.call("POST", f"/dags/{dag_id}/dagRuns", json={"logical_date": None})["dag_run_id"]
                return run
            except httpx.HTTPStatusError as error:
                if error.response.status_code < 500:
                    raise
                return None

        return until(begun, 60, f"a run of {dag_id}")

    def _authorization(self) -> dict[str, str]:
        if not hasattr(self, "_token"):
            self._token = self._client.get("/auth/token").json()["access_token"]
        return {"Authorization": f"Bearer {self._token}"}

    def _ready(self) -> bool:
        for name, process in self._processes.items():
            if process.poll() is not None:
                text = (self.home / f"{name}.log").read_text(errors="replace")
                raise RuntimeError(f"{name} ended: {text[-2000:]}")
        try:
            errors = self.call("GET", "/importErrors")["import_errors"]
            if errors:
                raise RuntimeError(errors[0]["stack_trace"])
            return bool(self.call("GET", "/dags")["total_entries"])
        except httpx.HTTPError:
            return False

    def _run(self, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "airflow", *arguments], env=self._environment, check=True, capture_output=True
        )


class Task:
    """One task instance of a run that was triggered."""

    def __init__(self, cluster: Cluster, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> None:
        self._cluster = cluster
        self._run = f"/dags/{dag_id}/dagRuns/{run_id}"
        self._path = f"{self._run}/taskInstances/{task_id}"
        self._clear = f"/dags/{dag_id}/clearTaskInstances"
        self._ids = {"dag_run_id": run_id, "task_ids": [task_id]}
        self._map_index = map_index

    def now(self) -> dict[str, Any]:
        """The task instance as the REST API shows it; empty while the server does not answer."""
        try:
            found: dict[str, Any] = self._cluster.call("GET", f"{self._path}{self._mapped}")
        except httpx.HTTPError:
            return {}
        return found

    def state(self) -> str | None:
        """Its state, or None."""
        state: str | None = self.now().get("state")
        return state

    def pid(self, attempt: int) -> int | None:
        """The process of the try with this number, or a later one, while it runs."""
        now = self.now()
        if now.get("state") == "running" and now["try_number"] >= attempt and now["pid"]:
            pid: int = now["pid"]
            return pid
        return None

    def report(self) -> dict[str, Any]:
        """What the last try that could say so returned."""
        index = self._map_index
        try:
            entry = self._cluster.call(
                "GET", f"{self._path}/xcomEntries/return_value", params={"map_index": index, "deserialize": True}
            )
        except httpx.HTTPStatusError:
            return {}
        value: dict[str, Any] = entry["value"]
        return value

    def log(self, attempt: int) -> str:
        """The log of one try."""
        lines = self._cluster.call(
            "GET", f"{self._path}/logs/{attempt}", params={"map_index": self._map_index, "full_content": True}
        )
        return "\n".join(json.dumps(line) for line in lines["content"])

    def checkpoint(self, value: Any = None) -> Any:
        """The checkpoint as the state store holds it; with a value, that one is put in its place."""
        path = f"{self._path}/state-store/events.checkpoint"
        index = {"map_index": self._map_index}
        if value is not None:
            return self._cluster.call("PUT", path, params=index, json={"value": value, "expires_at": None})
        return self._cluster.call("GET", path, params=index)["value"]

    def clear(self) -> None:
        """As a person does it on the grid, once the run has ended.

        A scheduler that is about to end the run would do so over the clear, and nothing would run the task again.
        """
        until(lambda: self._cluster.call("GET", self._run)["state"] in ("success", "failed"), 60, "the end of the run")
        self._cluster.call("POST", self._clear, json={**self._ids, "dry_run": False, "only_failed": False})

    def mark_failed(self) -> None:
        """As a person does it on the grid."""
        self._cluster.call("PATCH", f"{self._path}{self._mapped}", json={"new_state": "failed"})

    @property
    def _mapped(self) -> str:
        return f"/{self._map_index}" if self._map_index >= 0 else ""
