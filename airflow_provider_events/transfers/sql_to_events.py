"""From a SQL query to a vendor, row by row, in flat memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_events._compat import BaseHook
from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.operators.delivery import DeliveryOperator, EventDeliveryOperator
from airflow_provider_events.operators.templated import is_templated
from airflow_provider_events.sources.keyset import refuse_own_names
from airflow_provider_events.sources.mapping import EventMapping
from airflow_provider_events.transfers.interval import DataInterval, interval_of

if TYPE_CHECKING:
    from airflow_provider_events._compat import Context
    from airflow_provider_events.delivery.resume import Source
    from airflow_provider_events.hooks.base import EventsHook

__all__ = ["SqlDeliveryOperator", "SqlToEventsOperator"]


class SqlDeliveryOperator(DeliveryOperator):
    """Base of the operators that deliver the rows of a query.

    :param sql: the query, or the name of a `.sql` file (templated).
    :param sql_conn_id: connection of any database whose hook is a `DbApiHook` (templated).
    :param mapping: which column is what; see `EventMapping` (templated).
    :param parameters: bound to the query by the driver (templated), e.g. the ends of the data interval.
    :param key_column: unique, never NULL: the rows are read in its order, page by page, instead of by one cursor that
        stays open for the whole delivery (templated). While the task is unfinished its checkpoint shows some of the
        column's values to whoever may see the task's state: take one that names no customer.
    :param interval_column: a column of times, dates or epoch numbers, never NULL: only the rows of the run's data
        interval are read, from its start up to but not including its end, in the column's own zone (templated). The
        query itself needs no condition. A run without a data interval fails before anything is read.
    :param count_rows: whether the database counts the rows first, by one more query, so that the log and the task's
        progress say "N of M" and the time that is left; default False.
    :param sql_hook_params: passed to the database's hook.

    For the other parameters see `DeliveryOperator`.
    """

    template_fields: Sequence[str] = (
        "sql",
        "parameters",
        "sql_conn_id",
        "mapping",
        "key_column",
        "interval_column",
        *DeliveryOperator.template_fields,
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql", "parameters": "json", "mapping": "json"}

    def __init__(
        self,
        *,
        sql: str,
        sql_conn_id: str,
        mapping: EventMapping | Mapping[str, Any] | str,
        parameters: Mapping[str, Any] | Sequence[Any] | None = None,
        key_column: str | None = None,
        interval_column: str | None = None,
        count_rows: bool = False,
        sql_hook_params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sql = sql
        self.sql_conn_id = sql_conn_id
        self.mapping = mapping
        if not is_templated(mapping):
            self.event_mapping()
        refuse_own_names(parameters)
        self.parameters = parameters
        self.key_column = key_column
        if interval_column is not None and not interval_column.strip():
            raise ConfigurationError("interval_column must not be empty; leave it out to read all rows")
        self.interval_column = interval_column
        self._interval: DataInterval | None = None
        self.count_rows = count_rows
        self.sql_hook_params = sql_hook_params

    def event_mapping(self) -> EventMapping:
        """The mapping as its templates were rendered.

        :raises MappingError: it is none.
        """
        return EventMapping.of(self.mapping)

    def begin(self, context: Context) -> None:
        """Find the run's interval.

        :raises ConfigurationError: there is none.
        """
        self._interval = interval_of(context) if self.interval_column else None

    def source(self, hook: EventsHook) -> Source:
        """The rows as records."""
        from airflow.providers.common.sql.hooks.sql import DbApiHook

        from airflow_provider_events.sources.rows import SqlRecords
        from airflow_provider_events.sources.sql import SqlSource
        from airflow_provider_events.sources.window import Window

        database = BaseHook.get_connection(self.sql_conn_id).get_hook(hook_params=dict(self.sql_hook_params or {}))
        if not isinstance(database, DbApiHook):
            raise ConfigurationError(
                f"sql_conn_id {self.sql_conn_id!r}: {type(database).__name__} is no database hook (DbApiHook)"
            )
        mapping, window = self.event_mapping(), None
        if self.interval_column and self._interval:
            window = Window(self.interval_column, *self._interval, mapping.timezone)
        source = SqlSource(
            database,
            self.sql,
            self.parameters,
            key_column=self.key_column,
            count_rows=self.count_rows,
            window=window,
        )
        self.log.info("reading by %s", source.strategy)
        return SqlRecords(source, mapping, self.key_column)

    def query(self) -> Any:
        """Query, parameters, key, interval and mapping."""
        interval = [self.interval_column, *map(str, self._interval)] if self._interval else None
        return [
            self.sql_conn_id,
            self.sql,
            self.parameters,
            self.key_column,
            interval,
            self.event_mapping().model_dump(),
        ]


class SqlToEventsOperator(SqlDeliveryOperator, EventDeliveryOperator):
    """Sends one event for each row of a query.

    For the parameters see `SqlDeliveryOperator`, `EventDeliveryOperator` and `DeliveryOperator`.
    """
