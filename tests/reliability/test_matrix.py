"""The part of the matrix that fits into a test suite; `python -m tests.reliability` runs all of it."""

from __future__ import annotations

import airflow
import pytest

from tests.reliability import scenarios
from tests.reliability.matrix import row, run

pytestmark = [
    pytest.mark.slow,  # about 100 s: starts a whole Airflow, and WebEngage's quota takes its time
    pytest.mark.skipif(
        tuple(map(int, airflow.__version__.split(".")[:2])) < (3, 3),
        reason="needs Airflow 3.3's state store",
    ),
]


def test_killed_and_stopped_tasks_add_up_after_their_retries(capsys: pytest.CaptureFixture[str]) -> None:
    """SIGKILL, SIGTERM and `execution_timeout` in mid-delivery, under a real scheduler, and the retries."""
    results = run(scenarios.quick(), at_once=5)
    with capsys.disabled():
        print("", *map(row, results), sep="\n")
    assert {result.scenario.name: result.problems for result in results if result.problems} == {}
