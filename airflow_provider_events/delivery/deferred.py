"""Events that wait for their customer's entry: a bounded number in memory, the others on disk."""

from __future__ import annotations

import copyreg
import heapq
import pickle
import tempfile
from typing import IO, Any, NamedTuple

from airflow_provider_events.delivery.offsets import Slice

__all__ = ["DeferredEvent", "DeferredQueue"]

FIRST_PAUSE_SECONDS = 5.0
MAX_PAUSE_SECONDS = 60.0
IN_MEMORY = 10_000


class DeferredEvent(NamedTuple):
    """An event that waits. Compares by when it is due.

    :param due: when to try again, in the event loop's seconds.
    :param row: number of its row.
    :param deadline: when to give up.
    :param attempt: how often it was tried.
    """

    due: float
    row: int
    deadline: float
    attempt: int
    item: Any
    span: Slice

    def __repr__(self) -> str:
        """Without the event."""
        return f"<DeferredEvent {self.row}: {self.attempt} tries>"

    def again(self, now: float) -> DeferredEvent:
        """The same after one more miss: pauses double from 5 to 60 seconds, and end at the deadline."""
        pause = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**self.attempt)
        return self._replace(due=min(now + pause, max(now, self.deadline)), attempt=self.attempt + 1)


class _Pickler(pickle.Pickler):
    """Takes binary columns as well: some drivers give a memoryview for them."""

    dispatch_table = {**copyreg.dispatch_table, memoryview: lambda view: (bytes, (view.tobytes(),))}  # noqa: RUF012  pickle reads it, nothing changes it


class DeferredQueue:
    """A queue by time due; what does not fit into memory goes through a temporary file, first in, first out."""

    def __init__(self) -> None:
        self._heap: list[DeferredEvent] = []
        self._spans: dict[int, Slice] = {}
        self._file: IO[bytes] | None = None
        self._on_disk = 0
        self._read_at = 0

    def __len__(self) -> int:
        return len(self._heap) + self._on_disk

    def add(self, held: DeferredEvent) -> None:
        """Let an event wait."""
        if len(self._heap) < IN_MEMORY and not self._on_disk:
            heapq.heappush(self._heap, held)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="events-waiting-")  # noqa: SIM115  closed by `close`
        self._spans[held.row] = held.span
        self._file.seek(0, 2)
        _Pickler(self._file, pickle.HIGHEST_PROTOCOL).dump(held[:-1])
        self._on_disk += 1

    def next_due(self) -> float | None:
        """When the first of them is due; None when none waits."""
        if self._on_disk:
            self._refill()
        return self._heap[0].due if self._heap else None

    def pop(self) -> DeferredEvent:
        """The one that is due first."""
        return heapq.heappop(self._heap)

    def close(self) -> None:
        """Delete the temporary file."""
        if self._file is not None:
            self._file.close()

    def _refill(self) -> None:
        while self._file is not None and self._on_disk and len(self._heap) < IN_MEMORY // 2:
            self._file.seek(self._read_at)
            # Written by `add` to a file that only this process can open.
            due, row, deadline, attempt, item = pickle.load(self._file)
            self._read_at = self._file.tell()
            self._on_disk -= 1
            heapq.heappush(self._heap, DeferredEvent(due, row, deadline, attempt, item, self._spans.pop(row)))
        if self._file is not None and not self._on_disk:
            self._file.truncate(0)
            self._read_at = 0
