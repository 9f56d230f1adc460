"""Running an example's file, as it is, in real Airflow."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "example_dags"


@dataclass
class Ended:
    """What a DAG run left behind: the states and the return values of its tasks, by task id."""

    states: dict[str, str]
    returned: dict[str, Any]


RunExample = Callable[..., Ended]


def load(path: Path) -> Any:
    """The DAGs of a file or a folder, as Airflow loads them."""
    try:
        dagbag = import_module("airflow.dag_processing.dagbag")
    except ImportError:  # Airflow before 3.2
        dagbag = import_module("airflow.models.dagbag")
    return dagbag.DagBag(dag_folder=str(path))


@pytest.fixture
def run_example(airflow_database: None) -> Iterator[RunExample]:
    """Runs the DAG of an example, all of whose tasks have to succeed.

    `dag.test()` needs the file inside Airflow's own folder of DAGs: a copy is put there for the time of the test.
    """
    copies: set[Path] = set()

    def run(dag_id: str, source: str, **arguments: Any) -> Ended:
        from airflow.models.xcom import XCOM_RETURN_KEY

        copy = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]) / f"{dag_id}.py"
        copy.write_text(source)
        copies.add(copy)
        bag = load(copy)
        assert not bag.import_errors
        tasks = bag.dags[dag_id].test(**arguments).get_task_instances()
        ended = Ended(
            {ti.task_id: str(ti.state) for ti in tasks},
            {ti.task_id: ti.xcom_pull(task_ids=ti.task_id, key=XCOM_RETURN_KEY) for ti in tasks},
        )
        assert set(ended.states.values()) == {"success"}, ended.states
        return ended

    yield run
    for copy in copies:
        copy.unlink()
