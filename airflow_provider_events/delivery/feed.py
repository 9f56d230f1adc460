"""From chunks of prepared rows to batches: contiguous ones by default, or by identity where order matters."""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any, NamedTuple, Protocol

from airflow_provider_events.delivery.checkpoint import Digest, OpenRows, Span
from airflow_provider_events.delivery.ledger import Ledger
from airflow_provider_events.delivery.waiting import Held
from airflow_provider_events.events import Record, Rejection
from airflow_provider_events.exchange import Encoded

__all__ = ["Batch", "Batches", "Chunks", "Faulty", "Feed", "Item", "Lanes", "Prepared", "Reader", "row_bytes"]

MAX_ROWS_PER_SPAN = 1000
LANE_BATCHES = 2


class Item(NamedTuple):
    """An event ready for the wire, and the record it came from."""

    encoded: Encoded
    record: Record


class Faulty(NamedTuple):
    """A record that is no valid event, and why."""

    record: Record
    rejection: Rejection


Prepared = Item | Faulty


def row_bytes(row: Prepared) -> bytes:
    """What a row contributes to the digest of its source."""
    return row.encoded.body if isinstance(row, Item) else row.rejection.summary.encode()


class Chunks(Protocol):
    """Prepared rows, chunk by chunk.

    :param digest: of the rows that an earlier try took and this one passed over.
    :param taken: number and key of the last of these rows; rows up to it come again only because they were open.
    :param before_open: number and key of the row before the first open one.
    """

    digest: Digest
    taken: tuple[int, Any]
    before_open: tuple[int, Any]

    def key(self, record: Record) -> Any:
        """The row's key, where the source has a key column."""

    def group(self, row: int) -> tuple[OpenRows, ...]:
        """The group of open rows to which a row belongs that an earlier try took; empty for a new row."""

    def __iter__(self) -> Iterator[Sequence[Prepared]]: ...


@dataclass(slots=True)
class Batch:
    """What goes into one request; each item has its span.

    :param held: set for a single event that has waited for its entry.
    """

    items: list[Item] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    held: Held | None = None


class Feed(Protocol):
    """Gives batches to workers."""

    async def take(self, worker: int) -> Batch | None:
        """The next batch for this worker, or None when the source has no more for it.

        :raises Exception: what the source raised, once all rows before it have been taken.
        """


class Reader:
    """Reads chunks on one thread of its own, one ahead of what is used, and opens spans over their rows."""

    def __init__(self, chunks: Chunks, ledger: Ledger) -> None:
        self._chunks = chunks
        self._iterator = iter(chunks)
        self._ledger = ledger
        self._thread = ThreadPoolExecutor(1, "events-reader")
        self._rows: Sequence[Prepared] = ()
        self._at = 0
        self._ahead: asyncio.Future[Sequence[Prepared] | None] | None = None
        self._exhausted = False
        self._error: Exception | None = None
        self._before: tuple[int, Any] | None = None
        self._again: tuple[tuple[OpenRows, ...], Span] | None = None

    async def peek(self) -> Prepared | None:
        """The next row without taking it, or None at the end.

        :raises Exception: what the source raised.
        """
        while self._at >= len(self._rows):
            if self._exhausted:
                if self._error is not None:
                    raise self._error
                return None
            try:
                rows = await (self._ahead or self._read())
            except Exception as error:
                self._error, rows = error, None
            self._exhausted = rows is None
            self._rows, self._at = rows or (), 0
            self._ahead = None if self._exhausted else self._read()
        return self._rows[self._at]

    def same_request(self, row: Prepared, other: Prepared) -> bool:
        """Whether two rows may share a request: those that an earlier try left open keep together as they were."""
        taken = self._chunks.taken[0]
        if row.record.row > taken < other.record.row:
            return True
        return self._chunks.group(row.record.row) == self._chunks.group(other.record.row)

    def step(self) -> None:
        """Take the row that `peek` showed."""
        self._at += 1

    def span(self, rows: Sequence[Prepared]) -> Span:
        """Open a span over rows that were taken together; its faulty rows are settled by that."""
        chunks, ledger = self._chunks, self._ledger
        last = rows[-1].record
        if last.row <= chunks.taken[0]:
            group = chunks.group(last.row)
            if self._again is not None and self._again[0] == group:
                return self._again[1]
            # All of the group, even if this request takes only a part of it: batches may be smaller now.
            behind = islice(self._rows, self._at, None)
            rows = [*rows, *takewhile(lambda row: chunks.group(row.record.row) == group, behind)]
            span = Span(chunks.before_open, self._events(rows))
            self._again = group, span
            ledger.frontier.took_again(span, group)
        else:
            span = Span(self._before or chunks.taken, self._events(rows))
            for row in rows:
                chunks.digest.update(row_bytes(row))
            self._before = (last.row, chunks.key(last))
            ledger.took(len(rows))
            ledger.frontier.took(span, last.row, chunks.digest.hexdigest(), self._before[1])
        for row in rows:
            if isinstance(row, Faulty):
                ledger.frontier.tally.add(ledger.rejected(row.record, row.rejection))
        return span

    def _events(self, rows: Sequence[Prepared]) -> list[tuple[int, Any]]:
        return [(row.record.row, self._chunks.key(row.record)) for row in rows if isinstance(row, Item)]

    async def close(self, timeout_seconds: float) -> None:
        """Close the source on its own thread, without waiting longer than `timeout_seconds` for a slow one."""
        closing = asyncio.get_running_loop().run_in_executor(self._thread, _close, self._iterator)
        self._thread.shutdown(wait=False)
        await asyncio.wait({closing}, timeout=timeout_seconds)
        if closing.done() and (error := closing.exception()) is not None and self._error is None:
            raise error

    def _read(self) -> asyncio.Future[Sequence[Prepared] | None]:
        return asyncio.get_running_loop().run_in_executor(self._thread, next, self._iterator, None)


def _close(iterator: Iterator[Sequence[Prepared]]) -> None:
    if isinstance(iterator, Generator):
        iterator.close()


class Batches:
    """Contiguous batches, bounded by count and bytes, for whichever worker comes first.

    Boundaries depend on the rows alone, so that a resumed delivery forms the same requests.
    """

    def __init__(self, reader: Reader, batch_size: int, max_bytes: int, piece_overhead: int) -> None:
        self._reader = reader
        self._batch_size = batch_size
        self._max_bytes = max_bytes
        self._piece_overhead = piece_overhead
        self._turn = asyncio.Lock()

    async def take(self, worker: int) -> Batch | None:
        """See `Feed.take`."""
        async with self._turn:
            rows: list[Prepared] = []
            items: list[Item] = []
            size = self._piece_overhead
            while len(items) < self._batch_size and len(rows) < MAX_ROWS_PER_SPAN:
                try:
                    row = await self._reader.peek()
                except Exception:
                    if not rows:
                        raise
                    break
                if row is None or (rows and not self._reader.same_request(rows[-1], row)):
                    break
                if isinstance(row, Item):
                    size += len(row.encoded.body) + self._piece_overhead
                    if items and size > self._max_bytes:
                        break
                    items.append(row)
                rows.append(row)
                self._reader.step()
            if not rows:
                return None
            return Batch(items, [self._reader.span(rows)] * len(items))


class Lanes:
    """One lane per worker; an identity always takes the same lane, and never twice the same batch.

    So no event overtakes an earlier one of its customer, whatever is retried, bisected or held. The price: batches
    fill more slowly, and a lane whose request is being retried holds up the reading once the buffer is full.
    """

    def __init__(self, reader: Reader, workers: int, batch_size: int, max_bytes: int, piece_overhead: int) -> None:
        self._reader = reader
        self._lanes: list[deque[tuple[Item, Span]]] = [deque() for _ in range(workers)]
        self._batch_size = batch_size
        self._max_bytes = max_bytes
        self._piece_overhead = piece_overhead
        self._capacity = LANE_BATCHES * workers * batch_size
        self._buffered = 0
        self._turn = asyncio.Lock()
        self._space = asyncio.Event()

    async def take(self, worker: int) -> Batch | None:
        """See `Feed.take`."""
        lane = self._lanes[worker]
        while True:
            async with self._turn:
                exhausted = False
                while len(lane) < self._batch_size and self._buffered < self._capacity and not exhausted:
                    exhausted = not await self._fill(lane)
                if lane:
                    return self._cut(lane)
                if exhausted:
                    return None
                self._space.clear()
            await self._space.wait()

    async def _fill(self, lane: deque[tuple[Item, Span]]) -> bool:
        """Put the next row into its lane; False at the end of the source."""
        try:
            row = await self._reader.peek()
        except Exception:
            if not lane:
                raise
            return False
        if row is None:
            return False
        self._reader.step()
        span = self._reader.span([row])
        if isinstance(row, Item):
            self._lanes[lane_of(row.record, len(self._lanes))].append((row, span))
            self._buffered += 1
        return True

    def _cut(self, lane: deque[tuple[Item, Span]]) -> Batch:
        batch = Batch()
        identities: set[str] = set()
        size = self._piece_overhead
        while lane and len(batch.items) < self._batch_size:
            item, span = lane[0]
            identity = identity_of(item.record)
            size += len(item.encoded.body) + self._piece_overhead
            if identity in identities or (batch.items and size > self._max_bytes):
                break
            identities.add(identity)
            batch.items.append(item)
            batch.spans.append(span)
            lane.popleft()
        self._buffered -= len(batch.items)
        self._space.set()
        return batch


def identity_of(record: Record) -> str:
    """The same text for the same identity."""
    return repr(sorted((name, str(value)) for name, value in record.event.identity.items())) if record.event else ""


def lane_of(record: Record, lanes: int) -> int:
    """The lane of a record's identity."""
    return zlib.crc32(identity_of(record).encode()) % lanes
