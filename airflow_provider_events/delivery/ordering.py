"""Batches in which no event overtakes an earlier one of its customer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, islice, repeat
from typing import Any

from airflow_provider_events.delivery.batching import Batch, Prefetcher
from airflow_provider_events.delivery.encoding import Chunk
from airflow_provider_events.delivery.offsets import Slice
from airflow_provider_events.delivery.options import Limits
from airflow_provider_events.delivery.slicing import Slicer
from airflow_provider_events.events import Record

__all__ = ["OrderedFeed", "identity_of"]

MIN_WAITING = 1000  # rows that wait for their turn before no more are read


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

    def add(self, places: Sequence[int], ids: Sequence[tuple[str, str]]) -> None:
        """More rows."""
        self.places += places
        self.ids += ids
        self.open += len(places)


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
        if self._batch_size == 1:
            group, at = first = self._free.popleft()
            self._taken[worker] = [first]
            chunk = group.chunk
            return Batch((chunk.rows[at],), (chunk.fragments[at],), (group.slice,), chunk.row, at)
        fragments = [group.chunk.fragments[at] for group, at in islice(self._free, self._batch_size)]
        taken = [self._free.popleft() for _ in range(self._slicer.fitting(fragments))]
        self._taken[worker] = taken
        rows, slices = [group.chunk.rows[at] for group, at in taken], [group.slice for group, _ in taken]
        slices = slices[:1] if len(set(slices)) == 1 else slices
        return Batch(rows, fragments[: len(taken)], slices, lambda n: taken[n][0].chunk.row(taken[n][1]))

    def _line_up(self, chunk: Chunk, slice_: Slice) -> None:
        """Rows that were read are free, or wait for others of their customers."""
        places: Sequence[int] = range(len(chunk))
        if chunk.rejections:
            places = [at for at in places if at not in chunk.rejections]
        ids = list(map(self._ids, chunk.identities(places)))
        together = _Group(chunk, slice_)
        if self._batch_size > 1 and self._are_new(together_ids := list(chain.from_iterable(ids))):
            together.add(places, together_ids)
            self._last.update(dict.fromkeys(together_ids, together))
            self._free.extend(zip(repeat(together), places))
            return
        for at, own in zip(places, ids, strict=True):
            if before := [self._last[one] for one in own if one in self._last]:
                group, place = _Group(chunk.part(at, at + 1), slice_), 0  # it may wait for long, and keeps no other row
                group.ahead = len(before)
                for other in before:
                    other.behind.append(group)
                self._waiting += 1
            else:
                group, place = _Group(chunk, slice_) if self._batch_size == 1 else together, at
                self._free.append((group, place))
            group.add([place], own)
            self._last.update(dict.fromkeys(own, group))

    def _are_new(self, ids: Sequence[tuple[str, str]]) -> bool:
        """Whether none of them is there twice, or on its way."""
        return len(set(ids)) == len(ids) and self._last.keys().isdisjoint(ids)

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
        scope = self._scope_names
        return [(name, str(value).strip().casefold()) for name, value in identity.items() if name not in scope]


def identity_of(record: Record) -> str:
    """The same text for the same identity."""
    return repr(sorted((name, str(value)) for name, value in record.event.identity.items())) if record.event else ""
