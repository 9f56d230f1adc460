"""The vendors' wire formats, written by hand as somebody without this package would: for the peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from benchmarks.rows import chunks

__all__ = ["WIRES", "Wire", "bodies"]

Row = Sequence[Any]


@dataclass(frozen=True)
class Wire:
    """One vendor's API.

    :param identity: key of the customer's id.
    :param batch: events per request.
    :param path: behind the host.
    :param headers: with the credentials.
    :param extra: of the Airflow connection.
    :param encode: the body of one request.
    :param accepted: whether an answer's parsed body says that all events were taken.
    """

    identity: str
    batch: int
    path: str
    headers: dict[str, str]
    extra: dict[str, str]
    encode: Callable[[Sequence[Row]], bytes]
    accepted: Callable[[Any], bool]

    @property
    def single(self) -> bool:
        """Whether every event is a request."""
        return self.batch == 1


def _properties(row: Row) -> dict[str, Any]:
    return {"page": row[4], "plan": row[5], "amount": row[6], "quantity": row[7], "first_order": row[8]}


def _embeddables(rows: Sequence[Row]) -> bytes:
    (row,) = rows
    moment = datetime.fromisoformat(row[3]).astimezone(UTC)
    return orjson.dumps(
        {
            "embeddable_id": "flow_bench",
            "timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "custom_event_name": row[2],
            "custom_event_props": orjson.dumps(_properties(row)).decode(),
            "identifiers": [{"key": "email", "value": orjson.dumps(row[1]).decode()}],
        }
    )


def _vibetrace(rows: Sequence[Row]) -> bytes:
    (row,) = rows
    event = {"generic": {"generic": {"event_name": row[2], **_properties(row)}}}
    return orjson.dumps({"user": {"email": row[1]}, "event": event})


def _webengage(rows: Sequence[Row]) -> bytes:
    events = [
        {
            "userId": row[1],
            "eventName": row[2],
            "eventTime": datetime.fromisoformat(row[3]).strftime("%Y-%m-%dT%H:%M:%S%z"),
            "eventData": _properties(row),
        }
        for row in rows
    ]
    return orjson.dumps({"events": events})


def _bloomreach(rows: Sequence[Row]) -> bytes:
    commands = [
        {
            "name": "customers/events",
            "command_id": str(position),
            "data": {
                "customer_ids": {"registered": row[1]},
                "event_type": row[2],
                "properties": _properties(row),
                "timestamp": datetime.fromisoformat(row[3]).timestamp(),
            },
        }
        for position, row in enumerate(rows)
    ]
    return orjson.dumps({"commands": commands})


WIRES = {
    "embeddables": Wire(
        "email", 1, "/projects/pr_bench/events", {"X-Api-Key": "rk_bench"},
        {"project_id": "pr_bench", "embeddable_id": "flow_bench"},
        _embeddables, lambda said: "entry_id" in said,
    ),
    "vibetrace": Wire(
        "email", 1, "/event", {"Authorization": "key_bench"}, {},
        _vibetrace, lambda said: "results" in said,
    ),
    "webengage": Wire(
        "userId", 25, "/v1/accounts/bench/bulk-events", {"Authorization": "Bearer key_bench"},
        {"license_code": "bench"},
        _webengage, lambda said: said["response"]["status"] == "queued",
    ),
    "bloomreach": Wire(
        "registered", 50, "/track/v2/projects/bench/batch", {"Authorization": "Basic aWQ6c2VjcmV0"},
        {"project_token": "bench"},
        _bloomreach, lambda said: said["success"] and all(result["success"] for result in said["results"]),
    ),
}  # fmt: skip


def bodies(wire: Wire, path: str, rows: int) -> Iterator[tuple[bytes, int]]:
    """The rows as bodies of requests, with the number of events in each."""
    for chunk in chunks(path, rows):
        for start in range(0, len(chunk), wire.batch):
            batch = chunk[start : start + wire.batch]
            yield wire.encode(batch), len(batch)
