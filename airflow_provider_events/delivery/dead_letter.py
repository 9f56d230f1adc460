"""Where rejected events are written: JSON Lines, one object per event, in the order of their outcomes.

| key | value |
| --- | --- |
| `version` | 1 |
| `vendor` | connection type |
| `row` | number of the row in its source, from 1 |
| `code`, `field`, `reason` | why it was rejected; `field` may be null |
| `event` | the event as `SendEventsOperator` takes it, or null where there is none that could be sent |
| `data` | the row's own columns; without such, the event that could not be sent; or null |
| `types`, `mapping` | only where `event` is null: what `data` held that JSON has not, and how a row becomes an event |
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from airflow_provider_events.delivery.checkpoint import Checkpoint
from airflow_provider_events.events import REJECTED_SCHEMA, Event, Record, Rejection
from airflow_provider_events.row_data import plain_row
from airflow_provider_events.shown import shown
from airflow_provider_events.values import json_object

__all__ = ["DeadLetterFile", "Storage", "rejected_body", "rejected_line", "rejected_time"]

log = logging.getLogger(__name__)

URI_LENGTH = 300


class Storage(Protocol):
    """One file, wherever it is."""

    uri: str

    def append(self, data: bytes) -> None:
        """Add to its end; makes it if it is not there."""

    def lines_of(self, uri: str) -> Iterable[bytes] | None:
        """The lines of another file in the same folder; none if it is not there, None for a file elsewhere."""

    def remove(self) -> None:
        """Delete it."""


class DeadLetterFile:
    """Collects lines on the delivery's thread, and writes them wherever `flush` is called.

    :param vendor: connection type; only its lines are taken over from an earlier try. None: any.
    """

    def __init__(self, storage: Storage, vendor: str | None = None) -> None:
        self._storage = storage
        self._vendor = vendor
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
        count = len(self._pending)  # more may come meanwhile, on another thread
        if count:
            try:
                self._storage.append(b"".join(self._pending[:count]))
            except Exception as error:
                self._failure = error
                raise
            del self._pending[:count]
            self._written = True

    def adopt(self, checkpoint: Checkpoint) -> None:
        """Take over from an earlier try's file the rows that its checkpoint counts as rejected.

        A checkpoint and a file come from outside: the file has to lie beside this one, and each line to be whole.
        """
        if checkpoint.rejected_uri is None:
            return
        lines = self._storage.lines_of(checkpoint.rejected_uri)
        if lines is None:
            log.warning(
                "rejected events of earlier tries are left in %s: it is not in this try's folder",
                shown(checkpoint.rejected_uri, URI_LENGTH),
            )
            return
        for line in lines:
            row = self._row(line)
            if row is not None and not checkpoint.is_open(row):
                self.write(line)
        self.flush()

    def _row(self, line: bytes) -> int | None:
        """The row of a line; None where it is none of ours. A crash leaves half a line; its row is decided again."""
        try:
            value = orjson.loads(line)
            row, version, vendor = value["row"], value["version"], value["vendor"]
        except (ValueError, KeyError, TypeError):
            return None
        ours = line.endswith(b"\n") and type(version) is int and 1 <= version <= REJECTED_SCHEMA
        return row if ours and type(row) is int and row > 0 and vendor == (self._vendor or vendor) else None

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


def rejected_line(vendor: str, record: Record, rejection: Rejection, since: str | None = None) -> bytes:
    """One line of the file, by the table above; without the data where nothing can be made of these.

    :param since: when the event was first rejected, for one that is to be tried again.
    """
    head, _ = plain_row(
        {
            "version": REJECTED_SCHEMA,
            "vendor": vendor,
            "row": rejection.row,
            "code": rejection.code,
            "field": rejection.field,
            "reason": rejection.reason,
            **({"since": since} if since else {}),
        }
    )
    try:
        return orjson.dumps({**head, **rejected_body(record)}) + b"\n"
    except Exception:  # rows come from anywhere: whatever they hold, it must not end the delivery that rejects them
        return orjson.dumps({**head, "event": None, "data": None}) + b"\n"


def rejected_body(record: Record) -> dict[str, Any]:
    """What a line says of a record, whyever it is rejected.

    :raises Exception: whatever its values do when they are looked at.
    """
    event = _event_dict(record.event) if record.event else None
    data = record.data
    if record.event and event is None and data is None:
        data = _fields(record.event)
    plain, types = plain_row(data)
    body = {"event": event, "data": plain}
    if event is None and types:
        body["types"] = types
    if event is None and record.mapping is not None:
        body["mapping"] = orjson.Fragment(record.mapping)
    return body


def _event_dict(event: Event) -> dict[str, Any] | None:
    """The event with its values as they travel, so that it is the same when it is read again; None for what has no
    place in JSON, and would come back as something else."""
    try:
        properties = json_object(event.properties, "properties", lambda name: rejected_time)
        fields = {**_fields(event), "properties": properties}
        orjson.dumps(fields)
    except Exception:  # a refusal of ours, or whatever a value's own class does
        return None
    return fields


def _fields(event: Event) -> dict[str, Any]:
    return {
        "name": event.name,
        "identity": dict(event.identity),
        "timestamp": event.timestamp and event.timestamp.isoformat(),
        "properties": dict(event.properties),
        "id": event.id,
    }


def rejected_time(moment: datetime) -> str:
    """With milliseconds, as the strictest vendor wants it, or with microseconds where there are any."""
    spec = "microseconds" if moment.microsecond % 1000 else "milliseconds"
    return moment.astimezone(UTC).isoformat(timespec=spec).replace("+00:00", "Z")
