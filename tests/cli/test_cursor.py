"""Cursors on the command line, against Airflow's own database and a real run of a DAG."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_events._compat import HAS_STATE_STORES
from airflow_provider_events.cli.main import main
from tests.conftest import DAGS

pytestmark = pytest.mark.airflow

DAG_ID = "cursor_cli"
NAME = f"{DAG_ID}.sync"
SOURCE = f"""
from datetime import datetime, timezone
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

start = datetime(2026, 1, 1, tzinfo=timezone.utc)
with DAG("{DAG_ID}", start_date=start, schedule=None, catchup=False, max_active_runs=1):
    SqlToEventsOperator(
        task_id="sync", sql="SELECT n, customer FROM QUERY", sql_conn_id="shop", conn_id="bloomreach_default",
        cursor_column="n", initial_value="earliest",
        mapping={{"name": "paid", "identity": {{"registered": "customer"}}, "id": "n"}},
    )
"""


@pytest.fixture
def shop(connections: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten orders; their table has a name of its own, and so has the query."""
    path = tmp_path / "shop.db"
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE orders (n INTEGER PRIMARY KEY, customer TEXT)")
        database.executemany("INSERT INTO orders VALUES (?, ?)", [(n, f"c{n}") for n in range(1, 11)])
        database.commit()
    return path


@pytest.fixture
def dag_file(shop: Path) -> Iterator[Path]:
    """The DAG, in a folder of its own for the command line."""
    folder = shop.parent / "dags"
    folder.mkdir()
    (folder / "cursor_cli.py").write_text(SOURCE.replace("QUERY", "orders"))
    yield folder / "cursor_cli.py"
    (DAGS / "cursor_cli.py").unlink(missing_ok=True)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The standard output."""
    return capsys.readouterr().out


def test_a_cursor_is_shown_set_reset_and_adopted(
    dag_file: Path, run_dag: Any, connections: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def delivered() -> int:
        return int(run_dag(dag_file.read_text(), DAG_ID).returned["sync"]["delivered"])

    given = ["--dags-folder", str(dag_file), "--yes"]
    assert delivered() == 10
    capsys.readouterr()
    assert main(["cursor", "show", NAME, "--output", "json"]) == 0
    shown = json.loads(said(capsys))
    assert (shown["value"], shown["type"], shown["generation"], shown["known_rows"]) == ("10", "numbers", 1, 1)
    assert main(["cursor", "list"]) == 0
    assert f"{NAME}  10  (moved " in said(capsys).replace("   ", " ")

    assert main(["cursor", "reset", NAME, "--to", "8", *given]) == 0
    assert "it stands at 10; reset to 8: the next run will read 3 rows" in said(capsys)
    assert delivered() == 3
    capsys.readouterr()
    assert main(["cursor", "set", NAME, "--to", "earliest", *given]) == 0
    assert "set to the first row: the next run will read 9 rows" in said(capsys)
    assert delivered() == 9

    dag_file.write_text(dag_file.read_text().replace("FROM orders", "FROM orders WHERE 1 = 1"))
    assert run_dag(dag_file.read_text(), DAG_ID).states["sync"] == "failed"
    capsys.readouterr()
    assert main(["cursor", "adopt", NAME]) == 0
    assert delivered() == 0


def test_what_cannot_be_done_ends_with_its_own_code(
    dag_file: Path, airflow_database: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["cursor", "show", "nobody"]) == 1
    assert "no cursor is stored for 'nobody'" in capsys.readouterr().err
    assert main(["cursor", "set", "of.nobody", "--to", "5", "--dags-folder", str(dag_file)]) == 1
    output = capsys.readouterr()
    assert "its task is in no DAG here" in output.out
    assert "nothing was changed" in output.err
    assert main(["cursor", "set", NAME, "--to", "yesterday", "--dags-folder", str(dag_file), "--yes"]) == 1
    assert "has to be a number" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["cursor", "reset", NAME])
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "sqlite:////nowhere/airflow.db")
    command = [sys.executable, "-m", "airflow_provider_events", "cursor", "list"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 3


@pytest.mark.skipif(not HAS_STATE_STORES, reason="Airflow's command line takes no commands of providers before 3.2")
def test_airflows_own_command_line_has_them(airflow_database: None) -> None:
    command = [sys.executable, "-m", "airflow", "events", "cursor", "list", "--output", "json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert isinstance(json.loads(ended.stdout[ended.stdout.index("[") :]), list)
