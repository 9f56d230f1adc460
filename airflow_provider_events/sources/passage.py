"""Rows of a cursor on their way: which were read, which are settled, and which a later run has to know."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from xxhash import xxh3_128_digest

from airflow_provider_events.sources.cursor_state import DIGEST_BYTES, Position
from airflow_provider_events.sources.mapping import EventMapping

__all__ = ["Part", "Passage", "RowDigests"]


class Passage:
    """Rows that were read, in order, until it is known what became of them; and which of them a later run has to know.

    :param behind: gives the value from which on rows are read again, for the one of the last row.
    :param strictly: whether rows of the settled prefix are never read again.
    """

    def __init__(self, behind: Callable[[Any], Any], strictly: bool) -> None:
        self._behind = behind
        self._strictly = strictly
        self._parts: deque[Part] = deque()
        self._mark: Position | None = None
        self._lock = threading.Lock()
        self._window: deque[Sequence[Any]] = deque()
        self._near = 0
        self.read = 0
        self.exhausted = False

    def near(self, values: Sequence[Any]) -> int:
        """Rows that are to be known, with these behind them: those that a run would read again which begins here."""
        if self._strictly or not values:
            return 0
        self._window.append(values)
        self._near += len(values)
        begin = self._behind(values[-1])
        while self._window[0][-1] < begin:
            self._near -= len(self._window.popleft())
        return self._near - bisect_left(self._window[0], begin)

    def add(self, part: Part) -> None:
        """Rows that were read."""
        with self._lock:
            self._parts.append(part)
            self.read += len(part.values)

    def settled(
        self, position: int, gaps: Sequence[tuple[int, int]], *, new_only: bool
    ) -> tuple[Position | None, bytes]:
        """The last row of the settled prefix, and the digests of settled rows that are to be known from now on.

        :param new_only: without those that were known before.
        """
        with self._lock:
            first_open = gaps[0][0] if gaps else position + 1
            prefix: list[tuple[Part, int]] = []
            behind: list[bytes] = []
            ends = False
            for part in self._parts:
                stop = 0 if ends else part.prefix(first_open)
                if stop:
                    prefix.append((part, stop))
                    self._mark = part.position(stop - 1)
                if stop < len(part.values):
                    ends = True
                    behind.append(part.settled(stop, position, gaps, new_only=new_only))
            sent = b""
            begin = None if self._mark is None or self._strictly else self._behind(self._mark.value)
            if begin is not None:
                sent = b"".join(part.digests_from(begin, stop, new_only=new_only) for part, stop in prefix)
            for part, stop in prefix:
                if stop < len(part.values) or not (self._strictly or part.values[-1] < begin):
                    break
                self._parts.popleft()
            return self._mark, sent + b"".join(behind)


class Part:
    """Neighbouring rows.

    :param first: number of the first one that was not passed over.
    :param values: of the cursor column; `keys`: of the second one, if there is one and it counts.
    :param digests: one behind the other.
    :param passed: positions of those that had been sent before.
    """

    def __init__(
        self, first: int, values: Sequence[Any], keys: Sequence[Any] | None, digests: bytes, passed: frozenset[int]
    ) -> None:
        self.values = values
        self._keys = keys
        self._digests = digests
        self._numbers: Sequence[int] = range(first, first + len(values))
        if passed:
            numbers = iter(range(first, first + len(values)))
            self._numbers = [0 if at in passed else next(numbers) for at in range(len(values))]

    def position(self, at: int) -> Position:
        """Of one row."""
        return Position(self.values[at], self._keys[at] if self._keys else None)

    def prefix(self, first_open: int) -> int:
        """How many rows stand before the first one that is open."""
        if isinstance(self._numbers, range):
            return min(max(first_open - self._numbers.start, 0), len(self._numbers))
        return next((at for at, number in enumerate(self._numbers) if number >= first_open), len(self._numbers))

    def digests_from(self, begin: Any, stop: int, *, new_only: bool) -> bytes:
        """Of rows from a value on, up to a position."""
        start = bisect_left(self.values, begin)
        if new_only and not isinstance(self._numbers, range):
            return b"".join(self._digest(at) for at in range(start, stop) if self._numbers[at])
        return self._digests[start * DIGEST_BYTES : stop * DIGEST_BYTES]

    def _digest(self, at: int) -> bytes:
        return self._digests[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES]

    def settled(self, start: int, position: int, gaps: Sequence[tuple[int, int]], *, new_only: bool) -> bytes:
        """Of rows from a position on that are in no gap."""
        kept = []
        for at in range(start, len(self.values)):
            number = self._numbers[at]
            if number:
                if number > position:
                    continue
                gap = bisect_right(gaps, (number, float("inf"))) - 1
                if gap >= 0 and number <= gaps[gap][1]:
                    continue
            if number or not new_only:
                kept.append(self._digest(at))
        return b"".join(kept)


class RowDigests:
    """Makes digests of what tells an event of the source from all others: its cursor and second column; or its cursor
    and its own id, with name and customer; or its cursor and all that is sent of it."""

    def __init__(self, columns: Sequence[str], cursor_columns: Sequence[str], mapping: EventMapping) -> None:
        folded = [column.lower() for column in columns]
        self.cursor, *rest = (
            list(columns).index(name) if name in columns else folded.index(name.lower()) for name in cursor_columns
        )
        self.key = rest[0] if rest else self.cursor
        mapper = mapping.bind(columns)
        own = [] if mapper.name is None else [mapper.name]
        own += [at for _, at in mapper.identity]
        if mapper.id is not None:
            own.append(mapper.id)
        else:
            own += [at for _, at in mapper.properties] + ([] if mapper.timestamp is None else [mapper.timestamp])
        self._positions = [self.cursor, self.key] if rest else [self.cursor, *own]

    def of(self, row: Sequence[Any]) -> bytes:
        """The digest of a row."""
        values = [row[at] for at in self._positions]
        try:
            text = orjson.dumps(
                values, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_NON_STR_KEYS
            )
        except TypeError:  # as of numbers of more than 64 bits
            text = repr(list(map(_plain_or_itself, values))).encode("utf-8", "surrogatepass")
        return xxh3_128_digest(text)


def _plain(value: Any) -> Any:
    """What orjson has no text for: the same for the same value, whatever the driver or the session's zone."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat() if value.tzinfo else value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    return str(value)


def _plain_or_itself(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else _plain(value)
