"""Where a task's checkpoint is kept, and who may go on from it: retries, clears, mapped tasks, old Airflows."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_events._compat import NEVER_EXPIRE, AirflowFailException
from airflow_provider_events.exceptions import ConfigurationError, DeliveryInterrupted
from airflow_provider_events.hooks.files import stored_file
from airflow_provider_events.operators.checkpoints import (
    FINISHED_RETENTION,
    KEY,
    FileCheckpoints,
    Retries,
    StateStoreCheckpoints,
    checkpoint_store,
)
from airflow_provider_events.operators.delivery import task_name
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
        self.kept: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        """The value."""
        return self.data.get(key, default)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        """Keep it."""
        assert value is not None
        self.data[key] = json.loads(json.dumps(value))
        self.kept[key] = retention


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
    killed(paced, send(), context(store))
    assert set(store.kept.values()) == {NEVER_EXPIRE}


@pytest.mark.parametrize("resume_after_clear", ["unfinished", True, False])
def test_a_clear_of_an_unfinished_try_goes_on_unless_it_is_told_otherwise(paced: Any, resume_after_clear: Any) -> None:
    """Airflow 3.3 keeps the state of a cleared task, and raises its `max_tries`."""
    store = StateStore()
    first = killed(paced, send(resume_after_clear=resume_after_clear), context(store))
    second = send(resume_after_clear=resume_after_clear).execute(context(store, try_number=2, max_tries=5))
    assert second["resumed"] == (first["delivered"] if resume_after_clear else 0)
    assert len(numbers(paced)) == 300 + (0 if resume_after_clear else first["delivered"])


def test_by_default_a_clear_after_mending_sends_nothing_twice(paced: Any) -> None:
    """The key was withdrawn in mid-run, and is mended."""
    store = StateStore()
    paced.fault("status", vendor="embeddables", status=403, after=100)
    with pytest.raises(AirflowFailException):
        send().execute(context(store))
    paced.clear_faults()
    report = send().execute(context(store, try_number=2, max_tries=5))
    assert report["resumed"] > 0
    assert numbers(paced) == list(range(300))


@pytest.mark.parametrize("resume_after_clear", ["unfinished", True, False])
def test_a_clear_of_a_finished_try_sends_everything_again(paced: Any, resume_after_clear: Any) -> None:
    store = StateStore()
    for n in range(2):
        report = send(EVENTS[:50], resume_after_clear=resume_after_clear).execute(
            context(store, try_number=n + 1, max_tries=3 + n)
        )
        assert (report["delivered"], report["resumed"]) == (50, 0)


@pytest.mark.parametrize("value", ["finished", "", None, 1, 0, "True", ["unfinished"]])
def test_another_value_is_an_error_when_the_dag_is_parsed(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="resume_after_clear has to be 'unfinished', True or False"):
        send(resume_after_clear=value)


@pytest.mark.parametrize(
    ("resume_after_clear", "words"),
    [
        ("unfinished", r"a retry or a clear of this task goes on behind row \d+"),
        (True, r"a retry or a clear of this task goes on behind row \d+"),
        (False, r"goes on behind row \d+.*; a clear sends every row again"),
    ],
)
def test_the_log_of_a_failure_says_what_a_clear_will_do(
    paced: Any, resume_after_clear: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        killed(paced, send(resume_after_clear=resume_after_clear), context(StateStore()))
    assert re.search(words, caplog.text)


def test_the_log_of_a_finished_delivery_that_failed_says_so(paced: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(AirflowFailException):
        send([*EVENTS[:5], {"name": "order_paid", "identity": {}}]).execute(context(StateStore()))
    assert "a clear of this task sends every row again: all of them have their outcome" in caplog.text


def test_the_log_says_that_nothing_was_saved(paced: Any, caplog: pytest.LogCaptureFixture) -> None:
    bad = [{"name": "order_paid", "identity": {}}]
    with caplog.at_level(logging.INFO), pytest.raises(AirflowFailException):
        send(bad).execute(context())
    assert "no checkpoint is kept" in caplog.text


# -- what is kept of customers ---------------------------------------------------------------------------------------


def test_a_completed_checkpoint_holds_no_keys_and_expires(paced: Any) -> None:
    store = StateStore()
    send(EVENTS[:5]).execute(context(store))
    assert store.data[KEY]["completed"]
    assert not {"last_key", "open", "before_open"} & store.data[KEY].keys()
    assert store.kept[KEY] == FINISHED_RETENTION


def test_the_file_of_a_completed_delivery_is_removed(paced: Any, tmp_path: Path) -> None:
    send(EVENTS[:5], checkpoint_path=str(tmp_path)).execute(context())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_retry_after_a_clear_resumes_what_the_cleared_try_did(paced: Any) -> None:
    store = StateStore()
    killed(paced, send(), context(store))
    cleared = killed(paced, send(), context(store, try_number=2, max_tries=5), at=60)
    last = send().execute(context(store, try_number=3, max_tries=5))
    assert last["resumed"] == cleared["resumed"] + cleared["delivered"]
    assert numbers(paced) == list(range(300))


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
    assert os.listdir(tmp_path / "checkpoints" / "d" / "manual__1" / "t") == []


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
    return FileCheckpoints(stored_file(str(folder), "t/checkpoint.json"), Retries(max_tries, False))


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """A write that breaks off leaves the old checkpoint as it was."""
    store = file_in(tmp_path)
    store.save({"position": 1}, completed=False)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            store.save({"position": 2, "filler": "x" * 100_000}, completed=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    saved = file_in(tmp_path).load()
    assert saved is not None
    assert saved["position"] == 1
    assert os.listdir(tmp_path / "t") == ["checkpoint.json"]


def test_a_checkpoint_is_for_its_owner_alone_and_no_link_is_followed(tmp_path: Path) -> None:
    file_in(tmp_path / "kept").save({"position": 1}, completed=False)
    assert (tmp_path / "kept/t/checkpoint.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "kept/t").stat().st_mode & 0o777 == 0o700
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "kept/t/checkpoint.json").unlink()
    (tmp_path / "kept/t/checkpoint.json").symlink_to(tmp_path / "victim")
    with pytest.raises(ConfigurationError, match="checkpoint_path: cannot write"):
        file_in(tmp_path / "kept")
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize(
    ("one", "other"),
    [("a:b", "a+b"), ("a/b", "a_b"), ("a b", "a_b"), ("é", "e"), ("x" * 250, "x" * 249 + "y"), ("..", "__")],
)
def test_runs_that_differ_in_a_sign_share_nothing(paced: Any, one: str, other: str, tmp_path: Path) -> None:
    first = killed(paced, send(checkpoint_path=str(tmp_path)), context(run_id=one))
    second = send(checkpoint_path=str(tmp_path)).execute(context(run_id=other))
    assert first["delivered"] >= 100
    assert (second["delivered"], second["resumed"]) == (300, 0)


def test_a_checkpoint_of_another_run_in_our_place_is_not_ours(paced: Any, tmp_path: Path) -> None:
    """The run is in the fingerprint: a file that was copied or restored by hand is none of ours."""
    store = StateStore()
    killed(paced, send(), context(store, run_id="manual__1"))
    report = send().execute(context(store, run_id="manual__2"))
    assert (report["delivered"], report["resumed"]) == (300, 0)


@pytest.mark.parametrize("part", ["dag_id", "run_id", "task_id"])
@pytest.mark.parametrize("name", ["..", "../../x", "/etc", ".", "", "a/../..", "~", "..\\.."])
def test_whatever_a_name_holds_stays_in_its_folder(part: str, name: str, tmp_path: Path) -> None:
    names: dict[str, Any] = {part: name}
    path = task_name(context(**names)["ti"])
    assert len(path.split("/")) == 3
    inside = (tmp_path / path).resolve()
    assert inside.is_relative_to(tmp_path)
    assert len(inside.relative_to(tmp_path).parts) == 3


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
        (3, 5, False, "unfinished", True),
        (3, 5, True, "unfinished", False),
        (3, 3, True, "unfinished", False),
        (3, 3, True, False, False),
        (3, 3, True, True, False),
        (0, 1, False, False, False),
    ],
)
def test_clear_or_retry(saved_max: int, now_max: int, completed: bool, resume: Any, goes_on: bool) -> None:
    value = Retries(saved_max, False).sealed({"position": 1}, completed)
    assert (Retries(now_max, resume).opened(value) is not None) == goes_on


def test_a_clear_is_said_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Retries(5, False).opened(Retries(3, False).sealed({}, False))
    assert "this task was cleared, and resume_after_clear=False: starting over" in caplog.text
