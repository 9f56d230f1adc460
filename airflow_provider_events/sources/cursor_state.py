"""What is kept of a cursor from run to run: the value behind which a source begins, and what was sent near it.

The value is always that of the last row of a settled prefix. Rows that were sent and may be read again (equal values,
the lookback, rows behind one that is still open) are remembered by 128-bit digests, each of them exactly.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, Self

from airflow_provider_events.exceptions import CursorError
from airflow_provider_events.row_data import dump_key, load_key

__all__ = [
    "DIGEST_BYTES",
    "MOST_IN_FILE",
    "MOST_IN_STATE",
    "CursorFiles",
    "CursorRecord",
    "CursorStore",
    "Frozen",
    "Position",
    "SentRows",
]

VERSION = 1
DIGEST_BYTES = 16
MOST_IN_STATE = 2_000
MOST_IN_FILE = 5_000_000


class CursorStore(Protocol):
    """Keeps small JSON values by name. Any error of it may be passing.

    :ivar where: it is, for people.
    """

    where: str

    def get(self, name: str) -> Any:
        """The value; None if there is none."""

    def set(self, name: str, value: Any) -> None:
        """Keep a value in the place of the last one."""


class CursorFiles(Protocol):
    """Keeps the digests that are too many for a store.

    :ivar most: how many digests one holds.
    """

    most: int

    def write(self, data: bytes) -> str:
        """Keep them; returns the name."""

    def read(self, name: str) -> bytes | None:
        """What was kept; None if it is gone."""

    def remove(self, name: str) -> None:
        """Forget them."""


class Position(NamedTuple):
    """Where a source stands in the order of its cursor columns.

    :param value: of the first of them.
    :param key: of the second; None where there is none, or where it says nothing.
    """

    value: Any
    key: Any = None


class SentRows:
    """Digests of rows; none is ever taken for another."""

    def __init__(self, digests: bytes = b"") -> None:
        self._by_beginning: dict[bytes, bytearray] = {}
        self._count = 0
        self.add_all(digests)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, digest: bytes) -> bool:
        digests = self._by_beginning.get(digest[:2])
        if digests is None:
            return False
        at = digests.find(digest)
        while at >= 0 and at % DIGEST_BYTES:
            at = digests.find(digest, at + 1)
        return at >= 0

    def add(self, digest: bytes) -> None:
        """Remember one."""
        if digest not in self:
            self._by_beginning.setdefault(digest[:2], bytearray()).extend(digest)
            self._count += 1

    def add_all(self, digests: bytes) -> None:
        """Remember those that stand one behind the other."""
        for digest in each(digests):
            self.add(digest)

    def digests(self) -> bytes:
        """All of them, one behind the other."""
        return b"".join(self._by_beginning.values())


def each(digests: bytes) -> Iterator[bytes]:
    """Digests that stand one behind the other."""
    return (digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CursorRecord:
    """A cursor as it is stored.

    :param position: of the last row of the settled prefix; its value is None before there is one.
    :param kind: what the column holds, in words: values of different kinds are not compared.
    :param since: value from which on `sent` knows all rows that were sent; None for all.
    :param generation: raised whenever a person moves the cursor.
    :param of: what it is a cursor of, by part: another query, column or connection is another sequence of rows.
    :param run: of Airflow, which wrote it.
    :param sent: digests of rows that were sent and may be read again.
    :param file: name of the file that holds them instead, if they are too many.
    :param whole: whether they are all that the next run needs to know.
    """

    position: Position
    kind: str
    generation: int
    of: Mapping[str, Any]
    run: str
    since: Any = None
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    sent: bytes = b""
    file: str | None = None
    whole: bool = True

    def __repr__(self) -> str:
        """Without values of rows."""
        return f"<CursorRecord of {self.kind}, generation {self.generation}>"

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe; of the rows no more than the two values of one of them, and digests."""
        return {
            "v": VERSION,
            "value": dump_key(self.position.value),
            "key": dump_key(self.position.key),
            "type": self.kind,
            "since": dump_key(self.since),
            "generation": self.generation,
            "of": dict(self.of),
            "run": self.run,
            "at": self.at.isoformat(timespec="microseconds"),
            "sent": b64encode(self.sent).decode("ascii"),
            "sent_file": self.file,
            "whole": self.whole,
        }

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The record that `to_dict` wrote.

        :raises CursorError: it did not write this.
        """
        try:
            if data["v"] != VERSION:
                raise ValueError("of another version")
            record = cls(
                position=Position(load_key(data["value"]), load_key(data["key"])),
                kind=str(data["type"]),
                since=load_key(data["since"]),
                generation=int(data["generation"]),
                of=dict(data["of"]),
                run=str(data["run"]),
                at=datetime.fromisoformat(data["at"]),
                sent=b64decode(data["sent"], validate=True),
                file=None if data["sent_file"] is None else str(data["sent_file"]),
                whole=bool(data["whole"]),
            )
            if len(record.sent) % DIGEST_BYTES or record.at.tzinfo is None:
                raise ValueError("not whole")
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise CursorError(
                f"what is stored is no cursor that this version reads ({type(error).__name__}); set it anew by "
                "`airflow events cursor set NAME --to VALUE`"
            ) from None
        return record


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Frozen:
    """What the first try of a run fixed for all of them.

    :param lower: where the cursor stood; its value is None where there was no row yet.
    :param upper: value up to which rows are read; None for no bound.
    :param sent: digests of rows that had been sent by then and could be read again; None if they are too many.
    :param max_tries: of the task instance, which a clear raises.
    :param finished: whether a try came to its end.
    """

    lower: Position
    upper: Any
    generation: int
    sent: bytes | None
    max_tries: int
    finished: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return {
            "v": VERSION,
            "lower": [dump_key(self.lower.value), dump_key(self.lower.key)],
            "upper": dump_key(self.upper),
            "generation": self.generation,
            "sent": None if self.sent is None else b64encode(self.sent).decode("ascii"),
            "max_tries": self.max_tries,
            "finished": self.finished,
        }

    @classmethod
    def from_dict(cls, data: Any) -> Self | None:
        """What `to_dict` wrote; None for anything else."""
        try:
            if data["v"] != VERSION:
                return None
            value, key = data["lower"]
            return cls(
                lower=Position(load_key(value), load_key(key)),
                upper=load_key(data["upper"]),
                generation=int(data["generation"]),
                sent=None if data["sent"] is None else b64decode(data["sent"], validate=True),
                max_tries=int(data["max_tries"]),
                finished=bool(data["finished"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
            return None
