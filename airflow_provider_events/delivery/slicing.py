"""From chunks to slices: the rows that one request takes, or as many events as go one by one at the same time."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any, Protocol, TypeAlias

from airflow_provider_events.contract import Codec
from airflow_provider_events.delivery.checkpoint import OpenRows
from airflow_provider_events.delivery.encoding import Chunk
from airflow_provider_events.delivery.offsets import Digest, Slice
from airflow_provider_events.delivery.options import Limits

__all__ = ["Chunks", "Slicer", "Taken"]

MAX_ROWS = 1000
MAX_SINGLES = 100

Taken: TypeAlias = tuple[Chunk, Slice]


class Chunks(Protocol):
    """Prepared rows, chunk by chunk.

    :param digest: of the rows that an earlier try took and this one passed over; the slicer adds those that it takes.
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


class Slicer:
    """Cuts chunks into what is taken together; what is left of one goes with the next.

    New rows are cut by themselves alone: the same rows make the same requests, however the source cuts its chunks.
    Those that an earlier try left open keep together as they were, in smaller parts where requests take less now; the
    parts have their slice in common.

    :param canary: number of the last row of those that go first: no later one is taken together with them.
    """

    def __init__(self, chunks: Chunks, limits: Limits, codec: Codec, canary: int = 0) -> None:
        self._chunks = chunks
        self._canary = canary
        self._singly = limits.batch_size == 1
        self._size = min(limits.max_in_flight, MAX_SINGLES) if self._singly else limits.batch_size
        self._max_bytes = sys.maxsize if self._singly else codec.max_request_bytes
        self._overhead = codec.fragment_overhead
        self._before: tuple[int, Any] | None = None

    def __iter__(self) -> Generator[list[Taken], None, None]:
        left = Chunk.of(())
        source = iter(self._chunks)
        try:
            for chunk in source:
                if chunk and chunk.rows[0] <= self._chunks.taken[0]:
                    yield self._taken_again(chunk)
                    continue
                for some in self._by_canary(chunk):
                    if left and left.rows[-1] <= self._canary < some.rows[0]:
                        yield [self._taken(left)]
                        left = Chunk.of(())
                    *parts, left = self._cut(left + some if left else some)
                    if left and (self._singly or len(left) >= MAX_ROWS):
                        parts, left = [*parts, left], Chunk.of(())
                    if parts:
                        yield list(map(self._taken, parts))
        except Exception:
            if left:
                yield [self._taken(left)]
            raise
        finally:
            if isinstance(source, Generator):
                source.close()
        if left:
            yield [self._taken(left)]

    def fitting(self, fragments: Sequence[bytes]) -> int:
        """How many of these events, from the first on, go into one request."""
        return next(iter(self._stops(fragments)), len(fragments))

    def _by_canary(self, chunk: Chunk) -> list[Chunk]:
        """The rows of the canary, and the others."""
        if not chunk or not chunk.rows[0] <= self._canary < chunk.rows[-1]:
            return [chunk]
        at = bisect_right(chunk.rows, self._canary)
        return [chunk.part(0, at), chunk.part(at, len(chunk))]

    def _cut(self, chunk: Chunk) -> list[Chunk]:
        """All parts of a chunk that are full, and what is left: perhaps nothing."""
        stops = [0, *self._stops(chunk.fragments), len(chunk)]
        return [chunk.part(start, stop) for start, stop in pairwise(stops)]

    def _stops(self, fragments: Sequence[bytes]) -> Iterator[int]:
        """Positions behind the last event of each request that is full; an empty fragment is no event."""
        longest = max(map(len, fragments), default=0)
        if all(fragments) and self._overhead + self._size * (longest + self._overhead) <= self._max_bytes:
            yield from range(self._size, len(fragments) + 1, self._size)
            return
        events, size = 0, self._overhead
        for at, fragment in enumerate(fragments):
            if not fragment:
                continue
            cost = len(fragment) + self._overhead
            if events == self._size or (events and size + cost > self._max_bytes):
                yield at
                events, size = 0, self._overhead
            events, size = events + 1, size + cost
        if events == self._size:
            yield len(fragments)

    def _taken(self, rows: Chunk) -> Taken:
        """The next rows of the source."""
        chunks = self._chunks
        chunks.digest.update(rows.digested())
        last = rows.rows[-1], rows.keys[-1] if rows.keys else None
        taken = Slice(self._before or chunks.taken, last, *numbered(rows), chunks.digest.hexdigest())
        self._before = last
        return rows, taken

    def _taken_again(self, rows: Chunk) -> list[Taken]:
        """Rows that were left open, group by group."""
        chunks = self._chunks
        taken: list[Taken] = []
        for group, members in groupby(rows, lambda row: chunks.group(row.row)):
            some = Chunk.of(list(members))
            shared = Slice(chunks.before_open, chunks.taken, *numbered(some), group=group)
            taken += [(part, shared) for part in self._cut(some) if part]
        return taken


def numbered(rows: Chunk) -> tuple[Sequence[int], Sequence[Any]]:
    """Numbers and keys of those rows that are events."""
    if not rows.rejections:
        return rows.rows, rows.keys or ()
    events = [at for at in range(len(rows)) if at not in rows.rejections]
    return [rows.rows[at] for at in events], [rows.keys[at] for at in events] if rows.keys else ()
