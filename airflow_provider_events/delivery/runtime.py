"""What a delivery runs on: an event loop on a thread of its own, and a garbage collector that keeps out of the way."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

__all__ = ["few_collections", "on_own_loop"]

LONGEST_END_SECONDS = 40.0  # draining, a last checkpoint, closing a source: each has a bound of its own
CLOSE_SECONDS = 1.0
NEW_OBJECTS = 10_000  # that are left, before the garbage collector looks at them
T = TypeVar("T")

log = logging.getLogger(__name__)


class _Marker:
    """What the garbage collector tracks."""


class _Collector:
    """The garbage collector's settings, for all deliveries of the process that run at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._before: tuple[int, ...] = ()
        self._set: tuple[int, ...] = ()
        self._marker: _Marker | None = None

    def rest(self) -> None:
        """A delivery begins."""
        with self._lock:
            self._running += 1
            if self._running > 1:
                if self._ours():
                    self._freeze()
                return
            self._before = threshold, *others = gc.get_threshold()
            self._set = (max(threshold, NEW_OBJECTS) if threshold else 0, *others)  # 0 turns it off
            gc.set_threshold(*self._set)
            if not gc.get_freeze_count():
                self._freeze()

    def work(self) -> None:
        """A delivery has ended: after the last one, everything is as it was, but for what the host has changed."""
        with self._lock:
            self._running -= 1
            if self._running:
                return
            if self._ours():
                gc.unfreeze()
            self._marker = None
            if gc.get_threshold() == self._set:
                gc.set_threshold(*self._before)

    def _freeze(self) -> None:
        gc.freeze()
        self._marker = _Marker()

    def _ours(self) -> bool:
        """Whether nobody else has frozen anything: that would have taken the marker along."""
        return self._marker is not None and any(one is self._marker for one in gc.get_objects())


_collector = _Collector()


@contextmanager
def few_collections() -> Iterator[None]:
    """Let the garbage collector run seldom, and spare it what is in memory already.

    Rows by the million would make it run all the time, and each full run would look at all of Airflow again.
    Where the host freezes its memory (to share it with its children), before or meanwhile, that stays as it is: a part
    cannot be thawed.
    """
    _collector.rest()
    try:
        yield
    finally:
        _collector.work()


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
        try:
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                try:
                    result.set_result(runner.run(run()))
                except BaseException as error:  # carried to the waiting thread, whatever it is
                    result.set_exception(error)
        except BaseException as error:
            if result.done():  # what `main` did stands
                log.warning("the event loop of a delivery could not be closed (%s)", type(error).__name__)
            else:
                result.set_exception(error)  # there is none

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,), name="events-delivery", daemon=True)
    thread.start()
    try:
        return result.result()
    except BaseException:
        if not result.done():
            (stop or cancel.result(LONGEST_END_SECONDS))()
            wait([result], LONGEST_END_SECONDS)
        raise
    finally:
        thread.join(CLOSE_SECONDS)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # there is none for this platform
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _cancel(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    with suppress(RuntimeError):  # the loop may have ended by now
        loop.call_soon_threadsafe(task.cancel)
