"""Events that were rejected for a reason that time can cure, kept for the next run.

Each part of them is a file of its own that is never changed: what is offered again and still cannot be delivered goes
into a new one before the old one is removed. So a crash, or another run at the same time, may repeat an event; it loses
none.

A line is that of a rejected event (`dead_letter`), with one key more: `since`, when the event was first kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

import orjson
from xxhash import xxh3_128_digest

from airflow_provider_events.delivery.dead_letter import rejected_line
from airflow_provider_events.delivery.offsets import Settled
from airflow_provider_events.events import REJECTED_SCHEMA, Event, Record, Rejection
from airflow_provider_events.exceptions import InvalidEvent

__all__ = ["PendingEvents", "PendingRecords", "PendingStorage"]

log = logging.getLogger(__name__)

CHUNK_SIZE = 500


class PendingPart(Protocol):
    """One file of pending events, wherever it is."""

    @property
    def uri(self) -> str:
        """Its name, for the log."""

    def lines(self) -> Iterator[bytes]:
        """Its lines; none if it is not there."""

    def remove(self) -> None:
        """Delete it, if it is there."""


class PendingStorage(Protocol):
    """The files of one task's pending events."""

    def add(self, data: bytes) -> None:
        """Write another file, as a whole."""

    def parts(self) -> Sequence[PendingPart]:
        """All files, the oldest first."""


@dataclass
class PendingEvents:
    """Takes events that are rejected for now, and knows what became of those of earlier runs.

    :param vendor: connection type.
    :param since: when an event was first kept, by its row; of those that are not there: now.
    :ivar sent_as: the event as it goes on the wire, for its time has to stay the same.
    :ivar healed: events of earlier runs that were delivered; `expired`: those that were given up.
    """

    storage: PendingStorage
    vendor: str
    since: Mapping[int, str] = field(default_factory=dict)
    sent_as: Callable[[Event], Event] = field(default=lambda event: event, repr=False)
    healed: int = 0
    expired: int = 0
    _lines: list[bytes] = field(default_factory=list, repr=False)

    def keep(self, record: Record, rejection: Rejection) -> bool:
        """Take an event; False where it cannot be written so that it reads the same."""
        event = record.event and self.sent_as(record.event)
        since = self.since.get(record.row) or datetime.now(UTC).isoformat(timespec="seconds")
        line = rejected_line(self.vendor, record._replace(event=event), rejection, since)
        if event is None or orjson.loads(line)["event"] is None:
            return False
        self._lines.append(line)
        return True

    def flush(self) -> None:
        """Bring what was taken to the storage."""
        count = len(self._lines)  # more may come meanwhile, on another thread
        if count:
            self.storage.add(b"".join(self._lines[:count]))
            del self._lines[:count]


class _Offered(NamedTuple):
    """A part and the numbers of its lines."""

    part: PendingPart
    first: int
    last: int


class PendingRecords:
    """The pending events of earlier runs as records, each once; those that are too old are no events any more.

    A part is removed once each of its lines has its outcome, and what is left at the end goes into a new one.

    :param max_age: an event that was first kept before that is given up.
    """

    keyed = False
    excluded = 0
    total: int | None = None

    def __init__(self, storage: PendingStorage, vendor: str, max_age: timedelta) -> None:
        self._storage = storage
        self._vendor = vendor
        self._oldest = datetime.now(UTC) - max_age
        self._max_age = max_age
        self._parts = storage.parts()
        self._offered: list[_Offered] = []
        self.since: dict[int, str] = {}

    def __bool__(self) -> bool:
        return bool(self._parts)

    @property
    def cursor(self) -> PendingRecords:
        """See `Source.cursor`: it is its own."""
        return self

    def keys(self, records: Sequence[Record]) -> None:
        """None: there is no key column."""

    def count(self, limit: int) -> None:
        """None: they would have to be read."""

    def records(self, after: Any = None, first_row: int = 1) -> Iterator[Sequence[Record]]:
        """See `Source.records`."""
        row = first_row - 1
        seen: set[bytes] = set()
        for part in self._parts:
            lines = list(part.lines())
            made = [self._record(row + n, line, seen) for n, line in enumerate(lines, start=1)]
            if any(isinstance(each, str) for each in made):
                why = next(each for each in made if isinstance(each, str))
                log.warning("pending events are left in %s: %s", part.uri, why)
                continue
            self._offered.append(_Offered(part, row + 1, row + len(lines)))
            row += len(lines)
            some = [each for each in made if isinstance(each, Record)]
            for at in range(0, len(some), CHUNK_SIZE):
                yield some[at : at + CHUNK_SIZE]

    def _record(self, row: int, line: bytes, seen: set[bytes]) -> Record | str | None:
        """The record of a line; None for one that came before, a text where the line cannot be read."""
        try:
            fields = orjson.loads(line)
            version, vendor, event, since = (fields[name] for name in ("version", "vendor", "event", "since"))
            first = datetime.fromisoformat(since)
            made = Event.from_dict(event)
        except (ValueError, KeyError, TypeError):
            return "a line is none of a pending event"
        if type(version) is not int or version > REJECTED_SCHEMA or vendor != self._vendor:
            return "they are another vendor's, or of a later release"
        key = xxh3_128_digest(orjson.dumps(event, option=orjson.OPT_SORT_KEYS))
        if key in seen:
            return None
        seen.add(key)
        self.since[row] = since
        if first.tzinfo is None or first < self._oldest:
            fault = InvalidEvent("pending", f"given up: the event waited for longer than {self._max_age}")
            return Record(row, None, event, fault)
        return Record(row, made, fields.get("data"))

    def settled(self, rows: Settled) -> None:
        """See `SourceCursor.settled`: remove parts whose events all have their outcome."""
        for offered in list(self._offered):
            open_rows = set() if rows.completed else _open_rows(rows, offered)
            if open_rows and not rows.ended:
                continue
            if open_rows and len(open_rows) <= offered.last - offered.first:
                lines = enumerate(offered.part.lines(), start=offered.first)
                self._storage.add(b"".join(line for row, line in lines if row in open_rows))
            if len(open_rows) <= offered.last - offered.first:
                offered.part.remove()
            self._offered.remove(offered)


def _open_rows(rows: Settled, offered: _Offered) -> set[int]:
    """Those of a part's rows that have no outcome."""
    gaps: Iterable[tuple[int, int]] = [*rows.gaps, (rows.position + 1, offered.last)]
    return {row for first, last in gaps for row in range(max(first, offered.first), min(last, offered.last) + 1)}
