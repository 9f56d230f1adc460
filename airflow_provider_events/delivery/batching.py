"""From slices to requests: what the source gives is read ahead on a thread, and handed to the workers in batches.

A row passes four containers on its way: the source's chunk of records, a `Chunk` of what goes on the wire, the `Slice`
with which its outcome is told, and the `Batch` that becomes a request. One row by itself is an `EncodedRow`.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice, repeat
from typing import Any, NamedTuple, Protocol, Self, cast

from airflow_provider_events.delivery.accounts import Ledger
from airflow_provider_events.delivery.deferred import DeferredEvent
from airflow_provider_events.delivery.encoding import Chunk, EncodedRow
from airflow_provider_events.delivery.offsets import Slice
from airflow_provider_events.delivery.options import Limits
from airflow_provider_events.delivery.slicing import Slicer, Taken
from airflow_provider_events.events import Record
from airflow_provider_events.redaction import Private

__all__ = ["Batch", "ContiguousFeed", "Feed", "OrderedFeed", "Prefetcher", "identity_of"]

MIN_WAITING = 1000  # rows that wait for their turn before no more are read


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


class _Group:
    """Rows of different customers that may go together.

    :ivar places: where they are in their chunk.
    :ivar ids: what their customers are known by.
    :ivar open: how many of them have not been sent, or are on their way.
    :ivar ahead: how many groups they wait for.
    :ivar behind: the groups that wait for them.
    """

    __slots__ = ("ahead", "behind", "chunk", "ids", "open", "places", "slice")

    def __init__(self, chunk: Chunk, slice_: Slice) -> None:
        self.chunk = chunk
        self.slice = slice_
        self.places: list[int] = []
        self.ids: list[tuple[str, str]] = []
        self.open = self.ahead = 0
        self.behind: list[_Group] = []

    def add(self, at: int, ids: Sequence[tuple[str, str]]) -> None:
        """One more row."""
        self.places.append(at)
        self.ids += ids
        self.open += 1


class OrderedFeed:
    """Rows in the order of the source, but for those of a customer of whom another is on its way: these wait for it.

    A row is on its way until the worker that took it comes for more: by then it has its outcome, or waits in the queue
    of deferred events, which keeps the order of what is added to it. So no event overtakes an earlier one of its
    customer, whatever is retried or bisected, and no request holds two of them. Two events are of one customer where
    any of their ids is the same. Once very many rows wait, no more are read.

    :param scope_names: names in an identity that do not tell customers apart.
    """

    def __init__(self, reader: Prefetcher, slicer: Slicer, limits: Limits, scope_names: Collection[str]) -> None:
        self._reader = reader
        self._slicer = slicer
        self._scope_names = scope_names
        self._batch_size = limits.batch_size
        self._max_waiting = max(MIN_WAITING, 2 * limits.max_in_flight * limits.batch_size)
        self._last: dict[tuple[str, str], _Group] = {}
        self._free: deque[tuple[_Group, int]] = deque()
        self._waiting = 0
        self._taken: dict[int, list[tuple[_Group, int]]] = {}
        self._moved = asyncio.Event()

    def ready(self, worker: int) -> Batch | None:
        """See `Feed.ready`."""
        self._finish(self._taken.pop(worker, ()))
        while len(self._free) < self._batch_size and self._waiting < self._max_waiting:
            if (taken := self._reader.ready()) is None:
                return None
            self._line_up(*taken)
        return self._batch(worker) if self._free else None

    async def take(self, worker: int) -> Batch | None:
        """See `Feed.take`."""
        while (batch := self.ready(worker)) is None:
            try:
                if self._waiting < self._max_waiting and await self._reader.more():
                    continue
            except Exception:
                if not self._free:
                    raise
            if self._free:
                return self._batch(worker)
            if not self._waiting:
                return None
            self._moved.clear()
            await self._moved.wait()
        return batch

    def _batch(self, worker: int) -> Batch:
        """As many free rows as fit."""
        fragments = [group.chunk.fragments[at] for group, at in islice(self._free, self._batch_size)]
        taken = [self._free.popleft() for _ in range(self._slicer.fitting(fragments))]
        self._taken[worker] = taken
        rows, slices = [group.chunk.rows[at] for group, at in taken], [group.slice for group, _ in taken]
        slices = slices[:1] if len(set(slices)) == 1 else slices
        return Batch(rows, fragments[: len(taken)], slices, lambda n: taken[n][0].chunk.row(taken[n][1]))

    def _line_up(self, chunk: Chunk, slice_: Slice) -> None:
        """Rows that were read are free, or wait for others of their customers."""
        together = _Group(chunk, slice_)
        for at in range(len(chunk)):
            if at in chunk.rejections:
                continue
            ids = self._ids(chunk.identity(at))
            if before := [self._last[one] for one in ids if one in self._last]:
                group, place = _Group(chunk.part(at, at + 1), slice_), 0  # it may wait for long, and keeps no other row
                group.ahead = len(before)
                for other in before:
                    other.behind.append(group)
                self._waiting += 1
            else:
                group, place = _Group(chunk, slice_) if self._batch_size == 1 else together, at
                self._free.append((group, place))
            group.add(place, ids)
            self._last.update(dict.fromkeys(ids, group))

    def _finish(self, rows: Collection[tuple[_Group, int]]) -> None:
        """Rows are no longer on their way: the next ones of their customers are free."""
        for group, _ in rows:
            group.open -= 1
            if not group.open:
                self._release(group)
        if rows:
            self._moved.set()

    def _release(self, group: _Group) -> None:
        for one in group.ids:
            if self._last[one] is group:
                del self._last[one]
        for following in group.behind:
            following.ahead -= 1
            if not following.ahead:
                self._waiting -= 1
                self._free.extend((following, at) for at in following.places)

    def _ids(self, identity: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What a customer is known by; spellings that some vendor may take for the same are the same here."""
        return [
            (name, str(value).strip().casefold()) for name, value in identity.items() if name not in self._scope_names
        ]


def identity_of(record: Record) -> str:
    """The same text for the same identity."""
    return repr(sorted((name, str(value)) for name, value in record.event.identity.items())) if record.event else ""
