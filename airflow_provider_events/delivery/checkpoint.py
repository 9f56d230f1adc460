"""What is settled so far, and how to start again from it.

Rows are read in order and settled in any order. The settled prefix grows over spans, short runs of neighbouring rows:
it ends where the first span begins that still waits for an outcome. Rows that wait for their customer's entry do not
hold it up: their numbers are part of the checkpoint.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Protocol, Self
from uuid import UUID

__all__ = ["Checkpoint", "CheckpointStore", "Digest", "Frontier", "Span", "Tally"]

VERSION = 1
MAX_HELD = 1000


@dataclass(slots=True)
class Tally:
    """Outcomes of settled rows."""

    delivered: int = 0
    rejected: int = 0
    skipped: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Take another tally into this one."""
        self.delivered += other.delivered
        self.rejected += other.rejected
        self.skipped += other.skipped
        self.reasons.update(other.reasons)


class Digest:
    """A running digest of rows, in the order of the source."""

    def __init__(self, seed: str = "") -> None:
        self._hash = hashlib.blake2b(seed.encode(), digest_size=16)

    def update(self, row: bytes) -> None:
        """The next row, as it is on the wire."""
        self._hash.update(row)

    def hexdigest(self) -> str:
        """The digest of all rows so far, in 32 hex digits."""
        return self._hash.hexdigest()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a delivery came, with what proves that the source still says the same.

    :param fingerprint: of query, mapping and options.
    :param position: rows settled, counted from the start of the source.
    :param digest: running digest of these rows.
    :param tally: their outcomes.
    :param sent_at: the time given to events without one, so that they are sent again as the same bytes.
    :param last_key: key of the last settled row (`key_column` only).
    :param held: numbers of settled-over rows that still wait for their customer's entry.
    :param held_after: number and key (`key_column` only) of a row before all of these.
    :param rejected_uri: file that holds the rejected rows.
    """

    fingerprint: str
    position: int
    digest: str
    tally: Tally
    sent_at: datetime
    last_key: Any = None
    held: tuple[int, ...] = ()
    held_after: tuple[int, Any] = (0, None)
    rejected_uri: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe; no row's content but its key."""
        tally = self.tally
        return {
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "position": self.position,
            "digest": self.digest,
            "delivered": tally.delivered,
            "rejected": tally.rejected,
            "skipped": tally.skipped,
            "reasons": dict(tally.reasons),
            "sent_at": self.sent_at.isoformat(),
            "last_key": dump_key(self.last_key),
            "held": list(self.held),
            "held_after": [self.held_after[0], dump_key(self.held_after[1])],
            "rejected_uri": self.rejected_uri,
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
            held = data["held"]
            if not all(type(count) is int and count >= 0 for count in [*counts, *held]) or len(held) > MAX_HELD:
                raise ValueError("counts that are none")
            if sum(counts[1:]) + len(held) != counts[0]:
                raise ValueError("counts that do not add up")
            reasons = Counter({str(name): int(count) for name, count in data["reasons"].items()})
            tally = Tally(counts[1], counts[2], counts[3], reasons)
            after_row, after_key = data["held_after"]
            sent_at = datetime.fromisoformat(data["sent_at"])
            rejected_uri = data["rejected_uri"]
            return cls(
                str(data["fingerprint"]),
                counts[0],
                str(data["digest"]),
                tally,
                sent_at,
                load_key(data["last_key"]),
                tuple(held),
                (int(after_row), load_key(after_key)),
                None if rejected_uri is None else str(rejected_uri),
            )
        except (KeyError, TypeError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"not whole ({type(error).__name__})") from None


class CheckpointStore(Protocol):
    """Keeps one task's checkpoint from try to try."""

    def load(self) -> Mapping[str, Any] | None:
        """What was saved by an earlier try that this one may continue."""

    def save(self, checkpoint: Mapping[str, Any], *, completed: bool) -> None:
        """Keep a checkpoint; a completed one is never continued."""


_KEYS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "int": (int, int, int),
    "str": (str, str, str),
    "float": (float, float.hex, float.fromhex),
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
    "decimal": (Decimal, str, Decimal),
    "uuid": (UUID, str, UUID),
    "bytes": (bytes, lambda key: b64encode(key).decode("ascii"), b64decode),
}


def dump_key(key: Any) -> list[Any] | None:
    """A key of a SQL type as JSON; None for one that cannot be kept."""
    for name, (kind, dump, _) in _KEYS.items():
        if type(key) is kind:
            return [name, dump(key)]
    return None


def load_key(value: Any) -> Any:
    """The key that `dump_key` wrote.

    :raises ValueError: it did not write this.
    """
    if value is None:
        return None
    name, text = value
    return _KEYS[name][2](text)


@dataclass(slots=True, eq=False)
class Span:
    """A run of neighbouring rows on their way to an outcome.

    :param after: number and key of the row before it.
    :param end: number of its last row; `digest` and `last_key` are those at that row.
    :param waiting: rows without an outcome, those held for their entry included.
    :param held: numbers of the held rows.
    :param passed: part of the settled prefix.
    """

    after: tuple[int, Any]
    end: int
    digest: str
    last_key: Any
    waiting: int
    held: set[int] = field(default_factory=set)
    tally: Tally = field(default_factory=Tally)
    rejected: list[bytes] = field(default_factory=list)
    passed: bool = False
    before: Span | None = None
    behind: Span | None = None


class Frontier:
    """The settled prefix, and the rejected rows in it.

    Settled spans that wait for an earlier one are merged, so that memory holds no more than what is under way.

    :param write_rejected: takes the lines of rejected rows once they are part of the prefix.
    """

    def __init__(self, write_rejected: Callable[[Iterable[bytes]], None]) -> None:
        self._write_rejected = write_rejected
        self.reset()

    def reset(self, start: Checkpoint | None = None) -> None:
        """Begin at the start of the source, or where an earlier try came to."""
        self.position = start.position if start else 0
        self.digest = start.digest if start else Digest().hexdigest()
        self.last_key = start.last_key if start else None
        self.tally = Tally()
        self.held: dict[int, tuple[int, Any]] = {}
        if start:
            self.tally.add(start.tally)
            self.held = dict.fromkeys(start.held, start.held_after)
        self._first: Span | None = None
        self._last: Span | None = None

    def opened(self, span: Span) -> None:
        """The next span of the source was taken."""
        span.before = self._last
        if self._last is None:
            self._first = span
        else:
            self._last.behind = span
        self._last = span

    def settled(self, span: Span, outcome: Tally, rejected: Iterable[bytes] = (), row: int | None = None) -> None:
        """Rows of `span` have their outcome; `row` names one that had been held."""
        span.waiting -= outcome.delivered + outcome.rejected + outcome.skipped
        if row is not None:
            span.held.discard(row)
            self.held.pop(row, None)
        if span.passed:
            self.tally.add(outcome)
            self._write_rejected(rejected)
            return
        span.tally.add(outcome)
        span.rejected.extend(rejected)
        if not span.waiting:
            self._merge(span)
        self._advance()

    def hold(self, span: Span, row: int) -> None:
        """`row` waits for its customer's entry."""
        if span.passed:
            self.held[row] = span.after
        else:
            span.held.add(row)
            self._advance()

    def checkpoint(self, fingerprint: str, sent_at: datetime, rejected_uri: str | None) -> Checkpoint:
        """The settled prefix as a value."""
        tally = Tally()
        tally.add(self.tally)
        return Checkpoint(
            fingerprint,
            self.position,
            self.digest,
            tally,
            sent_at,
            self.last_key,
            tuple(sorted(self.held)),
            min(self.held.values(), key=lambda after: after[0], default=(0, None)),
            rejected_uri,
        )

    def leftover_rejected(self) -> list[bytes]:
        """Rejected rows behind the prefix: known at an early end, and to be decided again by a retry."""
        lines: list[bytes] = []
        span = self._first
        while span is not None:
            lines += span.rejected
            span = span.behind
        return lines

    def _merge(self, span: Span) -> None:
        """Let the settled neighbours of a settled span become one with it."""
        if span.before is not None and not span.before.waiting:
            self._absorb(span.before, span)
        if span.behind is not None and not span.behind.waiting:
            self._absorb(span, span.behind)

    def _absorb(self, span: Span, into: Span) -> None:
        into.tally.add(span.tally)
        into.rejected[:0] = span.rejected
        into.before = span.before
        if span.before is None:
            self._first = into
        else:
            span.before.behind = into

    def _advance(self) -> None:
        """Move over all spans at the front that wait for nothing but entries."""
        while (span := self._first) is not None and span.waiting == len(span.held):
            if len(self.held) + len(span.held) > MAX_HELD:
                return
            self._write_rejected(span.rejected)
            self.position, self.digest, self.last_key = span.end, span.digest, span.last_key
            self.tally.add(span.tally)
            self.held.update(dict.fromkeys(span.held, span.after))
            span.passed = True
            self._first = span.behind
            if self._first is None:
                self._last = None
            else:
                self._first.before = None
            span.behind = None
