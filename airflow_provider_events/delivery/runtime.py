"""What a delivery runs on: an event loop on a thread of its own, and a garbage collector that keeps out of the way."""

from __future__ import annotations

import asyncio
import contextvars
import gc
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
_thresholds: list[tuple[int, ...]] = []
_thresholds_lock = threading.Lock()
_frozen_by_host = False
T = TypeVar("T")


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
