"""Saves where a delivery stands, while it runs and at its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from airflow_provider_events.delivery.checkpoint import Checkpoint, CheckpointStore
from airflow_provider_events.delivery.dead_letter import DeadLetterFile
from airflow_provider_events.delivery.offsets import Settled
from airflow_provider_events.delivery.pending import PendingEvents
from airflow_provider_events.delivery.resume import SourceCursor
from airflow_provider_events.exceptions import CursorNotMoved, DeliveryInterrupted, EventsError

__all__ = ["LAST_SAVE_SECONDS", "CheckpointWriter"]

log = logging.getLogger(__name__)

SAVE_SECONDS = 2.0
MAX_OPEN_PLACES = 5000
LAST_SAVE_SECONDS = 20.0


class CheckpointWriter:
    """Saves where the delivery stands every two seconds and at the end, on a thread of its own.

    Rejected rows are brought to their file first, so that neither cursor nor checkpoint ever claims more than the file
    holds.

    :param pending: rejected rows that are kept for the next run, brought to their file likewise.
    :param cursor: of the source, which is told what is settled; None for none.
    :param checkpoint: where it stands now; called on the event loop. So too `settled`.
    :param gap_count: how many places a checkpoint would have to name; past 5,000 only the last one is saved.
    """

    def __init__(
        self,
        store: CheckpointStore | None,
        dead_letters: DeadLetterFile | None,
        pending: PendingEvents | None,
        cursor: SourceCursor | None,
        checkpoint: Callable[[], Checkpoint],
        settled: Callable[..., Settled],
        gap_count: Callable[[], int],
    ) -> None:
        self._store = store
        self._dead_letters = dead_letters
        self._pending = pending
        self._cursor = cursor
        self._checkpoint = checkpoint
        self._settled = settled
        self._gap_count = gap_count
        self._thread = ThreadPoolExecutor(1, "events-checkpoint")
        self._complained = False
        self._told_of_cursor = False

    async def keep_saving(self, on_error: Callable[[Exception], None]) -> None:
        """Save every two seconds until cancelled; an error of rejected file or cursor goes to `on_error`."""
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            try:
                await self._save_all(self._gap_count() <= MAX_OPEN_PLACES)
            except Exception as error:
                on_error(error)

    async def save(self, *, completed: bool) -> None:
        """Save at the end.

        :raises OSError: the rejected rows cannot be written.
        :raises CursorNotMoved: everything was delivered, and the next run does not know.
        """
        await self._save_all(True, ended=True, completed=completed)

    async def _save_all(self, position: bool, *, ended: bool = False, completed: bool = False) -> None:
        value = self._checkpoint().to_dict() if position and self._store is not None else None
        settled = self._settled(ended=ended, completed=completed) if position and self._cursor is not None else None
        await asyncio.get_running_loop().run_in_executor(self._thread, self._save, value, settled, completed)

    def close(self) -> None:
        """No more saves."""
        self._thread.shutdown(wait=False)

    def _save(self, value: dict[str, Any] | None, settled: Settled | None, completed: bool) -> None:
        not_moved = None
        if self._dead_letters is not None:
            self._dead_letters.flush()
        if self._pending is not None:
            self._pending.flush()
        if self._cursor is not None and settled is not None:
            not_moved = self._move(self._cursor, settled)
        if self._store is not None and value is not None:
            self._keep(self._store, value, completed and not_moved is None)
        if not_moved is not None:
            raise not_moved

    def _move(self, cursor: SourceCursor, settled: Settled) -> EventsError | None:
        """Why the delivery has to end, or to be called a failure; None where it fails already."""
        try:
            cursor.settled(settled)
        except EventsError as error:
            if settled.completed or not (settled.ended or isinstance(error, CursorNotMoved)):
                return error
            if settled.ended or not self._told_of_cursor:
                self._told_of_cursor = True
                log.warning("%s", error)
        return None

    def _keep(self, store: CheckpointStore, value: dict[str, Any], completed: bool) -> None:
        try:
            store.save(value, completed=completed)
        except DeliveryInterrupted:
            raise
        except Exception as error:  # a state store that is down must not stop a delivery
            if not self._complained:
                log.warning("the checkpoint cannot be saved (%s); a retry may start over", type(error).__name__)
            self._complained = True
