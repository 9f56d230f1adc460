"""What is settled so far, and how to start again from it.

Rows are taken in order and settled in any order. A checkpoint says up to which row the source was taken, and which of
these rows are still open: those on their way, and those that wait for their customer's entry. A later try reads on
behind the last row taken, after it has delivered the open ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple, Protocol, Self

from airflow_provider_events.row_data import dump_key, load_key

__all__ = ["Checkpoint", "CheckpointStore", "OpenRows", "Tally"]

VERSION = 1
MAX_OPEN_ROWS = 5_000_000


@dataclass(frozen=True, slots=True)
class Tally:
    """Outcomes of settled rows."""

    delivered: int = 0
    rejected: int = 0
    skipped: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    pending: int = 0


class OpenRows(NamedTuple):
    """Neighbouring rows without an outcome.

    :param first: number of the first one; `first_key` is its key (`key_column` only).
    :param last: number of the last one; `last_key` is its key.
    """

    first: int
    last: int
    first_key: Any = None
    last_key: Any = None


@dataclass(frozen=True, slots=True, repr=False)
class Checkpoint:
    """How far a delivery came, with what proves that the source still says the same.

    :param fingerprint: of query, mapping and options.
    :param position: number of the last row taken from the source.
    :param digest: running digest of these rows.
    :param tally: their outcomes.
    :param sent_at: the time given to events without one, so that they are sent again as the same bytes.
    :param last_key: key of the last row taken (`key_column` only).
    :param open: rows among them without an outcome, in order; one group for those taken together.
    :param before_open: number and key (`key_column` only) of the row before the first open one.
    :param rejected_uri: file that holds the rejected rows.
    :param unused: numbers up to `position` that no row of the tally or among the open ones has: of blank lines, and of
        rows that come again under another one.
    """

    fingerprint: str
    position: int
    digest: str
    tally: Tally
    sent_at: datetime
    last_key: Any = None
    open: tuple[tuple[OpenRows, ...], ...] = ()
    before_open: tuple[int, Any] = (0, None)
    rejected_uri: str | None = None
    unused: int = 0

    def __repr__(self) -> str:
        """Without the keys."""
        return f"<Checkpoint at row {self.position}>"

    def is_open(self, row: int) -> bool:
        """Whether a row has no outcome yet."""
        return row > self.position or any(rows.first <= row <= rows.last for group in self.open for rows in group)

    def without_open(self) -> Checkpoint:
        """The same for a source that itself comes back to the open rows, and to those that are kept in no file."""
        number_open = sum(rows.last - rows.first + 1 for group in self.open for rows in group)
        unused, tally = self.unused + number_open, self.tally
        if self.rejected_uri is None and (unkept := tally.rejected - tally.pending):
            unused, tally = unused + unkept, replace(tally, rejected=tally.pending, reasons=Counter())
        return replace(self, tally=tally, open=(), before_open=(0, None), unused=unused)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe; nothing of a row but its number and key."""
        tally = self.tally
        return {
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "position": self.position,
            "digest": self.digest,
            "delivered": tally.delivered,
            "rejected": tally.rejected,
            "skipped": tally.skipped,
            "pending": tally.pending,
            "reasons": dict(tally.reasons),
            "sent_at": self.sent_at.isoformat(),
            "last_key": dump_key(self.last_key),
            "open": [
                [[rows.first, rows.last, dump_key(rows.first_key), dump_key(rows.last_key)] for rows in group]
                for group in self.open
            ],
            "before_open": [self.before_open[0], dump_key(self.before_open[1])],
            "rejected_uri": self.rejected_uri,
            "unused": self.unused,
        }

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The checkpoint that `to_dict` wrote.

        :raises ValueError: it is of another version, or not whole.
        """
        if not isinstance(data, Mapping) or data.get("version") != VERSION:
            raise ValueError("of another version")
        try:
            counts = [data["position"], data["delivered"], data["rejected"], data["skipped"]]
            groups = tuple(
                tuple(OpenRows(first, last, load_key(one), load_key(other)) for first, last, one, other in group)
                for group in data["open"]
            )
            before_row, before_key = data["before_open"]
            unused, pending = data.get("unused", 0), data.get("pending", 0)
            numbers = [
                *counts,
                unused,
                pending,
                before_row,
                *(n for group in groups for rows in group for n in rows[:2]),
            ]
            if not all(type(number) is int and number >= 0 for number in numbers):
                raise ValueError("a number of rows that is not a whole number from 0")
            opened = [rows for group in groups for rows in group]
            ends = [0, *(end for rows in opened for end in (rows.first - 1, rows.last)), counts[0]]
            if not all(groups) or ends != sorted(ends) or any(rows.first > rows.last for rows in opened):
                raise ValueError("rows that are out of order")
            number_open = sum(rows.last - rows.first + 1 for rows in opened)
            if number_open > MAX_OPEN_ROWS or sum(counts[1:]) + number_open + unused != counts[0]:
                raise ValueError("counts that do not add up")
            reasons = Counter({str(name): int(count) for name, count in data["reasons"].items()})
            rejected_uri = data["rejected_uri"]
            sent_at = datetime.fromisoformat(data["sent_at"])
            if sent_at.tzinfo is None:
                raise ValueError("a time without a zone")
            return cls(
                str(data["fingerprint"]),
                counts[0],
                str(data["digest"]),
                Tally(counts[1], counts[2], counts[3], reasons, pending),
                sent_at,
                load_key(data["last_key"]),
                groups,
                (before_row, load_key(before_key)),
                None if rejected_uri is None else str(rejected_uri),
                unused,
            )
        except (KeyError, TypeError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"not whole ({type(error).__name__})") from None


class CheckpointStore(Protocol):
    """Keeps one task's checkpoint from try to try."""

    def load(self) -> Mapping[str, Any] | None:
        """What was saved by an earlier try that this one may continue."""

    def save(self, checkpoint: Mapping[str, Any], *, completed: bool) -> None:
        """Keep a checkpoint; a completed one is never continued.

        :raises DeliveryInterrupted: the delivery must not go on. Any other error is a warning.
        """
