"""Runs scenarios in one real Airflow, and shows what came of them."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from airflow_provider_events.sandbox import Sandbox
from tests.reliability.cluster import INTERRUPTED, Cluster, free_port
from tests.reliability.trial import DAGS, Result, Scenario, Trial

__all__ = ["HEAD", "row", "run", "table"]

HEAD = (
    "| what happens | vendor | rows | tries | ends | lost | doubled | of at most | merged by the vendor | rejected "
    "| resumed |",
    "| --- | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
)


def run(
    scenarios: Sequence[Scenario],
    at_once: int,
    tell: Callable[[Result], None] = lambda result: None,
    keep_logs: Path | None = None,
) -> list[Result]:
    """All scenarios, some of them at the same time; results in their order.

    :param keep_logs: folder for the logs of those that did not end as promised.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="events-trials-")))
        folder.chmod(0o755)
        trials = [stack.enter_context(_trial(scenario, folder)) for scenario in scenarios]
        environment = {"EVENTS_SCENARIOS": json.dumps({trial.scenario.name: trial.options() for trial in trials})}
        for trial in trials:
            environment.update(trial.environment())
        cluster = stack.enter_context(Cluster(DAGS, environment))

        def result(trial: Trial) -> Result:
            got = trial.run(cluster)
            tell(got)
            if got.problems and keep_logs:
                trial.keep_logs(keep_logs)
            return got

        together = [trial for trial in trials if not trial.scenario.alone]
        with ThreadPoolExecutor(at_once) as pool:
            running = [pool.submit(result, trial) for trial in together]
            try:
                results = {trial: one.result() for trial, one in zip(together, running, strict=True)}
            except BaseException:
                INTERRUPTED.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        results.update({trial: result(trial) for trial in trials if trial.scenario.alone})
        return [results[trial] for trial in trials]


@contextmanager
def _trial(scenario: Scenario, folder: Path) -> Iterator[Trial]:
    sandbox = Sandbox(port=free_port(), keep_bodies=False).start()
    trial = Trial(scenario, folder / scenario.name, sandbox)
    try:
        yield trial
    finally:
        sandbox.stop()
        if trial.rejected_path.is_mount():
            subprocess.run(["umount", trial.rejected_path], check=True)


def row(result: Result) -> str:
    """A line of the table."""
    scenario = result.scenario
    cells = [
        scenario.title,
        scenario.vendor,
        f"{scenario.count:,}",
        result.tries,
        result.end,
        result.lost if scenario.arrive else f"({result.lost:,} unsent)",
        f"{result.doubled:,}",
        f"{result.allowed:,}",
        f"{result.merged:,}",
        f"{result.rejected:,}",
        f"{result.resumed:,}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def table(results: Sequence[Result]) -> list[str]:
    """The matrix as Markdown."""
    return [*HEAD, *map(row, results)]
