"""ContiguousFeed for workers: neighbouring rows by default, or by identity where order matters."""

from __future__ import annotations

import asyncio
import contextvars
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple, Protocol, Self, cast

from airflow_provider_events.delivery.accounts import Ledger
from airflow_provider_events.delivery.cuts import Bounds, Chunks, Cut, cuts_of
from airflow_provider_events.delivery.deferred import DeferredEvent
from airflow_provider_events.delivery.encoding import Chunk, Item
from airflow_provider_events.delivery.offsets import Span
from airflow_provider_events.events import Record
from airflow_provider_events.redaction import Private

__all__ = ["Batch", "ContiguousFeed", "Feed", "IdentityLanes", "Prefetcher"]

LANE_BATCHES = 2


class Batch(NamedTuple):
    """What goes into one request.

    :param rows: numbers of its events; so too `fragments`.
    :param spans: one for all of them, or one for each.
    :param item_at: gives one event by itself; that of `rows[0]` is at `first`.
    :param held: set for a single event that has waited for its entry.
    """

    rows: Sequence[int]
    fragments: Sequence[bytes]
    spans: Sequence[Span]
    item_at: Callable[[int], Item]
    first: int = 0
    held: DeferredEvent | None = None

    def __repr__(self) -> str:
        """Without the events."""
        return f"<Batch of {len(self.rows)} events, {sum(map(len, self.fragments))} bytes>"

    @classmethod
    def of(cls, items: Sequence[Item], spans: Sequence[Span], held: DeferredEvent | None = None) -> Self:
        """These events."""
        rows, fragments = [item.row for item in items], [item.fragment for item in items]
        return cls(rows, fragments, spans, items.__getitem__, held=held)

    def item(self, n: int) -> Item:
        """One of the events by itself."""
        return self.item_at(self.first + n)

    def span(self, n: int) -> Span:
        """That of one of the events."""
        return self.spans[n] if len(self.spans) > 1 else self.spans[0]

    def about(self) -> Iterator[Private]:
        """What the request says of its customers."""
        for n in range(len(self.rows)):
            if (event := self.item(n).record.event) is not None:
                yield Private(event.identity, (event.properties, event.id))

    def part(self, places: Sequence[int]) -> Batch:
        """Some of the events, by their places in this batch."""
        rows, fragments = [self.rows[n] for n in places], [self.fragments[n] for n in places]
        spans = [self.spans[n] for n in places] if len(self.spans) > 1 else self.spans
        return Batch(rows, fragments, spans, lambda n: self.item(places[n]), held=self.held)


_batch = cast(Callable[[Any], Batch], partial(tuple.__new__, Batch))


class Feed(Protocol):
    """Gives batches to workers."""

    def ready(self, worker: int) -> Batch | None:
        """The next batch for this worker where there is one at once; None says nothing."""

    async def take(self, worker: int) -> Batch | None:
        """The next batch for this worker, or None when the source has no more for it.

        :raises Exception: what the source raised, once all rows before it have been taken.
        """


class Prefetcher:
    """Reads chunks and cuts them on one thread of its own, one chunk ahead of what is used; opens spans.

    The thread sees the context variables of whoever made the reader.
    """

    def __init__(self, chunks: Chunks, bounds: Bounds, ledger: Ledger) -> None:
        self._chunks = chunks
        self._cuts = cuts_of(chunks, bounds)
        self._ledger = ledger
        self._thread = ThreadPoolExecutor(1, "events-reader")
        self._context = contextvars.copy_context()
        self._turn = asyncio.Lock()
        self._ready: deque[Cut] = deque()
        self._ahead: asyncio.Future[list[Cut] | None] | None = None
        self._exhausted = False
        self._error: Exception | None = None
        self._before: tuple[int, Any] | None = None
        self._again: tuple[Chunk, Span] | None = None

    def ready(self) -> tuple[Cut, Span] | None:
        """The next rows, with a span opened over them; None where `more` has to be waited for."""
        if not self._ready:
            return None
        cut = self._ready.popleft()
        return cut, self._span(cut)

    async def more(self) -> bool:
        """Wait until rows are ready; False at the end.

        :raises Exception: what the source raised, once all rows before it have been taken.
        """
        while not self._ready:
            if self._exhausted:
                if self._error is not None:
                    raise self._error
                return False
            async with self._turn:
                if not self._ready and not self._exhausted:
                    await self._refill()
        return True

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
                ledger.offsets.mark_reread(span, chunks.group(group.rows[0]))
            span = self._again[1]
        else:
            span = Span(self._before or chunks.taken, cut.rows, cut.keys)
            self._before = last_row, last_key = cut.last
            ledger.took(cut.count)
            ledger.offsets.mark_read(span, last_row, cut.digest, last_key)
        for record, rejection in cut.faulty:
            ledger.rejected(record, rejection)
        return span

    async def close(self, timeout_seconds: float) -> None:
        """Close the source on its own thread, without waiting longer than `timeout_seconds` for a slow one."""
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._context.run, self._cuts.close)
        self._thread.shutdown(wait=False)
        await asyncio.wait({closing}, timeout=timeout_seconds)
        if closing.done() and (error := closing.exception()) is not None and self._error is None:
            raise error

    def _read(self) -> asyncio.Future[list[Cut] | None]:
        return asyncio.get_running_loop().run_in_executor(self._thread, self._context.run, self._next)

    def _next(self) -> list[Cut] | None:
        return next(self._cuts, None)


class ContiguousFeed:
    """Contiguous batches, bounded by count and bytes, for whichever worker comes first."""

    def __init__(self, reader: Prefetcher, batch_size: int) -> None:
        self._reader = reader
        self._batch_size = batch_size
        self._batches: Iterator[Batch] = iter(())

    def ready(self, worker: int) -> Batch | None:
        """See `Feed.ready`."""
        while (batch := next(self._batches, None)) is None:
            if (taken := self._reader.ready()) is None:
                return None
            self._batches = self._batches_of(*taken)
        return batch

    async def take(self, worker: int) -> Batch | None:
        """See `Feed.take`."""
        while (batch := self.ready(worker)) is None:
            if not await self._reader.more():
                return None
        return batch

    def _batches_of(self, cut: Cut, span: Span) -> Iterator[Batch]:
        firsts = range(0, len(cut.rows), self._batch_size)
        places = [slice(first, first + self._batch_size) for first in firsts]
        rows, fragments = map(cut.rows.__getitem__, places), map(cut.fragments.__getitem__, places)
        return map(_batch, zip(rows, fragments, repeat((span,)), repeat(cut.item), firsts, repeat(None)))


class IdentityLanes:
    """One lane per worker; an identity always takes the same lane, and never twice the same batch.

    So no event overtakes an earlier one of its customer, whatever is retried, bisected or held. The price: batches
    fill more slowly, and a lane whose request is being retried holds up the reading once the buffer is full.
    """

    def __init__(self, reader: Prefetcher, bounds: Bounds) -> None:
        self._reader = reader
        self._lanes: list[deque[tuple[Item, Span]]] = [deque() for _ in range(bounds.window)]
        self._bounds = bounds
        self._capacity = LANE_BATCHES * bounds.window * bounds.batch_size
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
        """Put the next rows into their lanes; False at the end of the source."""
        while (taken := self._reader.ready()) is None:
            try:
                if not await self._reader.more():
                    return False
            except Exception:
                if not lane:
                    raise
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
        batch_size, max_bytes, overhead, _ = self._bounds
        size = overhead
        while lane and len(items) < batch_size:
            item, span = lane[0]
            identity = identity_of(item.record)
            size += len(item.fragment) + overhead
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
