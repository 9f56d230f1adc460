"""Many rows at once: checked by pydantic's core, and written to the wire without an event for each.

Only what is plainly right goes this way. A row of other types, or one that the vendor refuses, falls back to its own
`Event`, which knows every kind of value and finds the words for what is wrong. So both ways take the same rows and
write the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import reduce
from itertools import compress
from operator import or_
from types import GenericAlias
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import ConfigDict, Field, InstanceOf, StringConstraints, TypeAdapter, ValidationError

from airflow_provider_events.contract import EventColumns
from airflow_provider_events.events import NOBODY
from airflow_provider_events.exceptions import InvalidEvent
from airflow_provider_events.sources.mapping import RowMapper, event_id, identifier
from airflow_provider_events.values import TimeFormat, json_value, plain_time

if TYPE_CHECKING:
    from airflow_provider_events.contract import Codec

__all__ = ["BulkEncoder"]

Row: TypeAlias = Sequence[Any]
Rows: TypeAlias = Sequence[Row]
Columns: TypeAlias = Mapping[int, Sequence[Any]]  # by position
Dicts: TypeAlias = list[dict[str, Any] | None]

# What stands on the wire as it is; strictly so, as pydantic would else take a "1" for a number.
Filled = Annotated[str, StringConstraints(pattern=r"[^\s\x1c-\x1f]")]  # these four are blank to `str.strip`, too
Integer = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
PLAIN: dict[type, Any] = {str: str, bool: bool, int: Integer, float: Finite, type(None): None}
IDS: dict[type, Any] = {str: Filled, int: Integer}
TIMES: dict[type, Any] = {str: str, datetime: InstanceOf[datetime]}

# Between these a time is in range wherever its zone is.
EARLY, LATE = datetime(3, 1, 1, tzinfo=UTC), datetime(9998, 1, 1, tzinfo=UTC)

# A larger share of rows that fall back shows that there are types to be inferred.
MAX_FALLBACK_SHARE = 0.1


class BulkEncoder:
    """Encodes rows of the same columns; which types of values these hold is inferred from the rows themselves.

    A method that makes a column of what the rows say has None in it for each row that falls back to its own event.
    """

    def __init__(self, mapper: RowMapper) -> None:
        self._mapper = mapper
        self._named = all(name for name, _ in [*mapper.identity, *mapper.properties])
        columns = {*(at for _, at in [*mapper.identity, *mapper.properties]), mapper.timestamp, mapper.id}
        self._kinds: dict[int, set[type]] = {at: set() for at in columns if at is not None}

    def encode(self, rows: Rows, codec: Codec, sent_at: datetime | None) -> list[bytes | None]:
        """Each row as a fragment of a request, at `sent_at` if it has no time."""
        fragments: list[bytes | None] = [None] * len(rows)
        if not rows or not self._named or len(self._mapper.properties) > codec.max_bulk_properties:
            return fragments
        if not any(self._kinds.values()):
            self._infer_types(rows)
        failures = self._schema_failures(rows)
        if len(failures) > MAX_FALLBACK_SHARE * len(rows) and self._infer_types(rows):
            failures = self._schema_failures(rows)
        if not failures:
            fragments = list(self._encoded(rows, codec, sent_at))
        elif valid := [at for at in range(len(rows)) if at not in failures]:
            for at, fragment in zip(valid, self._encoded([rows[at] for at in valid], codec, sent_at), strict=True):
                fragments[at] = fragment
        if fragments.count(None) > MAX_FALLBACK_SHARE * len(rows):
            self._infer_types(rows)  # pydantic takes a Decimal for a float
        return fragments

    def _infer_types(self, rows: Rows) -> bool:
        """Take note of the types of values in each column; False if there is nothing new."""
        known = sum(map(len, self._kinds.values()))
        for at, kinds in self._kinds.items():
            kinds.update({type(row[at]) for row in rows})
        if known == sum(map(len, self._kinds.values())):
            return False
        mapper, kinds_of = self._mapper, self._kinds
        self._to_convert = [name for name, at in mapper.properties if kinds_of[at] - PLAIN.keys()]
        self._nullable = any(type(None) in kinds_of[at] for _, at in mapper.properties)
        fields = {at: _one_of(kinds_of[at], PLAIN) for name, at in mapper.properties if name not in self._to_convert}
        if mapper.timestamp is not None:
            fields[mapper.timestamp] = _one_of(kinds_of[mapper.timestamp], TIMES)
        ids = [at for _, at in mapper.identity]
        optional = {type(None)} if len(ids) == 1 else set()  # the only id has to be there, one of several need not
        self._plain_identity = all(kinds_of[at] - optional <= IDS.keys() for at in ids)
        self._plain_id = mapper.id is not None and kinds_of[mapper.id] <= IDS.keys()
        for at in (*(ids if self._plain_identity else ()), *([mapper.id] if self._plain_id else ())):
            fields[at] = _one_of(kinds_of[at], IDS)
        if mapper.name is not None:
            fields[mapper.name] = Filled
        columns = tuple(fields.get(at, Any) for at in range(len(mapper.columns)))
        kind: Any = GenericAlias(list, GenericAlias(tuple, columns))
        self._validate = TypeAdapter[Any](kind, config=ConfigDict(strict=True)).validator.validate_python
        return True

    def _schema_failures(self, rows: Rows) -> Collection[int]:
        """Positions of the rows that do not have the inferred types."""
        try:
            self._validate(rows)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_context=False, include_input=False)
            return {int(fault["loc"][0]) for fault in faults}
        return ()

    def _encoded(self, rows: Rows, codec: Codec, sent_at: datetime | None) -> Sequence[bytes | None]:
        columns = self._to_columns(rows, codec, sent_at)
        lacking = [column for column in columns if isinstance(column, list) and None in column]
        if not lacking:
            return codec.encode_columns(EventColumns(codec.conn_type, *columns))
        whole = [None not in values for values in zip(*lacking, strict=True)]
        columns = [column and list(compress(column, whole)) for column in columns]
        fragments = iter(codec.encode_columns(EventColumns(codec.conn_type, *columns)) if any(whole) else ())
        return [next(fragments) if is_whole else None for is_whole in whole]

    def _to_columns(self, rows: Rows, codec: Codec, sent_at: datetime | None) -> list[Any]:
        """The columns of `EventColumns`, with None for a row that falls back to its own event."""
        mapper, columns = self._mapper, dict(enumerate(zip(*rows, strict=True)))
        moments: list[Any] | None = [sent_at] * len(rows) if sent_at else None
        if mapper.timestamp is not None:
            moments = self._moments(columns[mapper.timestamp])
        ids = None
        if mapper.id is not None and (
            codec.uses_event_id or not self._plain_id or not NOBODY.isdisjoint(columns[mapper.id])
        ):  # else their types say that they are ids
            ids = self._ids(columns[mapper.id])
        names = [mapper.mapping.name] * len(rows) if mapper.name is None else columns[mapper.name]
        identities = self._identities(rows, columns, codec.stringify_identity)
        return [names, identities, moments, self._plain_properties(columns, codec), ids]

    def _identities(self, rows: Rows, columns: Columns, as_text: bool) -> Dicts:
        ids: Columns = {at: columns[at] for _, at in self._mapper.identity}
        kinds = {kind for column in ids.values() for kind in set(map(type, column))}
        # pydantic takes subclasses, which may print otherwise
        usual = self._plain_identity and kinds <= IDS.keys() and all(map(NOBODY.isdisjoint, ids.values()))
        if not usual:
            return [self._fallback_identity(row, as_text) for row in rows]
        ids = {at: list(map(str, column)) for at, column in ids.items()} if as_text else ids
        return [*_dicts(self._mapper.identity, ids, len(rows))]

    def _fallback_identity(self, row: Row, as_text: bool) -> dict[str, Any] | None:
        """Ids of which some are missing, or that databases give as something else than text or number."""
        identity: dict[str, Any] = {}
        for name, at in self._mapper.identity:
            if row[at] is not None:
                try:
                    value = identifier(row[at], name)
                except InvalidEvent:
                    return None
                if not _is_id(value):
                    return None
                identity[name] = str(value) if as_text else value
        return identity or None

    def _plain_properties(self, columns: Columns, codec: Codec) -> Dicts:
        filled = _dicts(self._mapper.properties, columns, len(columns[0]))
        made: Dicts = [*filled]
        if self._to_convert:
            formats = [(name, f"properties.{name}", codec.time_format(name)) for name in self._to_convert]
            made = [self._converted(values, formats) for values in filled]
        if self._to_convert or self._nullable:
            made = [self._without_nulls(values) if values and None in values.values() else values for values in made]
        return made

    def _converted(
        self, values: dict[str, Any], formats: Sequence[tuple[str, str, TimeFormat]]
    ) -> dict[str, Any] | None:
        try:
            for name, path, time_format in formats:
                values[name] = json_value(self._mapper.aware(values[name]), path, time_format)
        except InvalidEvent:
            return None
        return values

    def _without_nulls(self, values: dict[str, Any]) -> dict[str, Any] | None:
        match self._mapper.mapping.nulls:
            case "send":
                return values
            case "drop":
                return {name: value for name, value in values.items() if value is not None}
        return None

    def _moments(self, values: Sequence[Any]) -> list[datetime | None]:
        moments: list[Any]
        try:
            moments = list(map(datetime.fromisoformat, values))
        except (TypeError, ValueError):
            moments = list(map(_moment, values))
        if (zone := self._mapper.zone) is not None:
            moments = [at.replace(tzinfo=zone) if at is not None and at.tzinfo is None else at for at in moments]
        with suppress(TypeError):  # None, or a time without a zone, compares with none
            if min(moments) > EARLY and max(moments) < LATE:
                return moments
        return [at if at is not None and at.tzinfo is not None and 1 < at.year < 9999 else None for at in moments]

    def _ids(self, values: Sequence[Any]) -> list[str | None]:
        if self._plain_id and set(map(type, values)) <= IDS.keys():
            ids = list(map(str, values))
            if "".join(ids).isascii() and NOBODY.isdisjoint(ids):
                return [*ids]
        return list(map(_id, values))


def _dicts(fields: Sequence[tuple[str, int]], columns: Columns, count: int) -> list[dict[str, Any]]:
    """A dictionary of each row; filled column by column, which takes half as long as `dict(zip(…))` row by row."""
    if not fields:
        return [{} for _ in range(count)]
    (first, first_at), *others = fields
    made = [{first: value} for value in columns[first_at]]
    for name, at in others:
        for values, value in zip(made, columns[at], strict=True):
            values[name] = value
    return made


def _one_of(kinds: Collection[type], known: Mapping[type, Any]) -> Any:
    """A type for the kinds among those that are known; text where there is none."""
    return reduce(or_, [known[kind] for kind in known if kind in kinds] or [known[str]])


def _moment(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return plain_time(value) if value.tzinfo is None or value.utcoffset() is not None else None
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None


def _id(value: Any) -> str | None:
    try:
        made = event_id(value)
        text = str(made) if _is_id(made) else ""
        text.encode()
    except ValueError:
        return None
    return text or None


def _is_id(value: Any) -> bool:
    return (
        bool(value.strip()) and value not in NOBODY
        if type(value) is str
        else type(value) is int and value.bit_length() < 64
    )
