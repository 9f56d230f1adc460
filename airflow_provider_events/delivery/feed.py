"""From chunks of rows to batches: contiguous ones by default, or by identity where order matters."""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple, Protocol

from airflow_provider_events.delivery.checkpoint import Digest, OpenRows, Span
from airflow_provider_events.delivery.ledger import Ledger
from airflow_provider_events.delivery.rows import Faulty, Item, Row, row_bytes
from airflow_provider_events.delivery.waiting import Held
from airflow_provider_events.events import Record

__all__ = ["Batch", "Batches", "Bounds", "Chunks", "Feed", "Lanes", "Reader"]

MAX_ROWS_PER_CUT = 1000
LANE_BATCHES = 2


class Chunks(Protocol):
    """Prepared rows, chunk by chunk.

    :param digest: of the rows that an earlier try took and this one passed over.
    :param taken: number and key of the last of these rows; rows up to it come again only because they were open. They
        make up the first chunk, and have it for themselves.
    :param before_open: number and key of the row before the first open one.
    """

    digest: Digest
    taken: tuple[int, Any]
    before_open: tuple[int, Any]

    def group(self, row: int) -> tuple[OpenRows, ...]:
        """The group of open rows to which a row belongs that an earlier try took; empty for a new row."""

    def __iter__(self) -> Iterator[Sequence[Row]]: ...


class Bounds(NamedTuple):
    """What one request takes.

    :param batch_size: events.
    :param max_bytes: bytes of a body of more than one event.
    :param piece_overhead: bytes at most that an event costs beside its own; the envelope costs no more either.
    """

    batch_size: int
    max_bytes: int
    piece_overhead: int


class Cut(NamedTuple):
    """Neighbouring rows for one request.

    :param rows: all of them, faulty ones included.
    :param items: the events among them.
    :param digest: of the source up to these rows; empty for rows that an earlier try took.
    :param group: rows that an earlier try left open: all those of the request that they were going to make, even if
        this request takes only a part of them, as batches may be smaller now.
    """

    rows: list[Row]
    items: list[Item]
    digest: str = ""
    group: list[Row] | None = None

    def full(self, bounds: Bounds) -> bool:
        """Whether no row of any size fits in."""
        return len(self.items) == bounds.batch_size or len(self.rows) == MAX_ROWS_PER_CUT


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
    """Reads chunks and cuts them on one thread of its own, one chunk ahead of what is used; opens spans."""

    def __init__(self, chunks: Chunks, bounds: Bounds, ledger: Ledger) -> None:
        self._chunks = chunks
        self._cuts = _cuts(chunks, bounds)
        self._ledger = ledger
        self._thread = ThreadPoolExecutor(1, "events-reader")
        self._turn = asyncio.Lock()
        self._ready: deque[Cut] = deque()
        self._ahead: asyncio.Future[list[Cut] | None] | None = None
        self._exhausted = False
        self._error: Exception | None = None
        self._before: tuple[int, Any] | None = None
        self._again: tuple[list[Row], Span] | None = None

    async def take(self) -> tuple[Cut, Span] | None:
        """The next rows, with a span opened over them, or None at the end.

        :raises Exception: what the source raised, once all rows before it have been taken.
        """
        while not self._ready:
            if self._exhausted:
                if self._error is not None:
                    raise self._error
                return None
            async with self._turn:
                if not self._ready and not self._exhausted:
                    await self._refill()
        cut = self._ready.popleft()
        return cut, self._span(cut)

    async def _refill(self) -> None:
        try:
            cuts = await (self._ahead or self._read())
        except Exception as error:
            self._error, cuts = error, None
        self._exhausted = cuts is None
        self._ready.extend(cuts or ())
        self._ahead = None if self._exhausted else self._read()

    def _span(self, cut: Cut) -> Span:
        """Open a span over rows that are taken together; the faulty ones are settled by that."""
        chunks, ledger = self._chunks, self._ledger
        if (group := cut.group) is not None:
            if self._again is not None and self._again[0] is group:
                return self._again[1]
            span = Span(chunks.before_open, [row for row in group if isinstance(row, Item)])
            self._again = group, span
            ledger.frontier.took_again(span, chunks.group(group[0].row))
            self._reject(group)
            return span
        rows = cut.rows
        span = Span(self._before or chunks.taken, cut.items)
        self._before = last_row, last_key = rows[-1][:2]
        ledger.took(len(rows))
        ledger.frontier.took(span, last_row, cut.digest, last_key)
        if len(cut.items) < len(rows):
            self._reject(rows)
        return span

    def _reject(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if isinstance(row, Faulty):
                self._ledger.rejected(row.record, row.rejection)

    async def close(self, timeout_seconds: float) -> None:
        """Close the source on its own thread, without waiting longer than `timeout_seconds` for a slow one."""
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._cuts.close)
        self._thread.shutdown(wait=False)
        await asyncio.wait({closing}, timeout=timeout_seconds)
        if closing.done() and (error := closing.exception()) is not None and self._error is None:
            raise error

    def _read(self) -> asyncio.Future[list[Cut] | None]:
        return asyncio.get_running_loop().run_in_executor(self._thread, next, self._cuts, None)


def _cuts(chunks: Chunks, bounds: Bounds) -> Generator[list[Cut], None, None]:
    """Cut chunks into what one request takes; what is left of one goes with the next.

    New rows are cut by themselves alone. Those that an earlier try left open keep together as they were.
    """
    left = Cut([], [])
    source = iter(chunks)
    try:
        for rows in source:
            if rows and rows[0].row <= chunks.taken[0]:
                for _, group in groupby(rows, lambda row: chunks.group(row.row)):
                    whole = list(group)
                    cuts = _cut(whole, Cut([], []), bounds)
                    yield [cut._replace(group=whole) for cut in cuts]
                continue
            cuts = _cut(rows, left, bounds)
            left = Cut([], []) if cuts[-1].full(bounds) else cuts.pop()
            if cuts:
                yield [_digested(cut, chunks.digest) for cut in cuts]
    except Exception:
        if left.rows:
            yield [_digested(left, chunks.digest)]
        raise
    finally:
        if isinstance(source, Generator):
            source.close()
    if left.rows:
        yield [_digested(left, chunks.digest)]


def _digested(cut: Cut, digest: Digest) -> Cut:
    digest.update(b"".join([row_bytes(row) for row in cut.rows]))
    return cut._replace(digest=digest.hexdigest())


def _cut(rows: Sequence[Row], left: Cut, bounds: Bounds) -> list[Cut]:
    """At least one cut; only the last one may be smaller than it could be."""
    batch_size, max_bytes, overhead = bounds
    taken, items = left.rows, left.items
    cuts = [left]
    size = overhead + sum(len(item.body) + overhead for item in items)
    for row in rows:
        needs = len(row.body) + overhead if isinstance(row, Item) else 0
        full = len(items) == batch_size or len(taken) == MAX_ROWS_PER_CUT
        if full or (items and size + needs > max_bytes):
            taken, items, size = [], [], overhead
            cuts.append(Cut(taken, items))
        if isinstance(row, Item):
            items.append(row)
        taken.append(row)
        size += needs
    return cuts


class Batches:
    """Contiguous batches, bounded by count and bytes, for whichever worker comes first."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def take(self, worker: int) -> Batch | None:
        """See `Feed.take`."""
        taken = await self._reader.take()
        if taken is None:
            return None
        cut, span = taken
        return Batch(cut.items, [span] * len(cut.items))


class Lanes:
    """One lane per worker; an identity always takes the same lane, and never twice the same batch.

    So no event overtakes an earlier one of its customer, whatever is retried, bisected or held. The price: batches
    fill more slowly, and a lane whose request is being retried holds up the reading once the buffer is full.

    :param reader: its cuts hold one event each.
    """

    def __init__(self, reader: Reader, workers: int, bounds: Bounds) -> None:
        self._reader = reader
        self._lanes: list[deque[tuple[Item, Span]]] = [deque() for _ in range(workers)]
        self._bounds = bounds
        self._capacity = LANE_BATCHES * workers * bounds.batch_size
        self._buffered = 0
        self._turn = asyncio.Lock()
        self._space = asyncio.Event()

    async def take(self, worker: int) -> Batch | None:
        """See `Feed.take`."""
        lane = self._lanes[worker]
        while True:
            async with self._turn:
                exhausted = False
                while len(lane) < self._bounds.batch_size and self._buffered < self._capacity and not exhausted:
                    exhausted = not await self._fill(lane)
                if lane:
                    return self._batch(lane)
                if exhausted:
                    return None
                self._space.clear()
            await self._space.wait()

    async def _fill(self, lane: deque[tuple[Item, Span]]) -> bool:
        """Put the next row into its lane; False at the end of the source."""
        try:
            taken = await self._reader.take()
        except Exception:
            if not lane:
                raise
            return False
        if taken is None:
            return False
        cut, span = taken
        for item in cut.items:
            self._lanes[lane_of(item.record, len(self._lanes))].append((item, span))
            self._buffered += 1
        return True

    def _batch(self, lane: deque[tuple[Item, Span]]) -> Batch:
        batch = Batch()
        identities: set[str] = set()
        batch_size, max_bytes, overhead = self._bounds
        size = overhead
        while lane and len(batch.items) < batch_size:
            item, span = lane[0]
            identity = identity_of(item.record)
            size += len(item.body) + overhead
            if identity in identities or (batch.items and size > max_bytes):
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
