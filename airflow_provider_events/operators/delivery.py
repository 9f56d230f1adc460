"""What the batch operators share: options, rejected files, stopping, and errors as Airflow understands them."""

from __future__ import annotations

import hashlib
import json
import logging
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from airflow_provider_events._compat import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseOperator,
    conf,
)
from airflow_provider_events.delivery.options import DeliveryOptions
from airflow_provider_events.exceptions import (
    ConfigurationError,
    DeliveryInterrupted,
    EventsError,
    MappingError,
    SourceError,
)
from airflow_provider_events.frames import final, name_connection
from airflow_provider_events.hooks.files import safe_name
from airflow_provider_events.operators.checkpoints import ClearPolicy, check_clear_policy
from airflow_provider_events.operators.options import names_options, without_options
from airflow_provider_events.operators.paths import GivenPath
from airflow_provider_events.operators.row_guard import RowGuard, check_growth
from airflow_provider_events.operators.templated import boolean, is_templated, number
from airflow_provider_events.values import kind

if TYPE_CHECKING:
    from airflow_provider_events._compat import Context
    from airflow_provider_events.contract import Codec
    from airflow_provider_events.delivery.pending import PendingEvents
    from airflow_provider_events.delivery.resume import Source
    from airflow_provider_events.events import DeliveryReport
    from airflow_provider_events.hooks.base import EventsHook
    from airflow_provider_events.operators.checkpoints import FileCheckpoints, StateStoreCheckpoints

__all__ = [
    "DeliveryOperator",
    "EventDeliveryOperator",
    "config_option",
    "dag_run_start",
    "fail_without_retry",
    "one_line",
    "task_name",
]

log = logging.getLogger(__name__)

EmptyPolicy = Literal["succeed", "skip", "fail"]
TEMPLATED_OPTIONS: Mapping[str, Callable[[Any, str], Any]] = {
    "max_rejected": number,
    "max_rows": number,
    "dry_run": boolean,
}
NO_CHECKPOINT = "a retry or a clear of this task sends every row again: no checkpoint is kept"
Method = TypeVar("Method", bound=Callable[..., Any])


def one_line(method: Method) -> Method:
    """Decorator of what Airflow calls: a failure that is no bug shows its one line, and no frames."""
    return final(method, (EventsError, AirflowException))


class DeliveryOperator(BaseOperator):
    """Base of the operators that deliver many events. The connection's type decides the vendor.

    :param conn_id: connection of type embeddables, vibetrace, webengage or bloomreach (templated).
    :param rejected_path: folder, or `.jsonl` file, for the rejected events: a local path or a URI of Airflow's object
        storage (templated). Default: Airflow's `[events] rejected_path`, else none.
    :param resume_after_clear: what a person's clear does after a try that did not come to its end: `"unfinished"` or
        True go on from its checkpoint, as a retry does; False sends every row again. After a finished one, a clear
        starts over in any case.
    :param checkpoint_path: folder for checkpoints before Airflow 3.3, which keeps them itself: a local path or a URI
        (templated). Default: Airflow's `[events] checkpoint_path`, else none.
    :param max_growth: how many times the rows of a usual run this one may have, the median of the last ten successful
        runs of this task that sent anything; where there are more nothing is sent (templated). Default: no limit. A
        person lets such a run pass by its configuration, `{"events_max_rows": 120000}`, for `max_rows` as well.
    :param on_empty: what a source without a single row makes of the task: `"succeed"`, `"skip"`, or `"fail"`, which
        Airflow's retries apply to.
    :param hook_params: passed to the vendor's hook: `retry_policy`, `rate_limiter`, `observers`; see `EventsHook`.
    :param options: each of `DeliveryOptions` by its name; `max_rejected`, `max_rows` and `dry_run` are
        templated.
    :raises ConfigurationError: at DAG parse, naming the option; for a template, when the task starts.
    """

    template_fields: Sequence[str] = (
        "conn_id",
        "max_rejected",
        "max_rows",
        "max_growth",
        "dry_run",
        "rejected_path",
        "checkpoint_path",
    )

    max_rejected: Any
    max_rows: Any
    dry_run: Any  # hides a method of Airflow's that only `airflow tasks test --dry-run` of Airflow 2 calls

    @names_options
    def __init__(
        self,
        *,
        conn_id: str,
        rejected_path: str | None = None,
        resume_after_clear: ClearPolicy = "unfinished",
        checkpoint_path: str | None = None,
        max_growth: float | str | None = None,
        on_empty: EmptyPolicy = "succeed",
        hook_params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**without_options(self, kwargs))
        self.conn_id = conn_id
        self.rejected_path = rejected_path
        self._rejected_path = GivenPath("rejected_path", rejected_path)
        self.checkpoint_path = checkpoint_path
        self._checkpoint_path = GivenPath("checkpoint_path", checkpoint_path)
        self.resume_after_clear = resume_after_clear
        self.on_empty = on_empty
        self.max_growth = max_growth
        if not is_templated(max_growth):
            check_growth(max_growth)
        self.hook_params = hook_params
        self.delivery_options = {field.name: kwargs.get(field.name, field.default) for field in fields(DeliveryOptions)}
        for name in TEMPLATED_OPTIONS:
            setattr(self, name, self.delivery_options.pop(name))
        if on_empty not in get_args(EmptyPolicy):
            raise ConfigurationError(f"on_empty has to be one of {', '.join(get_args(EmptyPolicy))}, not {on_empty!r}")
        check_clear_policy(resume_after_clear)
        if not isinstance(hook_params, Mapping | None):
            raise ConfigurationError(f"hook_params has to be a dict, not {kind(hook_params)}")
        self._options({name for name in TEMPLATED_OPTIONS if is_templated(getattr(self, name))})
        self._hook: EventsHook | None = None

    @one_line
    def execute(self, context: Context) -> dict[str, Any]:
        """Deliver everything; returns the `DeliveryReport` as a dictionary, and pushes it after a failure as well."""
        from airflow_provider_events.hooks.base import EventsHook
        from airflow_provider_events.operators.checkpoints import checkpoint_store, state_observers

        ti = context["ti"]
        name = task_name(ti)
        with fail_without_retry(self.conn_id, getattr(self, "sql_conn_id", None)):
            self.begin(context)
            self._hook = hook = EventsHook.for_connection(self.conn_id, **(self.hook_params or {}))
            store = checkpoint_store(
                context,
                self._checkpoint_path.checked(self.checkpoint_path) or config_option("checkpoint_path"),
                name,
                self.resume_after_clear,
            )
            options = self._options()
            try:
                source = self.source(hook)
                guard = RowGuard(context, options.max_rows, number(self.max_growth, "max_growth"))
                guard.check(source)
                pending = self.before_delivery(hook, context, options)
                report = hook.deliver_source(
                    source,
                    replace(options, max_rows=None),
                    codec=self.codec(hook),
                    rejected_path=self._rejected_path.checked(self.rejected_path) or config_option("rejected_path"),
                    rejected_name=f"{name}/try_{ti.try_number}.jsonl",
                    sent_at=dag_run_start(context),
                    fingerprint=self._fingerprint(task_key(ti), options),
                    store=store,
                    entry_delay_seconds=self.entry_delay_seconds(),
                    observers=state_observers(context),
                    pending=pending,
                )
            except AirflowTaskTimeout:
                self._account(ti, hook, store)
                words = "execution_timeout ended the delivery; what was in flight has been accounted for"
                raise hook.client.explained(DeliveryInterrupted(words, report=hook.report)) from None
            except BaseException:
                self._account(ti, hook, store)
                raise
            if not options.dry_run:
                guard.keep(report.read)
            if not report.read:
                self._nothing_came(report)
        return report.to_dict()

    def _account(self, ti: Any, hook: EventsHook, store: StateStoreCheckpoints | FileCheckpoints | None) -> None:
        """The accounts after a failure, which must not hide why, and what comes next."""
        log.info("%s", store.retries.outlook() if store else NO_CHECKPOINT)
        if self.do_xcom_push and hook.report is not None:
            try:
                ti.xcom_push(key="return_value", value=hook.report.to_dict())
            except Exception as error:
                self.log.warning("the report could not be pushed as an XCom (%s)", type(error).__name__)

    def begin(self, context: Context) -> None:
        """What the run decides about the source, before anything is opened; nothing here."""

    def before_delivery(self, hook: EventsHook, context: Context, options: DeliveryOptions) -> PendingEvents | None:
        """What is to be done before the first row is sent: nothing; gives what keeps events for the next run."""
        return None

    def entry_delay_seconds(self) -> float:
        """How long an entry that was made just before may not be seen yet; 0 where none was made."""
        return 0.0

    @abstractmethod
    def source(self, hook: EventsHook) -> Source:
        """The records to deliver."""

    def codec(self, hook: EventsHook) -> Codec:
        """How a record travels: as an event."""
        return hook.vendor

    @abstractmethod
    def fingerprint_inputs(self) -> Any:
        """What decides which rows the source gives and what becomes of them, as JSON-safe values."""

    def on_kill(self) -> None:
        """Stop sending, wait for what is in flight, and fail the try: Airflow's signal alone would not end it."""
        if self._hook is not None:
            self._hook.stop()

    def _options(self, unknown: Collection[str] = ()) -> DeliveryOptions:
        """With what the templates gave.

        :param unknown: options of which nothing is known before their templates are rendered.
        """
        rendered = {
            name: read(getattr(self, name), name) for name, read in TEMPLATED_OPTIONS.items() if name not in unknown
        }
        return DeliveryOptions(**self.delivery_options, **rendered)

    def _nothing_came(self, report: DeliveryReport) -> None:
        if self.on_empty == "succeed":
            return
        if self.on_empty == "fail":
            raise SourceError("on_empty='fail': the source gave no rows")
        raise AirflowSkipException("on_empty='skip': the source gave no rows")

    def _fingerprint(self, task: list[str], options: DeliveryOptions) -> str:
        """Changes whenever the settled rows of an earlier try would not mean the same any more."""
        decisive = [task, self.conn_id, self.fingerprint_inputs(), options.on_missing_entry]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()


class EventDeliveryOperator(DeliveryOperator):
    """Base of the operators that deliver events, and may create their customers' entries first.

    :param ensure_entry: create the customers' entries first where they are missing, by upserts: True, or a mapping of
        attributes that each of them gets. Vibetrace, WebEngage, Bloomreach; rows are read twice. An event whose
        customer is not to be seen at once is tried again for a minute before `on_missing_entry` applies.
    :param pending_path: folder in which events are kept whose customer has no entry: the next run of the task offers
        them again before its own rows. A local path or a URI (templated). They do not count for `max_rejected`.
    :param pending_max_age: for how long; then an event is given up, and counts. Default: seven days.

    For the other parameters see `DeliveryOperator`.
    """

    template_fields: Sequence[str] = ("pending_path", *DeliveryOperator.template_fields)

    def __init__(
        self,
        *,
        ensure_entry: bool | Mapping[str, Any] = False,
        pending_path: str | None = None,
        pending_max_age: timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.ensure_entry = ensure_entry
        self.pending_path = pending_path
        self._pending_path = GivenPath("pending_path", pending_path)
        age = timedelta(days=7) if pending_max_age is None else pending_max_age
        if not isinstance(age, timedelta) or age <= timedelta(0):
            raise ConfigurationError(f"pending_max_age has to be a timedelta above 0, not {age!r}")
        self.pending_max_age = age
        policy = self.delivery_options["on_missing_entry"]
        if pending_path and policy not in ("reject", "wait"):
            raise ConfigurationError(
                f"pending_path keeps events whose customer has no entry, and on_missing_entry={policy!r} rejects none"
            )

    def before_delivery(self, hook: EventsHook, context: Context, options: DeliveryOptions) -> PendingEvents | None:
        """Create the entries, and offer the events that earlier runs have left, unless it is a dry run."""
        if options.dry_run:
            return None
        if self.ensure_entry:
            self._ensure(hook, context, options)
        path = self._pending_path.checked(self.pending_path)
        return self._offer(hook, context, options, path) if path else None

    def _offer(self, hook: EventsHook, context: Context, options: DeliveryOptions, path: str) -> PendingEvents:
        from airflow_provider_events.hooks.pending import PendingFolder, offer_pending

        ti = context["ti"]
        dag_id, _, *task = task_key(ti)
        return offer_pending(
            hook,
            PendingFolder(path, "/".join(map(safe_name, [dag_id, *task]))),
            options,
            self.pending_max_age,
            rejected_path=self._rejected_path.checked(self.rejected_path) or config_option("rejected_path"),
            rejected_name=f"{task_name(ti)}/try_{ti.try_number}.pending.jsonl",
            sent_at=dag_run_start(context),
        )

    def _ensure(self, hook: EventsHook, context: Context, options: DeliveryOptions) -> None:
        from airflow_provider_events.hooks.ensuring import ensure_entries

        attributes = self.ensure_entry if isinstance(self.ensure_entry, Mapping) else {}
        report = ensure_entries(hook, self.source(hook), attributes, options, dag_run_start(context))
        self.log.info("%d entries ensured, %d refused", report.delivered, report.rejected)

    def entry_delay_seconds(self) -> float:
        """A minute, where entries are ensured."""
        from airflow_provider_events.hooks.ensuring import ENTRY_DELAY_SECONDS

        return ENTRY_DELAY_SECONDS if self.ensure_entry else 0.0


@contextmanager
def fail_without_retry(conn_id: str, sql_conn_id: str | None = None) -> Iterator[None]:
    """Errors that no retry can heal fail the task at once; the others are left to Airflow's retries.

    They name the connection that they concern: the vendor's, or the database's whose rows or columns are at fault.
    """
    try:
        yield
    except EventsError as error:
        of_rows = sql_conn_id is not None and isinstance(error, SourceError | MappingError)
        name_connection(error, f"sql_conn_id {sql_conn_id!r}" if of_rows else f"connection {conn_id!r}")
        if error.retryable:
            raise
        raise AirflowFailException(str(error)) from None


def dag_run_start(context: Context) -> datetime | None:
    """When the DAG run started: the same for every try, so that a retry sends the same bytes."""
    dag_run = context.get("dag_run")
    return getattr(dag_run, "start_date", None)


def config_option(option: str) -> str | None:
    """An option of Airflow's section `[events]`; None where it is blank."""
    return conf.get("events", option, fallback="") or None


def task_name(ti: Any) -> str:
    """A path that names the task instance, the same for all its tries."""
    return "/".join(map(safe_name, task_key(ti)))


def task_key(ti: Any) -> list[str]:
    """What tells the task instance from all others, the same for all its tries."""
    key = [ti.dag_id, ti.run_id, ti.task_id]
    return [*key, str(ti.map_index)] if ti.map_index is not None and ti.map_index >= 0 else key
