"""Where a task's checkpoint is kept: Airflow's task state store (3.3 and later), or a file."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow_provider_events._compat import NEVER_EXPIRE
from airflow_provider_events.delivery.observers import DeliveryObserver
from airflow_provider_events.exceptions import ConfigurationError, DeliveryInterrupted
from airflow_provider_events.hooks.files import stored_file

if TYPE_CHECKING:
    from airflow_provider_events._compat import Context
    from airflow_provider_events.delivery.progress import Progress
    from airflow_provider_events.hooks.files import StoredFile

__all__ = [
    "ClearPolicy",
    "FileCheckpoints",
    "StateStoreCheckpoints",
    "check_clear_policy",
    "checkpoint_store",
    "state_observers",
]

log = logging.getLogger(__name__)

ClearPolicy = Literal["unfinished", True, False]

KEY = "events.checkpoint"
PROGRESS_KEY = "events.progress"
FINISHED_RETENTION = timedelta(days=30)
_one_call = threading.Lock()  # Airflow imports at the first one, and two threads would meet half a module
OF_ROWS = ("last_key", "open", "before_open")


def check_clear_policy(value: Any) -> None:
    """Make sure that an option is a `ClearPolicy`.

    :raises ConfigurationError: it is none.
    """
    if not any(value is choice or (value == choice == "unfinished") for choice in get_args(ClearPolicy)):
        raise ConfigurationError(f"resume_after_clear has to be 'unfinished', True or False, not {value!r}")


def checkpoint_store(
    context: Context, path: str | None, name: str, resume_after_clear: ClearPolicy
) -> StateStoreCheckpoints | FileCheckpoints | None:
    """The store for this task instance; None, with a warning where a retry is to come, where there is none.

    :param path: folder for checkpoint files, for Airflow before 3.3.
    :param name: of the task instance, the same for all its tries.
    :raises ConfigurationError: `path` cannot be written.
    """
    ti = context["ti"]
    kept = Retries(ti.max_tries, resume_after_clear)
    store = context.get("task_state_store")
    if store is not None:
        return StateStoreCheckpoints(store, kept)
    if path:
        return FileCheckpoints(stored_file(path, f"{name}/checkpoint.json"), kept)
    if ti.max_tries:
        log.warning(
            "no checkpoint is kept: a retry of this task will start over. Airflow 3.3 keeps one by itself; "
            "before that, set checkpoint_path"
        )
    return None


def state_observers(context: Context) -> list[DeliveryObserver]:
    """What shows the progress beside this task instance: nothing before Airflow 3.3."""
    store = context.get("task_state_store")
    return [] if store is None else [StateStoreProgress(store)]


class Retries:
    """Tells a retry from a clear: a clear raises the task instance's `max_tries`, a retry leaves it alone.

    :ivar latest: the checkpoint as this try found or left it.
    """

    def __init__(self, max_tries: int, resume_after_clear: ClearPolicy) -> None:
        self._max_tries = max_tries
        self._resume_after_clear = resume_after_clear
        self._supervisor = os.getppid()
        self.latest: Mapping[str, Any] | None = None

    def sealed(self, checkpoint: Mapping[str, Any], completed: bool) -> dict[str, Any]:
        """The value to keep; of a completed delivery without anything of its rows.

        :raises DeliveryInterrupted: Airflow's process that supervised this one is gone. Nobody will hear of this try
            any more, and a retry is on its way, so that whatever was sent from now on would be sent twice.
        """
        if os.getppid() != self._supervisor:
            raise DeliveryInterrupted("the process that supervised this task is gone: leaving the rest to the retry")
        kept = {name: value for name, value in checkpoint.items() if not (completed and name in OF_ROWS)}
        return {**kept, "completed": completed, "max_tries": self._max_tries}

    def opened(self, value: Any) -> Mapping[str, Any] | None:
        """The checkpoint to go on from, if this try may."""
        if not isinstance(value, Mapping):
            return None
        cleared = value.get("max_tries") != self._max_tries
        if value.get("completed"):
            if cleared:
                log.info("this task was cleared after all its rows had their outcome: starting over")
            return None
        if cleared and not self._resume_after_clear:
            log.info("this task was cleared, and resume_after_clear=False: starting over")
            return None
        self.latest = value
        return value

    def kept(self, value: Mapping[str, Any]) -> None:
        """A sealed value has reached its store."""
        self.latest = value

    def outlook(self) -> str:
        """What a retry and a clear will do after this try has failed."""
        latest = self.latest or {}
        if latest.get("completed"):
            return (
                "a clear of this task sends every row again: all of them have their outcome; "
                "those that were rejected can be sent again by themselves, from their file"
            )
        position = latest.get("position")
        if not position:
            return "a retry or a clear of this task starts with the first row: no checkpoint was saved"
        further = f"goes on behind row {position}, and sends nothing again that has its outcome"
        if self._resume_after_clear:
            return f"a retry or a clear of this task {further}"
        return f"a retry of this task {further}; a clear sends every row again (resume_after_clear=False)"


class StateStoreCheckpoints:
    """In Airflow's task state store, beside the task instance; see `CheckpointStore`."""

    def __init__(self, store: Any, retries: Retries) -> None:
        self._store = store
        self.retries = retries

    def load(self) -> Mapping[str, Any] | None:
        """See `CheckpointStore.load`."""
        with _one_call:
            return self.retries.opened(self._store.get(KEY))

    def save(self, checkpoint: Mapping[str, Any], *, completed: bool) -> None:
        """Kept until the DAG run is deleted, so that no retry delay is too long; for 30 days once it is completed."""
        value = self.retries.sealed(checkpoint, completed)
        with _one_call:
            self._store.set(KEY, value, retention=FINISHED_RETENTION if completed else NEVER_EXPIRE)
        self.retries.kept(value)


class StateStoreProgress(DeliveryObserver):
    """Shows the progress in Airflow's task state store, for its UI and its REST API."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def progress(self, progress: Progress) -> None:
        """Puts these figures in the place of the last ones."""
        with _one_call:
            self._store.set(PROGRESS_KEY, progress.to_dict(), retention=NEVER_EXPIRE)


class FileCheckpoints:
    """In a file or object of its own, which goes when the delivery is completed; see `CheckpointStore`.

    :raises ConfigurationError: nothing can be written there.
    """

    def __init__(self, file: StoredFile, retries: Retries) -> None:
        self._file = file
        self.retries = retries
        try:
            if file.read() is None:
                file.replace(b"")
        except Exception as error:  # each store has errors of its own
            raise ConfigurationError(f"checkpoint_path: cannot write {file.uri} ({type(error).__name__})") from error

    def load(self) -> Mapping[str, Any] | None:
        """See `CheckpointStore.load`."""
        text = self._file.read()
        return self.retries.opened(json.loads(text)) if text else None

    def save(self, checkpoint: Mapping[str, Any], *, completed: bool) -> None:
        """As a whole, so that a crash leaves the old one or the new one."""
        value = self.retries.sealed(checkpoint, completed)
        if completed:
            self._file.remove()
        else:
            self._file.replace(json.dumps(value).encode())
        self.retries.kept(value)
