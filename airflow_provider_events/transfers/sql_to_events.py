"""From a SQL query to a vendor, row by row, in flat memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_events._compat import BaseHook
from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.operators.delivery import DeliveryOperator, EventDeliveryOperator
from airflow_provider_events.operators.templated import is_templated
from airflow_provider_events.sources.mapping import EventMapping

if TYPE_CHECKING:
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
        self.parameters = parameters
        self.key_column = key_column
        self.count_rows = count_rows
        self.sql_hook_params = sql_hook_params

    def event_mapping(self) -> EventMapping:
        """The mapping as its templates were rendered.

        :raises MappingError: it is none.
        """
        return EventMapping.of(self.mapping)

    def source(self, hook: EventsHook) -> Source:
        """The rows as records."""
        from airflow.providers.common.sql.hooks.sql import DbApiHook

        from airflow_provider_events.sources.rows import SqlRecords
        from airflow_provider_events.sources.sql import SqlSource

        database = BaseHook.get_connection(self.sql_conn_id).get_hook(hook_params=dict(self.sql_hook_params or {}))
        if not isinstance(database, DbApiHook):
            raise ConfigurationError(
                f"sql_conn_id {self.sql_conn_id!r}: {type(database).__name__} is no database hook (DbApiHook)"
            )
        source = SqlSource(database, self.sql, self.parameters, key_column=self.key_column, count_rows=self.count_rows)
        self.log.info("reading by %s", source.strategy)
        return SqlRecords(source, self.event_mapping(), self.key_column)

    def query(self) -> Any:
        """Query, parameters, key and mapping."""
        return [self.sql_conn_id, self.sql, self.parameters, self.key_column, self.event_mapping().model_dump()]


class SqlToEventsOperator(SqlDeliveryOperator, EventDeliveryOperator):
    """Sends one event for each row of a query.

    For the parameters see `SqlDeliveryOperator`, `EventDeliveryOperator` and `DeliveryOperator`.
    """
