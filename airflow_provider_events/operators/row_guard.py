"""How many rows a run may send, by what its task says and by what its earlier runs sent.

The numbers of the last successful runs travel from run to run in an XCom of the task, `events.rows`: every version of
Airflow hands a run the XCom of the run before it, also where tasks have no database.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from statistics import median
from typing import TYPE_CHECKING, Any

from airflow_provider_events.delivery.row_limits import RowLimit, check_row_count
from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.values import kind

if TYPE_CHECKING:
    from airflow_provider_events._compat import Context
    from airflow_provider_events.delivery.resume import Source

__all__ = ["RowGuard", "check_growth"]

log = logging.getLogger(__name__)

KEY = "events.rows"
CONF = "events_max_rows"
LONGEST = 10  # runs that the median is of


def check_growth(value: Any) -> None:
    """Make sure that `max_growth` is a number above 0.

    :raises ConfigurationError: it is none.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9):
        raise ConfigurationError(f"max_growth has to be a number above 0, not {value!r}")


class RowGuard:
    """Stops a run that is unlike those before it, and remembers how many rows it sent.

    :param max_growth: how many times the median of the last runs that sent anything; None: they are not looked at.
    """

    def __init__(self, context: Context, max_rows: int | None, max_growth: float | None) -> None:
        check_growth(max_growth)
        self._ti: Any = context["ti"]
        self._max_rows = max_rows
        self._max_growth = max_growth
        self._allowed = _allowed(context)
        self._past = [] if max_growth is None else self._load()

    def check(self, source: Source) -> None:
        """Count the rows.

        :raises TooManyRows: there are more than are let through.
        :raises ConfigurationError: they cannot be counted before they are read.
        """
        cure = (
            f'start or clear the run with {{{{"{CONF}": {{rows}}}}}} as its configuration, or raise '
            f"{'max_rows' if self._max_growth is None else 'max_rows or max_growth'} of task {self._ti.task_id}"
        )
        check_row_count(source, self._limits(), cure)

    def keep(self, rows: int) -> None:
        """Remember this successful run for those to come."""
        if self._max_growth is not None:
            self._ti.xcom_push(key=KEY, value=[*self._past, rows][-LONGEST:])

    def _limits(self) -> list[RowLimit]:
        if self._allowed is not None and (self._max_rows is not None or self._max_growth is not None):
            return [RowLimit(self._allowed, CONF, f"{CONF} of the run's configuration")]
        limits = []
        if self._max_rows is not None:
            limits.append(RowLimit(self._max_rows, "max_rows", f"max_rows={self._max_rows}"))
        sent = [rows for rows in self._past if rows]
        if self._max_growth is not None:
            if sent:
                usual = median(sent)
                words = f"max_growth={self._max_growth} times {usual:g}, the median of the last {len(sent)} runs"
                limits.append(RowLimit(int(usual * self._max_growth), "max_growth", words))
            else:
                log.info("max_growth: no earlier run of this task has sent anything, so this one is not compared")
        return limits

    def _load(self) -> list[int]:
        value = self._ti.xcom_pull(
            task_ids=self._ti.task_id, key=KEY, map_indexes=self._ti.map_index, include_prior_dates=True
        )
        past = value if isinstance(value, list) else []
        return [rows for rows in past if type(rows) is int and rows >= 0][-LONGEST:]


def _allowed(context: Context) -> int | None:
    """How many rows whoever started the run lets through, for this task or for each.

    :raises ConfigurationError: it is no number.
    """
    conf = getattr(context.get("dag_run"), "conf", None)
    value = conf.get(CONF) if isinstance(conf, Mapping) else None
    if isinstance(value, Mapping):
        value = value.get(context["ti"].task_id)
    if value is None or (type(value) is int and value >= 0):
        return value
    raise ConfigurationError(f"{CONF} of the run's configuration has to be a whole number of rows, not {kind(value)}")
