"""Loading a DAG that a page shows, as Airflow does."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def load_dags(tmp_path: Path) -> Callable[[str], Any]:
    """Takes the text of a DAG file; gives Airflow's bag of it."""

    def load(text: str) -> Any:
        path = tmp_path / "on_the_page.py"
        path.write_text(text)
        try:
            dagbag = import_module("airflow.dag_processing.dagbag")
        except ImportError:  # Airflow before 3.2
            dagbag = import_module("airflow.models.dagbag")
        return dagbag.DagBag(dag_folder=str(path))

    return load
