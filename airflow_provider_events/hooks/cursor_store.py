"""Where cursors are kept: Airflow's asset state store (3.3 and later), else `[events] cursor_path`, else its Variables.

All cursors belong to one asset, an inlet of each task that has one: whatever DAG, task or connection is renamed, they
stay where they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from airflow_provider_events._compat import HAS_STATE_STORES, NEVER_EXPIRE, Asset, Variable, conf
from airflow_provider_events.exceptions import CursorError
from airflow_provider_events.hooks.files import safe_name, stored_file

if TYPE_CHECKING:
    from airflow_provider_events._compat import Context
    from airflow_provider_events.sources.cursor_state import CursorFiles, CursorStore

__all__ = [
    "ASSET_NAME",
    "AssetStore",
    "FileStore",
    "StoreChain",
    "VariableStore",
    "bounds_store",
    "cursor_asset",
    "cursor_files",
    "cursor_store",
    "older_stores",
    "variable_key",
]

ASSET_NAME = "event-cursors"
ASSET_URI = "x-event-cursors://airflow"
PREFIX = "events."
LONGEST_VARIABLE = 250


def cursor_asset() -> Any:
    """The asset in whose state all cursors are kept; None before Airflow 3.3."""
    return Asset(name=ASSET_NAME, uri=ASSET_URI) if HAS_STATE_STORES else None


def cursor_store(context: Context) -> CursorStore:
    """The store for a running task."""
    states: Any = context.get("asset_state_store")
    asset = cursor_asset()
    stores: list[CursorStore] = []
    if states is not None and asset is not None:
        with suppress(KeyError):  # a mapped task has the inlets that its author gave
            stores.append(AssetStore(states[asset]))
    return StoreChain([*stores, *older_stores()])


def older_stores(variables: Any = Variable) -> list[CursorStore]:
    """Those that Airflow before 3.3 has, the chosen one first."""
    path = conf.get("events", "cursor_path", fallback="") or None
    return [*([FileStore(path)] if path else []), VariableStore(variables)]


class StoreChain:
    """The first of some stores; what only a later one holds, as before an upgrade of Airflow, is found there."""

    def __init__(self, stores: Sequence[CursorStore]) -> None:
        self._stores = stores
        self.where = stores[0].where

    def get(self, name: str) -> Any:
        """See `CursorStore.get`."""
        return next((value for store in self._stores if (value := store.get(name)) is not None), None)

    def set(self, name: str, value: Any) -> None:
        """See `CursorStore.set`."""
        self._stores[0].set(name, value)


class AssetStore:
    """The state of the cursors' asset.

    :param state: Airflow's accessor of it.
    """

    where = f"Airflow's asset state store (asset {ASSET_NAME!r})"

    def __init__(self, state: Any) -> None:
        self._state = state

    def get(self, name: str) -> Any:
        """See `CursorStore.get`.

        :raises CursorError: the asset is not active.
        """
        try:
            return self._state.get(name)
        except Exception as error:
            if "ASSET_NOT_FOUND" in str(getattr(getattr(error, "error", None), "error", "")):
                raise CursorError(
                    f"no cursor for {name.partition(':')[2]!r}: the asset {ASSET_NAME!r} is not active in Airflow. "
                    "It may be stored under the same asset once a DAG that names it is parsed and active again"
                ) from None
            raise

    def set(self, name: str, value: Any) -> None:
        """See `CursorStore.set`."""
        self._state.set(name, value)


class VariableStore:
    """Airflow's Variables.

    :param variables: Airflow's class; that of its database outside of tasks.
    """

    where = "Airflow's Variables"

    def __init__(self, variables: Any = Variable) -> None:
        self._variables = variables

    def get(self, name: str) -> Any:
        """See `CursorStore.get`."""
        text = self._variables.get(variable_key(name), None)
        return None if text is None else json.loads(text)

    def set(self, name: str, value: Any) -> None:
        """See `CursorStore.set`."""
        self._variables.set(variable_key(name), json.dumps(value))


def variable_key(name: str) -> str:
    """The Variable of a name, which is bounded in length."""
    key = f"{PREFIX}{name}"
    if len(key) <= LONGEST_VARIABLE:
        return key
    return f"{key[: LONGEST_VARIABLE - 34]}~{sha256(key.encode()).hexdigest()[:32]}"


class FileStore:
    """Files of a folder: a local path, or a URI of Airflow's object storage."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.where = folder

    def get(self, name: str) -> Any:
        """See `CursorStore.get`."""
        text = stored_file(self.folder, f"{safe_name(name)}.json").read()
        return json.loads(text) if text else None

    def set(self, name: str, value: Any) -> None:
        """See `CursorStore.set`."""
        stored_file(self.folder, f"{safe_name(name)}.json").replace(json.dumps(value).encode())


class TaskStateStore:
    """Airflow's task state store, beside the task instance, for as long as its DAG run is kept."""

    where = "Airflow's task state store"

    def __init__(self, state: Any) -> None:
        self._state = state

    def get(self, name: str) -> Any:
        """See `CursorStore.get`."""
        return self._state.get(name)

    def set(self, name: str, value: Any) -> None:
        """See `CursorStore.set`."""
        self._state.set(name, value, retention=NEVER_EXPIRE)


def bounds_store(context: Context, checkpoint_path: str | None, task_name: str) -> CursorStore | None:
    """Where a run's bounds are kept for its other tries; None for nowhere.

    :param task_name: a path that names the task instance.
    """
    state = context.get("task_state_store")
    if state is not None:
        return TaskStateStore(state)
    return FileStore(f"{checkpoint_path.rstrip('/')}/{task_name}") if checkpoint_path else None


def cursor_files(checkpoint_path: str | None) -> CursorFiles | None:
    """Where digests go that are too many for a store: below `checkpoint_path`, else below `[events] cursor_path`."""
    folder = checkpoint_path or conf.get("events", "cursor_path", fallback="") or None
    return _Files(folder) if folder else None


class _Files:
    """Files of digests, named by what they hold."""

    def __init__(self, folder: str) -> None:
        from airflow_provider_events.sources.cursor_state import MOST_IN_FILE

        self._folder = folder
        self.most = MOST_IN_FILE

    def write(self, data: bytes) -> str:
        """See `CursorFiles.write`."""
        name = f"{sha256(data).hexdigest()[:32]}.sent"
        stored_file(self._folder, f"cursors/{name}").replace(data)
        return name

    def read(self, name: str) -> bytes | None:
        """See `CursorFiles.read`."""
        return stored_file(self._folder, f"cursors/{safe_name(name)}").read()

    def remove(self, name: str) -> None:
        """See `CursorFiles.remove`."""
        stored_file(self._folder, f"cursors/{safe_name(name)}").remove()
