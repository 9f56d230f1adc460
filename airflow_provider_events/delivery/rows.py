"""Rows on their way from a source to the wire: validated and encoded, together or one by one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import count, repeat
from typing import Any, NamedTuple, Protocol, runtime_checkable

from airflow_provider_events.events import Event, Record, Rejection
from airflow_provider_events.exceptions import InvalidEvent
from airflow_provider_events.exchange import Content, Encoded, Writer

__all__ = ["Bulk", "Encoder", "Faulty", "Item", "Row", "encode", "numbered", "prepare", "row_bytes"]

Keys = Callable[[Sequence[Record]], Sequence[Any] | None]


class Item(NamedTuple):
    """An event ready for the wire.

    :param row: its number in the source.
    :param key: its key, where the source has a key column.
    :param body: see `Piece`; so too `content`.
    :param records: holds the record it came from, at position `at`; made only when somebody asks for it.
    """

    row: int
    key: Any
    body: bytes
    content: Content
    records: Sequence[Record]
    at: int

    @property
    def record(self) -> Record:
        """The record it came from."""
        return self.records[self.at]._replace(row=self.row)

    def alone(self) -> Item:
        """The same without the rows around it, which need not stay in memory then."""
        return self._replace(records=(self.record,), at=0)


class Faulty(NamedTuple):
    """A record that is no valid event, and why."""

    row: int
    key: Any
    rejection: Rejection
    record: Record


Row = Item | Faulty


class Encoder(Protocol):
    """Makes pieces of requests from events."""

    @property
    def timestamp_sent(self) -> bool:
        """Whether the vendor takes the time of an event."""

    def encode(self, event: Event) -> Encoded:
        """The event on the vendor's wire.

        :raises InvalidEvent: the vendor would refuse it.
        """


@runtime_checkable
class Bulk(Protocol):
    """Records that can be encoded together, without becoming events."""

    def encoded(
        self, codec: Writer, sent_at: datetime | None
    ) -> tuple[Sequence[bytes | None], Sequence[Content | None]]:
        """Each record on the wire, at `sent_at` if it has no time, and what it says.

        Twice None for one that has to be encoded by itself.
        """


def prepare(
    records: Iterator[Sequence[Record]], codec: Encoder, sent_at: datetime, keys: Keys
) -> Generator[list[Row], None, None]:
    """Validate and encode; events without a time get `sent_at`, so that a repeated request has the same bytes.

    :param keys: gives the keys of records, or None.
    """
    try:
        for chunk in records:
            yield _rows(chunk, codec, sent_at, keys(chunk))
    finally:
        if isinstance(records, Generator):
            records.close()


def encode(codec: Encoder, event: Event, sent_at: datetime) -> Encoded:
    """`event` on the wire, at `sent_at` if it has no time of its own.

    :raises InvalidEvent: the vendor would refuse it.
    """
    if event.timestamp is None and codec.timestamp_sent:
        event = replace(event, timestamp=sent_at)
    return codec.encode(event)


def _rows(chunk: Sequence[Record], codec: Encoder, sent_at: datetime, keys: Sequence[Any] | None) -> list[Row]:
    if not (isinstance(chunk, Bulk) and isinstance(codec, Writer)):
        return [_row(record, key, codec, sent_at) for record, key in zip(chunk, keys or repeat(None), strict=False)]
    bodies, contents = chunk.encoded(codec, sent_at if codec.timestamp_sent else None)
    first = chunk[0].row if chunk else 0
    fields = zip(count(first), keys or repeat(None), bodies, contents, repeat(chunk), count(), strict=False)
    rows: list[Row] = list(map(_item, fields))
    if None in bodies:
        for at, body in enumerate(bodies):
            if body is None:
                rows[at] = _row(chunk[at], rows[at].key, codec, sent_at)
    return rows


_item: Callable[[Iterable[Any]], Item] = partial(tuple.__new__, Item)  # for a million of them; checks no length


def _row(record: Record, key: Any, codec: Encoder, sent_at: datetime) -> Row:
    event, fault = record.event, record.fault
    if event is not None:
        try:
            return Item(record.row, key, *encode(codec, event, sent_at), (record,), 0)
        except InvalidEvent as error:
            fault = error
    field, reason = (fault.field, fault.reason) if fault else ("event", "missing")
    return Faulty(record.row, key, Rejection(record.row, "invalid", reason, field), record)


def row_bytes(row: Row) -> bytes:
    """What a row contributes to the digest of its source."""
    return row.body if isinstance(row, Item) else row.rejection.summary.encode()


def numbered(row: Row, number: int) -> Row:
    """The row under the number that it had in an earlier try."""
    if isinstance(row, Item):
        return row._replace(row=number)
    return Faulty(number, row.key, replace(row.rejection, row=number), row.record._replace(row=number))
