"""What happens during a delivery, as values; logs and metrics are small observers of them."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from airflow_provider_events.exchange import Request

__all__ = ["Counters", "DeliveryObserver", "LogObserver"]

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
    unsent: int = 0
    requests: int = 0
    retries: int = 0
    throttled: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the start."""
        return time.monotonic() - self.started

    def count_reason(self, reason: str) -> None:
        """One more of `reason`; past 50 different ones they are counted together."""
        known = reason in self.reasons or len(self.reasons) < MAX_REASONS
        self.reasons[reason if known else OTHER_REASONS] += 1


class DeliveryObserver(Protocol):
    """Told of a delivery's progress, every few seconds and at its end. Called on the delivery's own thread."""

    def progress(self, counters: Counters) -> None:
        """Counts so far."""

    def would_send(self, request: Request) -> None:
        """The first request of a dry run, without its credentials."""


class LogObserver:
    """One line with counts and rate."""

    def __init__(self, logger: logging.Logger) -> None:
        self._log = logger

    def progress(self, counters: Counters) -> None:
        """See `DeliveryObserver.progress`."""
        self._log.info(
            "%d read, %d delivered, %d rejected, %d skipped; %d requests (%d repeated); %.0f events/s",
            counters.read,
            counters.delivered,
            counters.rejected,
            counters.skipped,
            counters.requests,
            counters.retries,
            counters.delivered / max(counters.seconds, 0.001),
        )

    def would_send(self, request: Request) -> None:
        """See `DeliveryObserver.would_send`."""
        body = (request.body or b"")[:MAX_SHOWN_BYTES].decode(errors="replace")
        self._log.info(
            "dry run, nothing was sent; the first request would be: %s %s %s",
            request.method,
            request.path,
            body,
        )
