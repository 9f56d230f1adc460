"""An event loop for the servers of tests, that leaves no task and no socket behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["own_loop"]


@contextmanager
def own_loop(name: str) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs on a thread of its own; whatever still runs on it at the end is cut off."""
    loop = asyncio.SelectorEventLoop()
    thread = threading.Thread(target=loop.run_forever, name=name, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_cut_off(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _cut_off() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    # Closed transports wait for their peers (TLS, full buffers); asyncio has no other list of them.
    for transport in list(asyncio.get_running_loop()._transports.values()):  # type: ignore[attr-defined]  # of the usual loops
        transport.abort()
