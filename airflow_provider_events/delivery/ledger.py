"""The accounts of one delivery: every row read ends as delivered, rejected, skipped or unsent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_events.delivery.observer import Counters
from airflow_provider_events.delivery.sinks import RejectedSink
from airflow_provider_events.events import DeliveryReport, Record, Rejection
from airflow_provider_events.exchange import Outcome

if TYPE_CHECKING:
    from airflow_provider_events.delivery.engine import Faulty

__all__ = ["Ledger"]

SHORTEST_MASKED = 3


class Ledger:
    """Counts outcomes and hands rejected records to the sink.

    :param vendor: connection type, for the report.
    :param sink: where rejected records go; None for nowhere.
    """

    def __init__(self, vendor: str, sink: RejectedSink | None = None) -> None:
        self.counters = Counters()
        self._vendor = vendor
        self._sink = sink

    def opened(self, items: int, faulty: Sequence[Faulty]) -> None:
        """A batch was taken from the source; its faulty rows are settled by that."""
        self.counters.read += items + len(faulty)
        for record, rejection in faulty:
            self._reject(record, rejection)

    def delivered(self, count: int) -> None:
        """The vendor accepted `count` events."""
        self.counters.delivered += count

    def skipped(self) -> None:
        """One event was passed over, as its customer has no entry."""
        self.counters.skipped += 1

    def rejected(self, record: Record, outcome: Outcome) -> None:
        """The vendor rejected one event."""
        reason = without_values(outcome.reason, record.event.identity if record.event else {})
        self._reject(record, Rejection(record.row, outcome.code, reason))

    def unsent(self, count: int) -> None:
        """`count` events were left without an outcome."""
        self.counters.unsent += count

    def report(self) -> DeliveryReport:
        """The accounts as they stand."""
        counts = self.counters
        return DeliveryReport(
            vendor=self._vendor,
            read=counts.read,
            delivered=counts.delivered,
            rejected=counts.rejected,
            skipped=counts.skipped,
            unsent=counts.unsent,
            requests=counts.requests,
            retries=counts.retries,
            seconds=round(counts.seconds, 3),
            reasons=dict(counts.reasons.most_common()),
            rejected_path=self._sink.uri if self._sink and counts.rejected else None,
        )

    def _reject(self, record: Record, rejection: Rejection) -> None:
        self.counters.rejected += 1
        self.counters.count_reason(rejection.summary)
        if self._sink is not None:
            self._sink.write(record, rejection)


def without_values(text: str, identity: Mapping[str, Any]) -> str:
    """A vendor's words without the customer's ids, which some vendors repeat."""
    for value in identity.values():
        if len(str(value)) >= SHORTEST_MASKED:
            text = text.replace(str(value), "***")
    return text
