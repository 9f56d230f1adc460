"""Look-ups through a hook: on its connection's quota, and no more at once than it allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from airflow_provider_events.exceptions import DeliveryError, VendorUnavailable
from airflow_provider_events.lookups.search import Line, open_line

if TYPE_CHECKING:
    from airflow_provider_events.hooks.base import EventsHook
    from airflow_provider_events.lookups.search import Search

__all__ = ["line_of", "look", "look_once"]


@asynccontextmanager
async def line_of(hook: EventsHook) -> AsyncIterator[Line]:
    """The line of the hook's connection, shared with all that look up through it on this event loop."""
    vendor, extra = hook.vendor, hook.vendor.extra
    in_flight = extra["max_in_flight"] or vendor.max_in_flight
    quota = hook.quota(extra["requests_per_minute"], vendor.lookup_quota())
    async with open_line(hook.endpoint(in_flight), quota, in_flight, hook.redactor) as line:
        yield line


async def look(hook: EventsHook, search: Search, line: Line, *, seconds: float | None = None) -> None:
    """One round of a prepared search: the one look that all modes of the sensor take.

    :param seconds: how long it may take; what is found by then stays found. None: as long as it takes.
    :raises DeliveryError: naming the connection; `VendorUnavailable` also where that time brought failures alone.
    """
    answers, retries = search.answers, line.sender.counters.retries
    try:
        async with asyncio.timeout(seconds):
            await search.round(hook.vendor, line)
    except TimeoutError:
        if search.answers == answers and line.sender.counters.retries > retries:
            unanswered = VendorUnavailable(f"no usable answer within the {seconds or 0:.0f} s that were left")
            raise hook.with_conn_id(unanswered) from None
    except DeliveryError as error:
        raise hook.with_conn_id(error) from None


async def look_once(hook: EventsHook, search: Search, *, seconds: float | None = None) -> None:
    """`look` on a line that is opened for it."""
    async with line_of(hook) as line:
        await look(hook, search, line, seconds=seconds)
