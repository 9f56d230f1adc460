"""Events whose customer is missing: kept, offered again by the next run, and given up in the end; none is lost."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_events._compat import AirflowFailException
from airflow_provider_events.exceptions import ConfigurationError, DeliveryError
from airflow_provider_events.hooks.pending import PendingFolder
from airflow_provider_events.operators.entries import UpsertEntryOperator
from airflow_provider_events.operators.events import SendEventsOperator
from tests.conftest import CUSTOMERS
from tests.delivery.harness import number_of
from tests.operators.test_checkpoints import StateStore, context
from tests.until import until

WEEK = timedelta(days=7)


def event(n: int, customer: str | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "name": "order_paid",
        "identity": {"email": customer or CUSTOMERS[n % 100]},
        "timestamp": "2026-03-01T09:30:00.250000Z",
        "properties": {"n": n, "paid": 39.8},
        "id": f"order-{n}",
        **changes,
    }


def given(late: Any = (), count: int = 10) -> list[dict[str, Any]]:
    """So many events, some of customers who are not there yet."""
    return [event(n, f"late{n}@example.com" if n in late else None) for n in range(count)]


class Runs:
    """The runs of one task, one after the other."""

    def __init__(self, path: Path, sandbox: Any) -> None:
        self.path = path
        self.sandbox = sandbox
        self.number = 0

    def run(self, events: Any, try_number: int = 1, store: Any = None, **options: Any) -> dict[str, Any]:
        """The report of the next run."""
        self.number += try_number == 1
        operator = SendEventsOperator(
            task_id="t",
            conn_id="embeddables_default",
            events=events,
            **{"pending_path": str(self.path), **options},
        )
        where = context(store, run_id=f"scheduled__{self.number}", try_number=try_number)
        try:
            return operator.execute(where)
        except BaseException:
            self.left = where["ti"].pushed.get("return_value")
            raise

    def lines(self) -> list[dict[str, Any]]:
        """What is pending."""
        return [json.loads(line) for file in sorted(self.files()) for line in file.read_text().splitlines()]

    def files(self) -> list[Path]:
        return [path for path in self.path.rglob("*") if path.is_file()]

    def sent(self) -> Counter[int]:
        """How often each event arrived."""
        return Counter(number_of("embeddables", each.wire) for each in self.sandbox.events("embeddables", "accepted"))

    def come(self, *numbers: int) -> None:
        """Late customers come."""
        self.sandbox.add_entries("embeddables", [{"email": f"late{n}@example.com"} for n in numbers])


@pytest.fixture
def runs(connections: Any, tmp_path: Path) -> Runs:
    return Runs(tmp_path / "pending", connections)


def accounts(report: dict[str, Any]) -> dict[str, int]:
    names = ("read", "delivered", "rejected", "pending", "healed", "expired")
    assert report["read"] == sum(report[name] for name in ("delivered", "rejected", "skipped", "resumed", "unsent"))
    return {name: report[name] for name in names if report[name]}


def test_an_event_heals_in_the_run_after_its_customer_has_come(runs: Runs) -> None:
    assert accounts(runs.run(given(late=[3, 7]))) == {"read": 10, "delivered": 8, "rejected": 2, "pending": 2}
    assert {line["event"]["id"] for line in runs.lines()} == {"order-3", "order-7"}
    runs.come(3)
    assert accounts(runs.run([event(20)])) == {"read": 1, "delivered": 1, "healed": 1}
    assert {line["event"]["id"] for line in runs.lines()} == {"order-7"}
    runs.come(7)
    assert accounts(runs.run([])) == {"healed": 1}
    assert runs.files() == []
    assert accounts(runs.run([])) == {}
    assert runs.sent() == Counter([*range(10), 20])


def test_it_is_offered_before_the_runs_own_rows_and_as_it_was(runs: Runs) -> None:
    runs.run([event(1), event(0, "late0@example.com", timestamp=None)])
    [line] = runs.lines()
    assert line["event"]["timestamp"]
    runs.come(0)
    runs.run([event(2), event(3)], max_in_flight=1)
    arrived = list(runs.sandbox.events("embeddables", "accepted"))
    assert [number_of("embeddables", each.wire) for each in arrived] == [1, 0, 2, 3]
    healed = next(each for each in arrived if number_of("embeddables", each.wire) == 0)
    assert json.loads(healed.wire["custom_event_props"])["paid"] == 39.8


def test_an_event_without_a_time_keeps_that_of_its_first_delivery(runs: Runs) -> None:
    """So that it stays the same event for a vendor that drops repetitions."""
    runs.run([event(1), event(0, "late0@example.com", timestamp=None)])
    first = runs.lines()[0]["event"]["timestamp"]
    runs.run([event(2)])
    assert runs.lines()[0]["event"]["timestamp"] == first
    runs.come(0)
    runs.run([])
    assert runs.sent()[0] == 1


def test_it_is_given_up_by_its_age_and_counts_then(runs: Runs, tmp_path: Path) -> None:
    runs.run(given(late=[3]))
    grown_old(runs, days=8)
    rejected = tmp_path / "rejected"
    with pytest.raises(AirflowFailException, match="1 of 1 events were rejected"):
        runs.run([event(20)], rejected_path=str(rejected))
    assert accounts(runs.left) == {"read": 1, "delivered": 1, "expired": 1}
    assert runs.files() == []
    [line] = [json.loads(line) for file in rejected.rglob("*.jsonl") for line in file.read_text().splitlines()]
    assert (line["data"]["id"], line["field"]) == ("order-3", "pending")
    assert "waited for longer than 7 days" in line["reason"]
    assert accounts(runs.run([event(21)])) == {"read": 1, "delivered": 1}


def grown_old(runs: Runs, days: int) -> None:
    for file in runs.files():
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        since = (datetime.now(UTC) - timedelta(days=days)).isoformat()
        file.write_text("".join(json.dumps({**line, "since": since}) + "\n" for line in lines))


def test_its_age_counts_from_the_first_time(runs: Runs) -> None:
    runs.run(given(late=[3]))
    grown_old(runs, days=5)
    since = runs.lines()[0]["since"]
    runs.run([event(20)])
    assert runs.lines()[0]["since"] == since
    assert accounts(runs.run([event(21)], pending_max_age=timedelta(days=4), max_rejected=1)) == {
        "read": 1,
        "delivered": 1,
        "expired": 1,
    }


def test_what_time_cannot_cure_is_no_pending_event(runs: Runs) -> None:
    bad = event(5, timestamp="yesterday")
    report = runs.run([*given(late=[3], count=5), bad], max_rejected=1)
    assert accounts(report) == {"read": 6, "delivered": 4, "rejected": 2, "pending": 1}
    with pytest.raises(AirflowFailException, match="1 of 6 events were rejected"):
        runs.run([*given(late=[3], count=5), bad])


def test_nothing_delivered_fails_and_is_kept_all_the_same(runs: Runs) -> None:
    """As when the mapping names the wrong column."""
    with pytest.raises(AirflowFailException, match="none was delivered"):
        runs.run(given(late=range(10)))
    assert len(runs.lines()) == 10


def test_events_that_wait_are_kept_at_the_end_of_their_wait(runs: Runs) -> None:
    report = runs.run(given(late=[3]), on_missing_entry="wait", missing_entry_timeout=0.2)
    assert report["pending"] == 1
    runs.come(3)
    assert runs.run([], on_missing_entry="wait")["healed"] == 1


def test_a_dry_run_offers_and_keeps_nothing(runs: Runs) -> None:
    runs.run(given(late=[3]))
    runs.come(3)
    before = runs.lines()
    runs.run(given(late=[4]), dry_run=True)
    assert runs.lines() == before
    assert runs.sent()[3] == 0


def test_other_tasks_have_pending_events_of_their_own(runs: Runs) -> None:
    runs.run(given(late=[3]))
    runs.come(3)
    other = SendEventsOperator(
        task_id="other", conn_id="embeddables_default", events=[event(20)], pending_path=str(runs.path)
    )
    assert other.execute(context(task_id="other"))["healed"] == 0
    mapped = SendEventsOperator(
        task_id="t", conn_id="embeddables_default", events=[event(21)], pending_path=str(runs.path)
    )
    assert mapped.execute(context(map_index=1))["healed"] == 0
    assert runs.run([])["healed"] == 1


def test_an_outage_in_the_middle_loses_none_and_repeats_none(runs: Runs) -> None:
    late = range(40)
    with pytest.raises(AirflowFailException):
        runs.run(given(late=late, count=40))
    runs.come(*late)
    runs.sandbox.fault("status", vendor="embeddables", status=403, after=15)
    with pytest.raises(AirflowFailException, match="pending events of earlier runs"):
        runs.run([event(100)], max_in_flight=1)
    assert sum(runs.sent().values()) == 15
    assert len(runs.lines()) == 25
    runs.sandbox.clear_faults()
    assert accounts(runs.run([event(100)])) == {"read": 1, "delivered": 1, "healed": 25}
    assert runs.sent() == Counter([*late, 100])


def test_a_retry_goes_on_and_offers_what_its_first_try_kept(runs: Runs) -> None:
    store = StateStore()
    runs.sandbox.fault("status", vendor="embeddables", status=403, after=20)
    with pytest.raises(AirflowFailException):
        runs.run(given(late=[3], count=60), store=store, max_in_flight=1)
    runs.sandbox.clear_faults()
    runs.come(3)
    report = runs.run(given(late=[3], count=60), try_number=2, store=store, max_in_flight=1)
    assert report["healed"] == 1
    assert (report["read"], report["pending"], report["unsent"]) == (60, 1, 0)
    assert runs.sent() == Counter(range(60))


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[1])
connection = os.environ["AIRFLOW_CONN_EMBEDDABLES_DEFAULT"]
from tests.operators.test_pending import event
from tests.operators.test_checkpoints import context
from airflow_provider_events.operators.events import SendEventsOperator

os.environ["AIRFLOW_CONN_EMBEDDABLES_DEFAULT"] = connection  # the tests have an environment of their own
events = [event(n) for n in range(1000, 9000)]
SendEventsOperator(task_id="t", conn_id="embeddables_default", events=events, pending_path=sys.argv[2],
    requests_per_minute=6000).execute(context(run_id="scheduled__k"))
"""


@pytest.mark.parametrize("after", [5, 29, 31, 200])
def test_a_sigkill_loses_no_pending_event(runs: Runs, after: int) -> None:
    """While they are offered, between that and the run's own rows, and among these."""
    late = range(60)
    with pytest.raises(AirflowFailException):
        runs.run(given(late=late, count=60))
    runs.come(*range(0, 60, 2))
    root = str(Path(__file__).parents[2])
    with subprocess.Popen([sys.executable, "-c", KILLED, root, str(runs.path)], stderr=subprocess.DEVNULL) as process:
        asyncio.run(until(lambda: sum(runs.sent().values()) >= after, 30))
        process.kill()
    runs.come(*late)
    report = runs.run([event(100)])
    assert set(runs.sent()) >= {*late, 100}, "lost"
    assert report["expired"] == 0
    assert runs.files() == []


def test_two_runs_at_once_lose_none(runs: Runs) -> None:
    """The second offers what the first is offering: whoever is last removes nothing that is not settled."""
    with pytest.raises(AirflowFailException):
        runs.run(given(late=range(10)))
    runs.come(0, 1, 2)
    folder = PendingFolder(str(runs.path), "d/t")
    parts = folder.parts()
    runs.run([event(30, "late30@example.com"), event(31)])
    assert all(not list(part.lines()) for part in parts), "removed by the other run"
    runs.come(*range(10), 30)
    runs.run([event(32)])
    assert runs.sent() == Counter([*range(10), 30, 31, 32])


def test_an_event_that_was_kept_twice_is_offered_once(runs: Runs) -> None:
    runs.run(given(late=[3]))
    [file] = runs.files()
    (file.parent / "00000000000000000001-copy.jsonl").write_text(file.read_text() * 2)
    runs.come(3)
    assert runs.run([])["healed"] == 1
    assert runs.files() == []
    assert runs.sent()[3] == 1


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"version": 1}', '{"version": 99, "vendor": "embeddables", "event": {}, "since": "now"}']
)
def test_a_file_of_somebody_else_is_left_where_it_is(runs: Runs, line: str, caplog: pytest.LogCaptureFixture) -> None:
    runs.run(given(late=[3]))
    [file] = runs.files()
    strange = file.parent / "00000000000000000001-strange.jsonl"
    strange.write_text(line + "\n")
    runs.come(3)
    assert runs.run([])["healed"] == 1
    assert runs.files() == [strange]
    assert "pending events are left in" in caplog.text


def test_another_vendors_events_stay(runs: Runs) -> None:
    runs.run(given(late=[3]))
    operator = SendEventsOperator(task_id="t", conn_id="vibetrace_default", events=[], pending_path=str(runs.path))
    assert operator.execute(context())["healed"] == 0
    assert len(runs.lines()) == 1


def test_files_are_their_owners_alone(runs: Runs) -> None:
    runs.run(given(late=[3]))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in runs.path.rglob("*")}
    assert {mode for name, mode in modes.items() if name.endswith(".jsonl")} == {0o600}
    assert {mode for name, mode in modes.items() if not name.endswith(".jsonl")} == {0o700}


def test_a_folder_that_cannot_be_written_fails_before_anything_is_sent(runs: Runs, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(AirflowFailException, match="pending_path: cannot write"):
        runs.run(given(), pending_path=str(file / "folder"))
    assert runs.sent() == Counter()


def test_a_disk_that_is_full_ends_the_delivery(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: PendingFolder, data: bytes) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(PendingFolder, "add", full)
    with pytest.raises(DeliveryError, match="rejected events cannot be written"):
        runs.run(given(late=[3]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on_missing_entry": "skip"}, "on_missing_entry='skip' rejects none"),
        ({"on_missing_entry": "fail"}, "on_missing_entry='fail' rejects none"),
        ({"pending_max_age": 7}, "pending_max_age has to be a timedelta"),
        ({"pending_max_age": timedelta(0)}, "pending_max_age has to be a timedelta above 0"),
    ],
)
def test_a_conflict_is_an_error_when_the_dag_is_parsed(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        SendEventsOperator(task_id="t", conn_id="x", events=[], **{"pending_path": "/tmp/pending", **options})


def test_upserts_have_none_that_time_could_cure() -> None:
    with pytest.raises(Exception, match="pending_path"):
        UpsertEntryOperator(task_id="t", conn_id="x", entries=[], pending_path="/tmp/pending")


def test_a_path_of_the_trigger_needs_a_folder_that_is_allowed(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = SendEventsOperator(
        task_id="t", conn_id="embeddables_default", events=[event(1)], pending_path="{{ params.path }}"
    )
    operator.pending_path = str(runs.path)
    with pytest.raises(AirflowFailException, match=r"pending_path: a template of params or dag_run\.conf"):
        operator.execute(context())
    monkeypatch.setenv("AIRFLOW__EVENTS__ALLOWED_PATHS", str(runs.path.parent))
    assert operator.execute(context())["delivered"] == 1
