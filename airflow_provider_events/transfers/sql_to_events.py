"""From a SQL query to a vendor, row by row, in flat memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_events._compat import AirflowException, BaseHook
from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.operators.delivery import (
    DeliveryOperator,
    EventDeliveryOperator,
    config_option,
    task_name,
)
from airflow_provider_events.operators.templated import boolean, is_templated
from airflow_provider_events.sources.cursor_axis import CursorNulls, CursorOptions
from airflow_provider_events.sources.keyset import refuse_own_names
from airflow_provider_events.sources.mapping import EventMapping
from airflow_provider_events.transfers.cursor import (
    check_run,
    cursor_name_of,
    kept_cursor,
    source_parts,
    warn_of_catchup,
    with_cursor_asset,
)
from airflow_provider_events.transfers.interval import DataInterval, interval_of

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

    from airflow_provider_events._compat import Context
    from airflow_provider_events.delivery.resume import Source
    from airflow_provider_events.hooks.base import EventsHook
    from airflow_provider_events.sources.cursor_bounds import AnyCursor
    from airflow_provider_events.sources.incremental import CursorRecords
    from airflow_provider_events.sources.kept_cursor import KeptCursor

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
    :param cursor_column: one column, or two: only rows behind the cursor are read, which is kept from run to run. The
        first column grows with each new or changed row (a time, or a number); the second one is unique among rows of
        one value of the first. The query itself needs no condition.
    :param initial_value: required with `cursor_column`: `"now"`, `"earliest"` (every row), or a value of the column,
        with which the first run begins (templated).
    :param lookback: how far behind the cursor rows are read again, for those that are committed late; what was sent of
        them is known, and not sent again. A timedelta for times, a number for numbers; default none.
    :param cursor_delay: rows younger than this, by the database's clock, are left for the next run; default none.
    :param on_cursor_null: rows without a value of the cursor column fail the run (`"fail"`), or are counted as skipped
        (`"exclude"`).
    :param cursor_name: under which the cursor is stored (templated); set it before you rename DAG or task. Default:
        `<dag_id>.<task_id>`.
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
        "initial_value",
        "cursor_name",
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
        cursor_column: str | Sequence[str] | None = None,
        initial_value: Any = None,
        lookback: timedelta | float | None = None,
        cursor_delay: timedelta | None = None,
        on_cursor_null: CursorNulls = "fail",
        cursor_name: str | None = None,
        count_rows: bool = False,
        sql_hook_params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if cursor_column is not None:
            kwargs["inlets"] = with_cursor_asset(kwargs.get("inlets"))
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
        self.cursor_column = cursor_column
        self.initial_value = initial_value
        self.lookback = lookback
        self.cursor_delay = cursor_delay
        self.on_cursor_null = on_cursor_null
        self.cursor_name = cursor_name
        self._check_cursor()
        self._kept: KeptCursor | None = None
        self.count_rows = count_rows
        self.sql_hook_params = sql_hook_params

    def event_mapping(self) -> EventMapping:
        """The mapping as its templates were rendered.

        :raises MappingError: it is none.
        """
        return EventMapping.of(self.mapping)

    def cursor_options(self) -> CursorOptions | None:
        """What is said of a cursor; None without one.

        :raises ConfigurationError: naming the option.
        """
        if self.cursor_column is None:
            return None
        columns = (self.cursor_column,) if isinstance(self.cursor_column, str) else tuple(self.cursor_column)
        return CursorOptions(columns, self.initial_value, self.lookback, self.cursor_delay, self.on_cursor_null)

    def _check_cursor(self) -> None:
        if self.cursor_options() is None:
            for name in ("initial_value", "lookback", "cursor_delay", "cursor_name"):
                if getattr(self, name):
                    raise ConfigurationError(f"{name} needs a cursor_column")
            return
        for name in ("key_column", "interval_column"):
            if getattr(self, name) is not None:
                raise ConfigurationError(
                    f"{name} beside cursor_column: leave one of them out. A cursor reads by its own columns, and "
                    "cursor_column takes a second one that is unique"
                )
        warn_of_catchup(self.get_dag())

    def begin(self, context: Context) -> None:
        """Find the run's interval, and see whether the run may read a cursor.

        :raises ConfigurationError: there is none, or it may not.
        """
        if self.cursor_column is not None:
            check_run(context, self.cursor_name)
            self._kept = self._kept_cursor(context)
        self._interval = interval_of(context) if self.interval_column else None

    def source(self, hook: EventsHook) -> Source:
        """The rows as records."""
        from airflow_provider_events.sources.rows import SqlRecords
        from airflow_provider_events.sources.sql import SqlSource
        from airflow_provider_events.sources.window import Window

        mapping, window = self.event_mapping(), None
        if (options := self.cursor_options()) is not None and self._kept is not None:
            records = self.cursor_records(options, self._kept)
            self.log.info("reading by %s", records.strategy)
            records.plan()
            return records
        if self.interval_column and self._interval:
            window = Window(self.interval_column, *self._interval, mapping.timezone)
        source = SqlSource(
            self.database_hook(),
            self.sql,
            self.parameters,
            key_column=self.key_column,
            count_rows=self.count_rows,
            window=window,
        )
        self.log.info("reading by %s", source.strategy)
        return SqlRecords(source, mapping, self.key_column)

    def database_hook(self) -> DbApiHook:
        """The hook of `sql_conn_id`.

        :raises ConfigurationError: its provider is not installed, or it is no database.
        """
        from airflow.providers.common.sql.hooks.sql import DbApiHook

        connection = BaseHook.get_connection(self.sql_conn_id)
        try:
            database = connection.get_hook(hook_params=dict(self.sql_hook_params or {}))
        except AirflowException:  # it says of what type only
            raise ConfigurationError(
                f"sql_conn_id {self.sql_conn_id!r} has the type {connection.conn_type!r}, for which Airflow finds no "
                "hook: install the provider of that database"
            ) from None
        if not isinstance(database, DbApiHook):
            raise ConfigurationError(
                f"sql_conn_id {self.sql_conn_id!r}: {type(database).__name__} is no database hook (DbApiHook)"
            )
        return database

    def cursor_records(self, options: CursorOptions, kept: AnyCursor) -> CursorRecords:
        """The rows behind a cursor; nothing is read yet."""
        from airflow_provider_events.sources.incremental import CursorRecords

        return CursorRecords(self.database_hook(), self.sql, self.parameters, self.event_mapping(), options, kept)

    def cursor_parts(self) -> dict[str, Any]:
        """What the cursor is a cursor of; see `source_parts`."""
        columns = (self.cursor_column,) if isinstance(self.cursor_column, str) else tuple(self.cursor_column or ())
        return source_parts(self.sql, columns, self.sql_conn_id, self.conn_id, self.event_mapping())

    def _kept_cursor(self, context: Context) -> KeptCursor:
        ti = context["ti"]
        return kept_cursor(
            context,
            cursor_name_of(ti.dag_id, ti.task_id, self.cursor_name),
            self.cursor_parts(),
            checkpoint_path=self._checkpoint_path.checked(self.checkpoint_path) or config_option("checkpoint_path"),
            task_name=task_name(ti),
            resume_after_clear=self.resume_after_clear,
            read_only=boolean(self.dry_run, "dry_run"),
        )

    def fingerprint_inputs(self) -> Any:
        """Query, parameters, key, interval and mapping."""
        interval = [self.interval_column, *map(str, self._interval)] if self._interval else None
        return [
            self.sql_conn_id,
            self.sql,
            self.parameters,
            self.key_column,
            interval,
            self.cursor_column,
            self.event_mapping().model_dump(),
        ]


class SqlToEventsOperator(SqlDeliveryOperator, EventDeliveryOperator):
    """Sends one event for each row of a query.

    For the parameters see `SqlDeliveryOperator`, `EventDeliveryOperator` and `DeliveryOperator`.
    """

    template_fields: Sequence[str] = (*SqlDeliveryOperator.template_fields, "pending_path")
