"""The data interval of a DAG run, as far as Airflow gave it one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_events.exceptions import ConfigurationError

if TYPE_CHECKING:
    from airflow_provider_events._compat import Context

__all__ = ["DataInterval", "interval_of"]

CURE = (
    'Give the DAG a schedule whose runs have one, as CronDataIntervalTimetable("0 * * * *", timezone="UTC"), or set '
    "[scheduler] create_cron_data_intervals=True for all of Airflow (create_delta_data_intervals for timedeltas); or "
    "read with cursor_column, which needs none."
)


class DataInterval(NamedTuple):
    """From `start` up to but not including `end`, in UTC."""

    start: datetime
    end: datetime


def interval_of(context: Context) -> DataInterval:
    """The data interval of the run.

    :raises ConfigurationError: it has none, or an empty one.
    """
    start, end = (_moment(context.get(name)) for name in ("data_interval_start", "data_interval_end"))
    kind = getattr(context.get("dag_run"), "run_type", None)
    run = f"this {getattr(kind, 'value', kind)} run" if kind else "this run"
    if start is None or end is None:
        raise ConfigurationError(
            f"interval_column: {run} has no data interval: it has no logical date, as runs that an asset or a person "
            f"starts without one. {CURE} A person can name a logical date when starting a run."
        )
    if start >= end:
        raise ConfigurationError(
            f"interval_column: the data interval of {run} is empty, from {start} to {end}: cron schedules of Airflow 3 "
            f'("@hourly"), and DAGs without a schedule, have none. {CURE}'
        )
    return DataInterval(start, end)


def _moment(value: Any) -> datetime | None:
    """A time of Airflow's as one of Python's own, which is all that some drivers know."""
    return None if value is None else datetime.fromisoformat(value.isoformat()).astimezone(UTC)
