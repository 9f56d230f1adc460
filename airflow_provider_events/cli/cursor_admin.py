"""Cursors where Airflow's database is: the stores, and the tasks whose cursors they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

from airflow_provider_events._compat import HAS_STATE_STORES, ObjectStoragePath, conf
from airflow_provider_events.cli.replay import stored_connection
from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.hooks.cursor_store import ASSET_NAME, StoreChain, older_stores, variable_key
from airflow_provider_events.sources.cursor_state import MOST_IN_FILE, CursorRecord, CursorStore, Position
from airflow_provider_events.sources.kept_cursor import AS_GIVEN, Begin, cursor_key

if TYPE_CHECKING:
    from airflow_provider_events.sources.cursor_bounds import Bounds

__all__ = ["cursor_names", "database_store", "load_record", "moved", "task_of", "trial"]

PREFIX = cursor_key("")


def database_store() -> CursorStore:
    """The stores as tasks use them, reached without a task."""
    from airflow.models.variable import Variable

    asset_id = _asset_id() if HAS_STATE_STORES else None
    return StoreChain([*([DatabaseAssetStore(asset_id)] if asset_id else []), *older_stores(Variable)])


def load_record(store: CursorStore, name: str) -> CursorRecord | None:
    """A stored cursor; None if there is none.

    :raises CursorError: it is none that this version reads.
    """
    value = store.get(cursor_key(name))
    return None if value is None else CursorRecord.from_dict(value)


def cursor_names() -> list[str]:
    """The names of all cursors, in order."""
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import select

    names: set[str] = set()
    prefix = variable_key(PREFIX)
    with create_session() as session:
        for key in session.scalars(select(Variable.key).where(Variable.key.startswith(prefix))):
            names.add(key.removeprefix(prefix))
        if HAS_STATE_STORES and (asset_id := _asset_id()) is not None:
            from airflow.models.asset_state_store import AssetStateStoreModel as Stored

            keys = select(Stored.key).where(Stored.asset_id == asset_id, Stored.key.startswith(PREFIX))
            names.update(key.removeprefix(PREFIX) for key in session.scalars(keys))
    if path := conf.get("events", "cursor_path", fallback=""):
        folder = ObjectStoragePath(path)
        for file in folder.iterdir() if folder.exists() else ():
            key = unquote(file.name.removesuffix(".json"))
            if key.startswith(PREFIX) and file.name.endswith(".json"):
                names.add(key.removeprefix(PREFIX))
    return sorted(names)


def _asset_id() -> int | None:
    from airflow.models.asset import AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found: int | None = session.scalar(select(AssetModel.id).where(AssetModel.name == ASSET_NAME))
    return found


class DatabaseAssetStore:
    """The state of the cursors' asset, in Airflow's database."""

    where = f"the state of the asset {ASSET_NAME!r}"

    def __init__(self, asset_id: int) -> None:
        from airflow._shared.state import AssetScope
        from airflow.state.metastore import MetastoreBackend

        self._backend = MetastoreBackend()
        self._scope = AssetScope(asset_id=asset_id)

    def get(self, name: str) -> Any:
        """See `CursorStore.get`."""
        text = self._backend.get(self._scope, name)
        return None if text is None else json.loads(text)

    def set(self, name: str, value: Any) -> None:
        """See `CursorStore.set`."""
        self._backend.set(self._scope, name, json.dumps(value))


def task_of(name: str, dags_folder: str | None = None) -> Any:
    """The task whose cursor has this name, with what its templates give now; None if there is none.

    :param dags_folder: folder or file; default: Airflow's.
    """
    try:
        module = import_module("airflow.dag_processing.dagbag")
    except ImportError:  # before Airflow 3.2
        module = import_module("airflow.models.dagbag")
    bag: Any = module.DagBag(dag_folder=dags_folder or conf.get("core", "dags_folder"))
    for dag in bag.dags.values():
        for task in dag.tasks:
            if getattr(task, "cursor_column", None) is None or not hasattr(task, "cursor_records"):
                continue
            if name in (task.cursor_name, None if task.cursor_name else f"{dag.dag_id}.{task.task_id}"):
                _render(task, dag)
                return task
    return None


def _render(task: Any, dag: Any) -> None:
    now = datetime.now(UTC)
    context = {
        "dag": dag,
        "task": task,
        "params": dict(dag.params),
        "logical_date": now,
        "data_interval_start": now,
        "data_interval_end": now,
        "ds": f"{now:%Y-%m-%d}",
        "run_id": "cursor",
    }
    try:
        task.render_template_fields(context)
    except Exception as error:  # whatever its author's templates do
        raise ConfigurationError(
            f"task {task.task_id}: its templates need a run ({type(error).__name__}), so its rows cannot be counted"
        ) from None


class _Trial:
    """A cursor as it would be."""

    most = MOST_IN_FILE

    def __init__(self, name: str, sent: bytes) -> None:
        self.name = name
        self._sent = sent

    def begin(self) -> Begin:
        return Begin(sent=self._sent)

    def freeze(self, lower: Position, upper: Any, kind: str) -> None: ...

    def place(self, position: Position, kind: str) -> None: ...

    def settle(self, *args: Any, **kwargs: Any) -> None: ...


def trial(task: Any, name: str, to: str, sent: bytes) -> tuple[Bounds, int]:
    """What the next run would read, and how many rows that are, if the cursor stood there.

    :param to: `now`, `earliest`, or a value.
    :param sent: digests of rows that it would pass over.
    :raises EventsError: the value does not fit, or the database gives no answer.
    """
    options = replace(task.cursor_options(), initial_value=to)
    with _reachable(task.sql_conn_id):
        records = task.cursor_records(options, _Trial(name, sent))
        return records.bounds, records.count()


@contextmanager
def _reachable(conn_id: str) -> Iterator[None]:
    """Put a connection of Airflow's database where hooks find it: outside of tasks those of Airflow 3 do not see it."""
    connection: Any = stored_connection(conn_id)
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    before = os.environ.get(variable)
    os.environ[variable] = connection.get_uri()
    try:
        yield
    finally:
        os.environ.pop(variable)
        if before is not None:
            os.environ[variable] = before


def moved(
    record: CursorRecord | None,
    how: Literal["set", "reset"],
    position: Position,
    kind: str,
    of: dict[str, Any],
) -> CursorRecord:
    """The cursor as a person set it; runs that are on their way leave it alone.

    :param kind: of its value; `AS_GIVEN` where that is not known.
    :param of: see `CursorRecord`; empty where that is not known.
    """
    keeps = record is not None and how == "set"
    return CursorRecord(
        position=position,
        kind=kind,
        generation=1 + (record.generation if record else 0),
        of=of,
        run="cursor",
        since=position.value if kind != AS_GIVEN else None,
        sent=record.sent if record and keeps else b"",
        file=record.file if record and keeps else None,
    )
