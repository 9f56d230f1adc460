"""Reading a source from its beginning, or from where an earlier try came to."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any, Protocol

from tenacity import Retrying, before_sleep_log, retry_if_not_exception_type, stop_after_attempt, wait_exponential

from airflow_provider_events.delivery.checkpoint import Checkpoint, CheckpointStore, OpenRows
from airflow_provider_events.delivery.encoding import Chunk, EncodedRow
from airflow_provider_events.delivery.offsets import Digest, Settled
from airflow_provider_events.delivery.options import SourceChangedPolicy
from airflow_provider_events.events import Record
from airflow_provider_events.exceptions import SourceChanged

__all__ = ["Resumable", "Source", "SourceCursor", "load"]

log = logging.getLogger(__name__)


# Five attempts in 15 seconds; content that is damaged stays so.
patiently = Retrying(
    stop=stop_after_attempt(5),
    wait=wait_exponential(max=8),
    retry=retry_if_not_exception_type(ValueError),
    before_sleep=before_sleep_log(log, logging.WARNING),
    reraise=True,
)


class SourceCursor(Protocol):
    """Where a source begins, kept from run to run: behind what was settled."""

    @property
    def excluded(self) -> int:
        """Rows that are counted as skipped, and not read."""

    def settled(self, rows: Settled) -> None:
        """Take note of the rows that need not be sent again; with each checkpoint, seconds apart, and at the end.

        Not on the thread that reads. A row that is in no gap is never in one later.

        :raises CursorNotMoved: this could not be kept. While the delivery runs, that is a warning.
        :raises CursorError: the delivery must not go on.
        """


class Source(Protocol):
    """Records that can be read again. One that knows how many there are says so by an attribute `total`."""

    @property
    def cursor(self) -> SourceCursor | None:
        """What keeps its place from run to run: `records` then begins behind what was settled, for a retry as well."""

    @property
    def keyed(self) -> bool:
        """Whether `records` can start behind a key."""

    def keys(self, records: Sequence[Record]) -> Sequence[Any] | None:
        """The key of each record of a chunk; None without a key column."""

    def count(self, limit: int) -> int | None:
        """The number of records, not counted beyond `limit`; None where they would have to be read for good."""

    def records(self, after: Any = None, first_row: int = 1) -> Iterator[Sequence[Record]]:
        """All records, or those behind the key `after`, numbered from `first_row`."""


class Resumable:
    """The prepared rows of a source; with a checkpoint, those without an outcome.

    Rows are only passed over after they proved to be the ones that were taken: by their digest, or by their key.

    :param prepare: validates and encodes records.
    :param on_restart: called before the first row where the checkpoint turns out to be of another source.
    :raises SourceChanged: it does, and the policy is `"fail"`.
    """

    def __init__(
        self,
        source: Source,
        prepare: Callable[[Iterator[Sequence[Record]]], Generator[Chunk, None, None]],
        start: Checkpoint | None,
        policy: SourceChangedPolicy,
        on_restart: Callable[[], None],
    ) -> None:
        self._source = source
        self._prepare = prepare
        self._start = start
        self._policy = policy
        self._on_restart = on_restart
        self._reset(start)

    def _reset(self, start: Checkpoint | None) -> None:
        self.digest = Digest()
        self.taken: tuple[int, Any] = (start.position, start.last_key) if start else (0, None)
        self.before_open = start.before_open if start else (0, None)
        groups = start.open if start else ()
        self._groups = {row: group for group in groups for rows in group for row in range(rows.first, rows.last + 1)}

    def group(self, row: int) -> tuple[OpenRows, ...]:
        """See `Chunks.group`."""
        return self._groups.get(row, ())

    def __iter__(self) -> Iterator[Chunk]:
        opened: list[Generator[Chunk, None, None]] = []

        def read(after: Any = None, first_row: int = 1) -> Iterator[Chunk]:
            opened.append(self._prepare(self._source.records(after, first_row)))
            return opened[-1]

        try:
            yield from self._chunks(read)
        finally:
            for rows in opened:
                rows.close()

    def _chunks(self, read: Callable[..., Iterator[Chunk]]) -> Iterator[Chunk]:
        start = self._start
        if start is not None and self._source.cursor is not None:
            self.digest = Digest(start.digest)
            yield from read(None, start.position + 1)
            return
        if start is not None:
            try:
                by_key = self._source.keyed and start.last_key is not None  # keys of odd types are not kept
                again, new = self._by_key(read, start) if by_key else self._by_digest(read, start)
            except SourceChanged as error:
                if self._policy == "fail":
                    raise
                log.warning("%s; starting over from the first row", error)
                self._reset(None)
                self._on_restart()
            else:
                yield again
                yield from new
                return
        yield from read()

    def _by_digest(self, read: Callable[..., Iterator[Chunk]], start: Checkpoint) -> tuple[Chunk, Iterator[Chunk]]:
        """The rows that were left open, and those behind the checkpoint, after reading up to it once more."""
        chunks = read()
        again: list[EncodedRow] = []
        new: list[Chunk] = []
        reached = 0
        while reached < start.position and (chunk := next(chunks, None)) is not None:
            passed = bisect_right(chunk.rows, start.position)
            self.digest.update(chunk.part(0, passed).digested())
            again += [chunk.row(at) for at, row in enumerate(chunk.rows[:passed]) if row in self._groups]
            new = [chunk.part(passed, len(chunk))]
            reached = chunk.rows[-1] if chunk else reached
        if self.digest.hexdigest() != start.digest:
            raise SourceChanged("the source's first rows are not those that an earlier try took")
        return Chunk.of(again), chain(new, chunks)

    def _by_key(self, read: Callable[..., Iterator[Chunk]], start: Checkpoint) -> tuple[Chunk, Iterator[Chunk]]:
        """The same, found by their keys: rows may have come or gone in between."""
        number, key = start.before_open
        before = read(key, number + 1) if start.open else iter(())
        rows = islice(chain.from_iterable(before), start.position - number)
        again: list[EncodedRow] = []
        for open_rows in chain.from_iterable(start.open):
            row = next((row for row in rows if row.key == open_rows.first_key), None)
            for number in range(open_rows.first, open_rows.last + 1):
                if row is None:
                    raise SourceChanged("rows that an earlier try left open are no longer in the source")
                again.append(numbered(row, number))
                last_key = row.key
                row = next(rows, None) if number < open_rows.last else None
            if last_key != open_rows.last_key:
                raise SourceChanged("between the rows that an earlier try left open there are others now")
        self.digest = Digest(start.digest)
        return Chunk.of(again), read(start.last_key, start.position + 1)


def numbered(row: EncodedRow, number: int) -> EncodedRow:
    """The row under the number that it had in an earlier try."""
    rejection = row.rejection and replace(row.rejection, row=number)
    return row._replace(row=number, record=row.record._replace(row=number), rejection=rejection)


def load(store: CheckpointStore, fingerprint: str, policy: SourceChangedPolicy) -> Checkpoint | None:
    """The checkpoint to go on from. One that is damaged, or cannot be read for 15 seconds, is a fresh start.

    :raises SourceChanged: it is of another query, mapping or options, and the policy is `"fail"`.
    """
    try:
        saved = patiently(store.load)
        if saved is None:
            return None
        checkpoint = Checkpoint.from_dict(saved)
        if not checkpoint.position:
            return None
    except Exception as error:  # whatever the store or its content is like, it must never stop a delivery
        log.warning(
            "the checkpoint of the earlier try cannot be used (%s: %s); starting over", type(error).__name__, error
        )
        return None
    if checkpoint.fingerprint != fingerprint:
        changed = "query, mapping or options are not those of the earlier try"
        if policy == "fail":
            raise SourceChanged(changed)
        log.warning("%s; starting over from the first row", changed)
        return None
    log.info("going on behind row %d, to which an earlier try came", checkpoint.position)
    return checkpoint
