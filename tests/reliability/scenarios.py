"""The scenarios of the matrix: what goes wrong in each, and what may come of it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.reliability.cluster import INTERRUPTED, until
from tests.reliability.trial import Scenario, Trial

__all__ = ["full", "long", "quick"]

Act = Callable[[Trial], None]


def kills(count: int) -> Act:
    """SIGKILL to the task's process, at random moments."""

    def act(trial: Trial) -> None:
        moments = sorted(trial.random.uniform(0.05, 0.9) for _ in range(count))
        for attempt, moment in enumerate(moments, start=1):
            trial.past(moment)
            trial.kill(attempt)

    return act


def kill_each(trial: Trial) -> None:
    """SIGKILL to each mapped task, once."""
    trial.past(0.3)
    for task in trial.tasks:
        trial.kill(1, task=task)


def kill_supervisor(trial: Trial) -> int:
    """SIGKILL to the executor's worker alone, in which the task's supervisor runs; the process of the task."""
    trial.past(0.3)
    pid = trial.pid()
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    return pid


def orphan(trial: Trial) -> None:
    """The same, and the task is left alone."""
    kill_supervisor(trial)


def kill_worker(trial: Trial) -> None:
    """SIGKILL to the executor's worker and to the task: nobody is left to report, as when a machine dies."""
    pid = kill_supervisor(trial)
    os.kill(pid, signal.SIGKILL)


def terminate(trial: Trial) -> None:
    """SIGTERM to the task's process, as an evicted pod gets it."""
    trial.past(0.3)
    trial.kill(1, signal.SIGTERM)


def fault(kind: Any, **options: Any) -> Act:
    """The sandbox misbehaves from the start."""

    def prepare(trial: Trial) -> None:
        trial.sandbox.fault(kind, vendor=trial.vendor, **options)

    return prepare


def outage(seconds: float) -> Act:
    """Nobody listens at the vendor's address for so long."""

    def act(trial: Trial) -> None:
        trial.past(0.3)
        trial.sandbox.stop()
        INTERRUPTED.wait(seconds)
        trial.sandbox.start()

    return act


def cut_source(trial: Trial) -> None:
    """PostgreSQL ends the session that the task reads from."""
    import psycopg2

    assert trial.scenario.source is not None
    trial.past(0.3)
    pid = trial.pid()
    server = _server_of(trial.scenario.source)
    with closing(psycopg2.connect(**server)) as admin, admin, admin.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        (ended,) = cursor.fetchone() or (0,)
    if not ended:
        raise OSError(f"no session of process {pid} was found")


def fill_source(trial: Trial) -> None:
    """The rows, in PostgreSQL."""
    import psycopg2

    from tests.reliability.trial import lines

    assert trial.scenario.source is not None
    with closing(psycopg2.connect(**_server_of(trial.scenario.source))) as database, database.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS orders")
        cursor.execute("CREATE TABLE orders (n int PRIMARY KEY, customer text, name text, at timestamp)")
        values = b",".join(cursor.mogrify("(%s, %s, %s, %s)", line) for line in lines(trial.scenario))
        cursor.execute(b"INSERT INTO orders VALUES " + values)
        database.commit()


def _server_of(connection: str) -> dict[str, Any]:
    import json

    given = json.loads(connection)
    return {
        "host": given["host"],
        "port": given["port"],
        "user": given["login"],
        "password": given["password"],
        "dbname": given["schema"],
    }


def small_disk(trial: Trial) -> None:
    """`rejected_path` is a file system of 32 KiB."""
    trial.rejected_path.mkdir()
    _mount("-t", "tmpfs", "-o", "size=32k", "tmpfs", str(trial.rejected_path))


def more_disk(trial: Trial) -> None:
    """Once the first try has failed, there is room."""
    until(lambda: int(trial.task.now().get("try_number") or 0) > 1 or trial.task.state() == "up_for_retry", 90, "full")
    _mount("-o", "remount,size=64m", str(trial.rejected_path))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def refuse_state(trial: Trial) -> None:
    """Airflow's state store refuses every write of this task: its table does."""
    with closing(sqlite3.connect(trial.cluster.database, timeout=30)) as database, database:
        for event in ("INSERT", "UPDATE"):
            database.execute(
                f"CREATE TRIGGER refuse_{event} BEFORE {event} ON task_state_store "
                f"WHEN NEW.dag_id = '{trial.scenario.name}' BEGIN SELECT RAISE(ABORT, 'refused'); END"
            )


def server_away(trial: Trial) -> None:
    """Airflow's api-server is killed, and comes back after some seconds."""
    trial.past(0.2)
    trial.cluster.end("api-server", signal.SIGKILL)
    time.sleep(5)
    trial.cluster.begin("api-server")


def killed_then(change: Act) -> Act:
    """SIGKILL, and before the retry starts, something else."""

    def act(trial: Trial) -> None:
        trial.past(0.5)
        trial.kill()
        trial.in_state("up_for_retry")
        change(trial)

    return act


def other_row(trial: Trial) -> None:
    """A row that was sent is another one now."""
    trial.execute("UPDATE orders SET at = '2026-03-02 00:00:00' WHERE n = 7")
    trial.extra_events = 1


def new_rows(trial: Trial) -> None:
    """Rows that were sent are gone."""
    trial.execute("DELETE FROM orders WHERE n BETWEEN 11 AND 20")


def corrupt(trial: Trial) -> None:
    """The checkpoint is junk."""
    trial.task.checkpoint({**trial.task.checkpoint(), "open": [[]], "position": "many", "digest": None})


def cleared(trial: Trial) -> None:
    """A person clears the task after its success."""
    trial.in_state("success")
    trial.task.clear()
    until(lambda: trial.task.state() != "success", 30, "the clear")


def failed_and_cleared(trial: Trial) -> None:
    """A person marks the running task failed, and clears it later."""
    trial.past(0.4)
    pid = trial.pid()
    trial.task.mark_failed()
    until(lambda: not Path(f"/proc/{pid}").exists(), 60, "the end of the marked task")
    trial.task.clear()
    until(lambda: trial.task.state() != "failed", 30, "the clear")


def late_entries(trial: Trial) -> None:
    """Most customers are not there yet: they come seconds after their events."""
    trial.sandbox.reset()
    entries = [{"email": email} for email in _customers()]
    trial.sandbox.add_entries(trial.vendor, entries[:20])
    trial.sandbox.add_entries(trial.vendor, entries[20:], appears_after=60)


def held_and_terminated(trial: Trial) -> None:
    """SIGTERM while thousands of events wait for their customers."""
    trial.past(0.16)
    trial.kill(1, signal.SIGTERM)


def _customers() -> list[str]:
    from tests.conftest import CUSTOMERS

    return CUSTOMERS


def fired(trial: Trial) -> int:
    """One request may be there twice for each answer that did not come."""
    from tests.reliability.trial import RATES

    _, batch, _ = RATES[trial.vendor]
    return sum(rule.fired for rule in trial.sandbox._vendors.faults.rules) * batch


def in_flight(trial: Trial) -> int:
    """What was under way when the vendor went down."""
    from tests.reliability.trial import RATES

    _, batch, window = RATES[trial.vendor]
    return batch * window


def everything(trial: Trial) -> int:
    """All of it, as asked for."""
    return trial.scenario.count


def quick() -> list[Scenario]:
    """Those that the test suite runs, all at once."""
    return [
        Scenario("kill_bloomreach", "SIGKILL of the task, three times", "bloomreach", 60_000, kills(3), kills=3),
        Scenario("kill_webengage", "SIGKILL of the task, three times", "webengage", 4_000, kills(3), kills=3),
        Scenario(
            "kill_embeddables",
            "SIGKILL of the task, with `key_column`",
            "embeddables",
            3_000,
            kills(1),
            kills=1,
            operator={"key_column": "n"},
        ),
        Scenario("sigterm", "SIGTERM of the task", "embeddables", 3_000, terminate),
        Scenario(
            "timeout",
            "`execution_timeout` in every try until done",
            "webengage",
            3_000,
            operator={"execution_timeout": 9},
        ),
    ]


def full(postgres: str | None) -> list[Scenario]:
    """The whole matrix but for the long ones.

    :param postgres: connection to a server for the scenario that needs one.
    """
    found = [
        *quick(),
        Scenario("calm", "nothing", "embeddables", 2_000),
        Scenario(
            "kill_vibetrace",
            'SIGKILL of the task, `ordering="identity"`',
            "vibetrace",
            3_000,
            kills(2),
            kills=2,
            operator={"ordering": "identity"},
        ),
        Scenario("kill_worker", "SIGKILL of worker and task", "embeddables", 3_000, kill_worker, kills=1),
        Scenario("orphan", "SIGKILL of the worker; its task lives on", "embeddables", 4_000, orphan, kills=1),
        Scenario(
            "mapped",
            "SIGKILL of each of three mapped tasks",
            "embeddables",
            3_000,
            kill_each,
            kills=3,
            windows=(1_000, 2_000, 3_000),
        ),
        Scenario("outage", "the vendor is down for a minute", "webengage", 3_000, outage(60), doubled=in_flight),
        Scenario("outage_merged", "the vendor is down for a minute", "bloomreach", 40_000, outage(60)),
        Scenario(
            "lost_answers",
            "every 20th answer is lost after acceptance",
            "embeddables",
            2_000,
            prepare=fault("lost", every=20),
            doubled=fired,
        ),
        Scenario(
            "lost_answers_merged",
            "every 20th answer is lost after acceptance",
            "bloomreach",
            40_000,
            prepare=fault("lost", every=20),
        ),
        Scenario(
            "cut_answers",
            "every 15th connection is cut in mid-answer",
            "webengage",
            3_000,
            prepare=fault("cut_answer", every=15),
            doubled=fired,
        ),
        Scenario(
            "slow_loris",
            "every 40th answer trickles, a byte a second",
            "embeddables",
            2_000,
            prepare=fault("dribble", every=40, seconds=1.0),
            doubled=fired,
            connection={"timeout": 2},
        ),
        Scenario(
            "storm",
            "30 answers 429 with `Retry-After: 1`",
            "bloomreach",
            40_000,
            prepare=fault("status", status=429, retry_after=1, after=50, times=30),
        ),
        Scenario(
            "storm_silent",
            "10 answers 429 without a word",
            "webengage",
            3_000,
            prepare=fault("status", status=429, after=20, times=10),
        ),
        Scenario("html", "every 10th answer is a web page", "embeddables", 2_000, prepare=fault("html", every=10)),
        Scenario(
            "truncated",
            "every 15th answer is half of its JSON",
            "webengage",
            3_000,
            prepare=fault("truncated", every=15),
            doubled=fired,
        ),
        Scenario(
            "no_folder",
            "`rejected_path` cannot be written",
            "bloomreach",
            1_000,
            end="failed",
            arrive=False,
            operator={"rejected_path": "/proc/rejected"},
            says="rejected_path: cannot write",
        ),
        Scenario(
            "refused_state",
            "the state store refuses every write",
            "bloomreach",
            40_000,
            prepare=refuse_state,
            says="the checkpoint cannot be saved",
        ),
        Scenario(
            "changed_restart",
            "SIGKILL, then another row, `restart`",
            "bloomreach",
            40_000,
            killed_then(other_row),
            kills=1,
            says="starting over",
        ),
        Scenario(
            "changed_fail",
            "SIGKILL, then rows deleted, `fail`",
            "bloomreach",
            40_000,
            killed_then(new_rows),
            kills=1,
            end="failed",
            arrive=False,
            operator={"on_source_changed": "fail"},
            says="are not those that an earlier try took",
        ),
        Scenario(
            "corrupt",
            "SIGKILL, then a damaged checkpoint",
            "bloomreach",
            40_000,
            killed_then(corrupt),
            kills=1,
            says="cannot be used",
        ),
        Scenario("cleared", "cleared by a person after success", "embeddables", 1_000, cleared, doubled=everything),
        Scenario(
            "resumed_clear",
            "marked failed in mid-run, cleared, `resume_after_clear`",
            "embeddables",
            3_000,
            failed_and_cleared,
            operator={"resume_after_clear": True, "retries": 0},
        ),
        Scenario(
            "held",
            "4 of 5 customers come late, `wait`, and SIGTERM",
            "embeddables",
            12_000,
            held_and_terminated,
            prepare=late_entries,
            operator={"on_missing_entry": "wait"},
            connection={"requests_per_minute": 60_000},
        ),
        Scenario("server_away", "Airflow's api-server killed for 5 s", "embeddables", 4_000, server_away, alone=True),
    ]
    if os.geteuid() == 0:
        found.append(
            Scenario(
                "disk_full",
                "disk full at `rejected_path`, then room",
                "bloomreach",
                40_000,
                more_disk,
                prepare=small_disk,
                kills=1,
                says="rejected events cannot be written",
            )
        )
    if postgres:
        found.append(
            Scenario(
                "source_cut",
                "PostgreSQL ends the session in mid-cursor",
                "webengage",
                3_000,
                cut_source,
                prepare=fill_source,
                source=postgres,
            )
        )
    return found


def long(count: int = 200_000) -> list[Scenario]:
    """The promise at full size: WebEngage's quota makes this a quarter of an hour."""
    return [
        Scenario("full_bloomreach", "SIGKILL of the task, three times", "bloomreach", count, kills(3), kills=3),
        Scenario("full_webengage", "SIGKILL of the task, three times", "webengage", count, kills(3), kills=3),
    ]
