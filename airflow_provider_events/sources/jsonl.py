"""Events in a JSON Lines file: the rejected events of an earlier delivery, or events as `Event` describes them."""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import IO, Any

import orjson

from airflow_provider_events._compat import ObjectStoragePath
from airflow_provider_events.events import REJECTED_SCHEMA, Event, Record
from airflow_provider_events.exceptions import ConfigurationError, InvalidEvent, MappingError
from airflow_provider_events.row_data import restored
from airflow_provider_events.shown import shown
from airflow_provider_events.sources.mapping import EventMapping
from airflow_provider_events.sources.rows import Mappers, in_chunks
from airflow_provider_events.values import kind

__all__ = ["LineRecords", "is_lines_uri"]

_LONG_NUMBER = re.compile(rb"\d{19}")
MOST_MAPPINGS = 100
EVENT_FIELDS = {"name", "identity"}


def is_lines_uri(text: str) -> bool:
    """Whether a text names a JSON Lines file."""
    return text.endswith(".jsonl") and "\n" not in text


class LineRecords:
    """The lines of a file as records; the line numbers are the row numbers.

    :param uri: local path, or URI of Airflow's object storage.
    :param vendor: connection type to which they go; rejected events of another vendor are refused.
    :param mapping: makes events of rows: of lines that are plain rows, and of rejected rows that never became an
        event. Default: for these the one under which they were rejected.
    :raises ConfigurationError: (from `records`) the file is not there, of another vendor, or of a later schema.
    """

    cursor = None
    keyed = False

    def __init__(self, uri: str, vendor: str, mapping: EventMapping | None = None) -> None:
        self._uri = uri
        self.uri = str(ObjectStoragePath(uri)).removeprefix("file://")
        self._vendor = vendor
        self._given = None if mapping is None else Mappers(mapping)
        self._kept: dict[str, Mappers] = {}

    def keys(self, records: Sequence[Record]) -> None:
        """None: there is no key column."""

    def records(self, after: Any = None, first_row: int = 1) -> Iterator[Sequence[Record]]:
        """All lines, in chunks of 500."""
        with self._opened() as stream:
            first = self._first(stream.readline())
            numbered = enumerate(chain([first], iter(stream.readline, b"")), start=first_row)
            lines = ((row, line) for row, line in numbered if line.strip())
            if self._given is None:
                yield from in_chunks(self._record(row, line) for row, line in lines)
                return
            for chunk in in_chunks(lines):
                if (rows := _plain_rows(line for _, line in chunk)) is not None:
                    yield from self._given.records(zip((row for row, _ in chunk), rows, strict=True))
                else:
                    yield from in_chunks(self._record(row, line) for row, line in chunk)

    def count(self, limit: int) -> int:
        """The number of lines that hold anything, of `limit` at most."""
        with self._opened() as stream:
            return sum(1 for _ in islice(filter(bytes.strip, iter(stream.readline, b"")), limit))

    def _opened(self) -> IO[bytes]:
        try:
            stream: IO[bytes] = ObjectStoragePath(self._uri).open("rb")
        except OSError as error:
            raise ConfigurationError(f"events: cannot read {self._uri} ({type(error).__name__})") from error
        return stream

    def _first(self, line: bytes) -> bytes:
        """The first line, without a byte-order mark.

        :raises ConfigurationError: such a line begins another kind of file.
        """
        plain = line.removeprefix(BOM_UTF8)
        if plain.startswith(b"\x1f\x8b"):
            raise ConfigurationError(f"events: {self._uri} is compressed; unpack it first")
        if b"\0" in plain[:4]:
            raise ConfigurationError(f"events: {self._uri} is no UTF-8 text, but UTF-16 or binary; save it as UTF-8")
        if _begins_array(plain):
            raise ConfigurationError(
                f"events: {self._uri} is a JSON array; a .jsonl file has one event as a JSON object on each line"
            )
        return plain

    def _record(self, row: int, line: bytes) -> Record:
        fields: Any = None
        try:
            fields = _parsed(line)
            if not isinstance(fields, Mapping):
                raise InvalidEvent("line", f"has to be a JSON object, not {kind(fields)}")
            if not _was_rejected(fields):
                return self._made(row, fields, self._given)
            self._check(row, fields)
            if fields["event"] is None:
                return self._built(row, fields)
            return Record(row, Event.from_dict(fields["event"]), fields.get("data"))
        except ValueError as error:
            fault = error if isinstance(error, InvalidEvent) else InvalidEvent("line", "is not JSON")
            return Record(row, None, _kept(fields), fault)

    def _check(self, row: int, line: Mapping[str, Any]) -> None:
        version, vendor = line["version"], line.get("vendor")
        if type(version) is not int or version > REJECTED_SCHEMA:
            raise ConfigurationError(
                f"events: line {row} of {self._uri} is of schema version {shown(version)}; "
                f"this release reads up to {REJECTED_SCHEMA}"
            )
        if vendor != self._vendor:
            raise ConfigurationError(
                f"events: line {row} of {self._uri} was rejected by {shown(vendor)!r}; this connection leads to "
                f"{self._vendor!r}, whose identities and rules are others"
            )

    def _built(self, row: int, line: Mapping[str, Any]) -> Record:
        """A rejected row that never became an event, as it reads now."""
        data, kept = line.get("data"), line.get("mapping")
        if not isinstance(data, Mapping):
            raise InvalidEvent("data", "there is nothing to make an event of: correct the row where it comes from")
        mappers = self._given or (None if kept is None else self._mappers(kept))
        if mappers is None and not EVENT_FIELDS & data.keys():
            raise InvalidEvent(
                "event", "the row never became an event: correct it where it comes from, or give a mapping"
            )
        values, fault = restored(data, line.get("types", {}))
        if fault is not None:
            return Record(row, None, values, fault, mappers.text if mappers else None)
        return self._made(row, values, mappers)

    def _mappers(self, kept: Any) -> Mappers:
        try:
            text = orjson.dumps(kept, option=orjson.OPT_SORT_KEYS).decode()
            if text not in self._kept:
                if len(self._kept) >= MOST_MAPPINGS:
                    self._kept.clear()
                self._kept[text] = Mappers(EventMapping.of(kept), strict=False)
        except MappingError as error:
            raise InvalidEvent("mapping", str(error)) from None
        return self._kept[text]

    def _made(self, row: int, values: Mapping[str, Any], mappers: Mappers | None) -> Record:
        """A record of what a line holds: a row with a mapping, else the fields of an event."""
        if mappers is not None:
            return mappers.record(row, values)
        try:
            return Record(row, Event.from_dict(values))
        except InvalidEvent as fault:
            return Record(row, None, values, fault)


def _plain_rows(lines: Iterable[bytes]) -> list[Mapping[str, Any]] | None:
    """What the lines hold; None where one of them is no row, or one that was rejected."""
    try:
        rows = list(map(_parsed, lines))
    except ValueError:
        return None
    return None if any(not isinstance(row, Mapping) or _was_rejected(row) for row in rows) else rows


def _was_rejected(data: Mapping[str, Any]) -> bool:
    """Whether a line is that of a rejected event, not an event."""
    return "version" in data and "event" in data


def _begins_array(line: bytes) -> bool:
    """Whether all events of a file are in one array, on this line or from this line on."""
    if not line.lstrip().startswith(b"["):
        return False
    try:
        return any(isinstance(value, Mapping) for value in orjson.loads(line))
    except ValueError:
        return True


def _kept(data: Any) -> Mapping[str, Any] | None:
    """What a line that becomes no event leaves for the file of rejected events."""
    if not isinstance(data, Mapping):
        return None
    held = (data.get("data") if data["event"] is None else data["event"]) if _was_rejected(data) else data
    return held if isinstance(held, Mapping) else None


def _parsed(line: bytes) -> Any:
    """A line's value; whole numbers of any size stay what they are.

    :raises ValueError: it is no JSON.
    """
    line = line.removeprefix(BOM_UTF8)  # files that were put together have several
    if not _LONG_NUMBER.search(line):
        return orjson.loads(line)
    orjson.loads(line)  # the stricter of the two, but it makes floats of large integers
    return json.loads(line)
