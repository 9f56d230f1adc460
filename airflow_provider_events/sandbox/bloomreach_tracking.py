"""What Bloomreach Engagement takes as an event or as a customer's properties: the rules, with no state."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import orjson

MAX_MESSAGE_BYTES = 800 * 1024
MAX_VALUE_BYTES = 16 * 1024

CONSENT = "consent"  # the one event type that is never deduplicated

_ALPHANUMERIC = re.compile(r"[^\W_]")
_NUMBER = re.compile(r"\d+(\.\d+)?")
_NO_VALID_ID = "At least one valid id should be specified"
_NO_IDS = ("null", "undefined")


class CommandRefused(ValueError):
    """A command, or single call, that fails by itself; its text goes into `errors`."""


@dataclass(frozen=True, slots=True)
class Message:
    """What was tracked.

    `timestamp`: seconds since the epoch. `digest`: equal for 1:1 duplicates, `None` where there can be none: without a
    timestamp, and for consents.
    """

    ids: dict[str, Any]
    properties: dict[str, Any]
    timestamp: float | None = None
    digest: bytes | None = None


def read_event(data: Any, size_bytes: int) -> Message:
    """Check an event as the vendor documents it."""
    ids, properties = _common(data, size_bytes)
    event_type = data.get("event_type")
    if not isinstance(event_type, str) or not event_type:
        raise CommandRefused("Field event_type is required")
    if "timestamp" not in data:
        return Message(ids, properties)
    timestamp = _seconds(data["timestamp"])
    if event_type == CONSENT:
        return Message(ids, properties, timestamp)
    same = orjson.dumps([ids, event_type, timestamp, properties], option=orjson.OPT_SORT_KEYS)
    return Message(ids, properties, timestamp, blake2b(same, digest_size=16).digest())


def read_customer(data: Any, size_bytes: int) -> Message:
    """Check an update of a customer's properties."""
    ids, properties = _common(data, size_bytes)
    if not properties:
        raise CommandRefused("Field properties is required")
    if "update_timestamp" in data:
        _seconds(data["update_timestamp"])
    return Message(ids, properties)


def read_ids(ids: Any) -> dict[str, Any]:
    """Check `customer_ids`: names with a string (a soft id may have a list of them)."""
    if not ids:
        raise CommandRefused("At least one id should be specified.")
    if not isinstance(ids, dict):
        raise CommandRefused("Invalid customer_id")
    for _, value in each_id(ids):
        if not _ALPHANUMERIC.search(value) or value in _NO_IDS:
            raise CommandRefused(_NO_VALID_ID)
    return ids


def each_id(ids: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The single ids of `customer_ids`, as (name, value)."""
    for name, value in ids.items():
        for single in value if isinstance(value, list) else [value]:
            if not isinstance(single, str):
                raise CommandRefused(_NO_VALID_ID if single is None else "Invalid customer_id")
            yield name, single


def _common(data: Any, size_bytes: int) -> tuple[dict[str, Any], dict[str, Any]]:
    if not isinstance(data, dict):
        raise CommandRefused("Field data is required")
    if size_bytes >= MAX_MESSAGE_BYTES:
        raise CommandRefused(f"The message is not smaller than {MAX_MESSAGE_BYTES} bytes")
    ids = read_ids(data.get("customer_ids"))
    properties = data.get("properties", {})
    if not isinstance(properties, dict):
        raise CommandRefused("Field properties must be an object")
    if size_bytes >= MAX_VALUE_BYTES:
        for name, value in properties.items():
            if len(orjson.dumps(value)) >= MAX_VALUE_BYTES:
                raise CommandRefused(f"Property {name} is not smaller than {MAX_VALUE_BYTES} bytes")
    return ids, properties


def _seconds(timestamp: Any) -> float:
    """Unix seconds, also as text, or ISO 8601 (without a zone: UTC)."""
    if isinstance(timestamp, int | float) and not isinstance(timestamp, bool):
        return float(timestamp)
    if isinstance(timestamp, str):
        if _NUMBER.fullmatch(timestamp):
            return float(timestamp)
        with suppress(ValueError):
            at = datetime.fromisoformat(timestamp)
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    raise CommandRefused("Field timestamp must be Unix seconds or ISO 8601")
