"""Reading a source from its beginning, or from where an earlier try came to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from airflow_provider_events.delivery.checkpoint import Checkpoint, CheckpointStore, Digest
from airflow_provider_events.delivery.feed import Prepared, row_bytes
from airflow_provider_events.delivery.options import SourceChangedPolicy
from airflow_provider_events.delivery.sinks import RejectedSink
from airflow_provider_events.events import Record
from airflow_provider_events.exceptions import SourceChanged

__all__ = ["Checkpointer", "Resumable", "Source", "load"]

log = logging.getLogger(__name__)

SAVE_SECONDS = 2.0
LAST_SAVE_SECONDS = 20.0


class Source(Protocol):
    """Records that can be read again.

    :param keyed: rows have a key to start behind.
    """

    @property
    def keyed(self) -> bool:
        """Whether `records` can start behind a key."""

    def key(self, record: Record) -> Any:
        """The key of a record; None without a key column."""

    def records(self, after: Any = None, first_row: int = 1) -> Iterator[Sequence[Record]]:
        """All records, or those behind the key `after`, numbered from `first_row`."""


class Resumable:
    """The prepared rows of a source; with a checkpoint, those that it does not settle.

    Rows are only passed over after they proved to be the ones that were settled: by their digest, or by their key.

    :param prepare: validates and encodes records.
    :param on_resumed: called before the first row once the rows before it have proved right; or
    :param on_restart: called before the first row where the checkpoint turns out to be of another source.
    :raises SourceChanged: it does, and the policy is `"fail"`.
    """

    def __init__(
        self,
        source: Source,
        prepare: Callable[[Iterator[Sequence[Record]]], Iterator[Sequence[Prepared]]],
        start: Checkpoint | None,
        policy: SourceChangedPolicy,
        on_resumed: Callable[[Checkpoint], None],
        on_restart: Callable[[], None],
    ) -> None:
        self._source = source
        self._prepare = prepare
        self._start = start
        self._policy = policy
        self._on_resumed = on_resumed
        self._on_restart = on_restart
        self.digest = Digest()
        self.settled: tuple[int, Any] = (start.position, start.last_key) if start else (0, None)

    def key(self, record: Record) -> Any:
        """See `Source.key`."""
        return self._source.key(record)

    def __iter__(self) -> Iterator[Sequence[Prepared]]:
        start = self._start
        if start is not None:
            rows = self._prepare(self._reopened(start))
            try:
                behind = self._pass_over(rows, start)
            except SourceChanged as error:
                if self._policy == "fail":
                    raise
                log.warning("%s; starting over from the first row", error)
                self.digest, self.settled = Digest(), (0, None)
                self._on_restart()
            else:
                self._on_resumed(start)
                yield behind
                yield from rows
                return
        yield from self._prepare(self._source.records())

    def _reopened(self, start: Checkpoint) -> Iterator[Sequence[Record]]:
        if not self._source.keyed:
            return self._source.records()
        row, key = start.held_after if start.held else (start.position, start.last_key)
        return self._source.records(key, row + 1)

    def _pass_over(self, rows: Iterator[Sequence[Prepared]], start: Checkpoint) -> list[Prepared]:
        """Read up to the checkpoint; returns the held rows before it, and the rest of the chunk behind it."""
        held: list[Prepared] = []
        digest = Digest(start.digest if self._source.keyed else "")
        at = 0
        if self._source.keyed:
            at = start.held_after[0] if start.held else start.position
        behind: list[Prepared] = []
        while at < start.position and (chunk := next(rows, None)) is not None:
            for entry in chunk:
                at = entry.record.row
                if at > start.position:
                    behind.append(entry)
                    continue
                if not self._source.keyed:
                    digest.update(row_bytes(entry))
                if at in start.held:
                    held.append(entry)
        if at < start.position:
            raise SourceChanged("the source has fewer rows than an earlier try settled")
        if not self._source.keyed and digest.hexdigest() != start.digest:
            raise SourceChanged("the source's first rows are not those that an earlier try settled")
        if len(held) != len(start.held):
            raise SourceChanged("rows that waited for their entry are no longer in the source")
        self.digest = digest
        return held + behind


def load(store: CheckpointStore, fingerprint: str, policy: SourceChangedPolicy) -> Checkpoint | None:
    """The checkpoint to go on from. One that cannot be read or is damaged is a warning and a fresh start.

    :raises SourceChanged: it is of another query, mapping or options, and the policy is `"fail"`.
    """
    try:
        saved = store.load()
        if saved is None:
            return None
        checkpoint = Checkpoint.from_dict(saved)
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
    log.info("going on behind row %d, which an earlier try settled", checkpoint.position)
    return checkpoint


class Checkpointer:
    """Saves the settled prefix every two seconds and at the end, on a thread of its own.

    Rejected rows are brought to their file first, so that no checkpoint ever claims more than the file holds.

    :param checkpoint: the prefix as it is now; called on the event loop.
    """

    def __init__(
        self, store: CheckpointStore | None, sink: RejectedSink | None, checkpoint: Callable[[], Checkpoint]
    ) -> None:
        self._store = store
        self._sink = sink
        self._checkpoint = checkpoint
        self._thread = ThreadPoolExecutor(1, "events-checkpoint")
        self._complained = False

    async def keep_saving(self, on_error: Callable[[Exception], None]) -> None:
        """Save every two seconds until cancelled; an error of the rejected file goes to `on_error`."""
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            try:
                await self.save()
            except Exception as error:
                on_error(error)

    async def save(self, *, completed: bool = False) -> None:
        """Save now.

        :raises OSError: the rejected rows cannot be written.
        """
        value = self._checkpoint().to_dict() if self._store else {}
        await asyncio.get_running_loop().run_in_executor(self._thread, self._save, value, completed)

    def close(self) -> None:
        """No more saves."""
        self._thread.shutdown(wait=False)

    def _save(self, value: dict[str, Any], completed: bool) -> None:
        if self._sink is not None:
            self._sink.flush()
        if self._store is None:
            return
        try:
            self._store.save(value, completed=completed)
        except Exception as error:  # a state store that is down must not stop a delivery
            if not self._complained:
                self._complained = True
                log.warning("the checkpoint cannot be saved (%s); a retry may start over", type(error).__name__)
