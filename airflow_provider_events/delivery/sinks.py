"""Where rejected events are written: JSON Lines, one object per event.

| key | value |
| --- | --- |
| `version` | 1 |
| `vendor` | connection type |
| `row` | number of the row in its source, from 1 |
| `code`, `field`, `reason` | why it was rejected |
| `event` | the event as `SendEventsOperator` takes it, or null where the row became none |
| `data` | the row's own columns, or null |
"""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import IO, Any

import orjson

from airflow_provider_events.events import Event, Record, Rejection
from airflow_provider_events.values import iso_utc

__all__ = ["RejectedSink"]

VERSION = 1


class RejectedSink:
    """Writes each rejected record as it comes.

    :param uri: shown in the report.
    :param stream: an open binary file; closed by the sink.
    """

    def __init__(self, uri: str, stream: IO[bytes], vendor: str) -> None:
        self.uri = uri
        self._stream = stream
        self._vendor = vendor
        self.written = 0

    def write(self, record: Record, rejection: Rejection) -> None:
        """One line, flushed."""
        line = {
            "version": VERSION,
            "vendor": self._vendor,
            "row": rejection.row,
            "code": rejection.code,
            "field": rejection.field,
            "reason": rejection.reason,
            "event": _event_dict(record.event) if record.event else None,
            "data": record.data,
        }
        self._stream.write(_dumps(line) + b"\n")
        self._stream.flush()
        self.written += 1

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _dumps(line: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(line, default=_readable, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # what orjson refuses (integers of more than 64 bits, lone surrogates) may be why it was rejected
        return json.dumps(line, default=_readable, separators=(",", ":")).encode()


def _event_dict(event: Event) -> dict[str, Any]:
    return {
        "name": event.name,
        "identity": dict(event.identity),
        "timestamp": event.timestamp and event.timestamp.isoformat(),
        "properties": dict(event.properties),
        "id": event.id,
    }


def _readable(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso_utc(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    return str(value)
