"""Where rejected events are written: JSON Lines, one object per event, in the order of their outcomes.

| key | value |
| --- | --- |
| `version` | 1 |
| `vendor` | connection type |
| `row` | number of the row in its source, from 1 |
| `code`, `field`, `reason` | why it was rejected; `field` may be null |
| `event` | the event as `SendEventsOperator` takes it, or null where there is none that could be sent |
| `data` | the row's own columns; without such, the event that could not be sent; or null |
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from airflow_provider_events.delivery.checkpoint import Checkpoint
from airflow_provider_events.events import REJECTED_SCHEMA, Event, Record, Rejection
from airflow_provider_events.exceptions import InvalidEvent
from airflow_provider_events.values import iso_utc, json_object, plain_time

__all__ = ["RejectedSink", "Storage", "rejected_line"]


class Storage(Protocol):
    """One file, wherever it is."""

    uri: str

    def append(self, data: bytes) -> None:
        """Add to its end; makes it if it is not there."""

    def lines_of(self, uri: str) -> Iterable[bytes]:
        """The lines of another file of the same kind; none if it is not there."""

    def remove(self) -> None:
        """Delete it."""


class RejectedSink:
    """Collects lines on the delivery's thread, and writes them wherever `flush` is called."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._pending: list[bytes] = []
        self._written = False
        self._failure: Exception | None = None

    @property
    def uri(self) -> str:
        """Where the lines go."""
        return self._storage.uri

    def write(self, line: bytes) -> None:
        """Add a line; cheap and without I/O."""
        self._pending.append(line)

    def flush(self) -> None:
        """Bring what has been added to the storage.

        Once this has failed it always fails: no checkpoint may count a row as rejected that is not there.
        """
        if self._failure is not None:
            raise self._failure
        pending, self._pending = self._pending, []
        if pending:
            try:
                self._storage.append(b"".join(pending))
            except Exception as error:
                self._failure = error
                raise
            self._written = True

    def adopt(self, checkpoint: Checkpoint) -> None:
        """Take over from an earlier try's file the rows that its checkpoint counts as rejected."""
        for line in self._storage.lines_of(checkpoint.rejected_uri or self.uri):
            try:
                row = json.loads(line)["row"]
            except (ValueError, KeyError, TypeError):
                continue  # a crash may leave half a line; its row is decided again
            if isinstance(row, int) and not checkpoint.is_open(row):
                self.write(line)
        self.flush()

    def discard(self) -> None:
        """Drop all lines."""
        self._pending.clear()
        self._written = False
        self._storage.remove()

    def close(self) -> None:
        """Write the rest; a file without a line is removed."""
        self.flush()
        if not self._written:
            self._storage.remove()


def rejected_line(vendor: str, record: Record, rejection: Rejection) -> bytes:
    """One line of the file, by the table above."""
    event = _event_dict(record.event) if record.event else None
    data = record.data
    if record.event and event is None and data is None:
        data = _fields(record.event)
    line = {
        "version": REJECTED_SCHEMA,
        "vendor": vendor,
        "row": rejection.row,
        "code": rejection.code,
        "field": rejection.field,
        "reason": rejection.reason,
        "event": event,
        "data": data,
    }
    try:
        text = orjson.dumps(line, default=_readable, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # what orjson refuses (integers of more than 64 bits, lone surrogates) may be why it was rejected
        text = json.dumps(line, default=_readable, separators=(",", ":")).encode()
    return text + b"\n"


def _event_dict(event: Event) -> dict[str, Any] | None:
    """The event with its values as they travel, so that it is the same when it is read again; None for what has no
    place in JSON, and would come back as something else."""
    try:
        return {**_fields(event), "properties": json_object(event.properties, "properties", _time)}
    except InvalidEvent:
        return None


def _fields(event: Event) -> dict[str, Any]:
    return {
        "name": event.name,
        "identity": dict(event.identity),
        "timestamp": event.timestamp and event.timestamp.isoformat(),
        "properties": dict(event.properties),
        "id": event.id,
    }


def _time(moment: datetime) -> str:
    """With milliseconds, as the strictest vendor wants it, or with microseconds where there are any."""
    spec = "microseconds" if moment.microsecond % 1000 else "milliseconds"
    return moment.astimezone(UTC).isoformat(timespec=spec).replace("+00:00", "Z")


def _readable(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso_utc(plain_time(value)) if value.tzinfo else value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    return str(value)
