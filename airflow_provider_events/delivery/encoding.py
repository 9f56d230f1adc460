"""Rows on their way from a source to the wire: validated and encoded, together or one by one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

from airflow_provider_events.contract import BulkCodec
from airflow_provider_events.events import Event, Record, Rejection
from airflow_provider_events.exceptions import EventsError, InvalidEvent

__all__ = ["Bulk", "Chunk", "Encoder", "Faulty", "Item", "Row", "at_its_time", "encoded", "prepare"]


class Item(NamedTuple):
    """An event ready for the wire.

    :param row: its number in the source.
    :param key: its key, where the source has a key column.
    :param fragment: of a request.
    """

    row: int
    key: Any
    fragment: bytes
    record: Record

    def __repr__(self) -> str:
        """Without the event."""
        return f"<Item {self.row}: {len(self.fragment)} bytes>"


class Faulty(NamedTuple):
    """A record that is no valid event, and why."""

    row: int
    key: Any
    rejection: Rejection
    record: Record

    def __repr__(self) -> str:
        """Without the row's values."""
        return f"<Faulty {self.row}: {self.rejection.summary}>"


Row = Item | Faulty


@dataclass(frozen=True, slots=True, repr=False)
class Chunk:
    """Neighbouring rows, column by column; most are never looked at one by one.

    :param rows: their numbers in the source.
    :param keys: their keys; None where the source has no key column.
    :param fragments: each event as a fragment of a request; None for a row that is no valid event.
    :param records: what they came from; some sources make a record only when it is asked for.
    :param rejections: why rows are no valid events, by position.
    """

    rows: Sequence[int]
    keys: Sequence[Any] | None
    fragments: Sequence[bytes | None]
    records: Sequence[Record]
    rejections: dict[int, Rejection]

    def __repr__(self) -> str:
        """Without the rows."""
        return f"<Chunk of {len(self)} rows>"

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Self:
        """These rows."""
        return cls(
            [row.row for row in rows],
            [row.key for row in rows],
            [row.fragment if isinstance(row, Item) else None for row in rows],
            [row.record for row in rows],
            {at: row.rejection for at, row in enumerate(rows) if isinstance(row, Faulty)},
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return map(self.row, range(len(self)))

    def key(self, at: int) -> Any:
        """The key of one row."""
        return self.keys[at] if self.keys else None

    def row(self, at: int) -> Row:
        """One row by itself."""
        number, fragment, record = self.rows[at], self.fragments[at], self.records[at]
        if fragment is None:
            return Faulty(number, self.key(at), self.rejections[at], record)
        return Item(number, self.key(at), fragment, record)

    def behind(self, at: int) -> Chunk:
        """The rows from a position on."""
        rejections = {position - at: why for position, why in self.rejections.items() if position >= at}
        return Chunk(self.rows[at:], self.keys and self.keys[at:], self.fragments[at:], self.records[at:], rejections)

    def digested(self, start: int, stop: int) -> bytes:
        """What some of the rows contribute to the digest of their source."""
        fragments = self.fragments[start:stop]
        if self.rejections:
            fragments = [
                fragment or self.rejections[at].summary.encode() for at, fragment in enumerate(fragments, start)
            ]
        return b"".join(fragments)  # type: ignore[arg-type]  # without rejections no fragment is missing


class Encoder(Protocol):
    """Makes fragments of requests from events."""

    @property
    def timestamp_sent(self) -> bool:
        """Whether the vendor takes the time of an event."""

    def encode(self, event: Event) -> bytes:
        """The event as a fragment of a request, never empty.

        :raises InvalidEvent: the vendor would refuse it.
        """


@runtime_checkable
class Bulk(Sized, Protocol):
    """Records with consecutive numbers that can be encoded together, without becoming events."""

    @property
    def first_row(self) -> int:
        """Number of the first one."""

    def encoded(self, codec: BulkCodec, sent_at: datetime | None) -> list[bytes | None]:
        """Each record as a fragment of a request, at `sent_at` if it has no time.

        None for one that has to be encoded by itself.
        """


def prepare(
    records: Iterator[Sequence[Record]],
    codec: Encoder,
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


def _prepared(records: Sequence[Record], codec: Encoder, sent_at: datetime, keys: Sequence[Any] | None) -> Chunk:
    if isinstance(records, Bulk) and isinstance(codec, BulkCodec):
        fragments = _encoded_together(records, codec, sent_at if codec.timestamp_sent else None) or [None] * len(
            records
        )
        rows: Sequence[int] = range(records.first_row, records.first_row + len(records))
    else:
        fragments = [None] * len(records)
        rows = [record.row for record in records]
    rejections = {}
    for at in [at for at, fragment in enumerate(fragments) if fragment is None] if None in fragments else ():
        record = records[at]
        try:
            if record.event is None:
                raise record.fault or InvalidEvent("event", "missing")
            fragments[at] = encoded(at_its_time(record.event, codec, sent_at), codec)
        except InvalidEvent as fault:
            rejections[at] = Rejection(record.row, "invalid", fault.reason, fault.field)
    return Chunk(rows, keys, fragments, records, rejections)


def _encoded_together(records: Bulk, codec: BulkCodec, sent_at: datetime | None) -> list[bytes | None] | None:
    """None where one value among all of them cannot be written; alone it finds its words."""
    try:
        return records.encoded(codec, sent_at)
    except EventsError:
        raise
    except Exception:
        return None


def encoded(event: Event, codec: Encoder) -> bytes:
    """The event as a fragment of a request.

    :raises InvalidEvent: it cannot be written, whatever the encoder says of it.
    """
    try:
        return codec.encode(event)
    except EventsError:
        raise
    except Exception as error:  # values may have methods of their own, which fail in ways of their own
        raise InvalidEvent("event", f"holds a value that cannot be written as JSON ({type(error).__name__})") from None


def at_its_time(event: Event, codec: Encoder, sent_at: datetime) -> Event:
    """`event`, at `sent_at` if it has no time of its own and the vendor takes one."""
    return replace(event, timestamp=sent_at) if event.timestamp is None and codec.timestamp_sent else event
