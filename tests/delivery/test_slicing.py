"""Slices: however a source cuts its chunks, each row is in one, and each is as full as a request may be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, overload

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_events.delivery.checkpoint import OpenRows
from airflow_provider_events.delivery.encoding import Chunk
from airflow_provider_events.delivery.offsets import Digest
from airflow_provider_events.delivery.options import Limits
from airflow_provider_events.delivery.slicing import Slicer
from airflow_provider_events.events import Record, Rejection
from tests.delivery.harness import PlainWire

MAX_BYTES, OVERHEAD = 60, 1


class Unmade(Sequence[Record]):
    """Records that are made when they are asked for, which is counted."""

    made = 0

    def __init__(self, rows: range) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Record: ...

    @overload
    def __getitem__(self, at: slice) -> Unmade: ...

    def __getitem__(self, at: int | slice) -> Record | Unmade:
        if isinstance(at, slice):
            return Unmade(self._rows[at])
        Unmade.made += 1
        return Record(self._rows[at], None)


class Given:
    """Chunks of so many rows; a fragment of no byte is a row that is no event."""

    def __init__(self, sizes: list[int], chunk_size: int) -> None:
        self._sizes = sizes
        self._chunk_size = chunk_size
        self.digest = Digest()
        self.taken: tuple[int, Any] = (0, None)
        self.before_open: tuple[int, Any] = (0, None)

    def group(self, row: int) -> tuple[OpenRows, ...]:
        """There are none."""
        return ()

    def __iter__(self) -> Iterator[Chunk]:
        for start in range(0, len(self._sizes), self._chunk_size):
            sizes = self._sizes[start : start + self._chunk_size]
            rows = range(start + 1, start + 1 + len(sizes))
            rejections = {at: Rejection(rows[at], "invalid", "no") for at, size in enumerate(sizes) if not size}
            yield Chunk(rows, [f"k{row}" for row in rows], [b"x" * size for size in sizes], Unmade(rows), rejections)


@given(st.lists(st.integers(0, 30) | st.just(100), max_size=60), st.integers(1, 20), st.integers(2, 8))
def test_slices_hold_each_row_once_and_are_full(sizes: list[int], chunk_size: int, batch_size: int) -> None:
    Unmade.made = 0
    chunks = Given(sizes, chunk_size)
    slicer = Slicer(chunks, Limits(batch_size, 4), PlainWire(MAX_BYTES, OVERHEAD))
    taken = [pair for some in slicer for pair in some]
    assert [row for rows, _ in taken for row in rows.rows] == list(range(1, len(sizes) + 1))
    assert Unmade.made == 0, "no record is made before somebody asks for it"
    for rows, _ in taken:
        assert [record.row for record in rows.records] == list(rows.rows)
        assert [rows.row(at).rejection is None for at in range(len(rows))] == [bool(one) for one in rows.fragments]
    slices = [one for _, one in taken]
    assert [one.keys for one in slices] == [[f"k{row}" for row in one.rows] for one in slices]
    assert [later.before for later in slices] == [(0, None), *(one.last for one in slices)][: len(slices)]
    assert chunks.digest.hexdigest() == (slices[-1].digest if slices else Digest().hexdigest())
    bodies = [[sizes[row - 1] for row in one.rows] for one in slices]
    for body in bodies:
        assert len(body) <= batch_size
        assert len(body) < 2 or OVERHEAD + sum(size + OVERHEAD for size in body) <= MAX_BYTES
    for body, following in pairwise(filter(None, bodies)):
        fuller = [*body, following[0]]
        assert len(fuller) > batch_size or OVERHEAD + sum(size + OVERHEAD for size in fuller) > MAX_BYTES
