"""A bounded window of requests in flight: batches out, outcomes in, every row accounted for.

The engine is told how to write requests and how to read answers (`Codec`); it knows no vendor and no Airflow.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

from airflow_provider_events.contract import Answer, Codec, Outcome, Verdict
from airflow_provider_events.delivery.accounts import Ledger
from airflow_provider_events.delivery.batching import (
    Batch,
    ContiguousFeed,
    Feed,
    Prefetcher,
)
from airflow_provider_events.delivery.deferred import DeferredQueue
from airflow_provider_events.delivery.offsets import Slice
from airflow_provider_events.delivery.options import DeliveryOptions, Limits
from airflow_provider_events.delivery.ordering import OrderedFeed, identity_of
from airflow_provider_events.delivery.pacing import RateLimiter, RetryPolicy, Stopped
from airflow_provider_events.delivery.sender import Sender
from airflow_provider_events.delivery.slicing import Chunks, Slicer
from airflow_provider_events.delivery.spill import Spill
from airflow_provider_events.events import Record
from airflow_provider_events.exceptions import DeliveryInterrupted, EntryMissing, UnknownAnswer
from airflow_provider_events.http.contract import Transport
from airflow_provider_events.redaction import Redactor

__all__ = ["Engine"]


class Engine:
    """Delivers one source by one codec; made and run on the same event loop."""

    def __init__(
        self,
        codec: Codec,
        transport: Transport,
        ledger: Ledger,
        limits: Limits,
        options: DeliveryOptions,
        *,
        rate_limiter: RateLimiter,
        policy: RetryPolicy,
        redactor: Redactor | None = None,
        canary: int = 0,
    ) -> None:
        self._codec = codec
        self._canary = canary
        self._ledger = ledger
        self._limits = limits
        self._options = options
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None
        self._unreadable: Exception | None = None
        self._sender = Sender(transport, rate_limiter, policy, self._stopping, ledger.counters, redactor)
        self._taking: set[int] = set()
        self._doubtful: set[int] = set()  # rows whose events may be stored: no answer told
        waits = options.on_missing_entry == "wait"
        self._hold_seconds = options.missing_entry_timeout if waits else limits.entry_delay_seconds
        self._in_order = options.ordering == "identity" or codec.overwrites
        self._spill = Spill()
        self._queue = self._open_queue()
        self._places = asyncio.Semaphore(limits.max_in_flight)
        self._readings = [partial(codec.read, count=count) for count in range(limits.batch_size + 1)]

    def stop(self) -> None:
        """Send nothing new, wait for what is in flight, then raise `DeliveryInterrupted` from `run`."""
        self.fail(DeliveryInterrupted("the delivery was stopped; what was in flight has been accounted for"))

    def fail(self, error: BaseException) -> None:
        """The same, raising `error`; the first error wins."""
        if self._failure is None:
            self._failure = error
        self._stopping.set()
        self._queue.end(at_once=True)

    async def run(self, chunks: Chunks) -> None:
        """Deliver all chunks; returns when every row has an outcome.

        :raises DeliveryError: the delivery stopped early.
        :raises Exception: what the source raised, after all rows before it were delivered.
        """
        limits = self._limits
        slicer = Slicer(chunks, limits, self._codec, self._canary)
        reader = Prefetcher(slicer, self._ledger)
        feed: Feed = ContiguousFeed(reader, limits.batch_size)
        if self._in_order:
            feed = OrderedFeed(reader, slicer, limits, self._codec.scope_names)
        try:
            if self._canary:
                reader.until = self._canary
                await self._run_part(feed)
                if reader.more_behind and self._failure is None and self._ledger.offsets.position() <= self._canary:
                    self._options.check_canary(self._ledger.report())
                reader.until = sys.maxsize
            if self._failure is None and self._unreadable is None:
                await self._run_part(feed)
        finally:
            self._spill.close()
            try:
                await reader.close(limits.drain_seconds)
            except Exception as error:  # whatever a driver raises; it must not hide why the delivery ended
                self.fail(error)
        if isinstance(self._failure, UnknownAnswer):
            self._failure.args = (f"{self._failure}: {_rows(self._doubtful)}",)
        if (failure := self._failure or self._unreadable) is not None:
            raise failure

    async def _run_part(self, feed: Feed) -> None:
        """Deliver what the feed gives, until every row of it has an outcome."""
        self._queue = self._open_queue()
        window = range(self._limits.max_in_flight)
        readers = [asyncio.create_task(self._work(partial(self._rows, feed, n))) for n in window]
        retriers = [asyncio.create_task(self._work(self._deferred)) for _ in window if self._hold_seconds]
        workers = readers + retriers
        try:
            await self._until_done(readers, retriers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers)
            for worker in workers:
                if not worker.cancelled() and (error := worker.exception()) is not None:  # no `Exception`
                    self.fail(error)

    def _open_queue(self) -> DeferredQueue:
        return DeferredQueue(self._hold_seconds, self._spill, in_order=self._in_order)

    async def _until_done(self, readers: list[asyncio.Task[None]], retriers: list[asyncio.Task[None]]) -> None:
        """Until all workers have ended, or a stop's time for draining is over."""
        done = asyncio.ensure_future(self._all_done(readers, retriers))
        stopped = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait([done, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not done.done():
            for number in self._taking:
                readers[number].cancel()
            await asyncio.wait([done], timeout=self._limits.drain_seconds)
            done.cancel()

    async def _all_done(self, readers: list[asyncio.Task[None]], retriers: list[asyncio.Task[None]]) -> None:
        """Until the source has ended, and then no event waits; where it failed, a retry asks again for those."""
        await asyncio.wait(readers)
        self._queue.end(at_once=self._unreadable is not None)
        if retriers:
            await asyncio.wait(retriers)

    async def _work(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Stopped:
            return
        except Exception as error:  # the first worker's error ends the delivery; `run` raises it
            self.fail(error)

    async def _rows(self, feed: Feed, worker: int) -> None:
        """Deliver what the source gives."""
        deliver = self._deliver_in_turn if self._hold_seconds else self._deliver
        while not self._stopping.is_set():
            if (batch := feed.ready(worker) or await self._take(feed, worker)) is None:
                return
            await deliver(batch)

    async def _deferred(self) -> None:
        """Deliver events that waited. Not by those who wait for rows, so that a source that pauses holds up none."""
        while (event := await self._queue.get()) is not None:
            await self._deliver_in_turn(Batch.of([event.row], [event.slice], event))

    async def _deliver_in_turn(self, batch: Batch) -> None:
        """New rows and events that waited are together no more in flight than may be."""
        async with self._places:
            await self._deliver(batch)

    async def _take(self, feed: Feed, worker: int) -> Batch | None:
        """`feed.take`, which a stop need not wait for: rows that were not taken yet have nothing to account for.

        Where the source fails there are no more rows; those that were read before are delivered.
        """
        self._taking.add(worker)
        try:
            return await feed.take(worker)
        except Exception as error:
            self._unreadable = self._unreadable or error
            return None
        finally:
            self._taking.discard(worker)

    async def _deliver(self, batch: Batch) -> None:
        """Give every event of the batch an outcome."""
        if self._queue and batch.held is None:
            batch = batch.part([n for n in range(len(batch.rows)) if not self._must_queue(batch, n)])
        budget = self._sender.budget()
        parts = [batch] if batch.fragments else []
        while parts:
            part = parts.pop()
            fragments = part.fragments
            request, read = self._codec.request(fragments), self._readings[len(fragments)]
            try:
                answer, reading = await self._sender.send(request, read, budget, part.about)
                if isinstance(reading, list):
                    if again := self._settle_each(part, reading, answer):
                        parts.append(part := part.part(again))
                        await self._sender.pause(budget, "an answer without a result for each event")
                    continue
            except BaseException:
                if budget.unknown:
                    self._doubtful.update(part.rows)
                raise
            if reading.verdict is Verdict.DELIVERED and part.held is None:
                self._delivered(part)
            elif len(fragments) > 1:
                middle = len(fragments) // 2
                parts += part.part(range(middle, len(fragments))), part.part(range(middle))
            else:
                self._settle(part, 0, reading, answer)

    def _settle_each(self, batch: Batch, outcomes: list[Outcome], answer: Answer) -> list[int]:
        """Settle events of a request by their outcomes; gives the places of those that are to be sent again."""
        each = list(zip(range(len(batch.rows)), outcomes, strict=True))
        if batch.held is None:
            self._delivered(batch.part([n for n, outcome in each if outcome.verdict is Verdict.DELIVERED]))
            each = [(n, outcome) for n, outcome in each if outcome.verdict is not Verdict.DELIVERED]
        again = []
        for n, outcome in each:
            if outcome.verdict is Verdict.RETRY:
                again.append(n)
            elif outcome.verdict is Verdict.FATAL:
                self.fail(self._sender.access_denied(answer, outcome, batch.about))
            else:
                self._settle(batch, n, outcome, answer)
        return again

    def _delivered(self, batch: Batch) -> None:
        """Settle the events of a request at once, slice by slice."""
        if len(batch.slices) == 1:
            self._ledger.delivered(batch.slices[0], batch.rows)
            return
        for slice_, some in groupby(zip(batch.slices, batch.rows, strict=True), itemgetter(0)):
            self._ledger.delivered(slice_, [row for _, row in some])

    def _settle(self, batch: Batch, n: int, outcome: Outcome, answer: Answer) -> None:
        held, record, slice_ = batch.held, batch.row(n).record, batch.slice(n)
        if outcome.verdict is not Verdict.MISSING or not self._hold_seconds:
            self._conclude(record, slice_, outcome, answer, batch)
            if held is not None:
                self._queue.found(held)
        elif held is None:
            self._queue.add(identity_of(record), batch.row(n), slice_)
        else:
            for given_up in self._queue.missed(held):
                self._conclude(given_up.row.record, given_up.slice, outcome, answer, batch)

    def _conclude(self, record: Record, slice_: Slice, outcome: Outcome, answer: Answer, batch: Batch) -> None:
        """The event's outcome is final."""
        policy = self._options.on_missing_entry
        if outcome.verdict is Verdict.DELIVERED:
            self._ledger.delivered(slice_, (record.row,))
        elif outcome.verdict is Verdict.MISSING and policy == "skip":
            self._ledger.skipped(slice_, record.row)
        else:
            self._ledger.rejected_by_vendor(slice_, record, outcome)
        if outcome.verdict is Verdict.MISSING and policy == "fail":
            self.fail(
                EntryMissing(
                    f"row {record.row}: the customer's entry does not exist ({outcome.code})",
                    status=answer.status,
                    code=outcome.code,
                    request_id=self._sender.redactor.label(answer.headers.get("x-request-id"), batch.about),
                )
            )

    def _must_queue(self, batch: Batch, n: int) -> bool:
        """Let the event wait if its customer is known to be missing, or has events that wait."""
        row = batch.row(n)
        if (customer := identity_of(row.record)) not in self._queue:
            return False
        self._queue.add(customer, row, batch.slice(n))
        return True


def _rows(rows: set[int]) -> str:
    """Rows in words."""
    first, last = min(rows), max(rows)
    if first == last:
        return f"row {first}"
    return f"rows {first} to {last}" if len(rows) > last - first else f"{len(rows)} of the rows {first} to {last}"
