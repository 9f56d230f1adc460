"""The words the whole house speaks: an event, the row that it comes from, and why it was rejected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, NamedTuple

from airflow_provider_events.exceptions import InvalidEvent
from airflow_provider_events.reports import DeliveryReport, Receipt
from airflow_provider_events.shown import shown
from airflow_provider_events.values import kind, parse_time, plain_scalar, plain_text

__all__ = [
    "NOBODY",
    "REJECTED_SCHEMA",
    "DeliveryReport",
    "Event",
    "Receipt",
    "Record",
    "Rejection",
    "check_identity",
    "checked_identities",
    "nested_hint",
]

REJECTED_SCHEMA = 1  # of the lines in which rejected events are written and read again
MAX_ID_BITS = 256
NOBODY = frozenset({"None", "nan", "NaN", "NaT", "<NA>", "null"})  # as missing values print where they become text


@dataclass(frozen=True, slots=True, repr=False)
class Event:
    """Something that a customer did.

    :param name: what happened, in the vendor's spelling rules.
    :param identity: who did it, in the vendor's own key names, e.g. `{"email": "ada@example.com"}`.
    :param timestamp: when, as an aware datetime or ISO 8601 text with a zone. None: when it is sent.
    :param properties: what else is known; values as in `airflow_provider_events.values`.
    :param id: the caller's own idempotency key, unique among the events of one name and customer. None: the
        key is derived from the content, so that two equal events count as one where the vendor deduplicates.
    :raises InvalidEvent: naming the field, the kind of its value and the fix.
    """

    name: str
    identity: Mapping[str, str | int]
    timestamp: datetime | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise InvalidEvent("name", f"an event needs a name, as text, not {kind(self.name)}")
        if not self.name.strip():
            raise InvalidEvent("name", "an event needs a name; this one is empty")
        if not isinstance(self.properties, Mapping):
            raise InvalidEvent("properties", f"has to be a mapping, not {kind(self.properties)}")
        for name in self.properties:
            if not isinstance(name, str):
                raise InvalidEvent("properties", f"property names have to be text, not {kind(name)}")
            if not name:
                raise InvalidEvent("properties", "a property has an empty name")
        object.__setattr__(self, "name", plain_text(self.name, "name"))
        object.__setattr__(self, "identity", check_identity(self.identity))
        if self.timestamp is not None:
            object.__setattr__(self, "timestamp", parse_time(self.timestamp, "timestamp"))
        if self.id is not None:
            object.__setattr__(self, "id", _event_id(self.id))

    def __repr__(self) -> str:
        """Shows the name only: an event in a log must not be a customer in a log."""
        return f"<Event {shown(self.name)!r}>"

    @classmethod
    def from_dict(cls, data: object) -> Event:
        """The event described by a mapping with the fields above, as it comes out of an XCom.

        :raises InvalidEvent: for anything else, an unknown field, or a missing one.
        """
        if isinstance(data, Event):
            return data
        if not isinstance(data, Mapping):
            words = f"has to be a mapping with name and identity, not {kind(data)}{nested_hint(data)}"
            raise InvalidEvent("event", words)
        if unknown := [str(name) for name in data if name not in _EVENT_FIELDS]:
            raise InvalidEvent(unknown[0], f"not a field of an event; there are {', '.join(_EVENT_FIELDS)}")
        if missing := [name for name in ("name", "identity") if name not in data]:
            raise InvalidEvent(missing[0], "missing")
        values = dict(data)
        if values.get("properties") is None:
            values.pop("properties", None)
        return cls(**values)


_EVENT_FIELDS = tuple(f.name for f in fields(Event))


def check_identity(identity: object) -> dict[str, str | int]:
    """An identity as every vendor takes it, of plain texts and integers.

    :raises InvalidEvent: naming the part at fault.
    """
    if not isinstance(identity, Mapping):
        raise InvalidEvent("identity", f"has to be a mapping of id name to value, not {kind(identity)}")
    if not identity:
        raise InvalidEvent("identity", "an event needs at least one id of its customer")
    plain: dict[str, str | int] = {}
    for name, given in identity.items():
        value = plain_scalar(given)
        if not isinstance(name, str):
            raise InvalidEvent("identity", f"id names have to be text, not {kind(name)}")
        if not name:
            raise InvalidEvent("identity", "an id has an empty name")
        field_name = f"identity.{name}"
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InvalidEvent(field_name, f"an id has to be text or a whole number, not {kind(value)}")
        if isinstance(value, str) and not value.strip():
            raise InvalidEvent(field_name, "an id must not be empty")
        if isinstance(value, str) and value in NOBODY:
            raise InvalidEvent(
                field_name, "the text of a missing value, not an id: leave it out, or filter such rows out"
            )
        plain[plain_text(name, "identity")] = _plain_id(value, field_name)
    return plain


def checked_identities(identities: Iterable[object]) -> list[Mapping[str, str | int]]:
    """`check_identity` of each.

    :raises InvalidEvent: naming the number of the first one at fault, and its part.
    """
    checked: list[Mapping[str, str | int]] = []
    for number, identity in enumerate(identities):
        try:
            checked.append(check_identity(identity))
        except InvalidEvent as fault:
            raise InvalidEvent(f"identities[{number}]", str(fault)) from None
    return checked


def nested_hint(value: object) -> str:
    """What to do about a list among events or rows; empty for anything else."""
    return "; flatten a list of lists, or map over it with .expand()" if isinstance(value, list | tuple) else ""


def _plain_id(value: str | int, field_name: str) -> str | int:
    if isinstance(value, str):
        return plain_text(value, field_name)
    if value.bit_length() > MAX_ID_BITS:
        raise InvalidEvent(field_name, f"a whole number of more than {MAX_ID_BITS} bits")
    return int(value)


def _event_id(given: object) -> str:
    value = plain_scalar(given)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidEvent("id", f"has to be text or a whole number, not {kind(value)}")
    text = str(_plain_id(value, "id"))
    if not text.strip():
        raise InvalidEvent("id", "must not be empty: it tells events apart")
    if text in NOBODY:
        raise InvalidEvent("id", "the text of a missing value: leave it out, it tells events apart")
    return text


class Record(NamedTuple):
    """One row of a source: its number from 1, the event it became or why it became none, and its own columns.

    :param mapping: by which it is to become an event, as JSON.
    """

    row: int
    event: Event | None
    data: Mapping[str, Any] | None = None
    fault: InvalidEvent | None = None
    mapping: str | None = None

    def __repr__(self) -> str:
        """Without the row's values."""
        return f"<Record {self.row}>"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one event was not delivered and never will be as it is.

    :param row: its number in the source, from 1.
    :param code: the vendor's error code, `http_<status>`, or `invalid` for our own validation.
    :param reason: in words, without the customer's data.
    :param field: the field at fault, where it is known.
    """

    row: int
    code: str
    reason: str
    field: str | None = None

    @property
    def summary(self) -> str:
        """The reason without what differs from row to row: the key of `DeliveryReport.reasons`."""
        return f"{self.code}: {self.field}: {self.reason}" if self.field else f"{self.code}: {self.reason}"
