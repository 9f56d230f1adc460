"""Which rows were read, which of them are still open, and the digest of what was read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import compress, repeat
from operator import not_
from typing import Any

from xxhash import xxh3_128

from airflow_provider_events.delivery.checkpoint import Checkpoint, OpenRows, Tally

__all__ = ["Digest", "OffsetTracker", "Settled", "Slice"]

KEPT_WHOLE = 0.9  # of a slice's rows that have an outcome


class Digest:
    """A running digest of rows, in the order of the source: quick, and meant for changes, not for forgeries."""

    def __init__(self, seed: str = "") -> None:
        self._hash = xxh3_128(seed.encode())

    def update(self, row: bytes) -> None:
        """The next row, as it is on the wire."""
        self._hash.update(row)

    def copy(self) -> Digest:
        """The same so far, to go on by itself."""
        copied = Digest()
        copied._hash = self._hash.copy()
        return copied

    def hexdigest(self) -> str:
        """The digest of all rows so far, in 32 hex digits."""
        return self._hash.hexdigest()


@dataclass(frozen=True, slots=True)
class Settled:
    """Which rows need not be sent again: all up to the number `position`, but for those within `gaps`.

    :param gaps: first and last number of neighbouring rows, in order, that have no outcome, or were rejected and are
        kept in no file.
    :param ended: whether these are the last words of the delivery.
    :param completed: whether it came to the end of the source, and each row has its outcome.
    """

    position: int
    gaps: Sequence[tuple[int, int]] = ()
    ended: bool = False
    completed: bool = False


@dataclass(slots=True, repr=False, eq=False)
class Slice:
    """Neighbouring rows that are taken together, as far as their outcomes go.

    :param before: number and key of the row before them.
    :param last: number and key of the last one.
    :param rows: number of each row that is an event and may be open, in order.
    :param keys: their keys; empty where the source has no key column.
    :param digest: of the source up to these rows.
    :param group: what an earlier try left open, where these are such rows.
    :param done: numbers of those among `rows` that have an outcome.
    """

    before: tuple[int, Any]
    last: tuple[int, Any]
    rows: Sequence[int]
    keys: Sequence[Any] = ()
    digest: str = ""
    group: tuple[OpenRows, ...] = ()
    done: set[int] = field(default_factory=set)

    def __repr__(self) -> str:
        """Without the keys."""
        return f"<Slice of {len(self.rows)} rows, {len(self.done)} done>"

    def settle(self, rows: Collection[int]) -> bool:
        """Rows have their outcome; whether others still have none.

        What few of them wait for may take long: little more is kept then than has to be.
        """
        if len(rows) == len(self.rows):
            return False
        self.done.update(rows)
        if len(self.done) < KEPT_WHOLE * len(self.rows):
            return True
        still = list(map(not_, map(self.done.__contains__, self.rows)))
        self.rows = list(compress(self.rows, still))
        self.keys = list(compress(self.keys, still))
        self.done = set()
        return bool(self.rows)

    def places(self) -> int:
        """How many parts `open_rows` gives at most."""
        between = self.rows[-1] - self.rows[0] + 1 - len(self.rows)
        return min(len(self.rows) - len(self.done), 1 + between + len(self.done))

    def open_rows(self) -> tuple[OpenRows, ...]:
        """The rows without an outcome."""
        groups: list[OpenRows] = []
        for row, key in zip(self.rows, self.keys or repeat(None), strict=False):
            if row in self.done:
                continue
            if groups and groups[-1].last == row - 1:
                groups[-1] = groups[-1]._replace(last=row, last_key=key)
            else:
                groups.append(OpenRows(row, row, key, key))
        return tuple(groups)


class OffsetTracker:
    """How far the source was taken, and which rows are open."""

    def __init__(self) -> None:
        self.reset()

    def reset(self, start: Checkpoint | None = None) -> None:
        """Begin at the start of the source, or where an earlier try came to."""
        self._position = start.position if start else 0
        self._digest = start.digest if start else Digest().hexdigest()
        self._last_key = start.last_key if start else None
        self._unread: dict[tuple[OpenRows, ...], tuple[int, Any]] = {}
        self._open: dict[Slice, None] = {}
        if start:
            self._unread = dict.fromkeys(start.open, start.before_open)

    def mark_read(self, slice_: Slice) -> None:
        """Rows are on their way: the next ones of the source, or a group that an earlier try left open."""
        if slice_.group:
            self._unread.pop(slice_.group, None)
        else:
            (self._position, self._last_key), self._digest = slice_.last, slice_.digest
        if slice_.rows:
            self._open[slice_] = None

    def ack(self, slice_: Slice, rows: Collection[int]) -> None:
        """Rows of a slice have their outcome."""
        if not slice_.settle(rows):
            self._open.pop(slice_, None)

    def position(self) -> int:
        """Number of the last row that was taken."""
        return self._position

    def gaps(self) -> list[tuple[int, int]]:
        """First and last number of neighbouring rows that are open, in order."""
        groups = [*map(Slice.open_rows, self._open), *self._unread]
        return sorted((rows.first, rows.last) for group in groups for rows in group)

    def gap_count(self) -> int:
        """How many fragments a checkpoint would have to name at most."""
        return sum(map(Slice.places, self._open)) + sum(map(len, self._unread))

    def checkpoint(
        self, fingerprint: str, sent_at: datetime, rejected_uri: str | None, tally: Tally, taken: int
    ) -> Checkpoint:
        """Where the delivery stands, as a value; `tally` counts those of the `taken` rows that are not open."""
        groups = {part.open_rows(): part.before for part in self._open} | self._unread
        return Checkpoint(
            fingerprint,
            self._position,
            self._digest,
            tally,
            sent_at,
            self._last_key,
            tuple(sorted(groups, key=lambda group: group[0].first)),
            min(groups.values(), key=lambda before: before[0], default=(0, None)),
            rejected_uri,
            self._position - taken,
        )
