"""What is settled so far, and how to start again from it.

Rows are taken in order and settled in any order. A checkpoint says up to which row the source was taken, and which of
these rows are still open: those on their way, and those that wait for their customer's entry. A later try reads on
behind the last row taken, after it has delivered the open ones.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from itertools import compress, repeat
from operator import not_
from typing import Any, NamedTuple, Protocol, Self
from uuid import UUID

from xxhash import xxh3_128

__all__ = ["Checkpoint", "CheckpointStore", "Digest", "Frontier", "OpenRows", "Span", "Tally"]

VERSION = 1
MAX_OPEN_ROWS = 5_000_000
KEPT_WHOLE = 0.9  # of a span's rows that have an outcome


@dataclass(frozen=True, slots=True)
class Tally:
    """Outcomes of settled rows."""

    delivered: int = 0
    rejected: int = 0
    skipped: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


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
    :param position: rows taken from the source.
    :param digest: running digest of these rows.
    :param tally: their outcomes.
    :param sent_at: the time given to events without one, so that they are sent again as the same bytes.
    :param last_key: key of the last row taken (`key_column` only).
    :param open: rows among them without an outcome, in order; one group for those taken together.
    :param before_open: number and key (`key_column` only) of the row before the first open one.
    :param rejected_uri: file that holds the rejected rows.
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

    def __repr__(self) -> str:
        """Without the keys."""
        return f"<Checkpoint at row {self.position}>"

    def is_open(self, row: int) -> bool:
        """Whether a row has no outcome yet."""
        return row > self.position or any(rows.first <= row <= rows.last for group in self.open for rows in group)

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
            "reasons": dict(tally.reasons),
            "sent_at": self.sent_at.isoformat(),
            "last_key": dump_key(self.last_key),
            "open": [
                [[rows.first, rows.last, dump_key(rows.first_key), dump_key(rows.last_key)] for rows in group]
                for group in self.open
            ],
            "before_open": [self.before_open[0], dump_key(self.before_open[1])],
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
            groups = tuple(
                tuple(OpenRows(first, last, load_key(one), load_key(other)) for first, last, one, other in group)
                for group in data["open"]
            )
            before_row, before_key = data["before_open"]
            numbers = [*counts, before_row, *(n for group in groups for rows in group for n in rows[:2])]
            if not all(type(number) is int and number >= 0 for number in numbers):
                raise ValueError("numbers that are none")
            opened = [rows for group in groups for rows in group]
            ends = [0, *(end for rows in opened for end in (rows.first - 1, rows.last)), counts[0]]
            if not all(groups) or ends != sorted(ends) or any(rows.first > rows.last for rows in opened):
                raise ValueError("rows that are out of order")
            number_open = sum(rows.last - rows.first + 1 for rows in opened)
            if number_open > MAX_OPEN_ROWS or sum(counts[1:]) + number_open != counts[0]:
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
                Tally(counts[1], counts[2], counts[3], reasons),
                sent_at,
                load_key(data["last_key"]),
                groups,
                (before_row, load_key(before_key)),
                None if rejected_uri is None else str(rejected_uri),
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


@dataclass(slots=True, repr=False, eq=False)
class Span:
    """Neighbouring rows that were taken together.

    :param before: number and key of the row before them.
    :param rows: number of each row that is an event and may be open, in order.
    :param keys: their keys; empty where the source has no key column.
    :param done: numbers of those among them that have an outcome.
    """

    before: tuple[int, Any]
    rows: Sequence[int]
    keys: Sequence[Any] = ()
    done: set[int] = field(default_factory=set)

    def __repr__(self) -> str:
        """Without the keys."""
        return f"<Span of {len(self.rows)} rows, {len(self.done)} done>"

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
        """How many pieces `open_rows` gives at most."""
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


class Frontier:
    """How far the source was taken, and which rows are open."""

    def __init__(self) -> None:
        self.reset()

    def reset(self, start: Checkpoint | None = None) -> None:
        """Begin at the start of the source, or where an earlier try came to."""
        self._position = start.position if start else 0
        self._digest: Callable[[], str] = (lambda: start.digest) if start else Digest().hexdigest
        self._last_key = start.last_key if start else None
        self._unread: dict[tuple[OpenRows, ...], tuple[int, Any]] = {}
        self._open: dict[Span, None] = {}
        if start:
            self._unread = dict.fromkeys(start.open, start.before_open)

    def took(self, span: Span, position: int, digest: Callable[[], str], last_key: Any) -> None:
        """The source was taken up to the row `position`, the last one of `span`; `digest` gives that up to it."""
        self._position, self._digest, self._last_key = position, digest, last_key
        if span.rows:
            self._open[span] = None

    def took_again(self, span: Span, group: tuple[OpenRows, ...]) -> None:
        """A group of rows that an earlier try left open is on its way again."""
        self._unread.pop(group, None)
        if span.rows:
            self._open[span] = None

    def settled(self, span: Span, rows: Collection[int]) -> None:
        """Rows of `span` have their outcome."""
        if not span.settle(rows):
            self._open.pop(span, None)

    def open_places(self) -> int:
        """How many pieces a checkpoint would have to name at most."""
        return sum(map(Span.places, self._open)) + sum(map(len, self._unread))

    def checkpoint(self, fingerprint: str, sent_at: datetime, rejected_uri: str | None, tally: Tally) -> Checkpoint:
        """Where the delivery stands, as a value; `tally` counts the rows taken that are not open."""
        groups = {span.open_rows(): span.before for span in self._open} | self._unread
        return Checkpoint(
            fingerprint,
            self._position,
            self._digest(),
            tally,
            sent_at,
            self._last_key,
            tuple(sorted(groups, key=lambda group: group[0].first)),
            min(groups.values(), key=lambda before: before[0], default=(0, None)),
            rejected_uri,
        )
