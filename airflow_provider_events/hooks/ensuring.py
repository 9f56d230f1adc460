"""Entries for the customers of a delivery, made before their events are sent."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING, Any

from airflow_provider_events.delivery.options import DeliveryOptions
from airflow_provider_events.events import DeliveryReport, Event, Receipt, Record
from airflow_provider_events.exceptions import EntryMissing
from airflow_provider_events.values import filled

if TYPE_CHECKING:
    from airflow_provider_events.delivery.resume import Source
    from airflow_provider_events.hooks.base import EventsHook

__all__ = ["ENTRY_DELAY_SECONDS", "ensure_entries", "send_ensured"]

# How long an entry that the vendor has accepted may be unknown to its other interfaces; no vendor documents it.
ENTRY_DELAY_SECONDS = 60.0
# Customers remembered, so that one with many events is not upserted for each of them: memory stays flat.
REMEMBERED = 100_000


def ensure_entries(
    hook: EventsHook,
    source: Source,
    attributes: Mapping[str, Any],
    options: DeliveryOptions,
    sent_at: datetime | None = None,
) -> DeliveryReport:
    """Upsert the customer of each event; those that are rejected are left to the delivery of the events.

    :param attributes: given to every entry; Bloomreach takes none without at least one.
    :param options: of the delivery of the events; its size and pace are the upserts' as well.
    :param sent_at: as in `EventsHook.deliver_source`.
    :raises ConfigurationError: the vendor documents no upsert.
    :raises DeliveryError: as from a delivery; `TooManyRejected` where not one entry was accepted.
    """
    customers = _Customers(source, attributes)
    upserts = DeliveryOptions(
        max_rejected=2**63 - 1,  # more than that cannot be rejected
        batch_size=options.batch_size,
        max_in_flight=options.max_in_flight,
        requests_per_minute=options.requests_per_minute,
    )
    return hook.deliver_source(customers, upserts, codec=hook.vendor.upserts(), sent_at=sent_at)


async def send_ensured(hook: EventsHook, event: Mapping[str, Any]) -> Receipt:
    """Send the event of a customer whose entry was made just before, again as long as it is not to be seen.

    :raises EntryMissing: not within `ENTRY_DELAY_SECONDS`.
    :raises EventsError: as from `EventsHook.send`.
    """
    from airflow_provider_events.delivery.deferred import pause_seconds

    end = time.monotonic() + ENTRY_DELAY_SECONDS
    for misses in count(1):
        try:
            return await hook.asend(event)
        except EntryMissing:
            left = end - time.monotonic()
            if left <= 0:
                raise
            await asyncio.sleep(min(pause_seconds(misses), left))
    raise AssertionError("there is no last try")


class _Customers:
    """The customers of a source of events, each once, as the events that carry their upserts."""

    cursor = None
    keyed = False

    def __init__(self, source: Source, attributes: Mapping[str, Any]) -> None:
        self._source = source
        self._attributes = filled(attributes)

    def keys(self, records: Sequence[Record]) -> None:
        """None: there is no key column."""

    def count(self, limit: int) -> None:
        """None: they would have to be read."""

    def records(self, after: Any = None, first_row: int = 1) -> Iterator[Sequence[Record]]:
        """See `Source.records`."""
        recent: OrderedDict[int, None] = OrderedDict()
        row = first_row
        for chunk in self._source.records():
            records = []
            for record in chunk:
                if record.event is None:
                    continue
                customer = hash(frozenset(record.event.identity.items()))
                if customer not in recent:
                    records.append(Record(row, Event("upsert", record.event.identity, None, self._attributes)))
                    row += 1
                recent[customer] = None
                if len(recent) > REMEMBERED:
                    recent.popitem(last=False)
            yield records
