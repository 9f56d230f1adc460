"""Pending events of a task, in a folder of its own; and what a run does with those of the runs before it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from airflow_provider_events.delivery.pending import PendingEvents, PendingRecords
from airflow_provider_events.exceptions import ConfigurationError, DeliveryError, TooManyRejected
from airflow_provider_events.hooks.files import StoredFile, stored_file

if TYPE_CHECKING:
    from airflow_provider_events.delivery.options import DeliveryOptions
    from airflow_provider_events.hooks.base import EventsHook

__all__ = ["PendingFolder", "offer_pending"]

log = logging.getLogger(__name__)

ENDING = ".jsonl"


class PendingFolder:
    """The files of one task; see `PendingStorage`.

    :param path: local path, or URI of Airflow's object storage.
    :param name: of the task, a folder or folders below it.
    :raises ConfigurationError: nothing can be written there.
    """

    def __init__(self, path: str, name: str) -> None:
        self._path = path
        self._name = name
        probe = self._file(f".{uuid4().hex}.new")
        try:
            probe.replace(b"")
            probe.remove()
        except Exception as error:  # each store has errors of its own
            raise ConfigurationError(f"pending_path: cannot write {path} ({type(error).__name__})") from error

    def add(self, data: bytes) -> None:
        """See `PendingStorage.add`."""
        self._file(f"{time.time_ns():020}-{uuid4().hex}{ENDING}").replace(data)

    def parts(self) -> Sequence[StoredFile]:
        """See `PendingStorage.parts`."""
        names = [name for name in self._file("none").names_beside() if name.endswith(ENDING)]
        return [self._file(name) for name in sorted(names) if not name.startswith(".")]

    def _file(self, name: str) -> StoredFile:
        return stored_file(self._path, f"{self._name}/{name}")


def offer_pending(
    hook: EventsHook,
    folder: PendingFolder,
    options: DeliveryOptions,
    max_age: timedelta,
    *,
    rejected_path: str | None = None,
    rejected_name: str | None = None,
    sent_at: datetime | None = None,
) -> PendingEvents:
    """Deliver what earlier runs have left; gives what takes the events that this run leaves, and what was healed.

    :param options: of the delivery that follows. Who is still missing is not waited for.
    :raises DeliveryError: as from a delivery; what has no outcome stays pending.
    """
    kept = PendingEvents(folder, hook.conn_type)
    offered = PendingRecords(folder, hook.conn_type, max_age)
    if not offered:
        return kept
    again = PendingEvents(folder, hook.conn_type, offered.since)
    each = replace(
        options,
        on_missing_entry="reject",
        max_rejected=2**63 - 1,
        max_rows=None,
        canary=None,
        canary_max_rejected=0,
    )
    report = None
    try:
        report = hook.deliver_source(
            offered, each, rejected_path=rejected_path, rejected_name=rejected_name, sent_at=sent_at, pending=again
        )
    except TooManyRejected as error:  # none of them was delivered
        report = error.report
    except DeliveryError as error:
        error.args = (f"pending events of earlier runs: {error}", *error.args[1:])
        raise
    if report is not None:
        kept.healed, kept.expired = report.delivered, report.rejected - report.pending
        log.info(
            "pending events of earlier runs: %d delivered, %d given up, %d still wait",
            kept.healed,
            kept.expired,
            report.pending,
        )
    return kept
