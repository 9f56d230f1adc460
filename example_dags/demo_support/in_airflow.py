"""Runs the demo's DAG in real Airflow, in a process of its own; the parent reads the outcome from a file.

python -m example_dags.demo_support.in_airflow OUTCOME.json
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

DAG_ID = "events_demo"
DAG_FILE = Path(__file__).parent.parent / "demo.py"


def main(outcome_path: str) -> None:
    """Run the DAG and write the state of its run, and of each task its state and its delivery report."""
    from airflow.models.xcom import XCOM_RETURN_KEY

    dag_run = _dag().test()
    tasks = {
        ti.task_id: {
            "state": str(ti.state),
            "report": ti.xcom_pull(task_ids=ti.task_id, key=XCOM_RETURN_KEY),
        }
        for ti in dag_run.get_task_instances()
    }
    Path(outcome_path).write_text(json.dumps({"state": str(dag_run.state), "tasks": tasks}))


def _dag() -> Any:
    try:
        dagbag = import_module("airflow.dag_processing.dagbag")
    except ImportError:  # Airflow before 3.2
        dagbag = import_module("airflow.models.dagbag")
    bag = dagbag.DagBag(dag_folder=str(DAG_FILE))
    if bag.import_errors:
        raise SystemExit("\n".join(bag.import_errors.values()))
    return bag.dags[DAG_ID]


if __name__ == "__main__":
    main(sys.argv[1])
