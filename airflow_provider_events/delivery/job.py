"""One delivery from records to a report, on an event loop with a thread of its own.

The calling thread only waits, so that signals and Airflow's timeouts reach it at once; it then stops the loop, which
drains what is in flight.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, wait
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeVar

from airflow_provider_events.delivery.checkpoint import Checkpoint, CheckpointStore
from airflow_provider_events.delivery.engine import Engine, Limits, Wire
from airflow_provider_events.delivery.ledger import Ledger
from airflow_provider_events.delivery.observer import DeliveryObserver
from airflow_provider_events.delivery.options import DeliveryOptions
from airflow_provider_events.delivery.pacing import Pacer, RetryPolicy
from airflow_provider_events.delivery.resume import LAST_SAVE_SECONDS, Checkpointer, Resumable, Source, load
from airflow_provider_events.delivery.rows import Chunk, Encoder, prepare
from airflow_provider_events.delivery.sinks import RejectedSink
from airflow_provider_events.delivery.transport import Transport
from airflow_provider_events.events import DeliveryReport
from airflow_provider_events.exceptions import DeliveryError, DeliveryInterrupted, EventsError, RejectedNotWritten
from airflow_provider_events.redaction import Redactor

__all__ = ["Codec", "Delivery", "Plan", "on_own_loop"]

LONGEST_END_SECONDS = 40.0  # draining, a last checkpoint, closing a source: each has a bound of its own
CLOSE_SECONDS = 1.0
NEW_OBJECTS = 10_000  # that are left, before the garbage collector looks at them
_thresholds: list[tuple[int, ...]] = []
_thresholds_lock = threading.Lock()
_frozen_by_host = False

T = TypeVar("T")

log = logging.getLogger(__name__)


class Codec(Encoder, Wire, Protocol):
    """A vendor, as far as a delivery needs it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one delivery is to be done.

    :param vendor: connection type, for the report.
    :param requests_per_minute: quota to keep; None for none.
    :param sent_at: the time of events that have none.
    :param fingerprint: of query, mapping and options: a checkpoint of another one is not continued.
    :param redactor: knows the secrets that no answer may repeat.
    """

    vendor: str
    options: DeliveryOptions
    limits: Limits
    requests_per_minute: float | None
    sent_at: datetime
    fingerprint: str = ""
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    redactor: Redactor = field(default_factory=Redactor, repr=False)


class Delivery:
    """A delivery that can be run once.

    :param codec: the vendor.
    :param open_transport: gives the transport to use, not yet entered.
    :param sink: where rejected events go; None for nowhere.
    :param store: keeps the checkpoint, and shows the progress if it is a `ProgressStore` too; None for none.
    """

    def __init__(
        self,
        codec: Codec,
        open_transport: Callable[[], Transport],
        plan: Plan,
        observer: DeliveryObserver,
        sink: RejectedSink | None = None,
        store: CheckpointStore | None = None,
    ) -> None:
        self._codec = codec
        self._open_transport = open_transport
        self._plan = plan
        self._observer = observer
        self._sink = sink
        self._store = None if plan.options.dry_run else store
        self._ledger = Ledger(plan.vendor, sink)
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
        try:
            if options.dry_run:
                with closing(prepare(source.records(), self._codec, self._plan.sent_at, source.keys)) as prepared:
                    self._rehearse(prepared)
            else:
                policy = options.on_source_changed
                start = load(self._store, self._plan.fingerprint, policy) if self._store else None
                if start is not None and self._sink is not None:
                    self._sink.adopt(start)
                with few_collections():
                    on_own_loop(lambda: self._deliver(source, start), self.stop)
            failed = False
            report = self._ledger.report()
            if report.unsent and not options.dry_run:
                raise AssertionError(f"the accounts do not close: {report.unsent} of {report.read} have no outcome")
            options.judge(report)
            return report
        except EventsError as error:
            error.report = self._ended = self.report()
            raise
        finally:
            self._ended = report = self.report()
            if report.read or report.requests or not failed:
                self._observer.finished(report, self._ledger.examples)

    def report(self) -> DeliveryReport:
        """The accounts as they stand, or as they stood at the end."""
        return self._ended or self._ledger.report()

    def stop(self) -> None:
        """Stop soon, from any thread or a signal handler; `run` then raises `DeliveryInterrupted`."""
        self._stopped.set()
        loop, engine = self._loop, self._engine
        if loop is not None and engine is not None and not loop.is_closed():
            loop.call_soon_threadsafe(engine.stop)

    async def _deliver(self, source: Source, start: Checkpoint | None) -> None:
        plan, ledger = self._plan, self._ledger
        sent_at = start.sent_at if start else plan.sent_at
        ledger.reset(start)
        checkpointer = Checkpointer(
            self._store,
            self._sink,
            partial(ledger.checkpoint, plan.fingerprint, sent_at),
            ledger.frontier.open_places,
            lambda: self._observer.latest,
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
                pacer=Pacer(plan.requests_per_minute),
                policy=plan.policy,
                observer=self._observer,
                redactor=plan.redactor,
            )
            self._loop = asyncio.get_running_loop()
            if self._stopped.is_set():
                engine.stop()
            saving = asyncio.create_task(checkpointer.keep_saving(lambda error: engine.fail(not_saved(error))))
            completed = False
            try:
                await engine.run(rows)
                completed = True
            finally:
                saving.cancel()
                await self._save_last(checkpointer, completed)

    async def _save_last(self, checkpointer: Checkpointer, completed: bool) -> None:
        """The checkpoint at the end, and the rejected rows."""
        try:
            await asyncio.wait_for(checkpointer.save(completed=completed), LAST_SAVE_SECONDS)
            if self._sink is not None:
                self._sink.close()
        except TimeoutError:
            log.warning("the last checkpoint was not saved in %d s", LAST_SAVE_SECONDS)
        except OSError as error:
            raise not_saved(error) from error
        finally:
            checkpointer.close()

    def _restart(self) -> None:
        """The source is not the one that the checkpoint describes: nothing of it counts."""
        self._ledger.reset()
        if self._sink is not None:
            self._sink.discard()

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
                first += [piece for piece in chunk.pieces if piece is not None][: wanted - len(first)]
        if first:
            self._observer.would_send(self._codec.request(first))


def not_saved(error: Exception) -> DeliveryError:
    """Why a save ends the delivery: rejected rows cannot be stored, or the store says so itself."""
    if isinstance(error, DeliveryError):
        return error
    return RejectedNotWritten(f"rejected events cannot be written ({type(error).__name__}: {error})")


@contextmanager
def few_collections() -> Iterator[None]:
    """Let the garbage collector run seldom, and spare it what is in memory already.

    Rows by the million would make it run all the time, and each full run would look at all of Airflow again.
    Where the host has frozen its memory (to share it with its children), that stays as it is: a part cannot be thawed.
    """
    global _frozen_by_host
    with _thresholds_lock:
        if not _thresholds:  # the first of those that run at the same time
            _frozen_by_host = gc.get_freeze_count() > 0
        threshold, *others = gc.get_threshold()
        _thresholds.append((threshold, *others))
        if threshold:  # 0 turns it off
            gc.set_threshold(max(threshold, NEW_OBJECTS), *others)
        if not _frozen_by_host:
            gc.freeze()
    try:
        yield
    finally:
        with _thresholds_lock:
            before = _thresholds.pop()
            if not _thresholds:  # the last of those that run at the same time
                if not _frozen_by_host:
                    gc.unfreeze()
                gc.set_threshold(*before)


def on_own_loop(
    main: Callable[[], Coroutine[Any, Any, T]],
    stop: Callable[[], None] | None = None,
    begun: Callable[[Callable[[], None]], None] | None = None,
) -> T:
    """Run `main()` on a new event loop in a new thread and wait for its result.

    Whatever interrupts the waiting thread (a signal handler that raises, a timeout) ends `main`, is held until it has
    returned, `LONGEST_END_SECONDS` at most, and is then raised. Threads that `main` has left behind, such as that of a
    name look-up which hangs, are not waited for.

    :param stop: ends `main`, from another thread. Default: it is cancelled.
    :param begun: is given what cancels `main` from another thread, before it runs.
    """
    result: Future[T] = Future()
    cancel: Future[Callable[[], None]] = Future()

    async def run() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is not None:
            cancel.set_result(partial(_cancel, loop, task))
            if begun is not None:
                begun(cancel.result())
        return await main()

    def work() -> None:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            try:
                result.set_result(runner.run(run()))
            except BaseException as error:  # carried to the waiting thread, whatever it is
                result.set_exception(error)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,), name="events-delivery", daemon=True)
    thread.start()
    try:
        return result.result()
    except BaseException:
        if not result.done():
            (stop or cancel.result(LONGEST_END_SECONDS))()
            wait([result], LONGEST_END_SECONDS)
            thread.join(CLOSE_SECONDS)
        raise


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # there is none for this platform
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _cancel(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    with suppress(RuntimeError):  # the loop may have ended by now
        loop.call_soon_threadsafe(task.cancel)
