"""From slices to requests: what the source gives is read ahead on a thread, and handed to the workers in batches.

A row passes four containers on its way: the source's chunk of records, a `Chunk` of what goes on the wire, the `Slice`
with which its outcome is told, and the `Batch` that becomes a request. One row by itself is an `EncodedRow`.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple, Protocol, Self, cast

from airflow_provider_events.delivery.accounts import Ledger
from airflow_provider_events.delivery.deferred import DeferredEvent
from airflow_provider_events.delivery.encoding import Chunk, EncodedRow
from airflow_provider_events.delivery.offsets import Slice
from airflow_provider_events.delivery.slicing import Slicer, Taken
from airflow_provider_events.redaction import Private

__all__ = ["Batch", "ContiguousFeed", "Feed", "Prefetcher"]


class Batch(NamedTuple):
    """What goes into one request.

    :param rows: numbers of its events; so too `fragments`.
    :param slices: one for all of them, or one for each.
    :param row_at: gives one event by itself; that of `rows[0]` is at `first`.
    :param held: set for a single event that has waited for its entry.
    """

    rows: Sequence[int]
    fragments: Sequence[bytes]
    slices: Sequence[Slice]
    row_at: Callable[[int], EncodedRow]
    first: int = 0
    held: DeferredEvent | None = None

    def __repr__(self) -> str:
        """Without the events."""
        return f"<Batch of {len(self.rows)} events, {sum(map(len, self.fragments))} bytes>"

    @classmethod
    def of(cls, rows: Sequence[EncodedRow], slices: Sequence[Slice], held: DeferredEvent | None = None) -> Self:
        """These events."""
        numbers, fragments = [row.row for row in rows], [row.fragment for row in rows]
        return cls(numbers, fragments, slices, rows.__getitem__, held=held)

    def row(self, n: int) -> EncodedRow:
        """One of the events by itself."""
        return self.row_at(self.first + n)

    def slice(self, n: int) -> Slice:
        """That of one of the events."""
        return self.slices[n] if len(self.slices) > 1 else self.slices[0]

    def about(self) -> Iterator[Private]:
        """What the request says of its customers."""
        for n in range(len(self.rows)):
            if (event := self.row(n).record.event) is not None:
                yield Private(event.identity, (event.properties, event.id))

    def part(self, places: Sequence[int]) -> Batch:
        """Some of the events, by their places in this batch."""
        rows, fragments = [self.rows[n] for n in places], [self.fragments[n] for n in places]
        slices = [self.slices[n] for n in places] if len(self.slices) > 1 else self.slices
        return Batch(rows, fragments, slices, lambda n: self.row(places[n]), held=self.held)


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
    """Reads and slices chunks on one thread of its own, one chunk ahead of what is used, and accounts for the rows.

    The thread sees the context variables of whoever made the reader.

    :ivar until: number of the last row that is handed out; those behind it are kept until that is raised.
    """

    def __init__(self, slicer: Slicer, ledger: Ledger) -> None:
        self._slices = iter(slicer)
        self._ledger = ledger
        self._thread = ThreadPoolExecutor(1, "events-reader")
        self._context = contextvars.copy_context()
        self._turn = asyncio.Lock()
        self._ready: deque[Taken] = deque()
        self._ahead: asyncio.Future[list[Taken] | None] | None = None
        self._exhausted = False
        self._error: Exception | None = None
        self.until = sys.maxsize

    @property
    def more_behind(self) -> bool:
        """Whether rows are kept, for they are behind `until`."""
        if not self._ready:
            return False
        rows, taken = self._ready[0]
        return not taken.group and rows.rows[0] > self.until

    def ready(self) -> Taken | None:
        """The next rows and their slice, of which those that are no events are settled by that; None where `more` has
        to be waited for."""
        if not self._ready or self.more_behind:
            return None
        rows, taken = self._ready.popleft()
        if not taken.group:
            self._ledger.took(len(rows))
        self._ledger.offsets.mark_read(taken)
        if rows.rejections:
            for at, rejection in rows.rejections.items():
                self._ledger.rejected(rows.records[at], rejection)
        return rows, taken

    async def more(self) -> bool:
        """Wait until rows are ready; False at the end, or behind `until`.

        Whoever waits may be cancelled: no row is lost by it.

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
        return not self.more_behind

    async def _refill(self) -> None:
        self._ahead = self._ahead or self._read()
        try:
            taken = await asyncio.shield(self._ahead)
        except Exception as error:
            self._error, taken = error, None
        self._exhausted = taken is None
        self._ready.extend(taken or ())
        self._ahead = None if self._exhausted else self._read()

    async def close(self, timeout_seconds: float) -> None:
        """Close the source on its own thread, without waiting longer than `timeout_seconds` for a slow one."""
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._context.run, self._slices.close)
        self._thread.shutdown(wait=False)
        await asyncio.wait({closing}, timeout=timeout_seconds)
        if closing.done() and (error := closing.exception()) is not None and self._error is None:
            raise error

    def _read(self) -> asyncio.Future[list[Taken] | None]:
        return asyncio.get_running_loop().run_in_executor(self._thread, self._context.run, self._next)

    def _next(self) -> list[Taken] | None:
        return next(self._slices, None)


class ContiguousFeed:
    """Neighbouring rows, for whichever worker comes first."""

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
        while (batch := self.ready(worker)) is None and await self._reader.more():
            pass
        return batch or self.ready(worker)  # others may have left some

    def _batches_of(self, chunk: Chunk, taken: Slice) -> Iterator[Batch]:
        whole = Batch(chunk.rows, chunk.fragments, (taken,), chunk.row)
        if chunk.rejections:
            whole = whole.part([at for at, fragment in enumerate(chunk.fragments) if fragment])
        if 1 <= len(whole.rows) <= self._batch_size:
            return iter((whole,))
        firsts = range(0, len(whole.rows), self._batch_size)
        places = [slice(first, first + self._batch_size) for first in firsts]
        rows, fragments = map(whole.rows.__getitem__, places), map(whole.fragments.__getitem__, places)
        return map(_batch, zip(rows, fragments, repeat((taken,)), repeat(whole.row_at), firsts, repeat(None)))
