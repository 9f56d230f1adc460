"""Where a task's checkpoint is kept, and who may go on from it: retries, clears, mapped tasks, old Airflows."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_events._compat import NEVER_EXPIRE, AirflowFailException, ObjectStoragePath
from airflow_provider_events.exceptions import ConfigurationError, DeliveryInterrupted
from airflow_provider_events.operators.checkpoints import (
    KEY,
    FileCheckpoints,
    Retries,
    StateStoreCheckpoints,
    checkpoint_store,
)
from airflow_provider_events.operators.events import SendEventsOperator
from tests.conftest import CUSTOMERS
from tests.delivery.harness import sent_numbers

EVENTS = [
    {
        "name": "order_paid",
        "identity": {"email": CUSTOMERS[n % 100]},
        "timestamp": "2026-03-01T09:30:00Z",
        "properties": {"n": n},
    }
    for n in range(300)
]


class StateStore:
    """As Airflow's accessor: JSON values, never None."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.retentions: list[Any] = []

    def get(self, key: str, default: Any = None) -> Any:
        """The value."""
        return self.data.get(key, default)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        """Keep it."""
        assert value is not None
        self.data[key] = json.loads(json.dumps(value))
        self.retentions.append(retention)


def context(store: StateStore | None = None, **changes: Any) -> Any:
    """A task instance's context: try 1 of 4, unless `changes` say something else."""
    given = {"dag_id": "d", "run_id": "manual__1", "task_id": "t", "map_index": -1, "try_number": 1, "max_tries": 3}
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(
        **{**given, **changes}, pushed=pushed, xcom_push=lambda key, value: pushed.update({key: value})
    )
    return {"ti": ti, **({"task_state_store": store} if store else {})}


@pytest.fixture
def paced(connections: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The sandbox, whose connection sends 200 events a second, one at a time."""
    connection = connections.connection("embeddables")
    extra = {**connection["extra"], "requests_per_minute": 12_000, "max_in_flight": 4}
    monkeypatch.setenv("AIRFLOW_CONN_EMBEDDABLES_DEFAULT", json.dumps({**connection, "extra": extra}))
    return connections


def send(events: Any = EVENTS, **options: Any) -> SendEventsOperator:
    """The operator."""
    return SendEventsOperator(task_id="t", conn_id="embeddables_default", events=events, **options)


def killed(sandbox: Any, operator: SendEventsOperator, where: Any, at: int = 100) -> dict[str, Any]:
    """Run it until so many events have arrived, then `on_kill`; the report it pushed."""
    before = sandbox.summary()["embeddables"]["accepted"]

    def kill() -> None:
        deadline = time.monotonic() + 20
        while sandbox.summary()["embeddables"]["accepted"] < before + at and time.monotonic() < deadline:
            time.sleep(0.002)
        operator.on_kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(DeliveryInterrupted):
        operator.execute(where)
    killer.join()
    report: dict[str, Any] = where["ti"].pushed["return_value"]
    return report


def numbers(sandbox: Any) -> list[int]:
    """What arrived, doubled ones included."""
    return sent_numbers(sandbox, "embeddables")


# -- who may go on ---------------------------------------------------------------------------------------------------


def test_a_retry_goes_on_where_the_killed_try_stopped(paced: Any) -> None:
    store = StateStore()
    first = killed(paced, send(), context(store))
    assert 100 <= first["delivered"] < 250
    second = send().execute(context(store, try_number=2))
    assert second["resumed"] == first["delivered"]
    assert (second["read"], second["delivered"], second["unsent"]) == (300, 300 - first["delivered"], 0)
    assert numbers(paced) == list(range(300))
    assert store.data[KEY]["completed"]


def test_the_state_is_kept_for_as_long_as_the_dag_run(paced: Any) -> None:
    """However long the retry delay is."""
    store = StateStore()
    send(EVENTS[:5]).execute(context(store))
    assert set(store.retentions) == {NEVER_EXPIRE}


@pytest.mark.parametrize("resume_after_clear", [True, False])
def test_a_clear_starts_over_unless_it_is_told_otherwise(paced: Any, resume_after_clear: bool) -> None:
    """Airflow 3.3 keeps the state of a cleared task, and raises its `max_tries`."""
    store = StateStore()
    first = killed(paced, send(), context(store))
    operator = send(resume_after_clear=resume_after_clear)
    second = operator.execute(context(store, try_number=2, max_tries=5))
    assert second["resumed"] == (first["delivered"] if resume_after_clear else 0)
    assert len(numbers(paced)) == 300 + (0 if resume_after_clear else first["delivered"])


def test_a_clear_after_success_sends_everything_again_in_any_case(paced: Any) -> None:
    store = StateStore()
    for n in range(2):
        report = send(EVENTS[:50], resume_after_clear=True).execute(context(store, try_number=n + 1))
        assert (report["delivered"], report["resumed"]) == (50, 0)


def test_a_retry_after_a_clear_resumes_what_the_cleared_try_did(paced: Any) -> None:
    store = StateStore()
    killed(paced, send(), context(store))
    cleared = killed(paced, send(), context(store, try_number=2, max_tries=5), at=60)
    last = send().execute(context(store, try_number=3, max_tries=5))
    assert last["resumed"] == cleared["delivered"]


def test_other_events_or_another_mapping_start_over(paced: Any, caplog: pytest.LogCaptureFixture) -> None:
    store = StateStore()
    killed(paced, send(), context(store))
    report = send([*EVENTS[:10], *EVENTS[20:]]).execute(context(store, try_number=2))
    assert (report["read"], report["resumed"]) == (290, 0)
    assert "starting over" in caplog.text


def test_a_changed_source_can_fail_the_task_for_good(paced: Any) -> None:
    store = StateStore()
    killed(paced, send(on_source_changed="fail"), context(store))
    arrived = numbers(paced)
    with pytest.raises(AirflowFailException, match="not those that an earlier try took"):
        send(EVENTS[5:], on_source_changed="fail").execute(context(store, try_number=2))
    assert numbers(paced) == arrived


def test_a_kill_before_the_first_request_sends_nothing(paced: Any) -> None:
    """`on_kill` may come while the task is still starting."""
    operator = send()
    operator.on_kill()
    store = StateStore()
    report = operator.execute(context(store))
    assert report["delivered"] == 300, "a kill before `execute` has no hook to stop: Airflow ends the process itself"


def test_junk_in_the_store_is_no_crash_loop(paced: Any, caplog: pytest.LogCaptureFixture) -> None:
    store = StateStore()
    for junk in ("text", [1], {"version": 1, "max_tries": 3}, {"version": 1, "max_tries": 3, "open": [[]]}):
        store.data[KEY] = junk
        report = send(EVENTS[:5]).execute(context(store, try_number=2))
        assert report["delivered"] == 5
    assert "cannot be used" in caplog.text


@pytest.mark.parametrize("with_store", [True, False])
def test_a_task_whose_supervisor_died_leaves_the_rest_to_the_retry(
    with_store: bool, paced: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would hear of what it sends, and the retry would send it again."""
    store = StateStore() if with_store else None
    alive = time.monotonic() + 2.5
    monkeypatch.setattr(os, "getppid", lambda: 4242 if time.monotonic() < alive else 1)
    options = {"checkpoint_path": str(tmp_path)}
    events = [{**event, "id": n} for n, event in enumerate(EVENTS * 5)]
    with pytest.raises(DeliveryInterrupted, match="supervised this task is gone"):
        send(events, **options).execute(context(store))
    monkeypatch.undo()
    sent = paced.summary()["embeddables"]["accepted"]
    assert sent < 1200


# -- Airflow without a store -----------------------------------------------------------------------------------------


def test_a_file_does_the_same_where_airflow_has_no_store(paced: Any, tmp_path: Path) -> None:
    options = {"checkpoint_path": str(tmp_path / "checkpoints")}
    first = killed(paced, send(**options), context())
    second = send(**options).execute(context(try_number=2))
    assert second["resumed"] == first["delivered"]
    assert numbers(paced) == list(range(300))
    (file,) = (tmp_path / "checkpoints").rglob("*.json")
    assert file.parent == tmp_path / "checkpoints" / "d" / "manual__1" / "t"


def test_without_either_a_retry_is_warned_that_it_starts_over(paced: Any, caplog: pytest.LogCaptureFixture) -> None:
    send(EVENTS[:5]).execute(context())
    assert "a retry of this task will start over" in caplog.text
    caplog.clear()
    send(EVENTS[:5]).execute(context(max_tries=0))
    assert "start over" not in caplog.text


def test_mapped_tasks_keep_one_checkpoint_each(tmp_path: Path) -> None:
    for index in range(3):
        store = checkpoint_store(context(map_index=index), str(tmp_path), f"d/r/t/{index}", False)
        assert store is not None
        store.save({"position": index}, completed=False)
    for index in range(3):
        store = checkpoint_store(context(map_index=index), str(tmp_path), f"d/r/t/{index}", False)
        assert store is not None
        saved = store.load()
        assert saved is not None
        assert saved["position"] == index


def test_airflows_store_is_preferred_to_a_file(tmp_path: Path) -> None:
    store = checkpoint_store(context(StateStore()), str(tmp_path), "name", False)
    assert isinstance(store, StateStoreCheckpoints)
    assert not list(tmp_path.iterdir())


# -- the file --------------------------------------------------------------------------------------------------------


def file_in(folder: Path, max_tries: int = 3) -> FileCheckpoints:
    """Checkpoints of one task in that folder."""
    return FileCheckpoints(ObjectStoragePath(str(folder / "t" / "checkpoint.json")), Retries(max_tries, False))


def test_a_file_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that breaks off leaves the old checkpoint as it was."""
    store = file_in(tmp_path)
    store.save({"position": 1}, completed=False)

    def full(path: Any, text: str, *args: Any, **kwargs: Any) -> None:
        with path.open("w") as stream:
            stream.write(text[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ObjectStoragePath, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        store.save({"position": 2}, completed=False)
    monkeypatch.undo()
    saved = file_in(tmp_path).load()
    assert saved is not None
    assert saved["position"] == 1


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """One thread saves, another one reads all the time."""
    store = file_in(tmp_path)
    store.save({"position": 0, "filler": "x" * 100_000}, completed=False)
    path = tmp_path / "t" / "checkpoint.json"
    done = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not done.is_set():
            seen.append(json.loads(path.read_text())["position"])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for position in range(1, 200):
            store.save({"position": position, "filler": "x" * 100_000}, completed=False)
    finally:
        done.set()
        reader.join()
    assert seen
    assert seen == sorted(seen)
    assert not [name for name in os.listdir(path.parent) if name.endswith(".new")]


def test_a_new_file_holds_no_checkpoint(tmp_path: Path) -> None:
    assert file_in(tmp_path).load() is None


@pytest.mark.parametrize("junk", ["{", "[]", "null", "\x00\xff", '"text"', "{}" * 2])
def test_junk_in_the_file_is_no_crash_loop(junk: str, paced: Any, tmp_path: Path) -> None:
    path = tmp_path / "d" / "manual__1" / "t" / "checkpoint.json"
    path.parent.mkdir(parents=True)
    path.write_text(junk)
    report = send(EVENTS[:5], checkpoint_path=str(tmp_path)).execute(context(try_number=2))
    assert report["delivered"] == 5


def test_a_folder_that_cannot_be_written_is_an_error_before_the_first_request(paced: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AirflowFailException, match="checkpoint_path: cannot write"):
        send(checkpoint_path=str(tmp_path / "file")).execute(context())
    with pytest.raises(AirflowFailException, match="rejected_path: cannot write"):
        send(rejected_path=str(tmp_path / "file")).execute(context())
    assert paced.requests("embeddables") == []


@pytest.fixture
def unprivileged() -> Iterator[Callable[[Path], None]]:
    """Makes a folder unwritable for this process, also where it is root's: permissions do not concern root."""
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        yield lambda folder: None
    finally:
        if os.getuid() == 0:
            os.seteuid(0)


def test_a_folder_without_permission_is_named(tmp_path: Path, unprivileged: Any) -> None:
    """A folder of root's for `nobody`, or one without the write bit for anybody else."""
    if os.getuid() != 0:
        tmp_path.chmod(0o555)
    with pytest.raises(ConfigurationError, match="checkpoint_path: cannot write"):
        file_in(tmp_path)
    if os.getuid() != 0:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize(
    ("saved_max", "now_max", "completed", "resume", "goes_on"),
    [
        (3, 3, False, False, True),
        (3, 5, False, False, False),
        (3, 5, False, True, True),
        (3, 3, True, False, False),
        (3, 3, True, True, False),
        (0, 1, False, False, False),
    ],
)
def test_clear_or_retry(saved_max: int, now_max: int, completed: bool, resume: bool, goes_on: bool) -> None:
    value = Retries(saved_max, False).sealed({"position": 1}, completed)
    assert (Retries(now_max, resume).opened(value) is not None) == goes_on


def test_a_clear_is_said_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Retries(5, False).opened(Retries(3, False).sealed({}, False))
    assert "this task was cleared: starting over" in caplog.text
