"""The cursor of a task: its name, what it is a cursor of, and where it is kept."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.hooks.cursor_store import bounds_store, cursor_asset, cursor_files, cursor_store

if TYPE_CHECKING:
    from airflow_provider_events._compat import Context
    from airflow_provider_events.sources.kept_cursor import KeptCursor
    from airflow_provider_events.sources.mapping import EventMapping

__all__ = ["check_run", "cursor_name_of", "kept_cursor", "source_parts", "warn_of_catchup", "with_cursor_asset"]

log = logging.getLogger(__name__)


def cursor_name_of(dag_id: str, task_id: str, given: str | None) -> str:
    """Under which name a task's cursor is stored."""
    return given or f"{dag_id}.{task_id}"


def with_cursor_asset(inlets: Any) -> list[Any]:
    """A task's inlets, and the asset in whose state its cursor is kept, where Airflow has one."""
    given = [] if inlets is None else list(inlets) if isinstance(inlets, list | tuple) else [inlets]
    asset = cursor_asset()
    return given if asset is None else [*given, asset]


def warn_of_catchup(dag: Any) -> None:
    """Runs of the past all read the live cursor: the first one reads everything, the others nothing."""
    if getattr(dag, "catchup", False) and dag.timetable.can_be_scheduled:
        warnings.warn(
            f"DAG {dag.dag_id!r} has catchup=True and a task with cursor_column: runs of the past all read the live "
            "cursor. Set catchup=False, or read with interval_column",
            UserWarning,
            stacklevel=4,
        )


def check_run(context: Context, cursor_name: str | None) -> None:
    """Make sure that a run may read a cursor.

    :raises ConfigurationError: a backfill, or a mapped task without a name of its own.
    """
    kind = getattr(context.get("dag_run"), "run_type", None)
    if str(getattr(kind, "value", kind)) == "backfill":
        raise ConfigurationError(
            "cursor_column: a backfill is for intervals of the past, and a cursor knows none; use interval_column for "
            "backfills"
        )
    map_index = context["ti"].map_index
    if map_index is not None and map_index >= 0 and not cursor_name:
        raise ConfigurationError("cursor_column: each task of an expand() needs a cursor_name of its own")
    if (runs := getattr(context.get("dag"), "max_active_runs", 1)) != 1:
        log.warning(
            "the DAG has max_active_runs=%s: two runs at once read the same rows, and may send them twice. Set "
            "max_active_runs=1",
            runs,
        )


def kept_cursor(
    context: Context,
    name: str,
    of: dict[str, Any],
    *,
    checkpoint_path: str | None,
    task_name: str,
    resume_after_clear: Any,
    read_only: bool,
) -> KeptCursor:
    """The cursor for this try of the task.

    :param of: see `source_parts`.
    :param task_name: a path that names the task instance.
    """
    from airflow_provider_events.sources.kept_cursor import KeptCursor, Run

    ti = context["ti"]
    return KeptCursor(
        name,
        cursor_store(context),
        of,
        Run(ti.run_id, ti.max_tries, bool(resume_after_clear)),
        frozen=bounds_store(context, checkpoint_path, task_name),
        files=cursor_files(checkpoint_path),
        read_only=read_only,
    )


def source_parts(
    sql: str, columns: Sequence[str], sql_conn_id: str, conn_id: str, mapping: EventMapping
) -> dict[str, Any]:
    """What a cursor is a cursor of: where one of these changes, other rows may stand behind it."""
    event = [mapping.name_column or mapping.name, mapping.identity, mapping.id]
    return {
        "sql": sha256(_normalised(sql).encode()).hexdigest()[:16],
        "cursor_column": list(columns),
        "sql_conn_id": sql_conn_id,
        "conn_id": conn_id,
        "mapping": sha256(repr(event).encode()).hexdigest()[:16],
    }


def _normalised(sql: str) -> str:
    """A query without comments, and with one blank wherever there is any."""
    from sqlparse import tokens
    from sqlparse.lexer import tokenize

    parts = (" " if token in tokens.Comment else text for token, text in tokenize(sql))
    return " ".join("".join(parts).split()).rstrip("; ")
