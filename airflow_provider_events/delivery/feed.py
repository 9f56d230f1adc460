"""From chunks of rows to batches: contiguous ones by default, or by identity where order matters."""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple, Protocol, Self, cast

from airflow_provider_events.delivery.checkpoint import Digest, OpenRows, Span
from airflow_provider_events.delivery.ledger import Ledger
from airflow_provider_events.delivery.rows import Chunk, Item
from airflow_provider_events.delivery.waiting import Held
from airflow_provider_events.events import Record, Rejection

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

    def __iter__(self) -> Iterator[Chunk]: ...


class Bounds(NamedTuple):
    """What one request takes.

    :param batch_size: events.
    :param max_bytes: bytes of a body of more than one event.
    :param piece_overhead: bytes at most that an event costs beside its own; the envelope costs no more either.
    """

    batch_size: int
    max_bytes: int
    piece_overhead: int


@dataclass(slots=True)
class Cut:
    """Neighbouring rows for one request.

    :param rows: numbers of the events among them; so too `keys` and `pieces`.
    :param places: where the events are: positions in chunks.
    :param stop: position behind the last row in the last chunk.
    :param before: digest of the source before that chunk; None for rows that an earlier try took.
    :param count: of all rows, faulty ones included.
    :param faulty: record and reason of each row that is no event.
    :param group: rows that an earlier try left open: all those of the request that they were going to make, even if
        this request takes only a part of them, as batches may be smaller now.
    """

    rows: Sequence[int] = ()
    keys: Sequence[Any] = ()
    pieces: Sequence[bytes] = ()
    places: Sequence[tuple[Chunk, Sequence[int]]] = ()
    stop: int = 0
    before: Digest | None = None
    count: int = 0
    faulty: Sequence[tuple[Record, Rejection]] = ()
    group: Chunk | None = None

    @classmethod
    def of(cls, chunk: Chunk, start: int, stop: int, before: Digest | None) -> Self:
        """Some rows of a chunk, all of them events."""
        rows, pieces = chunk.rows[start:stop], cast(Sequence[bytes], chunk.pieces[start:stop])
        keys = chunk.keys[start:stop] if chunk.keys else ()
        return cls(rows, keys, pieces, ((chunk, range(start, stop)),), stop, before, stop - start)

    def add(self, chunk: Chunk, start: int, stop: int, before: Digest | None) -> None:
        """Add the rows of a chunk that follow."""
        positions = [at for at in range(start, stop) if at not in chunk.rejections]
        self.rows = [*self.rows, *(chunk.rows[at] for at in positions)]
        self.keys = [*self.keys, *(chunk.keys[at] for at in positions)] if chunk.keys else ()
        self.pieces = [*self.pieces, *cast(list[bytes], [chunk.pieces[at] for at in positions])]
        self.places = (*self.places, (chunk, positions))
        self.stop, self.before = stop, before
        self.count += stop - start
        if len(positions) < stop - start:
            faulty = [at for at in range(start, stop) if at in chunk.rejections]
            self.faulty = [*self.faulty, *((chunk.records[at], chunk.rejections[at]) for at in faulty)]

    @property
    def last(self) -> tuple[int, Any]:
        """Number and key of the last row."""
        chunk, _ = self.places[-1]
        return chunk.rows[self.stop - 1], chunk.key(self.stop - 1)

    def digest(self) -> str:
        """Of the source up to these rows."""
        chunk, _ = self.places[-1]
        digest = self.before.copy() if self.before else Digest()
        digest.update(chunk.digested(0, self.stop))
        return digest.hexdigest()

    def item(self, n: int) -> Item:
        """One of the events by itself."""
        for chunk, positions in self.places:
            if n < len(positions):
                return cast(Item, chunk.row(positions[n]))
            n -= len(positions)
        raise IndexError(n)


@dataclass(slots=True)
class Batch:
    """What goes into one request.

    :param rows: numbers of its events; so too `pieces` and `spans`.
    :param item: gives one of the events by itself.
    :param held: set for a single event that has waited for its entry.
    """

    rows: Sequence[int]
    pieces: Sequence[bytes]
    spans: Sequence[Span]
    item: Callable[[int], Item]
    held: Held | None = None

    @classmethod
    def of(cls, items: Sequence[Item], spans: Sequence[Span], held: Held | None = None) -> Self:
        """These events."""
        return cls([item.row for item in items], [item.piece for item in items], spans, items.__getitem__, held)


class Feed(Protocol):
    """Gives batches to workers."""

    def ready(self, worker: int) -> Batch | None:
        """The next batch for this worker where there is one at once; None says nothing."""

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
        self._again: tuple[Chunk, Span] | None = None

    async def take(self) -> tuple[Cut, Span] | None:
        """The next rows, with a span opened over them, or None at the end.

        :raises Exception: what the source raised, once all rows before it have been taken.
        """
        while (taken := self.ready()) is None:
            if self._exhausted:
                if self._error is not None:
                    raise self._error
                return None
            async with self._turn:
                if not self._ready and not self._exhausted:
                    await self._refill()
        return taken

    def ready(self) -> tuple[Cut, Span] | None:
        """The same where there are rows at once; None says nothing."""
        if not self._ready:
            return None
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
            if self._again is None or self._again[0] is not group:
                items = [row for row in group if isinstance(row, Item)]
                span = Span(chunks.before_open, [item.row for item in items], [item.key for item in items])
                self._again = group, span
                ledger.frontier.took_again(span, chunks.group(group.rows[0]))
            span = self._again[1]
        else:
            span = Span(self._before or chunks.taken, cut.rows, cut.keys)
            self._before = last_row, last_key = cut.last
            ledger.took(cut.count)
            ledger.frontier.took(span, last_row, cut.digest, last_key)
        for record, rejection in cut.faulty:
            ledger.rejected(record, rejection)
        return span

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
    left = Cut()
    source = iter(chunks)
    try:
        for chunk in source:
            if len(chunk) and chunk.rows[0] <= chunks.taken[0]:
                for _, rows in groupby(chunk, lambda row: chunks.group(row.row)):
                    group = Chunk.of(list(rows))
                    cuts = _cut(group, Cut(), bounds, None)
                    for cut in cuts:
                        cut.group = group
                    yield cuts
                continue
            cuts = _cut(chunk, left, bounds, chunks.digest)
            full = len(cuts[-1].rows) == bounds.batch_size or cuts[-1].count >= MAX_ROWS_PER_CUT
            left = Cut() if full else cuts.pop()
            if cuts:
                yield cuts
    except Exception:
        if left.count:
            yield [left]
        raise
    finally:
        if isinstance(source, Generator):
            source.close()
    if left.count:
        yield [left]


def _cut(chunk: Chunk, left: Cut, bounds: Bounds, digest: Digest | None) -> list[Cut]:
    """At least one cut; only the last one may be smaller than it could be.

    :param digest: of the source before this chunk, and then behind it.
    """
    batch_size, max_bytes, overhead = bounds
    before = digest.copy() if digest else None
    if digest:
        digest.update(chunk.digested(0, len(chunk)))
    events: Sequence[int] = range(len(chunk))
    if chunk.rejections:
        events = [at for at in events if at not in chunk.rejections]
    elif chunk.rows and not left.count:
        longest = max(map(len, cast(Sequence[bytes], chunk.pieces)))
        if batch_size == 1 or overhead + batch_size * (longest + overhead) <= max_bytes:
            stops = range(batch_size, len(chunk) + batch_size, batch_size)
            return [Cut.of(chunk, stop - batch_size, min(stop, len(chunk)), before) for stop in stops]
    cuts = [left]
    start = taken = 0
    while taken < len(events):
        cut = cuts[-1]
        size = overhead + sum(map(len, cut.pieces)) + overhead * len(cut.pieces)
        fitting = 0
        for at in events[taken : taken + batch_size - len(cut.pieces)]:
            size += len(chunk.pieces[at] or b"") + overhead
            if size > max_bytes and (fitting or cut.pieces):
                break
            fitting += 1
        if fitting:
            stop = events[taken + fitting - 1] + 1
            cut.add(chunk, start, stop, before)
            start, taken = stop, taken + fitting
        if taken < len(events):
            cuts.append(Cut())
    if start < len(chunk):
        if len(cuts[-1].rows) == batch_size:
            cuts.append(Cut())
        cuts[-1].add(chunk, start, len(chunk), before)
    return cuts


class Batches:
    """Contiguous batches, bounded by count and bytes, for whichever worker comes first."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def ready(self, worker: int) -> Batch | None:
        """See `Feed.ready`."""
        return self._batch(self._reader.ready())

    async def take(self, worker: int) -> Batch | None:
        """See `Feed.take`."""
        return self._batch(await self._reader.take())

    def _batch(self, taken: tuple[Cut, Span] | None) -> Batch | None:
        if taken is None:
            return None
        cut, span = taken
        return Batch(cut.rows, cut.pieces, [span] * len(cut.rows), cut.item)


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

    def ready(self, worker: int) -> None:
        """See `Feed.ready`; what is ready for a lane depends on the others."""

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
        for item in map(cut.item, range(len(cut.rows))):
            self._lanes[lane_of(item.record, len(self._lanes))].append((item, span))
            self._buffered += 1
        return True

    def _batch(self, lane: deque[tuple[Item, Span]]) -> Batch:
        items: list[Item] = []
        spans: list[Span] = []
        identities: set[str] = set()
        batch_size, max_bytes, overhead = self._bounds
        size = overhead
        while lane and len(items) < batch_size:
            item, span = lane[0]
            identity = identity_of(item.record)
            size += len(item.piece) + overhead
            if identity in identities or (items and size > max_bytes):
                break
            identities.add(identity)
            items.append(item)
            spans.append(span)
            lane.popleft()
        self._buffered -= len(items)
        self._space.set()
        return Batch.of(items, spans)


def identity_of(record: Record) -> str:
    """The same text for the same identity."""
    return repr(sorted((name, str(value)) for name, value in record.event.identity.items())) if record.event else ""


def lane_of(record: Record, lanes: int) -> int:
    """The lane of a record's identity."""
    return zlib.crc32(identity_of(record).encode()) % lanes
