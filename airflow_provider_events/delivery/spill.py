"""Events that have to be kept for a while: in bounded memory, and beyond it in a temporary file.

The file has no name and is open to its owner alone. It holds an event's own bytes and what is needed to account for it,
once, however often the event is tried. It is as long as twice what is in it, at most.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import orjson

from airflow_provider_events.delivery.dead_letter import rejected_body, rejected_time
from airflow_provider_events.delivery.encoding import EncodedRow
from airflow_provider_events.events import Event, Record
from airflow_provider_events.exceptions import DeliveryError
from airflow_provider_events.row_data import restored
from airflow_provider_events.values import json_object

__all__ = ["Kept", "Spill"]

MEMORY_BYTES = 16_000_000
OVERHEAD_BYTES = 1000  # what an event's values take beside its bytes
LEAST_GARBAGE_BYTES = 1_000_000


class Kept:
    """Where an event is: in memory if there is a row, else so many bytes of the file."""

    __slots__ = ("offset", "row", "size")

    def __init__(self, row: EncodedRow | None, size: int, offset: int = 0) -> None:
        self.row = row
        self.size = size
        self.offset = offset


class Spill:
    """Keeps events until they are dropped."""

    def __init__(self) -> None:
        self._memory = 0
        self._file: IO[bytes] | None = None
        self._on_disk: dict[Kept, None] = {}  # in the order in which they lie in the file
        self._live = 0
        self._end = 0

    def keep(self, row: EncodedRow) -> Kept:
        """Keep an event.

        :raises DeliveryError: the file cannot be written.
        """
        size = len(row.fragment) + OVERHEAD_BYTES
        if self._memory + size > MEMORY_BYTES and (packed := _packed(row)) is not None:
            with _in_words():
                _write(self._fileno(), packed, self._end)
            kept = Kept(None, len(packed), self._end)
            self._on_disk[kept] = None
            self._live += kept.size
            self._end += kept.size
            return kept
        self._memory += size
        return Kept(row, size)

    def read(self, kept: Kept) -> EncodedRow:
        """The event; its key is only known while it is in memory.

        :raises DeliveryError: the file cannot be read.
        """
        if kept.row is not None:
            return kept.row
        with _in_words():
            return _unpacked(_read(self._fileno(), kept.offset, kept.size))

    def drop(self, kept: Kept) -> None:
        """Forget an event.

        :raises DeliveryError: the file cannot be written.
        """
        if kept.row is not None:
            self._memory -= kept.size
            return
        del self._on_disk[kept]
        self._live -= kept.size
        garbage = self._end - self._live
        if not self._live or garbage > max(self._live, LEAST_GARBAGE_BYTES):
            with _in_words():
                self._compact(self._fileno())

    def close(self) -> None:
        """Delete the file."""
        if self._file is not None:
            self._file.close()

    def _fileno(self) -> int:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="events-deferred-", buffering=0)  # noqa: SIM115  `close` does
        return self._file.fileno()

    def _compact(self, file: int) -> None:
        """Move what is left towards the beginning, which takes no further room."""
        end = 0
        for kept in self._on_disk:
            if kept.offset > end:
                _write(file, _read(file, kept.offset, kept.size), end)
                kept.offset = end
            end += kept.size
        os.ftruncate(file, end)
        self._end = end


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DeliveryError(
            "events whose customers are waited for cannot be kept in the folder for temporary files "
            f"({error.strerror or type(error).__name__}): give it room, or name another one in TMPDIR; "
            "they are not sent, and a retry goes on with them"
        ) from None


def _write(file: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, offset)
        rest, offset = rest[written:], offset + written


def _read(file: int, offset: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (part := os.pread(file, size - len(data), offset + len(data))):
            raise OSError("the file is shorter than it was")
        data += part
    return data


def _packed(encoded: EncodedRow) -> bytes | None:
    """An event as bytes; None for one that is only whole in memory."""
    row, _, fragment, record, _ = encoded
    event = record.event
    if event is None:
        return None
    try:
        time = event.timestamp and event.timestamp.isoformat()
        properties = json_object(event.properties, "properties", lambda name: rejected_time)
        fields = json.dumps([row, event.name, event.identity, time, properties, event.id, record.mapping])
        body = rejected_body(record)
        data = orjson.dumps([body["data"], body.get("types", {})])
    except Exception:  # values are of any class, and may do anything when they are looked at
        return None
    return b"\n".join((fields.encode(), data, fragment))


def _unpacked(packed: bytes) -> EncodedRow:
    fields, data, fragment = packed.split(b"\n", 2)
    row, name, identity, time, properties, event_id, mapping = json.loads(fields)
    columns, _ = restored(*json.loads(data))
    record = Record(row, Event(name, identity, time, properties, event_id), columns, None, mapping)
    return EncodedRow(row, None, fragment, record)
