"""What happens during a delivery, as values; logs and metrics are small observers of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from airflow_provider_events.contract import Request
from airflow_provider_events.delivery.accounts import Counters
from airflow_provider_events.delivery.progress import Meter, Progress, counted
from airflow_provider_events.events import DeliveryReport

__all__ = ["DeliveryObserver", "LogObserver"]

FIELD = "events_progress"

MAX_SHOWN_BYTES = 4000


class DeliveryObserver(Protocol):
    """Told of a delivery's progress, every few seconds and at its end. Called on the delivery's own thread."""

    @property
    def latest(self) -> Progress | None:
        """The figures it showed last, for others to show as well."""

    def progress(self, counters: Counters, *, ended: bool = False) -> None:
        """Counts so far, or for the last time."""

    def would_send(self, request: Request) -> None:
        """The first request of a dry run, without its credentials."""

    def finished(self, report: DeliveryReport, examples: Mapping[str, Sequence[str]]) -> None:
        """The accounts at the end, however it came about, and a few examples of each reason of rejection."""


class LogObserver:
    """Lines for a task's log: counts and rate while it runs, the accounts and the rejections at its end.

    :param meter: makes the figures; the records have them as a field as well, `events_progress`, for handlers that
        keep fields.
    """

    def __init__(self, logger: logging.Logger, meter: Meter | None = None) -> None:
        self._log = logger
        self._meter = meter or Meter()
        self.latest: Progress | None = None

    def progress(self, counters: Counters, *, ended: bool = False) -> None:
        """See `DeliveryObserver.progress`."""
        progress = self._meter.read(counters)
        self.latest = progress = progress.at_end() if ended else progress
        if counters.read or counters.requests:
            self._log.info("%s", progress, extra={FIELD: progress.to_dict()})

    def would_send(self, request: Request) -> None:
        """See `DeliveryObserver.would_send`."""
        body = (request.body or b"")[:MAX_SHOWN_BYTES].decode(errors="replace")
        self._log.info(
            "dry run, nothing was sent; the first request would be: %s %s %s",
            request.method,
            request.path,
            body,
        )

    def finished(self, report: DeliveryReport, examples: Mapping[str, Sequence[str]]) -> None:
        """See `DeliveryObserver.finished`."""
        self._log.info(
            "%s: %d read = %d delivered + %d rejected + %d skipped + %d resumed + %d unsent; %s in %.1f s",
            report.vendor,
            report.read,
            report.delivered,
            report.rejected,
            report.skipped,
            report.resumed,
            report.unsent,
            counted(report.requests, "request"),
            report.seconds,
        )
        for reason, count in report.reasons.items():
            self._log.warning("rejected %6d x %s (%s)", count, reason, "; ".join(examples.get(reason, ())))
        if report.rejected_path:
            self._log.info("rejected events are in %s", report.rejected_path)
