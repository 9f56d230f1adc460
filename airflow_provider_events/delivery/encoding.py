"""Rows on their way from a source to the wire: validated and encoded, together or one by one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, Self, cast, overload

from airflow_provider_events.contract import BulkRecords, Codec
from airflow_provider_events.events import Event, Record, Rejection
from airflow_provider_events.exceptions import EventsError, InvalidEvent

__all__ = ["Chunk", "EncodedRow", "at_its_time", "encoded", "prepare"]


class EncodedRow(NamedTuple):
    """A row as it goes on the wire, or why it cannot.

    :param row: its number in the source.
    :param key: its key, where the source has a key column.
    :param fragment: of a request; empty where the row is no valid event.
    :param rejection: why it is none.
    """

    row: int
    key: Any
    fragment: bytes
    record: Record
    rejection: Rejection | None = None

    def __repr__(self) -> str:
        """Without the row's values."""
        return f"<EncodedRow {self.row}: {self.rejection.summary if self.rejection else f'{len(self.fragment)} bytes'}>"


@dataclass(slots=True, eq=False, repr=False)
class Chunk:
    """Neighbouring rows, column by column; most are never looked at one by one.

    :param rows: their numbers in the source.
    :param keys: their keys; None where the source has no key column.
    :param fragments: each event as a fragment of a request; empty for a row that is no valid event.
    :param records: what they came from; some sources make a record only when it is asked for.
    :param rejections: why rows are no valid events, by position.
    """

    rows: Sequence[int]
    keys: Sequence[Any] | None
    fragments: Sequence[bytes]
    records: Sequence[Record]
    rejections: Mapping[int, Rejection]

    def __repr__(self) -> str:
        """Without the rows."""
        return f"<Chunk of {len(self)} rows>"

    @classmethod
    def of(cls, rows: Sequence[EncodedRow]) -> Self:
        """These rows."""
        return cls(
            [row.row for row in rows],
            [row.key for row in rows],
            [row.fragment for row in rows],
            [row.record for row in rows],
            {at: row.rejection for at, row in enumerate(rows) if row.rejection is not None},
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[EncodedRow]:
        return map(self.row, range(len(self)))

    def __add__(self, following: Chunk) -> Chunk:
        """These rows and those that follow them."""
        return Chunk(
            [*self.rows, *following.rows],
            None if self.keys is None or following.keys is None else [*self.keys, *following.keys],
            [*self.fragments, *following.fragments],
            _Joined([self.records, following.records]),
            {**self.rejections, **{len(self) + at: why for at, why in following.rejections.items()}},
        )

    def key(self, at: int) -> Any:
        """The key of one row."""
        return self.keys[at] if self.keys else None

    def identities(self, places: Iterable[int]) -> Iterator[Mapping[str, Any]]:
        """The identities of events, which their source may know without making the events."""
        records = self.records
        return map(records.identity if isinstance(records, BulkRecords) else partial(_identity, records), places)

    def row(self, at: int) -> EncodedRow:
        """One row by itself."""
        return EncodedRow(self.rows[at], self.key(at), self.fragments[at], self.records[at], self.rejections.get(at))

    def part(self, start: int, stop: int) -> Chunk:
        """Some neighbouring rows."""
        some, rejections = slice(start, stop), self.rejections
        if rejections:
            rejections = {at - start: why for at, why in rejections.items() if start <= at < stop}
        return Chunk(
            self.rows[some], self.keys and self.keys[some], self.fragments[some], self.records[some], rejections
        )

    def digested(self) -> bytes:
        """What the rows contribute to the digest of their source."""
        if not self.rejections:
            return b"".join(self.fragments)
        return b"".join(fragment or self.rejections[at].summary.encode() for at, fragment in enumerate(self.fragments))


class _Joined(Sequence[Record]):
    """The records of several chunks; each is still made only when somebody asks for it."""

    def __init__(self, parts: Iterable[Sequence[Record]]) -> None:
        self._parts: list[Sequence[Record]] = []
        for part in parts:
            self._parts += part._parts if isinstance(part, _Joined) else [part]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @overload
    def __getitem__(self, at: int) -> Record: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Record]: ...

    def __getitem__(self, at: int | slice) -> Record | Sequence[Record]:
        if isinstance(at, slice):
            start, stop, _ = at.indices(len(self))
            parts = []
            for part in self._parts:
                if start < len(part) and stop > 0:
                    parts.append(part[max(start, 0) : stop])
                start, stop = start - len(part), stop - len(part)
            return parts[0] if len(parts) == 1 else _Joined(parts)
        part, at = self.find(at)
        return part[at]

    def find(self, at: int) -> tuple[Sequence[Record], int]:
        """The part in which a record is, and its place there."""
        for part in self._parts:
            if at < len(part):
                return part, at
            at -= len(part)
        raise IndexError(at)


def _identity(records: Sequence[Record], at: int) -> Mapping[str, Any]:
    if isinstance(records, _Joined):
        records, at = records.find(at)
    if isinstance(records, BulkRecords):
        return records.identity(at)
    event = records[at].event
    return event.identity if event else {}


def prepare(
    records: Iterator[Sequence[Record]],
    codec: Codec,
    sent_at: datetime,
    keys: Callable[[Sequence[Record]], Sequence[Any] | None],
) -> Generator[Chunk, None, None]:
    """Validate and encode; events without a time get `sent_at`, so that a repeated request has the same bytes.

    :param keys: gives the keys of records, or None.
    """
    try:
        for some in records:
            yield _prepared(some, codec, sent_at, keys(some))
    finally:
        if isinstance(records, Generator):
            records.close()


def _prepared(records: Sequence[Record], codec: Codec, sent_at: datetime, keys: Sequence[Any] | None) -> Chunk:
    fragments: list[bytes | None] = [None] * len(records)
    rows: Sequence[int]
    if isinstance(records, BulkRecords):
        fragments = _encoded_together(records, codec, sent_at if codec.timestamp_sent else None) or fragments
        rows = range(records.first_row, records.first_row + len(records))
    else:
        rows = [record.row for record in records]
    rejections = {}
    for at in [at for at, fragment in enumerate(fragments) if fragment is None] if None in fragments else ():
        record = records[at]
        try:
            if record.event is None:
                raise record.fault or InvalidEvent("event", "missing")
            fragments[at] = encoded(at_its_time(record.event, codec, sent_at), codec)
        except InvalidEvent as fault:
            fragments[at] = b""
            rejections[at] = Rejection(record.row, "invalid", fault.reason, fault.field)
    return Chunk(rows, keys, cast(Sequence[bytes], fragments), records, rejections)


def _encoded_together(records: BulkRecords, codec: Codec, sent_at: datetime | None) -> list[bytes | None] | None:
    """None where one value among all of them cannot be written; alone it finds its words."""
    try:
        return records.encoded(codec, sent_at)
    except EventsError:
        raise
    except Exception:
        return None


def encoded(event: Event, codec: Codec) -> bytes:
    """The event as a fragment of a request.

    :raises InvalidEvent: it cannot be written, whatever the encoder says of it.
    """
    try:
        return codec.encode(event)
    except EventsError:
        raise
    except Exception as error:  # values may have methods of their own, which fail in ways of their own
        raise InvalidEvent("event", f"holds a value that cannot be written as JSON ({type(error).__name__})") from None


def at_its_time(event: Event, codec: Codec, sent_at: datetime) -> Event:
    """`event`, at `sent_at` if it has no time of its own and the vendor takes one."""
    return replace(event, timestamp=sent_at) if event.timestamp is None and codec.timestamp_sent else event
