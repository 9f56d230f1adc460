"""Where a task's checkpoint is kept: Airflow's task state store (3.3 and later), or a file."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_events._compat import NEVER_EXPIRE, ObjectStoragePath
from airflow_provider_events.delivery.checkpoint import CheckpointStore
from airflow_provider_events.delivery.progress import Progress
from airflow_provider_events.exceptions import ConfigurationError, DeliveryInterrupted

if TYPE_CHECKING:
    from airflow_provider_events._compat import Context

__all__ = ["FileCheckpoints", "StateStoreCheckpoints", "checkpoint_store"]

log = logging.getLogger(__name__)

KEY = "events.checkpoint"
PROGRESS_KEY = "events.progress"


def checkpoint_store(context: Context, path: str | None, name: str, resume_after_clear: bool) -> CheckpointStore | None:
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
        return FileCheckpoints(ObjectStoragePath(f"{path.rstrip('/')}/{name}/checkpoint.json"), kept)
    if ti.max_tries:
        log.warning(
            "no checkpoint is kept: a retry of this task will start over. Airflow 3.3 keeps one by itself; "
            "before that, set checkpoint_path"
        )
    return None


class Retries:
    """Tells a retry from a clear: a clear raises the task instance's `max_tries`, a retry leaves it alone."""

    def __init__(self, max_tries: int, resume_after_clear: bool) -> None:
        self._max_tries = max_tries
        self._resume_after_clear = resume_after_clear
        self._supervisor = os.getppid()

    def sealed(self, checkpoint: Mapping[str, Any], completed: bool) -> dict[str, Any]:
        """The value to keep.

        :raises DeliveryInterrupted: Airflow's process that supervised this one is gone. Nobody will hear of this try
            any more, and a retry is on its way, so that whatever was sent from now on would be sent twice.
        """
        if os.getppid() != self._supervisor:
            raise DeliveryInterrupted("the process that supervised this task is gone: leaving the rest to the retry")
        return {**checkpoint, "completed": completed, "max_tries": self._max_tries}

    def opened(self, value: Any) -> Mapping[str, Any] | None:
        """The checkpoint to go on from, if this try may."""
        if not isinstance(value, Mapping) or value.get("completed"):
            return None
        if value.get("max_tries") != self._max_tries and not self._resume_after_clear:
            log.info("this task was cleared: starting over. resume_after_clear=True would go on from its checkpoint")
            return None
        return value


class StateStoreCheckpoints:
    """In Airflow's task state store, beside the task instance; see `CheckpointStore` and `ProgressStore`."""

    def __init__(self, store: Any, retries: Retries) -> None:
        self._store = store
        self._retries = retries

    def load(self) -> Mapping[str, Any] | None:
        """See `CheckpointStore.load`."""
        return self._retries.opened(self._store.get(KEY))

    def save(self, checkpoint: Mapping[str, Any], *, completed: bool) -> None:
        """Kept until the DAG run is deleted, so that no retry delay is too long."""
        self._store.set(KEY, self._retries.sealed(checkpoint, completed), retention=NEVER_EXPIRE)

    def show(self, progress: Progress) -> None:
        """See `ProgressStore.show`."""
        self._store.set(PROGRESS_KEY, progress.to_dict(), retention=NEVER_EXPIRE)


class FileCheckpoints:
    """In a file or object of its own; see `CheckpointStore`.

    :raises ConfigurationError: nothing can be written there.
    """

    def __init__(self, path: ObjectStoragePath, retries: Retries) -> None:
        self._path = path
        self._retries = retries
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.write_text("")
        except Exception as error:  # each store has errors of its own
            raise ConfigurationError(f"checkpoint_path: cannot write {path} ({type(error).__name__})") from error

    def load(self) -> Mapping[str, Any] | None:
        """See `CheckpointStore.load`."""
        text = self._path.read_text()
        return self._retries.opened(json.loads(text)) if text else None

    def save(self, checkpoint: Mapping[str, Any], *, completed: bool) -> None:
        """Written beside and moved into place, so that a crash leaves the old one or the new one."""
        fresh = ObjectStoragePath(f"{self._path}.new")
        fresh.write_text(json.dumps(self._retries.sealed(checkpoint, completed)))
        self._path.fs.mv(fresh.path, self._path.path)
