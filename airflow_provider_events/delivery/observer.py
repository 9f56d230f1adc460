"""What happens during a delivery, as values; logs and metrics are small observers of them."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from airflow_provider_events.delivery.progress import Meter, Progress, counted
from airflow_provider_events.events import DeliveryReport
from airflow_provider_events.exchange import Request

__all__ = ["Counters", "DeliveryObserver", "LogObserver"]

FIELD = "events_progress"

MAX_REASONS = 50
OTHER_REASONS = "other reasons"
MAX_SHOWN_BYTES = 4000


@dataclass(slots=True)
class Counters:
    """Running counts of one delivery; the fields are those of `DeliveryReport`."""

    read: int = 0
    delivered: int = 0
    rejected: int = 0
    skipped: int = 0
    resumed: int = 0
    requests: int = 0
    retries: int = 0
    throttled: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.monotonic)

    def restart(self) -> None:
        """Forget all rows; requests were made all the same."""
        self.read = self.delivered = self.rejected = self.skipped = self.resumed = 0
        self.reasons.clear()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the start."""
        return time.monotonic() - self.started

    def count_reason(self, reason: str) -> str:
        """One more of `reason`; past 50 different ones they are counted together. Returns what it was counted as."""
        if reason not in self.reasons and len(self.reasons) >= MAX_REASONS:
            reason = OTHER_REASONS
        self.reasons[reason] += 1
        return reason


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
