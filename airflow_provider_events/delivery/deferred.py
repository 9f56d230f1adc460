"""Events that wait for their customer's entry, customer by customer.

Of a customer who is missing one event asks, the first; the others wait behind it. Once the customer is found they
follow, in the order of their rows. Each is given up at its own time, by an answer that is not older than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count, repeat
from typing import NamedTuple

from airflow_provider_events.delivery.encoding import EncodedRow
from airflow_provider_events.delivery.offsets import Slice
from airflow_provider_events.delivery.spill import Kept, Spill

__all__ = ["DeferredEvent", "DeferredQueue", "pause_seconds"]

FIRST_PAUSE_SECONDS = 5.0
MAX_PAUSE_SECONDS = 60.0
LEAST_PAUSE_SECONDS = 1.0  # between two events of one customer that are given up one after the other
CLOCK_SECONDS = 1e-3  # timers may be early by less


def pause_seconds(misses: int) -> float:
    """How long to wait after so many misses: from 5 to 60 seconds, twice as long each time."""
    return min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(misses - 1, 10))


class _Waiting(NamedTuple):
    """An event that waits. Compares by its row."""

    row: int
    deadline: float
    slice: Slice
    kept: Kept


class _Customer:
    """A customer who was missing.

    :ivar events: those that wait, a heap.
    :ivar out: how many are being tried.
    :ivar misses: how often the customer was asked for in vain; 0 once he is found.
    :ivar due: when the next event is to be tried; None while none is.
    """

    __slots__ = ("due", "events", "misses", "name", "out")

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[_Waiting] = []
        self.out = 0
        self.misses = 1
        self.due: float | None = None


class DeferredEvent(NamedTuple):
    """An event that waited and is tried again, or given up."""

    row: EncodedRow
    slice: Slice
    customer: _Customer
    waiting: _Waiting

    def __repr__(self) -> str:
        """Without the event."""
        return f"<DeferredEvent {self.waiting.row}>"


class DeferredQueue:
    """Waiting events, given out when they are due.

    :param hold_seconds: how long an event waits before it is given up.
    :param spill: keeps them.
    :param in_order: of a customer's events one is out at a time, also once the customer is found.
    """

    def __init__(self, hold_seconds: float, spill: Spill, *, in_order: bool = False) -> None:
        self._hold_seconds = hold_seconds
        self._in_order = in_order
        self._spill = spill
        self._customers: dict[str, _Customer] = {}
        self._heap: list[tuple[float, int, _Customer]] = []
        self._numbers = count()
        self._turn = asyncio.Lock()  # one waits for the time, the others for their turn
        self._changed = asyncio.Event()
        self._ending = self._ended = False

    def __contains__(self, customer: str) -> bool:
        return customer in self._customers

    def __bool__(self) -> bool:
        return bool(self._customers)

    def add(self, customer: str, row: EncodedRow, slice_: Slice) -> None:
        """Let an event wait: the first one after a miss, further ones behind it.

        :raises DeliveryError: see `Spill.keep`.
        """
        now = asyncio.get_running_loop().time()
        waiting = _Waiting(row.row, now + self._hold_seconds, slice_, self._spill.keep(row))
        known = self._customers.get(customer)
        if known is None:
            known = self._customers[customer] = _Customer(customer)
        heappush(known.events, waiting)
        if known.due is None and not (known.out and (known.misses or self._in_order)):
            self._wait(known, now)

    async def get(self) -> DeferredEvent | None:
        """The next event that is due, once it is; None when no further one can come.

        Whoever gets one says what became of it, by `found` or `missed`.
        """
        async with self._turn:
            while True:
                self._changed.clear()
                if self._ended or (self._ending and not self._customers):
                    return None
                due = self._next_due()
                if due is not None and due <= asyncio.get_running_loop().time() + CLOCK_SECONDS:
                    return self._pop()
                try:
                    async with asyncio.timeout_at(due):
                        await self._changed.wait()
                except TimeoutError:
                    pass

    def found(self, event: DeferredEvent) -> None:
        """The event has its outcome, and its customer exists: the others of that customer follow."""
        customer = event.customer
        customer.out -= 1
        customer.misses = 0
        self._spill.drop(event.waiting.kept)
        self._go_on(customer)

    def missed(self, event: DeferredEvent) -> Iterator[DeferredEvent]:
        """The customer is still missing: gives the events whose time is over, this one or others."""
        now = asyncio.get_running_loop().time()
        customer = event.customer
        customer.out -= 1
        if customer.due is None or not customer.misses:  # not one of several that were tried together
            customer.misses += 1
        over = now + CLOCK_SECONDS
        waiting = sorted([*customer.events, event.waiting])
        customer.events = [one for one in waiting if one.deadline > over]
        given_up = [one for one in waiting if one.deadline <= over]
        self._go_on(customer, LEAST_PAUSE_SECONDS if given_up else 0.0)
        return map(self._give_up, repeat(customer), given_up)

    def end(self, *, at_once: bool = False) -> None:
        """No further event will be added; `at_once`: none is given out either."""
        self._ending = True
        self._ended = self._ended or at_once
        self._changed.set()

    def _go_on(self, customer: _Customer, least_pause: float = 0.0) -> None:
        if customer.events:
            self._wait(customer, asyncio.get_running_loop().time(), least_pause)
        elif not customer.out:
            del self._customers[customer.name]
            self._changed.set()

    def _wait(self, customer: _Customer, now: float, least_pause: float = 0.0) -> None:
        """Until the next try of a customer, or until his first event's time is over."""
        customer.due = now
        if customer.misses:
            end = max(min(waiting.deadline for waiting in customer.events), now + least_pause)
            customer.due = min(now + pause_seconds(customer.misses), end)
        heappush(self._heap, (customer.due, next(self._numbers), customer))
        self._changed.set()

    def _next_due(self) -> float | None:
        while self._heap and self._heap[0][0] != self._heap[0][2].due:  # put off since
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _pop(self) -> DeferredEvent:
        _, _, customer = heappop(self._heap)
        waiting = heappop(customer.events)
        customer.out += 1
        customer.due = None
        if customer.events and not customer.misses and not self._in_order:
            self._wait(customer, asyncio.get_running_loop().time())
        return self._read(customer, waiting)

    def _give_up(self, customer: _Customer, waiting: _Waiting) -> DeferredEvent:
        event = self._read(customer, waiting)
        self._spill.drop(waiting.kept)
        return event

    def _read(self, customer: _Customer, waiting: _Waiting) -> DeferredEvent:
        return DeferredEvent(self._spill.read(waiting.kept), waiting.slice, customer, waiting)
