"""Which column is what: rows become events."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, tzinfo
from typing import Any, Literal, Self
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from airflow_provider_events.events import Event
from airflow_provider_events.exceptions import InvalidEvent, MappingError
from airflow_provider_events.shown import did_you_mean, shown, shown_names
from airflow_provider_events.values import kind, refuse_infinity, whole_number

__all__ = ["EventMapping", "RowMapper", "event_id", "identifier"]

Row = Sequence[Any]


class EventMapping(BaseModel):
    """How the columns of a row make an event.

    :param name: the name of every event; or
    :param name_column: the column that holds it. Exactly one of the two.
    :param identity: identity key of the vendor -> column. A NULL leaves its key out.
    :param timestamp: column with the event's time; None: the time of the delivery.
    :param id: column with the caller's own idempotency key.
    :param properties: property -> column, or a list of columns that keep their names. None: every column not used
        above.
    :param timezone: IANA name of the zone of times that come without one, e.g. `"Europe/Bucharest"`.
    :param nulls: what a NULL property does: `"drop"` leaves it out (so that it wipes no value), `"send"` sends null,
        `"fail"` rejects the row.
    :raises MappingError: (from `of`) naming the option at fault.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str | None = None
    name_column: str | None = None
    identity: dict[str, str]
    timestamp: str | None = None
    id: str | None = None
    properties: dict[str, str] | None = None
    timezone: str | None = None
    nulls: Literal["drop", "send", "fail"] = "drop"

    @classmethod
    def of(cls, value: object) -> EventMapping:
        """The mapping that `value` describes."""
        if isinstance(value, EventMapping):
            return value
        if not isinstance(value, Mapping):
            raise MappingError(f"mapping: has to be an EventMapping or a dict, not {kind(value)}")
        try:
            return cls(**{str(name): option for name, option in value.items()})
        except ValidationError as error:
            raise MappingError("; ".join(_explain(fault) for fault in error.errors())) from None

    @field_validator("properties", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return {name: name for name in value} if isinstance(value, list | tuple) else value

    @field_validator("name", "name_column", "timestamp", "id")
    @classmethod
    def _filled(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("must not be empty; leave the option out instead")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ZoneInfo(value)
            except (KeyError, ValueError, OSError):
                raise ValueError("not an IANA time zone such as Europe/Bucharest") from None
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.name is None) == (self.name_column is None):
            raise ValueError("give exactly one of name (a constant) and name_column (a column)")
        if not self.identity:
            raise ValueError('identity: name at least one column, e.g. {"email": "user_email"}')
        return self

    def bind(self, columns: Sequence[str]) -> RowMapper:
        """A function from rows of these columns to events.

        :raises MappingError: naming a column that is not there, and those that are.
        """
        return RowMapper(self, columns)


class RowMapper:
    """Turns rows with the columns it was bound to into events; positions are looked up once.

    :ivar name: position of the name; None where it is constant. So too `timestamp` and `id`.
    :ivar identity: key and position of each id.
    :ivar properties: name and position of each property.
    :ivar zone: of times that come without one.
    :ivar text: the mapping as JSON.
    """

    def __init__(self, mapping: EventMapping, columns: Sequence[str]) -> None:
        self.mapping = mapping
        self.text = mapping.model_dump_json(exclude_defaults=True)
        self.zone: tzinfo | None = ZoneInfo(mapping.timezone) if mapping.timezone else None
        at = {column: position for position, column in enumerate(columns)}
        if len(at) < len(columns):
            twice = next(column for column in columns if list(columns).count(column) > 1)
            raise MappingError(f"the query returns the column {shown(twice)!r} twice: give one of them an alias")

        def position(column: str, option: str) -> int:
            if column in at:
                return at[column]
            folded = {str(name).lower(): name for name in at}
            near = [folded[name] for name in difflib.get_close_matches(column.lower(), folded, 1)]
            hint = f" (did you mean {shown(near[0])!r}?)" if near else ""
            raise MappingError(
                f"mapping: {option} names the column {column!r}, which is not there{hint}; "
                f"the columns are {shown_names(columns)}"
            )

        self.name = position(mapping.name_column, "name_column") if mapping.name_column else None
        self.identity = [(key, position(column, f"identity.{key}")) for key, column in mapping.identity.items()]
        self.timestamp = position(mapping.timestamp, "timestamp") if mapping.timestamp else None
        self.id = position(mapping.id, "id") if mapping.id else None
        used = {self.name, self.timestamp, self.id, *(at for _, at in self.identity)}
        if mapping.properties is None:
            self.properties = [(column, n) for column, n in at.items() if n not in used]
        else:
            self.properties = [
                (key, position(column, f"properties.{key}")) for key, column in mapping.properties.items()
            ]
        self.columns = columns

    def check_times(self, rows: Sequence[Row]) -> None:
        """Make sure that times come with a zone, as far as these rows show.

        :raises MappingError: naming the column and the line to add.
        """
        if self.zone is not None:
            return
        for row in rows:
            for at in (self.timestamp, *(at for _, at in self.properties)):
                if at is not None and _is_naive(row[at], text_too=at == self.timestamp):
                    raise MappingError(
                        f"mapping: the times of column {shown(self.columns[at])!r} come without a zone; add "
                        f'"timezone": "Europe/Bucharest" (the zone they are in) to the mapping, or cast them in SQL'
                    )

    def event(self, row: Row) -> Event:
        """The event of one row.

        :raises InvalidEvent: naming the field and the reason.
        """
        mapping = self.mapping
        identity = self.identity_of(row)
        name: Any = mapping.name if self.name is None else row[self.name]
        timestamp = None
        if self.timestamp is not None:
            timestamp = self.aware(row[self.timestamp], text_too=True)
            if timestamp is None:
                raise InvalidEvent(
                    "timestamp",
                    "NULL; filter such rows out in SQL, or use COALESCE; for MySQL's zero dates, which are no NULL "
                    "there, WHERE … > 0 or COALESCE(NULLIF(…, 0), …)",
                )
        properties = {key: self.aware(row[at]) for key, at in self.properties}
        if mapping.nulls != "send" and None in properties.values():
            empty = [key for key, value in properties.items() if value is None]
            if mapping.nulls == "fail":
                raise InvalidEvent(f"properties.{empty[0]}", "NULL, and the mapping says nulls=fail")
            for key in empty:
                del properties[key]
        own_id: Any = None if self.id is None else event_id(row[self.id])
        return Event(name, identity, timestamp, properties, own_id)

    def identity_of(self, row: Row) -> dict[str, Any]:
        """The ids of one row that are there.

        :raises InvalidEvent: one of them is of a kind that makes none.
        """
        return {
            key: value if type(value) is str else identifier(value, key)
            for key, at in self.identity
            if (value := row[at]) is not None
        }

    def aware(self, value: Any, text_too: bool = False) -> Any:
        """A time without a zone in that of the mapping; every other value as it is."""
        if self.zone is not None:
            if isinstance(value, datetime):
                return value if value.tzinfo else value.replace(tzinfo=self.zone)
            if text_too and isinstance(value, str):
                moment = _parsed(value)
                return moment.replace(tzinfo=self.zone) if moment and moment.tzinfo is None else value
        return value


def identifier(value: Any, key: str) -> Any:
    """An id as text or whole number where a database gives it as something else; every other value as it is."""
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, bytes):
        raise InvalidEvent(f"identity.{key}", "bytes; cast the column to text in SQL")
    return whole_number(value)


def event_id(value: Any) -> str | int:
    """A column's value as an event's own id.

    :raises InvalidEvent: it is of a kind that makes no id.
    """
    value = whole_number(value)
    if isinstance(value, str | int) and not isinstance(value, bool):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, date):
        refuse_infinity(value, "id")
    if isinstance(value, datetime) and value.tzinfo:
        try:
            value = value.astimezone(UTC)
        except (OverflowError, ValueError):
            raise InvalidEvent("id", "out of the range of times such as 9999") from None
    if isinstance(value, date | UUID):
        return value.isoformat() if isinstance(value, date) else str(value)
    raise InvalidEvent("id", f"an id column has to hold texts, whole numbers, times or UUIDs, not {kind(value)}")


def _is_naive(value: Any, text_too: bool) -> bool:
    moment = _parsed(value) if text_too and isinstance(value, str) else value
    return isinstance(moment, datetime) and moment.tzinfo is None


def _parsed(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        return None


def _explain(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = f"not an option; {did_you_mean(where, EventMapping.model_fields)}"
    return f"mapping: {where}: {message}" if where else f"mapping: {message}"
