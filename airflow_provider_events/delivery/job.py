"""One delivery from records to a report, on an event loop with a thread of its own.

The calling thread only waits, so that signals and Airflow's timeouts reach it at once; it then stops the loop, which
drains what is in flight.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from math import ceil

from airflow_provider_events.contract import Codec
from airflow_provider_events.delivery.accounts import Ledger
from airflow_provider_events.delivery.checkpoint import Checkpoint, CheckpointStore
from airflow_provider_events.delivery.checkpoint_writer import LAST_SAVE_SECONDS, CheckpointWriter
from airflow_provider_events.delivery.dead_letter import DeadLetterFile
from airflow_provider_events.delivery.encoding import Chunk, at_its_time, prepare
from airflow_provider_events.delivery.engine import Engine
from airflow_provider_events.delivery.observers import DeliveryObserver, Observers
from airflow_provider_events.delivery.options import DeliveryOptions, Limits
from airflow_provider_events.delivery.pacing import RateLimiter, RetryPolicy
from airflow_provider_events.delivery.pending import PendingEvents
from airflow_provider_events.delivery.progress import Meter
from airflow_provider_events.delivery.resume import Resumable, Source, load
from airflow_provider_events.delivery.row_limits import RowLimit, check_row_count
from airflow_provider_events.delivery.runtime import few_collections, on_own_loop
from airflow_provider_events.events import DeliveryReport
from airflow_provider_events.exceptions import (
    ConfigurationError,
    CursorNotMoved,
    DeliveryInterrupted,
    EventsError,
    RejectedNotWritten,
)
from airflow_provider_events.http.contract import Transport
from airflow_provider_events.redaction import Redactor

__all__ = ["Delivery", "Plan"]

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 5.0
MAX_SHOWN_BYTES = 4000
MOST_ROWS = 10**15


@dataclass(frozen=True, slots=True)
class Plan:
    """How one delivery is to be done.

    :param vendor: connection type, for the report; `conn_id`: the connection, likewise.
    :param sent_at: the time of events that have none.
    :param fingerprint: of query, mapping and options: a checkpoint of another one is not continued.
    :param rate_limiter: keeps the quota, alone or together with others.
    :param retry_policy: how long to go on when answers fail.
    :param redactor: knows the secrets that no answer may repeat.
    """

    vendor: str
    options: DeliveryOptions
    limits: Limits
    sent_at: datetime
    fingerprint: str = ""
    conn_id: str = ""
    rate_limiter: RateLimiter = field(default_factory=RateLimiter)
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    redactor: Redactor = field(default_factory=Redactor, repr=False)


class Delivery:
    """A delivery that can be run once.

    :param codec: the vendor.
    :param open_transport: gives the transport to use, not yet entered.
    :param observers: are told how it goes.
    :param dead_letters: where rejected events go; None for nowhere.
    :param store: keeps the checkpoint; None for none.
    :param pending: takes rejected events that the next run is to offer again; None for none.
    """

    def __init__(
        self,
        codec: Codec,
        open_transport: Callable[[], Transport],
        plan: Plan,
        observers: Iterable[DeliveryObserver] = (),
        dead_letters: DeadLetterFile | None = None,
        store: CheckpointStore | None = None,
        pending: PendingEvents | None = None,
    ) -> None:
        self._codec = codec
        self._open_transport = open_transport
        self._plan = plan
        self._observers = Observers(observers)
        self._dead_letters = dead_letters
        self._store = None if plan.options.dry_run else store
        self._pending = pending
        self._ledger = Ledger(plan.vendor, dead_letters, plan.conn_id, pending)
        self._stopped = threading.Event()
        self._ended: DeliveryReport | None = None
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, source: Source) -> DeliveryReport:
        """Deliver everything.

        :raises DeliveryError: the delivery stopped early.
        :raises SourceError: the rows could not be read any further; what had been read is delivered.

        Each has the report so far as its `report`.
        """
        options, failed = self._plan.options, True
        if source.cursor is not None:
            self._ledger.keep_place(source.cursor.excluded)
        try:
            if options.max_rows is not None:
                check_row_count(
                    source, [RowLimit(options.max_rows, "max_rows", "max_rows")], "raise max_rows to {rows}"
                )
            if options.dry_run:
                with closing(prepare(source.records(), self._codec, self._plan.sent_at, source.keys)) as prepared:
                    self._rehearse(prepared)
            else:
                policy = options.on_source_changed
                start = load(self._store, self._plan.fingerprint, policy) if self._store else None
                if start is not None and self._dead_letters is not None:
                    self._dead_letters.adopt(start)
                if start is not None and source.cursor is not None:
                    start = start.without_open()
                canary = self._canary(source)
                with few_collections():
                    on_own_loop(lambda: self._deliver(source, start, canary), self.stop)
            failed = False
            report = self._ended = self._ledger.report()
            if report.unsent and not options.dry_run:
                raise EventsError(f"the accounts do not close: {report.unsent} of {report.read} have no outcome")
            options.check_rejections(report)
            return report
        except EventsError as error:
            error.report = self._ended = self.report()
            raise
        finally:
            self._ended = report = self.report()
            if report.read or report.requests or not failed:
                self._observers.finished(report, self._ledger.examples)
            self._observers.close()

    def report(self) -> DeliveryReport:
        """The accounts as they stand, or as they stood at the end."""
        return self._ended or self._ledger.report()

    def stop(self) -> None:
        """Stop soon, from any thread or a signal handler; `run` then raises `DeliveryInterrupted`."""
        self._stopped.set()
        loop, engine = self._loop, self._engine
        if loop is not None and engine is not None and not loop.is_closed():
            loop.call_soon_threadsafe(engine.stop)

    async def _deliver(self, source: Source, start: Checkpoint | None, canary: int) -> None:
        plan, ledger = self._plan, self._ledger
        sent_at = start.sent_at if start else plan.sent_at
        ledger.reset(start)
        if self._pending is not None:
            self._pending.sent_as = lambda event: at_its_time(event, self._codec, sent_at)
        checkpoint_writer = CheckpointWriter(
            self._store,
            self._dead_letters,
            self._pending,
            source.cursor,
            partial(ledger.checkpoint, plan.fingerprint, sent_at),
            ledger.settled,
            ledger.offsets.gap_count,
        )
        rows = Resumable(
            source,
            lambda records: prepare(records, self._codec, sent_at, source.keys),
            start,
            plan.options.on_source_changed,
            self._restart,
        )
        async with self._open_transport() as transport:
            self._engine = engine = Engine(
                self._codec,
                transport,
                ledger,
                plan.limits,
                plan.options,
                rate_limiter=plan.rate_limiter,
                policy=plan.retry_policy,
                redactor=plan.redactor,
                canary=canary,
            )
            self._loop = asyncio.get_running_loop()
            if self._stopped.is_set():
                engine.stop()
            saving = asyncio.create_task(checkpoint_writer.keep_saving(lambda error: engine.fail(not_saved(error))))
            meter = Meter(
                plan.vendor, plan.conn_id, plan.rate_limiter.requests_per_minute, lambda: getattr(source, "total", None)
            )
            telling = asyncio.create_task(self._keep_telling(meter))
            completed = False
            try:
                await engine.run(rows)
                completed = True
            finally:
                telling.cancel()
                saving.cancel()
                self._observers.progress(meter.read(ledger.counters).at_end())
                await self._save_last(checkpoint_writer, completed, source.cursor is not None)

    async def _keep_telling(self, meter: Meter) -> None:
        """Tell the observers every five seconds until cancelled."""
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            self._observers.progress(meter.read(self._ledger.counters))

    def _canary(self, source: Source) -> int:
        """Number of the last row of those that go first; 0 without any.

        :raises ConfigurationError: it is a share of rows that cannot be counted.
        """
        canary = self._plan.options.canary
        if isinstance(canary, float):
            total = source.count(MOST_ROWS)
            if total is None:
                raise ConfigurationError(
                    "canary: a share needs a source that can be counted before it is read: a list, a file or a query; "
                    "give a number of rows"
                )
            canary = ceil(canary * total)
        return canary or 0

    async def _save_last(self, checkpoint_writer: CheckpointWriter, completed: bool, has_cursor: bool) -> None:
        """The checkpoint at the end, the rejected rows, and the source's cursor."""
        try:
            await asyncio.wait_for(checkpoint_writer.save(completed=completed), LAST_SAVE_SECONDS)
            if self._dead_letters is not None:
                self._dead_letters.close()
        except TimeoutError:
            log.warning("the last checkpoint was not saved in %d s", LAST_SAVE_SECONDS)
            if completed and has_cursor:
                words = f"delivered, cursor not moved: its store gave no answer in {LAST_SAVE_SECONDS:g} s"
                raise CursorNotMoved(words) from None
        except OSError as error:
            raise not_saved(error) from error
        finally:
            checkpoint_writer.close()

    def _restart(self) -> None:
        """The source is not the one that the checkpoint describes: nothing of it counts."""
        self._ledger.reset()
        if self._dead_letters is not None:
            self._dead_letters.discard()

    def _rehearse(self, chunks: Iterator[Chunk]) -> None:
        ledger, wanted = self._ledger, self._plan.limits.batch_size
        first: list[bytes] = []
        for chunk in chunks:
            if self._stopped.is_set():
                raise DeliveryInterrupted("the dry run was stopped")
            ledger.took(len(chunk))
            for at, rejection in chunk.rejections.items():
                ledger.rejected(chunk.records[at], rejection)
            if len(first) < wanted:
                first += [fragment for fragment in chunk.fragments if fragment][: wanted - len(first)]
        if first:
            request = self._codec.request(first)
            body = (request.body or b"")[:MAX_SHOWN_BYTES].decode(errors="replace")
            words = "dry run, nothing was sent; the first request would be: %s %s %s"
            log.info(words, request.method, request.path, body)


def not_saved(error: Exception) -> EventsError:
    """Why a save ends the delivery: rejected rows cannot be stored, or store or cursor say so themselves."""
    if isinstance(error, EventsError):
        return error
    return RejectedNotWritten(f"rejected events cannot be written ({type(error).__name__}: {error})")
