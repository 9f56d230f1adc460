"""What the batch operators share: options, rejected files, stopping, and errors as Airflow understands them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_events._compat import AirflowFailException, BaseOperator, conf
from airflow_provider_events.delivery.options import DeliveryOptions
from airflow_provider_events.exceptions import DeliveryError, EventsError

if TYPE_CHECKING:
    from airflow_provider_events._compat import Context
    from airflow_provider_events.delivery.options import MissingEntryPolicy
    from airflow_provider_events.events import DeliveryReport, Record
    from airflow_provider_events.hooks.base import EventsHook

__all__ = ["DeliveryOperator", "failing_for_good", "run_time"]


class DeliveryOperator(BaseOperator):
    """Base of the operators that deliver many events. The connection's type decides the vendor.

    :param conn_id: connection of type embeddables, vibetrace, webengage or bloomreach (templated).
    :param on_missing_entry: an event whose customer has no entry is rejected, skipped, or ends the delivery (`"fail"`).
    :param max_rejected: how many events (int) or what share of them (float below 1) may be rejected. Everything
        deliverable is delivered first; then the task fails without a retry.
    :param rejected_path: folder, or `.jsonl` file, for the rejected events: a local path or a URI of Airflow's object
        storage (templated). Default: Airflow's `[events] rejected_path`, else none.
    :param batch_size: events per request. Default: the connection's, else what the vendor takes.
    :param max_in_flight: requests waiting for an answer at once. Default: the connection's, else the vendor's.
    :param requests_per_minute: upper bound of the request rate. Default: the connection's, else the vendor's quota.
    :param dry_run: read, map, validate and encode, but send nothing.
    :raises ConfigurationError: at DAG parse, naming the option.
    """

    def __init__(
        self,
        *,
        conn_id: str,
        on_missing_entry: MissingEntryPolicy = "reject",
        max_rejected: int | float = 0,
        rejected_path: str | None = None,
        batch_size: int | None = None,
        max_in_flight: int | None = None,
        requests_per_minute: float | None = None,
        dry_run: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.rejected_path = rejected_path
        self.delivery_options: dict[str, Any] = {
            "on_missing_entry": on_missing_entry,
            "max_rejected": max_rejected,
            "batch_size": batch_size,
            "max_in_flight": max_in_flight,
            "requests_per_minute": requests_per_minute,
            "dry_run": dry_run,
        }
        DeliveryOptions(**self.delivery_options)
        self._hook: EventsHook | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Deliver everything; returns the `DeliveryReport` as a dictionary, and pushes it after a failure as well."""
        from airflow_provider_events.hooks.base import EventsHook

        with failing_for_good():
            self._hook = hook = EventsHook.for_connection(self.conn_id)
            try:
                report = hook.deliver_records(
                    self.records(context),
                    rejected_path=self.rejected_path or conf.get("events", "rejected_path", fallback="") or None,
                    rejected_name=_rejected_name(context["ti"]),
                    sent_at=run_time(context),
                    **self.delivery_options,
                )
            except DeliveryError as error:
                if error.report is not None:
                    self._summarise(error.report)
                    if self.do_xcom_push:
                        context["ti"].xcom_push(key="return_value", value=error.report.to_dict())
                raise
        self._summarise(report)
        return report.to_dict()

    def records(self, context: Context) -> Iterator[Sequence[Record]]:
        """The records to deliver."""
        raise NotImplementedError

    def on_kill(self) -> None:
        """Stop sending, wait for what is in flight, and fail the try: Airflow's signal alone would not end it."""
        if self._hook is not None:
            self._hook.stop()

    def _summarise(self, report: DeliveryReport) -> None:
        self.log.info(
            "%s: %d read = %d delivered + %d rejected + %d skipped + %d resumed + %d unsent; %d requests in %.1f s",
            report.vendor,
            report.read,
            report.delivered,
            report.rejected,
            report.skipped,
            report.resumed,
            report.unsent,
            report.requests,
            report.seconds,
        )
        for reason, count in report.reasons.items():
            self.log.warning("rejected %d x %s", count, reason)
        if report.rejected_path:
            self.log.info("rejected events are in %s", report.rejected_path)


@contextmanager
def failing_for_good() -> Iterator[None]:
    """Errors that no retry can heal fail the task at once; the others are left to Airflow's retries."""
    try:
        yield
    except EventsError as error:
        if error.retryable:
            raise
        raise AirflowFailException(str(error)) from error


def run_time(context: Context) -> datetime | None:
    """When the DAG run started: the same for every try, so that a retry sends the same bytes."""
    dag_run = context.get("dag_run")
    return getattr(dag_run, "start_date", None)


def _rejected_name(ti: Any) -> str:
    parts = [ti.dag_id, ti.run_id, ti.task_id]
    if ti.map_index is not None and ti.map_index >= 0:
        parts.append(str(ti.map_index))
    return "/".join(re.sub(r"[^\w.\-]", "_", part) for part in parts) + f"/try_{ti.try_number}.jsonl"
