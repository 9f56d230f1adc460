"""Waiting for entries on the triggerer: one coroutine for a whole list."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.triggers.base import BaseTrigger, TriggerEvent  # 12 ms that no other part of this package needs

from airflow_provider_events.exceptions import EventsError, RateLimited
from airflow_provider_events.frames import name_connection
from airflow_provider_events.triggers.waiting_list import WaitingList, unpack

if TYPE_CHECKING:
    from airflow_provider_events.hooks.base import EventsHook
    from airflow_provider_events.lookups.search import Line, Search

__all__ = ["EntryTrigger"]

T = TypeVar("T")

log = logging.getLogger(__name__)

LAST_LOOK_SECONDS = 30.0
SHORTEST_PAUSE_SECONDS = 1.0


class EntryTrigger(BaseTrigger):
    """Asks until enough entries exist, or until the deadline. It only reads, and it fires once.

    The event holds no identity and no profile: `{"status": "found" | "timeout" | "error", "progress": …}`, where the
    progress says which positions of the list were found, and for an error `type`, `message` and `retryable`.

    :param conn_id: connection of any of the four vendors; no secret is kept here.
    :param needed: how many different identities have to be found.
    :param deadline: when to give up, in seconds since the epoch: a restart of the triggerer does not move it.
    :param first_look: when to ask for the first time, likewise.
    :param interval_seconds: from look to look, at least 1.
    :param backoff: wait as long as has been waited so far, so that the pauses double.
    :param max_interval_seconds: bound of such a pause. None: none.
    :param tolerant: an outage of the vendor does not end the wait.
    :param identities: the packed list; or
    :param path: folder in Airflow's object storage with the packed list in a file, and where the progress is kept, so
        that a restart of the triggerer forgets nothing.
    :param progress: what was known before; see `airflow_provider_events.lookups.search.Progress`.
    """

    def __init__(
        self,
        *,
        conn_id: str,
        needed: int,
        deadline: float,
        first_look: float = 0.0,
        interval_seconds: float = 60.0,
        backoff: bool = False,
        max_interval_seconds: float | None = None,
        tolerant: bool = False,
        identities: str | None = None,
        path: str | None = None,
        progress: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.conn_id = conn_id
        self.needed = needed
        self.deadline = deadline
        self.first_look = first_look
        self.interval_seconds = interval_seconds
        self.backoff = backoff
        self.max_interval_seconds = max_interval_seconds
        self.tolerant = tolerant
        self.identities = identities
        self.path = path
        self.progress = progress

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, as Airflow keeps them in its database."""
        arguments = {
            "conn_id": self.conn_id,
            "needed": self.needed,
            "deadline": self.deadline,
            "first_look": self.first_look,
            "interval_seconds": self.interval_seconds,
            "backoff": self.backoff,
            "max_interval_seconds": self.max_interval_seconds,
            "tolerant": self.tolerant,
            "identities": self.identities,
            "path": self.path,
            "progress": self.progress,
        }
        return f"{__name__}.EntryTrigger", arguments

    def __repr__(self) -> str:
        """Without the identities: Airflow logs triggers."""
        return f"<EntryTrigger {self.conn_id}: {self.needed} needed>"

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look, pause, look again; one event at the end, whatever happens."""
        yield TriggerEvent(await self._outcome())

    async def _outcome(self) -> dict[str, Any]:
        search: Search | None = None
        try:
            search = await self._search()
            await self._watch(search)
            outcome: dict[str, Any] = {"status": "found" if search.enough else "timeout"}
        except EventsError as error:
            name_connection(error, f"connection {self.conn_id!r}")
            outcome = _failure(error, str(error), error.retryable)
        except Exception as error:  # an error of a file, of Airflow or of ours: its text may hold anything
            log.exception("looking for entries failed")
            words = f"connection {self.conn_id!r}: the look-up failed; see the triggerer's log"
            outcome = _failure(error, words, True)
        return {**outcome, "progress": search.progress.pack() if search else self.progress}

    async def _search(self) -> Search:
        def made() -> Search:  # on a thread: a long list takes seconds, a first import tenths of one
            import airflow_provider_events.hooks.base
            import airflow_provider_events.hooks.client  # noqa: F401  both are needed on the loop
            from airflow_provider_events.lookups.search import Search

            if self.path is None:
                return Search(unpack(self.identities or ""), needed=self.needed, progress=self.progress)
            kept = WaitingList(self.path)
            return Search(kept.identities(), needed=self.needed, progress=kept.progress() or self.progress)

        return await _off_loop(made)

    async def _watch(self, search: Search) -> None:
        from airflow_provider_events.hooks.base import EventsHook

        hook = await EventsHook.afor_connection(self.conn_id)
        await asyncio.to_thread(_prepare, search, hook)
        async with hook.client.open_line() as line:
            await asyncio.sleep(min(self.first_look, self.deadline) - time.time())
            while True:
                last = time.time() >= self.deadline
                pause = await self._look(search, hook, line)
                if search.enough or last:
                    return
                await asyncio.sleep(min(pause, self.deadline - time.time()))

    async def _look(self, search: Search, hook: EventsHook, line: Line) -> float:
        """One round; the pause until the next one, in seconds."""
        known = len(search.progress.found)
        asked = 0.0
        try:
            await hook.client.look(search, line, seconds=max(LAST_LOOK_SECONDS, self.deadline - time.time()))
        except RateLimited as error:
            asked = error.retry_after or 0.0
        except EventsError as error:
            if not (self.tolerant and error.retryable):
                raise
            log.warning("%s; looking again later", error)
        found = len(search.progress.found)
        if found > known:
            log.info("%d of %d entries found, %d needed", found, search.different, search.needed)
            if self.path is not None and not search.enough:
                await _off_loop(partial(WaitingList(self.path).save, search.progress.pack()))
        return max(self._interval(), asked)

    def _interval(self) -> float:
        if not self.backoff:
            return max(SHORTEST_PAUSE_SECONDS, self.interval_seconds)
        waited = time.time() - self.first_look + self.interval_seconds
        longest = self.max_interval_seconds or float("inf")
        return max(SHORTEST_PAUSE_SECONDS, min(longest, max(self.interval_seconds, waited)))


def _prepare(search: Search, hook: EventsHook) -> None:
    """What takes long before the first look."""
    search.prepare(hook.vendor)


def _failure(error: Exception, message: str, retryable: bool) -> dict[str, Any]:
    return {"status": "error", "type": type(error).__name__, "message": message, "retryable": retryable}


async def _off_loop(work: Callable[[], T]) -> T:
    """`work()` on a thread from which Airflow's connections can be read."""
    from asgiref.sync import sync_to_async

    return await sync_to_async(work, thread_sensitive=False)()
