"""A row's columns as JSON for people to read and correct, and back as the values that they were.

What JSON has not is written as text; beside the row, `types` says where (a JSON pointer, RFC 6901) and what it was.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any
from uuid import UUID

import orjson

from airflow_provider_events.exceptions import InvalidEvent
from airflow_provider_events.shown import shown
from airflow_provider_events.values import iso_utc, kind, plain_time

__all__ = ["dump_key", "load_key", "plain_row", "restored"]

MAX_DEPTH = 100
MAX_VALUES = 200_000
MAX_BITS = 10_000
MAX_TEXT = 1000  # of what can only be shown
OTHER = "other"

_MICROSECOND = timedelta(microseconds=1)

_LOADED: dict[str, Callable[[str], Any]] = {
    "int": lambda text: int(text, 0),
    "float": float,
    "decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "timedelta": lambda text: _duration(Decimal(text)),
    "uuid": UUID,
    "bytes": lambda text: b64decode(text, validate=True),
}


def plain_row(value: Any) -> tuple[Any, dict[str, str]]:
    """A value of whatever kind as JSON, and the types of what JSON has not.

    :raises ValueError: it is made of more than 200,000 values.
    """
    writer = _Writer()
    return writer.plain(value, ""), writer.types


def restored(row: Mapping[str, Any], types: Any) -> tuple[Mapping[str, Any], InvalidEvent | None]:
    """The inverse, and what is wrong: a value that JSON could not hold and nobody has corrected, or one that is not of
    its type. A text that was corrected to another kind of value stays what it is now.

    What is wrong stays so: `plain_row` writes it with its type again.
    """
    if not isinstance(types, Mapping):
        return _OtherObject(row), InvalidEvent("types", f"has to be a JSON object, not {kind(types)}")
    root: dict[str, Any] = {"": row}
    fault = None
    for pointer, name in types.items():
        holder, key = _find(root, pointer)
        if holder is None or not isinstance(holder[key], str | dict):
            continue  # corrected
        try:
            holder[key] = _loaded(name, holder[key])
        except (ValueError, ArithmeticError):
            value = holder[key]
            holder[key] = _OtherText(value) if isinstance(value, str) else _OtherObject(value)
            words = f"has to be the text of a {name}, as types says"
            if name not in _LOADED:
                words = "JSON has no such value; correct it, and delete its entry in types"
            fault = fault or InvalidEvent(f"data{shown(pointer)}", words)
    return root[""], fault


_KEYS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "int": (int, int, int),
    "str": (str, str, str),
    "float": (float, float.hex, float.fromhex),
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
    "decimal": (Decimal, str, Decimal),
    "uuid": (UUID, str, UUID),
    "bytes": (bytes, lambda key: b64encode(key).decode("ascii"), b64decode),
}


def dump_key(key: Any) -> list[Any] | None:
    """A key of a SQL type as JSON; None for one that cannot be kept."""
    for name, (python_type, dump, _) in _KEYS.items():
        if type(key) is python_type:
            return [name, dump(key)]
    return None


def load_key(value: Any) -> Any:
    """The key that `dump_key` wrote.

    :raises ValueError: it did not write this.
    """
    if value is None:
        return None
    name, text = value
    return _KEYS[name][2](text)


def _loaded(name: Any, value: Any) -> Any:
    if isinstance(value, str) and name in _LOADED:
        return _LOADED[name](value)
    if isinstance(value, str) or name == OTHER:
        raise ValueError(name)
    return value


def _duration(seconds: Decimal) -> timedelta:
    if not abs(seconds) <= timedelta.max // timedelta(seconds=1):
        raise ValueError("out of range")
    return int(seconds.scaleb(6)) * _MICROSECOND


class _OtherText(str):
    """Stands for a value that JSON has not."""


class _OtherObject(dict[str, Any]):
    """Stands for an object that JSON has not."""


class _Writer:
    """Writes one row; knows where it is, so that nothing is followed for ever."""

    def __init__(self) -> None:
        self.types: dict[str, str] = {}
        self._within: set[int] = set()
        self._left = MAX_VALUES

    def plain(self, value: Any, pointer: str) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError("a row of too many values")
        if value is None or type(value) is bool:
            return value
        if isinstance(value, Mapping | list | tuple):
            return self._nested(value, pointer)
        try:
            return self._single(value, pointer)
        except Exception:  # values are of any class, and may do anything when they are looked at
            return self._other(value, pointer)

    def _single(self, value: Any, pointer: str) -> Any:
        if isinstance(value, str):
            text = str.__str__(value)
            return self._other(text, pointer) if type(value) is _OtherText or not _is_unicode(text) else text
        if isinstance(value, int):
            return self._integer(int(value), pointer)
        if isinstance(value, float):
            number_ = float(value)
            return number_ if isfinite(number_) else self._typed("float", repr(number_), pointer)
        if isinstance(value, Decimal):
            return self._typed("decimal", str(value), pointer)
        if isinstance(value, datetime):
            text = iso_utc(plain_time(value)) if value.tzinfo else value.isoformat()
            return self._typed("datetime", text, pointer)
        if isinstance(value, date):
            return self._typed("date", value.isoformat(), pointer)
        if isinstance(value, time):
            return value.isoformat()
        if isinstance(value, timedelta):
            return self._typed("timedelta", str(Decimal(value // _MICROSECOND).scaleb(-6)), pointer)
        if isinstance(value, memoryview):
            value = value.tobytes()
        if isinstance(value, bytes | bytearray):
            return self._typed("bytes", b64encode(value).decode("ascii"), pointer)
        if isinstance(value, UUID):
            return self._typed("uuid", str(value), pointer)
        if type(value).__module__ == "ipaddress":
            return str(value)
        return self._other(value, pointer)

    def _integer(self, number: int, pointer: str) -> Any:
        if -(2**63) <= number < 2**64:
            return number
        if number.bit_length() > MAX_BITS:  # Python reads and writes no longer ones in decimal
            return self._typed("int", hex(number), pointer)
        return orjson.Fragment(str(number))

    def _nested(self, value: Any, pointer: str) -> Any:
        if id(value) in self._within or len(self._within) >= MAX_DEPTH:
            return self._typed(OTHER, f"<{kind(value)}>", pointer)
        self._within.add(id(value))
        try:
            if isinstance(value, Mapping):
                return self._object(value, pointer)
            return [self.plain(item, f"{pointer}/{n}") for n, item in enumerate(value)]
        except RecursionError:
            return self._typed(OTHER, f"<{kind(value)}>", pointer)
        finally:
            self._within.discard(id(value))

    def _object(self, value: Mapping[Any, Any], pointer: str) -> dict[str, Any]:
        if type(value) is _OtherObject:
            self.types[pointer] = OTHER
        written: dict[str, Any] = {}
        for key, item in value.items():
            name = key
            if type(key) is not str or not _is_unicode(key):
                name = _text(key)
                if not isinstance(key, str) or name != str.__str__(key):
                    self.types[pointer] = OTHER
            while name in written:
                name += "'"
            written[name] = self.plain(item, f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}")
        return written

    def _other(self, value: Any, pointer: str) -> str:
        return self._typed(OTHER, _text(value), pointer)

    def _typed(self, name: str, text: str, pointer: str) -> str:
        self.types[pointer] = name
        return text


def _text(value: Any) -> str:
    try:
        text = str.__str__(value) if isinstance(value, str) else str(value)[:MAX_TEXT]
        return text.encode("utf-8", "backslashreplace").decode()
    except Exception:  # what a class of the user's does when it is printed
        return f"<{kind(value)}>"


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _find(root: dict[str, Any], pointer: Any) -> tuple[Any, Any]:
    """What holds the value at a JSON pointer, and under which key; (None, None) where there is none."""
    holder: Any = root
    key: Any = ""
    for part in str(pointer).split("/")[1:]:
        holder = holder[key]
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(holder, list) and key.isdecimal() and int(key) < len(holder):
            key = int(key)
        elif not (isinstance(holder, dict) and key in holder):
            return None, None
    return holder, key
