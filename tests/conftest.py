"""Fixtures of the whole suite. Airflow gets a home of its own before anything imports it."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

HOME = Path(tempfile.mkdtemp(prefix="events-airflow-"))
DAGS = HOME / "dags"
DAGS.mkdir()
for name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
    del os.environ[name]
os.environ.update(
    {
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(HOME / "logs"),
    }
)

FIFTH_VENDOR = Path(__file__).parent / "fifth_vendor"


def _install(project: Path) -> None:
    """As an editable install does, for this process alone: a path to the code, and metadata with the entry points."""
    about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    name = about["name"].replace("-", "_")
    metadata = HOME / "site" / f"{name}-{about['version']}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
    groups = about["entry-points"].items()
    lines = [line for group, points in groups for line in (f"[{group}]", *(f"{n} = {p}" for n, p in points.items()))]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    sys.path += [str(project), str(metadata.parent)]


_install(FIFTH_VENDOR)

pytest_plugins = ["airflow_provider_events.sandbox.pytest_plugin", "tests.servers"]

CUSTOMERS = [f"customer{n}@example.com" for n in range(100)]
IDENTITY_KEYS = {"embeddables": "email", "vibetrace": "email", "webengage": "userId", "bloomreach": "registered"}


def pytest_sessionfinish() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture
def connections(events_sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The sandbox, with the four default connections leading to it and 100 known customers."""
    for vendor in IDENTITY_KEYS:
        connection = json.dumps(events_sandbox.connection(vendor))
        monkeypatch.setenv(f"AIRFLOW_CONN_{vendor.upper()}_DEFAULT", connection)
    for vendor in ("embeddables", "vibetrace"):
        events_sandbox.add_entries(vendor, [{"email": email} for email in CUSTOMERS])
    return events_sandbox


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """A migrated metadata database."""
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
    _keep_api_server()


def _keep_api_server() -> None:
    """As later Airflows do; 3.0 builds the API that `dag.test()` talks to anew for each task, a second each time."""
    try:
        supervisor: Any = importlib.import_module("airflow.sdk.execution_time.supervisor")
    except ImportError:  # before Airflow 3
        return
    supervisor.in_process_api_server = cache(supervisor.in_process_api_server)


@dataclass
class DagResult:
    """What `dag.test()` left behind: the run's state, and by task id its state, return value and number of tries."""

    state: str
    states: dict[str, str]
    returned: dict[str, Any]
    tries: dict[str, int]


@pytest.fixture
def run_dag(airflow_database: None) -> Iterator[Callable[..., DagResult]]:
    """Runs the DAG in a fragment of Python source, in real Airflow and in this process."""
    written: list[Path] = []

    def run(source: str, dag_id: str, **test_arguments: Any) -> DagResult:
        path = DAGS / f"{dag_id}.py"
        path.write_text(dedent(source))
        written.append(path)
        return _run(path, dag_id, test_arguments)

    yield run
    for path in written:
        path.unlink(missing_ok=True)


def _run(path: Path, dag_id: str, test_arguments: dict[str, Any]) -> DagResult:
    try:
        dagbag = importlib.import_module("airflow.dag_processing.dagbag")
    except ImportError:  # before Airflow 3.2
        dagbag = importlib.import_module("airflow.models.dagbag")
    from airflow.models.xcom import XCOM_RETURN_KEY

    bag = dagbag.DagBag(dag_folder=str(path))
    assert not bag.import_errors, bag.import_errors
    dag_run = bag.dags[dag_id].test(**test_arguments)
    states = {ti.task_id: str(ti.state) for ti in dag_run.get_task_instances()}
    returned = {
        ti.task_id: ti.xcom_pull(task_ids=ti.task_id, key=XCOM_RETURN_KEY) for ti in dag_run.get_task_instances()
    }
    tries = {ti.task_id: ti.try_number for ti in dag_run.get_task_instances()}
    return DagResult(str(dag_run.state), states, returned, tries)
