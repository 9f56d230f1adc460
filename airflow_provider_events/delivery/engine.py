"""A bounded window of requests in flight: batches out, outcomes in, every row accounted for.

The engine is told how to write requests and how to read answers (`Wire`); it knows no vendor and no Airflow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from airflow_provider_events.delivery.courier import Courier
from airflow_provider_events.delivery.ledger import Ledger
from airflow_provider_events.delivery.observer import DeliveryObserver
from airflow_provider_events.delivery.options import MissingEntryPolicy
from airflow_provider_events.delivery.pacing import Pacer, RetryPolicy, Stopped
from airflow_provider_events.delivery.transport import Transport
from airflow_provider_events.events import Record, Rejection
from airflow_provider_events.exceptions import DeliveryInterrupted, EntryMissing
from airflow_provider_events.exchange import Answer, Encoded, Outcome, Request, Verdict

__all__ = ["Batch", "Engine", "Faulty", "Item", "Limits", "Prepared", "Wire"]

MAX_ROWS_PER_BATCH = 1000
PROGRESS_SECONDS = 5.0


class Wire(Protocol):
    """How events of one vendor become requests, and answers outcomes."""

    @property
    def max_request_bytes(self) -> int:
        """Bound of a request body of more than one event."""

    @property
    def piece_overhead(self) -> int:
        """Bytes that an event costs in a body beside its own."""

    def request(self, pieces: Sequence[Encoded]) -> Request:
        """One request for these events."""

    def read(self, answer: Answer, count: int) -> Outcome | list[Outcome]:
        """One outcome for the whole request, or one for each of its events in order."""


class Item(NamedTuple):
    """An event ready for the wire, and the record it came from."""

    encoded: Encoded
    record: Record


class Faulty(NamedTuple):
    """A record that is no valid event, and why."""

    record: Record
    rejection: Rejection


Prepared = Item | Faulty


@dataclass(slots=True)
class Batch:
    """A contiguous run of rows: those that go into one request, and the faulty ones between them."""

    items: list[Item] = field(default_factory=list)
    faulty: list[Faulty] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.items) + len(self.faulty)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one delivery.

    :param batch_size: events per request.
    :param max_in_flight: requests waiting for an answer at once.
    :param drain_seconds: after a stop, requests in flight may take so long to be answered.
    """

    batch_size: int
    max_in_flight: int
    drain_seconds: float = 15.0


class Engine:
    """Delivers one source to one wire.

    :param on_missing_entry: what an event becomes whose customer has no entry: rejected, skipped, or the end.
    """

    def __init__(
        self,
        wire: Wire,
        transport: Transport,
        ledger: Ledger,
        limits: Limits,
        *,
        pacer: Pacer,
        policy: RetryPolicy,
        on_missing_entry: MissingEntryPolicy,
        observer: DeliveryObserver,
    ) -> None:
        self._wire = wire
        self._ledger = ledger
        self._limits = limits
        self._on_missing_entry = on_missing_entry
        self._observer = observer
        self._stopping = asyncio.Event()
        self._failure: Exception | None = None
        self._courier = Courier(transport, pacer, policy, self._stopping, ledger.counters)

    def stop(self) -> None:
        """Send nothing new, wait for what is in flight, then raise `DeliveryInterrupted` from `run`."""
        self._fail(DeliveryInterrupted("the delivery was stopped; what was in flight has been accounted for"))

    async def run(self, chunks: Iterator[Sequence[Prepared]]) -> None:
        """Deliver all chunks; returns when every row has an outcome.

        :param chunks: iterated on one thread of its own, one chunk ahead of the requests.
        :raises DeliveryError: the delivery stopped early; rows without an outcome are counted as unsent.
        """
        batches = Batches(chunks, self._wire, self._limits.batch_size)
        workers = [asyncio.create_task(self._work(batches)) for _ in range(self._limits.max_in_flight)]
        ticker = asyncio.create_task(self._tick())
        try:
            await self._until_done(workers)
        finally:
            ticker.cancel()
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers)
            await batches.close(self._limits.drain_seconds)
            self._observer.progress(self._ledger.counters)
        if self._failure is not None:
            raise self._failure

    async def _until_done(self, workers: list[asyncio.Task[None]]) -> None:
        """Until all workers have ended, or a stop's time for draining is over."""
        done = asyncio.ensure_future(asyncio.wait(workers))
        stopped = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait([done, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not done.done():
            await asyncio.wait(workers, timeout=self._limits.drain_seconds)
            done.cancel()

    async def _work(self, batches: Batches) -> None:
        try:
            while not self._stopping.is_set() and (batch := await batches.take()) is not None:
                await self._deliver(batch)
        except Stopped:
            return
        except Exception as error:  # the first worker's error ends the delivery; `run` raises it
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
        self._stopping.set()

    async def _deliver(self, batch: Batch) -> None:
        """Give every row of the batch an outcome; on an early end, count those without one as unsent."""
        self._ledger.opened(len(batch.items), batch.faulty)
        open_items = len(batch.items)
        patience = self._courier.patience()
        parts = [batch.items] if batch.items else []
        try:
            while parts:
                part = parts.pop()
                size = len(part)
                request = self._wire.request([item.encoded for item in part])
                answer, reading = await self._courier.carry(request, partial(self._wire.read, count=size), patience)
                again: list[Item] = []
                if isinstance(reading, list):
                    for item, outcome in zip(part, reading, strict=True):
                        if outcome.verdict is Verdict.RETRY:
                            again.append(item)
                        else:
                            self._settle([item], outcome, answer)
                            open_items -= 1
                    if again:
                        parts.append(again)
                        await self._courier.pause(patience, "an answer without a result for each event")
                elif reading.verdict is not Verdict.DELIVERED and size > 1:
                    parts += [part[size // 2 :], part[: size // 2]]
                else:
                    self._settle(part, reading, answer)
                    open_items -= size
        finally:
            self._ledger.unsent(open_items)

    def _settle(self, items: list[Item], outcome: Outcome, answer: Answer) -> None:
        if outcome.verdict is Verdict.DELIVERED:
            self._ledger.delivered(len(items))
            return
        missing = outcome.verdict is Verdict.MISSING
        for item in items:
            if missing and self._on_missing_entry == "skip":
                self._ledger.skipped()
                continue
            self._ledger.rejected(item.record, outcome)
            if missing and self._on_missing_entry == "fail":
                self._fail(
                    EntryMissing(
                        f"row {item.record.row}: the customer's entry does not exist ({outcome.code})",
                        status=answer.status,
                        code=outcome.code,
                        request_id=answer.headers.get("x-request-id"),
                    )
                )

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            self._observer.progress(self._ledger.counters)


class Batches:
    """Cuts chunks into batches, bounded by count and bytes; the next chunk is read while requests are under way.

    Boundaries depend on the rows alone, so that a resumed delivery forms the same requests.
    """

    def __init__(self, chunks: Iterator[Sequence[Prepared]], wire: Wire, batch_size: int) -> None:
        self._chunks = chunks
        self._wire = wire
        self._batch_size = batch_size
        self._reader = ThreadPoolExecutor(1, "events-reader")
        self._turn = asyncio.Lock()
        self._rows: Sequence[Prepared] = ()
        self._at = 0
        self._ahead: asyncio.Future[Sequence[Prepared] | None] | None = None
        self._exhausted = False
        self._error: Exception | None = None

    async def take(self) -> Batch | None:
        """The next batch, or None at the end of the source.

        :raises Exception: what the source raised, once all rows before it have been taken.
        """
        async with self._turn:
            batch = Batch()
            size = 0
            while self._at < len(self._rows) or await self._advance():
                entry = self._rows[self._at]
                if isinstance(entry, Item):
                    size += len(entry.encoded.body) + self._wire.piece_overhead
                    if batch.items and size > self._wire.max_request_bytes:
                        break
                    batch.items.append(entry)
                else:
                    batch.faulty.append(entry)
                self._at += 1
                if len(batch.items) == self._batch_size or len(batch) == MAX_ROWS_PER_BATCH:
                    break
            if len(batch):
                return batch
            if self._error is not None:
                raise self._error
            return None

    async def close(self, timeout_seconds: float) -> None:
        """Close the source on its own thread, without waiting longer than `timeout_seconds` for a slow one."""
        closing = asyncio.get_running_loop().run_in_executor(self._reader, _close, self._chunks)
        self._reader.shutdown(wait=False)
        await asyncio.wait({closing}, timeout=timeout_seconds)
        if closing.done() and (error := closing.exception()) is not None and self._error is None:
            raise error

    async def _advance(self) -> bool:
        """Step to the next chunk with rows; False at the end of the source."""
        while not self._exhausted and self._at >= len(self._rows):
            try:
                rows = await (self._ahead or self._read())
            except Exception as error:
                self._error, rows = error, None
            self._exhausted = rows is None
            self._rows, self._at = rows or (), 0
            self._ahead = None if self._exhausted else self._read()
        return not self._exhausted

    def _read(self) -> asyncio.Future[Sequence[Prepared] | None]:
        return asyncio.get_running_loop().run_in_executor(self._reader, next, self._chunks, None)


def _close(chunks: Iterator[Sequence[Prepared]]) -> None:
    if isinstance(chunks, Generator):
        chunks.close()
