"""One delivery from records to a report, on an event loop with a thread of its own.

The calling thread only waits, so that signals and Airflow's timeouts reach it at once; it then stops the loop, which
drains what is in flight.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol, TypeVar

from airflow_provider_events.delivery.engine import Engine, Faulty, Item, Limits, Prepared, Wire
from airflow_provider_events.delivery.ledger import Ledger
from airflow_provider_events.delivery.observer import DeliveryObserver
from airflow_provider_events.delivery.options import DeliveryOptions
from airflow_provider_events.delivery.pacing import Pacer, RetryPolicy
from airflow_provider_events.delivery.sinks import RejectedSink
from airflow_provider_events.delivery.transport import Transport
from airflow_provider_events.events import DeliveryReport, Event, Record, Rejection
from airflow_provider_events.exceptions import DeliveryError, InvalidEvent
from airflow_provider_events.exchange import Encoded

__all__ = ["Codec", "Delivery", "encode", "on_own_loop", "prepare"]

T = TypeVar("T")


class Codec(Wire, Protocol):
    """A vendor, as far as a delivery needs it."""

    @property
    def timestamp_sent(self) -> bool:
        """Whether the vendor takes the time of an event."""

    def encode(self, event: Event) -> Encoded:
        """The event on the vendor's wire.

        :raises InvalidEvent: the vendor would refuse it.
        """


def prepare(records: Iterator[Sequence[Record]], codec: Codec, sent_at: datetime) -> Iterator[list[Prepared]]:
    """Validate and encode; events without a time get `sent_at`, so that a repeated request has the same bytes."""
    for chunk in records:
        yield [_prepared(record, codec, sent_at) for record in chunk]


def encode(codec: Codec, event: Event, sent_at: datetime) -> Encoded:
    """`event` on the wire, at `sent_at` if it has no time of its own.

    :raises InvalidEvent: the vendor would refuse it.
    """
    if event.timestamp is None and codec.timestamp_sent:
        event = replace(event, timestamp=sent_at)
    return codec.encode(event)


def _prepared(record: Record, codec: Codec, sent_at: datetime) -> Prepared:
    event, fault = record.event, record.fault
    if event is not None:
        try:
            return Item(encode(codec, event, sent_at), record)
        except InvalidEvent as error:
            fault = error
    field, reason = (fault.field, fault.reason) if fault else ("event", "missing")
    return Faulty(record, Rejection(record.row, "invalid", reason, field))


class Delivery:
    """A delivery that can be run once.

    :param codec: the vendor.
    :param open_transport: gives the transport to use, not yet entered.
    :param limits: bounds of requests.
    :param requests_per_minute: quota to keep; None for none.
    :param sent_at: the time of events that have none.
    """

    def __init__(
        self,
        codec: Codec,
        open_transport: Callable[[], Transport],
        *,
        vendor: str,
        options: DeliveryOptions,
        limits: Limits,
        requests_per_minute: float | None,
        sent_at: datetime,
        observer: DeliveryObserver,
        sink: RejectedSink | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        self._codec = codec
        self._open_transport = open_transport
        self._options = options
        self._limits = limits
        self._requests_per_minute = requests_per_minute
        self._sent_at = sent_at
        self._observer = observer
        self._policy = policy or RetryPolicy()
        self._ledger = Ledger(vendor, sink)
        self._stopped = threading.Event()
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, records: Iterator[Sequence[Record]]) -> DeliveryReport:
        """Deliver everything.

        :raises DeliveryError: with the report so far as its `report`.
        :raises SourceError: the rows could not be read any further.
        """
        prepared = prepare(records, self._codec, self._sent_at)
        try:
            if self._options.dry_run:
                self._rehearse(prepared)
            else:
                on_own_loop(lambda: self._deliver(prepared), self.stop)
        except DeliveryError as error:
            error.report = self._ledger.report()
            raise
        report = self._ledger.report()
        self._options.judge(report)
        return report

    def stop(self) -> None:
        """Stop soon, from any thread or a signal handler; `run` then raises `DeliveryInterrupted`."""
        self._stopped.set()
        loop, engine = self._loop, self._engine
        if loop is not None and engine is not None and not loop.is_closed():
            loop.call_soon_threadsafe(engine.stop)

    @property
    def report(self) -> DeliveryReport:
        """The accounts as they stand."""
        return self._ledger.report()

    async def _deliver(self, prepared: Iterator[Sequence[Prepared]]) -> None:
        async with self._open_transport() as transport:
            self._engine = Engine(
                self._codec,
                transport,
                self._ledger,
                self._limits,
                pacer=Pacer(self._requests_per_minute),
                policy=self._policy,
                on_missing_entry=self._options.on_missing_entry,
                observer=self._observer,
            )
            self._loop = asyncio.get_running_loop()
            if self._stopped.is_set():
                self._engine.stop()
            await self._engine.run(prepared)

    def _rehearse(self, prepared: Iterator[Sequence[Prepared]]) -> None:
        first: list[Item] = []
        for chunk in prepared:
            items = [entry for entry in chunk if isinstance(entry, Item)]
            first += items[: self._limits.batch_size - len(first)]
            self._ledger.opened(len(items), [entry for entry in chunk if isinstance(entry, Faulty)])
            self._ledger.unsent(len(items))
        if first:
            self._observer.would_send(self._codec.request([item.encoded for item in first]))


def on_own_loop(main: Callable[[], Coroutine[Any, Any, T]], stop: Callable[[], None]) -> T:
    """Run `main()` on a new event loop in a new thread and wait for its result.

    Whatever interrupts the waiting thread (a signal handler that raises, a timeout) stops the loop by `stop`, is held
    until `main` has returned, and is then raised.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(asyncio.run(main()))
        except BaseException as error:  # carried to the waiting thread, whatever it is
            result.set_exception(error)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name="events-delivery", daemon=True)
    thread.start()
    try:
        return result.result()
    except BaseException:
        if not result.done():
            stop()
            thread.join()
        raise
