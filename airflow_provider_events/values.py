"""How Python and SQL values travel as JSON: one policy for all sources and vendors.

| value | on the wire |
| --- | --- |
| `str`, `bool`, `int` of at most 64 bits, finite `float`, `None` | as it is |
| `Decimal` | without decimal places an integer (`10`), with them the nearest double (`10.00`: 10.0); no NaN |
| aware `datetime` | text in the vendor's format, UTC by default: `2026-03-01T09:30:00.123456Z` |
| naive `datetime` | refused, unless the mapping names the `timezone` |
| the first and the last `datetime` and `date` that Python has | refused: a driver may read infinity so |
| `date`, `time` | ISO 8601 text |
| `timedelta` | seconds |
| `UUID`, IP addresses and networks | the canonical text |
| `bytes`, `bytearray`, `memoryview` | base64 text |
| NumPy's booleans, integers, floats, texts and times | as Python's own |
| `list`, `tuple`, `dict` with text keys | arrays and objects, at most 32 levels deep |
| `float` NaN and infinities, anything else | refused |
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from itertools import repeat
from operator import attrgetter, is_
from typing import Any
from uuid import UUID

import orjson

from airflow_provider_events.exceptions import InvalidEvent

__all__ = [
    "MAX_DEPTH",
    "TimeFormat",
    "all_utc",
    "filled",
    "is_missing",
    "iso_utc",
    "json_object",
    "json_value",
    "kind",
    "parse_time",
    "plain_cell",
    "plain_integer",
    "plain_scalar",
    "plain_text",
    "plain_time",
    "refuse_infinity",
    "utc_milliseconds",
    "utc_milliseconds_of_each",
    "utc_text",
    "whole_number",
]

TimeFormat = Callable[[datetime], str]

MAX_DEPTH = 32
_zone = attrgetter("tzinfo")
_WITHIN = ".…"  # below a column even the names are data
_INT64, _UINT64 = -(2**63), 2**64
_NETWORK = IPv4Address | IPv4Interface | IPv4Network | IPv6Address | IPv6Interface | IPv6Network
_NUMPY_SCALARS = {"b", "i", "u", "f", "U"}
_NUMPY_TIMES = {"M": "datetime64", "m": "timedelta64"}
_NUMPY_MISSING = {"f", *_NUMPY_TIMES}
_EDGES = {datetime.min, datetime.max, date.min, date.max}
MAX_ID_DIGITS = 40


def kind(value: object) -> str:
    """The name of a value's kind for an error message, never the value."""
    return "null" if value is None else type(value).__name__


def is_missing(value: object) -> bool:
    """Whether a value of a row in Python is none: None, or as pandas and NumPy say that (`NaN`, `NaT`, `NA`)."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, float):
        return math.isnan(value)
    return _numpy_kind(value) in _NUMPY_MISSING and getattr(value, "ndim", 1) == 0 and value != value


def plain_scalar(value: Any) -> Any:
    """NumPy's scalar as Python's own, its times to the microsecond; every other value as it is."""
    code = _numpy_kind(value)
    if code in _NUMPY_TIMES:
        return value.astype(f"{_NUMPY_TIMES[code]}[us]").tolist()
    return value.tolist() if code in _NUMPY_SCALARS else value


def plain_cell(value: Any) -> Any:
    """A value of a row in Python as Python's own, None where it is missing."""
    return None if is_missing(value) else plain_scalar(value)


def _numpy_kind(value: object) -> str:
    """NumPy's letter for the kind of its scalars and arrays; empty for anything else."""
    return getattr(getattr(value, "dtype", None), "kind", "") if type(value).__module__ == "numpy" else ""


def filled(attributes: Any) -> Any:
    """Attributes without those that are missing, which would wipe what the vendor knows; anything else as it is."""
    if not isinstance(attributes, Mapping):
        return attributes
    return {name: value for name, value in attributes.items() if not is_missing(value)}


def iso_utc(moment: datetime) -> str:
    """RFC 3339 text in UTC: whole seconds, or microseconds where there are any."""
    return f"{utc_text(moment)}Z"


def utc_text(moment: datetime) -> str:
    """The same without its zone; several times as fast as `isoformat`."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return orjson.dumps(moment)[1:-7].decode()  # without the quotes and +00:00


def utc_milliseconds(moment: datetime) -> str:
    """RFC 3339 text in UTC, always with three decimal places."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    text = orjson.dumps(moment).decode()
    return f"{text[1:24]}Z" if moment.microsecond else f"{text[1:20]}.000Z"


def utc_milliseconds_of_each(moments: Sequence[datetime]) -> list[str]:
    """The same text for each moment."""
    if not all_utc(moments):
        return list(map(utc_milliseconds, moments))
    texts = orjson.dumps(moments)[2:-2].decode().split('","')
    return [f"{text[:23]}Z" if "." in text else f"{text[:19]}.000Z" for text in texts]


def all_utc(moments: Iterable[datetime]) -> bool:
    """Whether all have UTC itself as their zone."""
    return all(map(is_, map(_zone, moments), repeat(UTC)))


def parse_time(value: object, field: str) -> datetime:
    """An aware datetime from a `datetime` or from ISO 8601 text.

    :raises InvalidEvent: the text is not a time, there is no zone, or the value is of another kind.
    """
    moment = plain_scalar(value)
    if moment is not None and is_missing(moment):
        raise InvalidEvent(field, f"a missing value ({kind(value)}) is no time: leave it out")
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment.strip())
        except ValueError:
            raise InvalidEvent(field, "not an ISO 8601 time such as 2026-03-01T09:30:00+02:00") from None
    if not isinstance(moment, datetime):
        raise InvalidEvent(field, f"a time has to be a datetime or ISO 8601 text, not {kind(value)}")
    if moment is value:
        refuse_infinity(moment, field)
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise InvalidEvent(field, "a time without a zone: give an aware datetime, or name the mapping's timezone")
    try:
        moment.astimezone(UTC)
    except OverflowError:
        raise InvalidEvent(field, "out of the range of times") from None
    return plain_time(moment)


def plain_time(moment: datetime) -> datetime:
    """`moment` as nothing but a datetime; subclasses may know more of it (nanoseconds), which is cut."""
    if type(moment) is datetime:
        return moment
    return datetime.combine(
        date(moment.year, moment.month, moment.day),
        time(moment.hour, moment.minute, moment.second, moment.microsecond, moment.tzinfo, fold=moment.fold),
    )


def refuse_infinity(value: date, field: str) -> None:
    """Make sure that a date or time is not the first or last that Python has.

    :raises InvalidEvent: it is.
    """
    plain = value.replace(tzinfo=None) if isinstance(value, datetime) else value
    if plain in _EDGES:
        raise InvalidEvent(
            field,
            "out of the range of times: the first or last one that Python has, as which drivers read infinity; "
            "NULLIF(…, 'infinity') in SQL makes it a NULL",
        )


def whole_number(value: object) -> object:
    """A whole number that a database gives as float or `Decimal`, as an integer; every other value as it is."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Decimal) and value.is_finite() and value.adjusted() < MAX_ID_DIGITS and value == int(value):
        return int(value)
    return value


def json_object(
    values: Mapping[str, Any], path: str, time_format: Callable[[str], TimeFormat] | None = None
) -> dict[str, Any]:
    """`values` with every value JSON-safe.

    :param path: prefix for the field named in an error, e.g. `"properties"`.
    :param time_format: the vendor's text for an aware datetime, by the name of the value; default: `iso_utc`.
    :raises InvalidEvent: naming the first value that has no place in JSON.
    """
    return {
        name if type(name) is str and name.isascii() else plain_text(name, path): value
        if (type(value) is str and value.isascii()) or type(value) is bool or value is None
        else json_value(value, f"{path}.{name}", time_format(name) if time_format else iso_utc)
        for name, value in values.items()
    }


def json_value(value: Any, path: str, render_time: TimeFormat = iso_utc, depth: int = 0) -> Any:
    """One value, JSON-safe, by the table above.

    :raises InvalidEvent: naming `path` and the value's kind.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return plain_text(value, path)
    if isinstance(value, int):
        return plain_integer(value, path)
    if isinstance(value, float):
        return _number(float(value), path)
    if type(plain := plain_scalar(value)) is not type(value):  # a scalar, or an array of them
        return json_value(plain, path, render_time, depth)
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise InvalidEvent(path, "NaN and infinity have no place in JSON")
        exponent = value.as_tuple().exponent
        if isinstance(exponent, int) and exponent < 0:
            return _number(float(value), path)
        return plain_integer(int(value) if value.adjusted() <= 20 or not value else _UINT64, path)
    if isinstance(value, datetime):
        return render_time(parse_time(value, path))
    if isinstance(value, date):
        refuse_infinity(value, path)
        return value.isoformat()
    if isinstance(value, time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, UUID | _NETWORK):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return b64encode(value).decode("ascii")
    if depth >= MAX_DEPTH:
        raise InvalidEvent(path, f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, list | tuple):
        deep = path.endswith(_WITHIN)
        paths = (path if deep else f"{path}[{n}]" for n in range(len(value)))
        return [json_value(item, at, render_time, depth + 1) for at, item in zip(paths, value, strict=True)]
    if isinstance(value, Mapping):
        inner = {}
        within = path if path.endswith(_WITHIN) else path + _WITHIN
        for name, item in value.items():
            if not isinstance(name, str):
                raise InvalidEvent(path, f"object keys have to be text, not {kind(name)}")
            inner[plain_text(name, path)] = json_value(item, within, render_time, depth + 1)
        return inner
    raise InvalidEvent(path, f"a value of kind {kind(value)} cannot be sent; cast it to text, a number or a time")


def plain_text(value: str, path: str) -> str:
    """`value` as nothing but text, members of an enumeration by what they stand for.

    :raises InvalidEvent: it holds a lone surrogate, which no encoding can carry.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidEvent(path, "text that is not valid Unicode (a lone surrogate)") from None
    return str.__str__(value)


def plain_integer(value: int, path: str) -> int:
    """`value` as nothing but an integer.

    :raises InvalidEvent: it needs more than 64 bits.
    """
    value = int(value)
    if not _INT64 <= value < _UINT64:
        raise InvalidEvent(path, "an integer of more than 64 bits; cast it to text")
    return value


def _number(value: float, path: str) -> float:
    if not math.isfinite(value):
        raise InvalidEvent(path, "NaN and infinity have no place in JSON")
    return value
