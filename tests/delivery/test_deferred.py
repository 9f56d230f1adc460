"""Events that wait for their customer's entry: pauses, deadlines, bounded memory, and what goes on meanwhile."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections import Counter
from typing import Any

import pytest

from airflow_provider_events.contract import Answer, Request
from airflow_provider_events.delivery import deferred as waiting_module
from airflow_provider_events.delivery.deferred import (
    FIRST_PAUSE_SECONDS,
    MAX_PAUSE_SECONDS,
    DeferredEvent,
    DeferredQueue,
)
from airflow_provider_events.delivery.encoding import EncodedRow
from airflow_provider_events.delivery.offsets import Slice
from airflow_provider_events.delivery.options import DeliveryOptions
from airflow_provider_events.events import Event, Record
from tests.delivery.harness import KeptSink, Run, chunked, rows, said
from tests.reliability.clock import simulate

WAIT = DeliveryOptions(on_missing_entry="wait", missing_entry_timeout=900, max_rejected=10**6)


def held(row: int, due: float = 0.0, data: Any = None) -> DeferredEvent:
    """An event that waits."""
    record = Record(row, Event("e", {"id": row}), data)
    item = EncodedRow(row, None, b"x", record)
    return DeferredEvent(due, row, 900.0, 0, item, Slice((0, None), (row, None), [row]))


# -- the queue -------------------------------------------------------------------------------------------------------


def test_the_one_that_is_due_first_comes_first() -> None:
    queue = DeferredQueue()
    for row, due in ((1, 7.0), (2, 5.0), (3, 6.0), (4, 5.0)):
        queue.add(held(row, due))
    assert queue.next_due() == 5.0
    assert [queue.pop().row for _ in range(4)] == [2, 4, 3, 1]
    assert queue.next_due() is None
    queue.close()


def test_what_does_not_fit_into_memory_goes_through_a_file_and_comes_back_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting_module, "IN_MEMORY", 10)
    queue = DeferredQueue()
    given = {row: held(row, float(row), {"n": row, "note": b"\x00"}) for row in range(1, 101)}
    for one in given.values():
        queue.add(one)
    assert len(queue) == 100
    assert len(queue._heap) == 10
    back = []
    while queue.next_due() is not None:
        back.append(queue.pop())
        assert len(queue._heap) <= 10
    assert [one.row for one in back] == list(range(1, 101))
    for one in back:
        assert one == given[one.row]
        assert one.span is given[one.row].span, "a span is shared by the rows of its request: no copy will do"
    assert len(queue) == 0
    queue.close()


def test_the_file_is_used_again_and_again_without_growing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_module, "IN_MEMORY", 10)
    queue = DeferredQueue()
    sizes = []
    for _ in range(5):
        for row in range(50):
            queue.add(held(row, float(row)))
        while queue.next_due() is not None:
            queue.pop()
        assert queue._file is not None
        sizes.append(queue._file.seek(0, 2))
    assert set(sizes) == {0}
    queue.close()
    queue.close()


def test_columns_that_cannot_be_pickled_do_not_stop_the_spilling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drivers give a memoryview for binary columns (psycopg2 does), whether the mapping uses them or not."""
    monkeypatch.setattr(waiting_module, "IN_MEMORY", 2)
    queue = DeferredQueue()
    for row in range(9):
        queue.add(held(row, float(row), {"picture": memoryview(b"\x00\x01")}))
    back = []
    while queue.next_due() is not None:
        back.append(queue.pop())
    assert [one.row for one in back] == list(range(9))
    queue.close()


def test_memory_is_bounded_by_the_number_kept_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty thousand events of 2 KiB that wait: 100 MB, of which 2 % are in memory."""
    monkeypatch.setattr(waiting_module, "IN_MEMORY", 1000)
    queue = DeferredQueue()
    gc.collect()
    tracemalloc.start()
    for row in range(50_000):
        queue.add(held(row, float(row), {"note": f"{row:02048}"}))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    queue.close()
    assert used < 40_000_000, used


def test_pauses_double_from_five_to_sixty_seconds_and_end_at_the_deadline() -> None:
    one, now, pauses = held(1), 0.0, []
    while now < one.deadline:
        one = one.again(now)
        pauses.append(one.due - now)
        now = one.due
    assert pauses[:5] == [5, 10, 20, 40, 60]
    assert set(pauses[4:-1]) == {60}
    assert now == one.deadline
    assert (FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS) == (5, 60)


# -- in a delivery ---------------------------------------------------------------------------------------------------


class Entries:
    """A vendor at which some customers come late, or never."""

    def __init__(self, appears_at: dict[str, float], slowness: float = 0.1) -> None:
        self.appears_at = appears_at
        self.slowness = slowness
        self.delivered_at: dict[str, float] = {}
        self.asked_at: dict[str, list[float]] = {}

    async def answer(self, request: Request) -> Answer:
        """A verdict for each event."""
        await asyncio.sleep(self.slowness)
        now = asyncio.get_running_loop().time()
        verdicts = []
        for one in (request.body or b"").decode().split(","):
            self.asked_at.setdefault(one, []).append(now)
            if now < self.appears_at.get(one, 0.0):
                verdicts.append("missing")
            else:
                self.delivered_at[one] = now
                verdicts.append("delivered")
        return said(200, verdicts)


NEVER = float("inf")


def test_a_late_customer_gets_the_event_and_the_others_need_not_wait() -> None:
    vendor = Entries({"3": 30.0})
    report = simulate(Run(vendor.answer, options=WAIT).through(chunked(rows(100))))
    assert (report.delivered, report.rejected) == (100, 0)
    assert 30 <= vendor.delivered_at["3"] < 30 + 20
    assert max(at for event, at in vendor.delivered_at.items() if event != "3") < 5
    assert set(Counter(map(len, vendor.asked_at.values()))) == {1, len(vendor.asked_at["3"])}


def test_a_customer_who_never_comes_is_rejected_at_the_deadline_with_that_reason() -> None:
    vendor = Entries({"3": NEVER})
    dead_letters = KeptSink()
    run = Run(vendor.answer, options=WAIT, dead_letters=dead_letters)
    report = simulate(run.through(chunked(rows(10))))
    assert (report.delivered, report.rejected) == (9, 1)
    assert dead_letters.rows == [3]
    last = vendor.asked_at["3"][-1]
    assert 900 <= last < 902
    gaps = [later - earlier for earlier, later in zip(vendor.asked_at["3"], vendor.asked_at["3"][1:], strict=False)]
    assert gaps[:4] == pytest.approx([5, 10, 20, 40], abs=0.5)


def test_new_rows_are_not_starved_by_those_that_wait() -> None:
    """More wait than the vendor can be asked about in a minute; the others have to arrive all the same."""
    vendor = Entries({str(n): NEVER for n in range(1, 401)}, slowness=1.0)
    run = Run(vendor.answer, options=WAIT, batch_size=1, max_in_flight=4)
    report = simulate(run.through(chunked(rows(500))))
    assert (report.delivered, report.rejected) == (100, 400)
    assert max(vendor.delivered_at.values()) < 300, "they were sent only when the others had been given up"


@pytest.mark.parametrize("ordering", ["none", "identity"])
def test_thousands_that_wait_are_all_accounted_for(ordering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_module, "IN_MEMORY", 100)
    vendor = Entries({str(n): 100.0 if n % 3 else NEVER for n in range(1, 3000)}, slowness=0.001)
    options = DeliveryOptions(on_missing_entry="wait", max_rejected=10**6, ordering=ordering)
    report = simulate(Run(vendor.answer, options=options, batch_size=20, max_in_flight=8).through(chunked(rows(4000))))
    assert report.rejected == 999
    assert report.delivered == 3001
    assert report.unsent == 0


def test_a_stop_while_events_wait_leaves_them_unsent() -> None:
    vendor = Entries({"3": NEVER})
    run = Run(vendor.answer, options=WAIT)

    async def stopped() -> Any:
        asyncio.get_running_loop().call_later(60, lambda: run.engine.stop())
        try:
            await run.through(chunked(rows(10)))
        except Exception:
            return run.ledger.report()

    report = simulate(stopped())
    assert (report.delivered, report.unsent, report.rejected) == (9, 1, 0)
