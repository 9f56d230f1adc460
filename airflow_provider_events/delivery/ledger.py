"""The accounts of one delivery: every row read ends as delivered, rejected, skipped, resumed or unsent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import datetime
from itertools import islice

from airflow_provider_events.delivery.checkpoint import Checkpoint, Frontier, Span, Tally
from airflow_provider_events.delivery.observer import Counters
from airflow_provider_events.delivery.sinks import RejectedSink, rejected_line
from airflow_provider_events.events import DeliveryReport, Record, Rejection
from airflow_provider_events.exchange import Outcome
from airflow_provider_events.shown import MASK, shown

__all__ = ["Ledger"]

IDS_SHOWN = 3
EXAMPLES = 3


class Ledger:
    """Counts outcomes, moves the settled prefix, and hands rejected records to the sink.

    :param vendor: connection type, for the report.
    :param sink: where rejected records go; None for nowhere.
    """

    def __init__(self, vendor: str, sink: RejectedSink | None = None) -> None:
        self._vendor = vendor
        self._sink = sink
        self.frontier = Frontier()
        self.counters = Counters()
        self.examples: dict[str, list[str]] = {}

    def reset(self, start: Checkpoint | None = None) -> None:
        """Begin anew, or with the accounts of an earlier try."""
        self.frontier.reset(start)
        self.counters.restart()
        self.examples.clear()
        if start is not None:
            counts, tally = self.counters, start.tally
            counts.read = start.position
            counts.resumed, counts.rejected, counts.skipped = tally.delivered, tally.rejected, tally.skipped
            counts.reasons.update(tally.reasons)

    def took(self, count: int) -> None:
        """`count` rows were taken from the source."""
        self.counters.read += count

    def delivered(self, span: Span, rows: Collection[int]) -> None:
        """The vendor accepted the events of these rows."""
        self.counters.delivered += len(rows)
        self.frontier.settled(span, rows)

    def skipped(self, span: Span, row: int) -> None:
        """One event was passed over, as its customer has no entry."""
        self.counters.skipped += 1
        self.frontier.settled(span, (row,))

    def refused(self, span: Span, record: Record, outcome: Outcome) -> None:
        """The vendor rejected one event."""
        self.rejected(record, Rejection(record.row, outcome.code, outcome.reason))
        self.frontier.settled(span, (record.row,))

    def rejected(self, record: Record, rejection: Rejection) -> None:
        """One record is rejected for good."""
        self.counters.rejected += 1
        reason = self.counters.count_reason(rejection.summary)
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(f"row {record.row}{_masked(record)}")
        if self._sink is not None:
            self._sink.write(rejected_line(self._vendor, record, rejection))

    def checkpoint(self, fingerprint: str, sent_at: datetime) -> Checkpoint:
        """Where the delivery stands."""
        counts = self.counters
        delivered = counts.resumed + counts.delivered
        tally = Tally(delivered, counts.rejected, counts.skipped, Counter(counts.reasons))
        return self.frontier.checkpoint(fingerprint, sent_at, self._sink.uri if self._sink else None, tally)

    def report(self) -> DeliveryReport:
        """The accounts as they stand."""
        counts = self.counters
        accounted = counts.delivered + counts.rejected + counts.skipped + counts.resumed
        return DeliveryReport(
            vendor=self._vendor,
            read=counts.read,
            delivered=counts.delivered,
            rejected=counts.rejected,
            skipped=counts.skipped,
            resumed=counts.resumed,
            unsent=counts.read - accounted,
            requests=counts.requests,
            retries=counts.retries,
            seconds=round(counts.seconds, 3),
            reasons=dict(counts.reasons.most_common()),
            rejected_path=self._sink.uri if self._sink and counts.rejected else None,
        )


def _masked(record: Record) -> str:
    """The identity as far as a log may show it: enough to find the row, not enough to name the customer."""
    identity = record.event.identity if record.event else {}
    ids = islice(identity.items(), IDS_SHOWN)
    return "".join(f", {shown(name)} {shown(str(value)[:1])}{MASK}" for name, value in ids)
