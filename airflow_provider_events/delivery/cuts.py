"""From chunks of rows to those that are taken together: what one request takes, or events that go one by one."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple, Protocol, Self, cast

from airflow_provider_events.delivery.checkpoint import OpenRows
from airflow_provider_events.delivery.encoding import Chunk, Item
from airflow_provider_events.delivery.offsets import Digest
from airflow_provider_events.events import Record, Rejection

__all__ = ["Bounds", "Chunks", "Cut", "cuts_of"]

MAX_ROWS_PER_CUT = 1000
MAX_SINGLES_PER_CUT = 100


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
    """What requests take.

    :param batch_size: events in one.
    :param max_bytes: bytes of a body of more than one event.
    :param fragment_overhead: bytes at most that an event costs beside its own; the envelope costs no more either.
    :param window: requests in flight at most.
    """

    batch_size: int
    max_bytes: int
    fragment_overhead: int
    window: int


@dataclass(slots=True, repr=False)
class Cut:
    """Neighbouring rows that are taken together.

    :param rows: numbers of the events among them; so too `keys` and `fragments`.
    :param places: where the events are: positions in chunks.
    :param stop: position behind the last row in the last chunk.
    :param before: digest of the source before that chunk; None for rows that an earlier try took.
    :param count: of all rows, faulty ones included.
    :param faulty: record and reason of each row that is no event.
    :param group: rows that an earlier try left open: all those that were taken together, even if these are only a part
        of them, as batches may be smaller now.
    """

    rows: Sequence[int] = ()
    keys: Sequence[Any] = ()
    fragments: Sequence[bytes] = ()
    places: Sequence[tuple[Chunk, Sequence[int]]] = ()
    stop: int = 0
    before: Digest | None = None
    count: int = 0
    faulty: Sequence[tuple[Record, Rejection]] = ()
    group: Chunk | None = None

    def __repr__(self) -> str:
        """Without the rows."""
        return f"<Cut of {self.count} rows>"

    @classmethod
    def of(cls, chunk: Chunk, start: int, stop: int, before: Digest | None) -> Self:
        """Some rows of a chunk, all of them events."""
        rows, fragments = chunk.rows[start:stop], cast(Sequence[bytes], chunk.fragments[start:stop])
        keys = chunk.keys[start:stop] if chunk.keys else ()
        return cls(rows, keys, fragments, ((chunk, range(start, stop)),), stop, before, stop - start)

    def add(self, chunk: Chunk, start: int, stop: int, before: Digest | None) -> None:
        """Add the rows of a chunk that follow."""
        positions = [at for at in range(start, stop) if at not in chunk.rejections]
        self.rows = [*self.rows, *(chunk.rows[at] for at in positions)]
        self.keys = [*self.keys, *(chunk.keys[at] for at in positions)] if chunk.keys else ()
        self.fragments = [*self.fragments, *cast(list[bytes], [chunk.fragments[at] for at in positions])]
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


def cuts_of(chunks: Chunks, bounds: Bounds) -> Generator[list[Cut], None, None]:
    """Cut chunks into what one request takes; what is left of one goes with the next.

    New rows are cut by themselves alone. Those that an earlier try left open keep together as they were. Where a
    request takes one event, as many are taken together as can be in flight.
    """
    singly = bounds.batch_size == 1
    if singly:
        bounds = Bounds(min(bounds.window, MAX_SINGLES_PER_CUT), sys.maxsize, 0, bounds.window)
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
            last = cuts[-1]
            full = (singly and last.count) or len(last.rows) == bounds.batch_size or last.count >= MAX_ROWS_PER_CUT
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
    batch_size, max_bytes, overhead, _ = bounds
    before = digest.copy() if digest else None
    if digest:
        digest.update(chunk.digested(0, len(chunk)))
    events: Sequence[int] = range(len(chunk))
    if chunk.rejections:
        events = [at for at in events if at not in chunk.rejections]
    elif chunk.rows and not left.count:
        longest = max(map(len, cast(Sequence[bytes], chunk.fragments)))
        if overhead + batch_size * (longest + overhead) <= max_bytes:
            stops = range(batch_size, len(chunk) + batch_size, batch_size)
            return [Cut.of(chunk, stop - batch_size, min(stop, len(chunk)), before) for stop in stops]
    cuts = [left]
    start = taken = 0
    while taken < len(events):
        cut = cuts[-1]
        size = overhead + sum(map(len, cut.fragments)) + overhead * len(cut.fragments)
        fitting = 0
        for at in events[taken : taken + batch_size - len(cut.fragments)]:
            size += len(chunk.fragments[at] or b"") + overhead
            if size > max_bytes and (fitting or cut.fragments):
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
