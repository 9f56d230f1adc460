"""The accounts of one delivery: every row read ends as delivered, rejected, skipped, resumed or unsent."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from airflow_provider_events.contract import Outcome, Verdict
from airflow_provider_events.delivery.checkpoint import Checkpoint, Tally
from airflow_provider_events.delivery.dead_letter import DeadLetterFile, rejected_line
from airflow_provider_events.delivery.offsets import OffsetTracker, Settled, Slice
from airflow_provider_events.delivery.pending import PendingEvents
from airflow_provider_events.events import DeliveryReport, Record, Rejection
from airflow_provider_events.exceptions import EventsError
from airflow_provider_events.shown import MASK, shown

__all__ = ["Counters", "Ledger"]

IDS_SHOWN = 3
EXAMPLES = 3
MAX_REASONS = 50
OTHER_REASONS = "other reasons"
SHOWN = ("read", "delivered", "rejected", "skipped", "resumed", "requests", "retries")


@dataclass(slots=True)
class Counters:
    """Running counts of one delivery; the fields are those of `DeliveryReport`."""

    read: int = 0
    delivered: int = 0
    rejected: int = 0
    pending: int = 0
    skipped: int = 0
    resumed: int = 0
    requests: int = 0
    retries: int = 0
    throttled: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.monotonic)

    def restart(self) -> None:
        """Forget all rows; requests were made all the same."""
        self.read = self.delivered = self.rejected = self.pending = self.skipped = self.resumed = 0
        self.reasons.clear()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the start."""
        return time.monotonic() - self.started

    @property
    def settled(self) -> int:
        """Rows that have their outcome."""
        return self.delivered + self.rejected + self.skipped + self.resumed

    def shown(self) -> dict[str, Any]:
        """What progress and report say of rows and requests."""
        return {name: getattr(self, name) for name in SHOWN}

    def count_reason(self, reason: str) -> str:
        """One more of `reason`; past 50 different ones they are counted together. Returns what it was counted as."""
        if reason not in self.reasons and len(self.reasons) >= MAX_REASONS:
            reason = OTHER_REASONS
        self.reasons[reason] += 1
        return reason


class Ledger:
    """Counts outcomes, acknowledges rows, and hands rejected records to the dead letters.

    :param vendor: connection type, for the report.
    :param dead_letters: where rejected records go; None for nowhere.
    :param conn_id: the connection, for the report.
    :param pending: where those go that time can cure; None: with the others.
    """

    def __init__(
        self,
        vendor: str,
        dead_letters: DeadLetterFile | None = None,
        conn_id: str = "",
        pending: PendingEvents | None = None,
    ) -> None:
        self._pending = pending
        self._vendor = vendor
        self._conn_id = conn_id
        self._dead_letters = dead_letters
        self.offsets = OffsetTracker()
        self.counters = Counters()
        self.examples: dict[str, list[str]] = {}
        self._excluded = 0
        self._unkept: list[tuple[int, int]] | None = None

    def keep_place(self, excluded: int) -> None:
        """The source keeps its place: it has to come back to rejected rows that are kept in no file.

        :param excluded: rows that it does not read, which are counted as skipped.
        """
        self._excluded = excluded
        if self._dead_letters is None:
            self._unkept = []

    def reset(self, start: Checkpoint | None = None) -> None:
        """Begin anew, or with the accounts of an earlier try."""
        self.offsets.reset(start)
        self.counters.restart()
        self.examples.clear()
        if start is not None:
            counts, tally = self.counters, start.tally
            counts.read = start.position - start.unused
            counts.resumed, counts.rejected, counts.skipped = tally.delivered, tally.rejected, tally.skipped
            counts.pending = tally.pending
            counts.reasons.update(tally.reasons)

    def took(self, count: int) -> None:
        """`count` rows were taken from the source."""
        self.counters.read += count

    def delivered(self, slice_: Slice, rows: Collection[int]) -> None:
        """The vendor accepted the events of these rows."""
        self.counters.delivered += len(rows)
        self.offsets.ack(slice_, rows)

    def skipped(self, slice_: Slice, row: int) -> None:
        """One event was passed over, as its customer has no entry."""
        self.counters.skipped += 1
        self.offsets.ack(slice_, (row,))

    def rejected_by_vendor(self, slice_: Slice, record: Record, outcome: Outcome) -> None:
        """The vendor rejected one event."""
        rejection = Rejection(record.row, outcome.code, outcome.reason)
        self.rejected(record, rejection, curable=outcome.verdict is Verdict.MISSING)
        self.offsets.ack(slice_, (record.row,))

    def rejected(self, record: Record, rejection: Rejection, *, curable: bool = False) -> None:
        """One record is rejected for good; or, where time can cure the reason, kept for the next run."""
        self.counters.rejected += 1
        reason = self.counters.count_reason(rejection.summary)
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(f"row {record.row}{_masked(record)}")
        if curable and self._pending is not None and self._pending.keep(record, rejection):
            self.counters.pending += 1
        elif self._dead_letters is not None:
            self._dead_letters.write(rejected_line(self._vendor, record, rejection))
        elif self._unkept is not None:
            self._unkept.append((record.row, record.row))

    def checkpoint(self, fingerprint: str, sent_at: datetime) -> Checkpoint:
        """Where the delivery stands."""
        counts = self.counters
        delivered = counts.resumed + counts.delivered
        tally = Tally(delivered, counts.rejected, counts.skipped, Counter(counts.reasons), counts.pending)
        return self.offsets.checkpoint(
            fingerprint, sent_at, self._dead_letters.uri if self._dead_letters else None, tally, counts.read
        )

    def settled(self, *, ended: bool = False, completed: bool = False) -> Settled:
        """Which rows need not be sent again."""
        gaps = sorted([*self.offsets.gaps(), *(self._unkept or ())])
        return Settled(self.offsets.position(), gaps, ended, completed)

    def report(self) -> DeliveryReport:
        """The accounts as they stand.

        :raises EventsError: more rows have an outcome than were read, which is a fault of this package.
        """
        counts = self.counters
        if counts.settled > counts.read:
            raise EventsError(f"the accounts do not close: {counts.read} read, {counts.settled} accounted for")
        excluded = {"read": counts.read + self._excluded, "skipped": counts.skipped + self._excluded}
        return DeliveryReport(
            vendor=self._vendor,
            **{**counts.shown(), **excluded},
            unsent=counts.read - counts.settled,
            seconds=round(counts.seconds, 3),
            reasons=dict(counts.reasons.most_common()),
            rejected_path=self._dead_letters.uri if self._dead_letters and counts.rejected else None,
            pending=counts.pending,
            healed=self._pending.healed if self._pending else 0,
            expired=self._pending.expired if self._pending else 0,
            conn_id=self._conn_id,
        )


def _masked(record: Record) -> str:
    """The identity as far as a log may show it: enough to find the row, not enough to name the customer."""
    identity = record.event.identity if record.event else {}
    ids = islice(identity.items(), IDS_SHOWN)
    return "".join(f", {shown(name)} {shown(str(value)[:1])}{MASK}" for name, value in ids)
