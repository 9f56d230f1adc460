"""Who is told how a delivery goes: the task's log, Airflow's state store, and whoever a user adds."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from queue import Queue

from airflow_provider_events.delivery.progress import Progress, counted
from airflow_provider_events.reports import DeliveryReport

__all__ = ["DeliveryObserver", "LogObserver", "Observers"]

log = logging.getLogger(__name__)

FIELD = "events_progress"
END_SECONDS = 5.0


class DeliveryObserver:
    """Is told how a delivery goes, in counts: no key and no customer. Override what you want to know.

    Each observer is called on a thread of its own, one call after the other. It can neither end a delivery nor delay
    it: what it raises is one warning, figures that come while it is busy are left out, and at the end all of them
    together are waited for five seconds at most.
    """

    def __deepcopy__(self, memo: object) -> DeliveryObserver:
        """Itself, as Airflow copies tasks with all that they were given, and open files cannot be copied."""
        return self

    def progress(self, progress: Progress) -> None:
        """Figures every five seconds, and the last ones (`progress.ended`) however the delivery ended."""

    def finished(self, report: DeliveryReport, examples: Mapping[str, Sequence[str]]) -> None:
        """The accounts at the end, however it came about.

        :param examples: a few for each reason of rejection: the row, with its ids masked behind their first letter.
        """


class LogObserver(DeliveryObserver):
    """Lines for a task's log: counts and rate while it runs, the accounts and the rejections at its end.

    The figures are a field of their records as well, `events_progress`, for handlers that keep fields.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._log = logger

    def progress(self, progress: Progress) -> None:
        """See `DeliveryObserver.progress`."""
        if progress.read or progress.requests:
            self._log.info("%s", progress, extra={FIELD: progress.to_dict()})

    def finished(self, report: DeliveryReport, examples: Mapping[str, Sequence[str]]) -> None:
        """See `DeliveryObserver.finished`."""
        self._log.info(
            "%s: %d read = %d delivered + %d rejected + %d skipped + %d resumed + %d unsent; %s in %.1f s",
            report.vendor,
            report.read,
            report.delivered,
            report.rejected,
            report.skipped,
            report.resumed,
            report.unsent,
            counted(report.requests, "request"),
            report.seconds,
        )
        for reason, count in report.reasons.items():
            self._log.warning("rejected %6d x %s (%s)", count, reason, "; ".join(examples.get(reason, ())))
        if report.pending:
            self._log.info("%d of the rejected events are kept for the next run", report.pending)
        if report.rejected_path:
            self._log.info("rejected events are in %s", report.rejected_path)


class Observers:
    """All observers of one delivery."""

    def __init__(self, observers: Iterable[DeliveryObserver] = ()) -> None:
        self._listeners = [_Listener(observer) for observer in observers]

    def progress(self, progress: Progress) -> None:
        """Tell each of them that is not busy, and of the last figures all."""
        for listener in self._listeners:
            if progress.ended or not listener.busy:
                listener.call(partial(listener.observer.progress, progress))

    def finished(self, report: DeliveryReport, examples: Mapping[str, Sequence[str]]) -> None:
        """Tell all of them."""
        for listener in self._listeners:
            listener.call(partial(listener.observer.finished, report, examples))

    def close(self) -> None:
        """Wait until all of them have been told."""
        deadline = time.monotonic() + END_SECONDS
        for listener in self._listeners:
            listener.call(None)
        for listener in self._listeners:
            listener.wait(deadline - time.monotonic())


class _Listener:
    """An observer with the thread that calls it."""

    def __init__(self, observer: DeliveryObserver) -> None:
        self.observer = observer
        self._calls: Queue[Callable[[], None] | None] = Queue()
        self._thread: threading.Thread | None = None
        self._failed = False

    @property
    def busy(self) -> bool:
        """Whether a call has not returned."""
        return self._calls.unfinished_tasks > 0

    def call(self, told: Callable[[], None] | None) -> None:
        """Have it called once it is free; None ends its thread."""
        if self._thread is None and told is not None:
            work = partial(contextvars.copy_context().run, self._work)
            thread = threading.Thread(target=work, name="events-observer", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # there can be no more threads
                self._complain(error)
                return
            self._thread = thread
        self._calls.put(told)

    def wait(self, seconds: float) -> None:
        """Until its thread has ended."""
        if self._thread is not None:
            self._thread.join(max(0.0, seconds))
            if self._thread.is_alive():
                log.warning("%s is still busy, and is not waited for", type(self.observer).__name__)

    def _work(self) -> None:
        while (told := self._calls.get()) is not None:
            try:
                told()
            except BaseException as error:  # whatever it is, it ends here
                self._complain(error)
            finally:
                self._calls.task_done()

    def _complain(self, error: BaseException) -> None:
        """Warn, once."""
        if not self._failed:
            kind, fault = type(self.observer).__name__, type(error).__name__
            log.warning("%s failed (%s); the delivery goes on", kind, fault)
        self._failed = True
