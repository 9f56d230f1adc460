"""Events that wait for their customer's entry: pauses, deadlines, one probe a customer, and what goes on meanwhile."""

from __future__ import annotations

import asyncio
import json
import resource
import threading
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_events.contract import Answer, Request
from airflow_provider_events.delivery import deferred, spill
from airflow_provider_events.delivery.deferred import DeferredQueue, pause_seconds
from airflow_provider_events.delivery.encoding import EncodedRow
from airflow_provider_events.delivery.job import Delivery, Plan
from airflow_provider_events.delivery.offsets import Slice
from airflow_provider_events.delivery.options import DeliveryOptions, Limits
from airflow_provider_events.delivery.spill import Spill
from airflow_provider_events.events import DeliveryReport, Event, Record
from airflow_provider_events.exceptions import DeliveryError, DeliveryInterrupted, SourceError
from airflow_provider_events.http import open_transport
from airflow_provider_events.http.contract import Endpoint
from airflow_provider_events.sandbox import Sandbox
from tests.delivery.harness import (
    MAX_IN_FLIGHT,
    QUICK,
    SENT_AT,
    Given,
    KeptSink,
    PlainWire,
    Run,
    chunked,
    delivery,
    odd_server,
    records,
    rows,
    said,
    sent_numbers,
    vendor_at,
)
from tests.reliability.clock import simulate

WAIT = DeliveryOptions(on_missing_entry="wait", missing_entry_timeout=900, max_rejected=10**6)


# -- the queue -------------------------------------------------------------------------------------------------------


def item(row: int, customer: str) -> EncodedRow:
    return EncodedRow(row, None, b"x", Record(row, Event("e", {"id": customer})))


def in_queue(
    test: Callable[[DeferredQueue], Awaitable[None]], hold_seconds: float = 900, in_order: bool = False
) -> None:
    async def run() -> None:
        await test(DeferredQueue(hold_seconds, Spill(), in_order=in_order))

    simulate(run())


def add(queue: DeferredQueue, *events: tuple[int, str]) -> None:
    for row, customer in events:
        queue.add(customer, item(row, customer), Slice((0, None), (row, None), [row]))


def test_the_customer_who_is_due_first_comes_first() -> None:
    async def test(queue: DeferredQueue) -> None:
        for row, customer in ((1, "c"), (2, "a"), (3, "b")):
            add(queue, (row, customer))
            await asyncio.sleep(1)
        assert [event.row.row for event in [await queue.get() for _ in range(3)] if event] == [1, 2, 3]
        assert asyncio.get_running_loop().time() == pytest.approx(7, abs=0.1)

    in_queue(test)


def test_one_event_of_a_customer_asks_and_the_others_follow_in_their_order() -> None:
    async def test(queue: DeferredQueue) -> None:
        add(queue, (1, "a"), (4, "a"), (2, "a"), (3, "b"))
        first = [await queue.get(), await queue.get()]
        assert [event.row.row for event in first if event] == [1, 3]
        add(queue, (5, "a"))
        waiting = asyncio.create_task(queue.get())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting), 3600)
        assert first[0]
        queue.found(first[0])
        rest = [await waiting, await queue.get(), await queue.get()]
        assert [event.row.row for event in rest if event] == [2, 4, 5]
        assert asyncio.get_running_loop().time() == pytest.approx(3605, abs=0.1)
        for event in rest:
            assert event
            assert "a" in queue
            queue.found(event)
        assert "a" not in queue
        queue.end()
        assert queue

    in_queue(test)


def test_in_order_each_waits_for_the_outcome_of_the_one_before() -> None:
    async def test(queue: DeferredQueue) -> None:
        add(queue, *((row, "a") for row in range(1, 5)))
        for row in range(1, 5):
            event = await queue.get()
            assert event
            assert event.row.row == row
            waiting = asyncio.create_task(queue.get())
            add(queue, (row + 4, "a"))
            await asyncio.sleep(60)
            assert not waiting.done()
            waiting.cancel()
            await asyncio.wait([waiting])
            queue.found(event)

    in_queue(test, in_order=True)


def test_an_answer_gives_up_those_whose_time_is_over_and_no_others() -> None:
    async def test(queue: DeferredQueue) -> None:
        for row in range(1, 41):
            add(queue, (row, "a"))
            await asyncio.sleep(0.25)
        given_up: dict[int, float] = {}
        asked = 0
        while queue:
            event = await queue.get()
            assert event
            asked += 1
            for over in queue.missed(event):
                given_up[over.row.row] = asyncio.get_running_loop().time()
        assert list(given_up) == list(range(1, 41))
        for row, at in given_up.items():
            deadline = (row - 1) * 0.25 + 30
            assert deadline - 0.01 <= at <= deadline + 1.01, (row, at)
        assert asked < 20

    in_queue(test, hold_seconds=30)


def test_whoever_waits_learns_that_nothing_comes_any_more() -> None:
    async def test(queue: DeferredQueue) -> None:
        add(queue, (1, "a"))
        waiting = [asyncio.create_task(queue.get()) for _ in range(4)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        (event,) = [task.result() for task in waiting if task.done()]
        queue.end()
        await asyncio.sleep(60)
        assert sum(task.done() for task in waiting) == 1, "the event that is out may come back"
        assert event
        queue.found(event)
        assert [await task for task in waiting].count(None) == 3

    in_queue(test)


def test_pauses_double_from_five_to_sixty_seconds() -> None:
    assert [pause_seconds(misses) for misses in range(1, 8)] == [5, 10, 20, 40, 60, 60, 60]
    assert pause_seconds(10**6) == 60


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
    monkeypatch.setattr(spill, "MEMORY_BYTES", 20_000)
    vendor = Entries({str(n): 100.0 if n % 3 else NEVER for n in range(1, 600)}, slowness=0.001)
    options = DeliveryOptions(on_missing_entry="wait", max_rejected=10**6, ordering=ordering)
    report = simulate(Run(vendor.answer, options=options, batch_size=20, max_in_flight=8).through(chunked(rows(1000))))
    assert report.rejected == 199
    assert report.delivered == 801
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


def of_customers(customers: list[int]) -> Given:
    """An event for each number, by that customer; its id is the row."""
    made = [Record(row, Event("e", {"id": one}, id=str(row))) for row, one in enumerate(customers, start=1)]
    return chunked(made)


@pytest.mark.parametrize("ordering", ["none", "identity"])
def test_a_thousand_events_of_one_missing_customer_ask_with_one_probe(ordering: Any) -> None:
    requests: list[tuple[float, str]] = []

    async def answer(request: Request) -> Answer:
        await asyncio.sleep(0.01)
        now = asyncio.get_running_loop().time()
        requests.append((now, (request.body or b"").decode()))
        return said(200, "missing" if now < 100 else "delivered")

    options = DeliveryOptions(on_missing_entry="wait", ordering=ordering)
    report = simulate(Run(answer, options=options, batch_size=1).through(of_customers([7] * 1000)))
    assert (report.delivered, report.unsent) == (1000, 0)
    in_vain = [row for at, row in requests if at < 100]
    assert len(in_vain) <= 4 + 6, "those in flight at first, and the probes at 5, 15, 35, 75 s"
    followed = [int(row) for at, row in requests if at >= 100]
    assert followed == sorted(followed)


def test_followers_of_a_customer_who_vanishes_again_wait_again() -> None:
    """As where several replicas answer, of which some are behind."""
    asked: Counter[str] = Counter()

    async def answer(request: Request) -> Answer:
        await asyncio.sleep(0.01)
        row = (request.body or b"").decode()
        asked[row] += 1
        return said(200, "missing" if asked[row] < 3 and int(row) % 3 else "delivered")

    report = simulate(Run(answer, options=WAIT, batch_size=1).through(of_customers([1, 2] * 50)))
    assert (report.delivered, report.unsent) == (100, 0)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.integers(1, 6), max_size=60),
    st.dictionaries(st.integers(1, 6), st.integers(0, 300)),
    st.integers(3, 120),
    st.sampled_from(["none", "identity"]),
    st.integers(1, 5),
    st.integers(1, 5),
    st.booleans(),
)
def test_each_waiting_event_arrives_or_is_given_up_in_time(
    customers: list[int], late: dict[int, int], timeout: int, ordering: Any, batch: int, workers: int, on_disk: bool
) -> None:
    accepted: dict[int, float] = {}
    first: dict[int, float] = {}
    order: dict[int, list[int]] = defaultdict(list)
    over: dict[int, float] = {}

    class Timed(KeptSink):
        def write(self, line: bytes) -> None:
            super().write(line)
            self.flush()
            over[self.lines[-1]["row"]] = asyncio.get_running_loop().time()

    async def answer(request: Request) -> Answer:
        await asyncio.sleep(0.01)
        now = asyncio.get_running_loop().time()
        verdicts = []
        for row in map(int, (request.body or b"").decode().split(",")):
            first.setdefault(row, now)
            if now < late.get(customers[row - 1], 0):
                verdicts.append("missing")
            else:
                assert row not in accepted, "sent twice"
                accepted[row] = now
                order[customers[row - 1]].append(row)
                verdicts.append("delivered")
        return said(200, verdicts)

    options = DeliveryOptions(
        on_missing_entry="wait", missing_entry_timeout=timeout, max_rejected=10**6, ordering=ordering
    )
    dead_letters = Timed()
    run = Run(answer, options=options, batch_size=batch, max_in_flight=workers, dead_letters=dead_letters)
    with pytest.MonkeyPatch.context() as patch:
        if on_disk:
            patch.setattr(spill, "MEMORY_BYTES", 0)
        report = simulate(run.through(of_customers(customers)))
    assert report.delivered == len(accepted)
    assert report.rejected == len(over)
    assert sorted([*accepted, *over]) == list(range(1, len(customers) + 1))
    for row, at in over.items():
        assert at <= first.get(row, at) + timeout + 3
        assert at >= min(late.get(customers[row - 1], 0), timeout) - 0.1
    for row, at in accepted.items():
        assert at <= max(late.get(customers[row - 1], 0) + 60, timeout) + 5
    if ordering == "identity":
        assert all(each == sorted(each) for each in order.values())


# -- over real sockets: a source that pauses -------------------------------------------------------------------------

MISSES = 3


class Paused:
    """A vendor at which customer 1 comes at the fourth try, and a source that pauses until then."""

    def __init__(self) -> None:
        self.tries: Counter[str] = Counter()
        self.there = threading.Event()
        self.missed = threading.Event()
        self.waited_in_vain = False

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """A verdict for each event."""
        verdicts = []
        for row in (await request.text()).split(","):
            self.tries[row] += 1
            late = row == "1" and self.tries[row] <= MISSES
            verdicts.append("missing" if late else "delivered")
            if row == "1":
                (self.missed if late else self.there).set()
        return web.json_response(verdicts)

    def source(self, before: int, after: int, fails: bool = False) -> Given:
        """Rows that come only once the first one has arrived."""

        def chunks() -> Iterator[list[Record]]:
            yield rows(before)
            self.waited_in_vain = not self.there.wait(10)
            if fails:
                raise SourceError("the connection is lost")
            if after:
                yield rows(before + after)[before:]

        return Given(chunks())


def paused(
    vendor: Paused, source: Given, ordering: Any, begun: Callable[[Delivery], None] = lambda _: None
) -> DeliveryReport:
    options = DeliveryOptions(on_missing_entry="wait", missing_entry_timeout=60, ordering=ordering)
    with odd_server(vendor.answer) as server:
        endpoint = Endpoint(server.url, {}, timeout_seconds=5.0, max_connections=4)
        plan = Plan("plain", options, Limits(1, 4, 5.0), SENT_AT, retry_policy=QUICK)
        delivery = Delivery(PlainWire(), lambda: open_transport(endpoint), plan, ())
        begun(delivery)
        try:
            return delivery.run(source)
        except (DeliveryInterrupted, SourceError):
            return delivery.report()


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred, "FIRST_PAUSE_SECONDS", 0.05)


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("ordering", ["none", "identity"])
@pytest.mark.parametrize(("before", "after"), [(1, 0), (1, 5), (9, 0), (100, 300)])
def test_a_source_that_pauses_holds_up_nothing_that_is_due(ordering: Any, before: int, after: int) -> None:
    vendor = Paused()
    report = paused(vendor, vendor.source(before, after), ordering)
    assert not vendor.waited_in_vain
    assert (report.delivered, report.unsent) == (before + after, 0)
    assert vendor.tries["1"] == MISSES + 1


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("ordering", ["none", "identity"])
def test_a_source_that_fails_after_a_pause_leaves_nothing_undone_that_was_due(ordering: Any) -> None:
    vendor = Paused()
    report = paused(vendor, vendor.source(9, 0, fails=True), ordering)
    assert not vendor.waited_in_vain
    assert (report.read, report.delivered, report.unsent) == (9, 9, 0)


@pytest.mark.parametrize("ordering", ["none", "identity"])
def test_a_stop_while_the_source_pauses_and_an_event_waits_ends_at_once(ordering: Any) -> None:
    vendor = Paused()

    def stop_soon(delivery: Delivery) -> None:
        def stop() -> None:
            vendor.missed.wait(10)
            delivery.stop()
            vendor.there.set()

        threading.Thread(target=stop).start()

    report = paused(vendor, vendor.source(9, 5), ordering, stop_soon)
    assert report.delivered + report.unsent == report.read
    assert report.unsent
    assert vendor.tries["1"] == 1
    assert report.seconds < 4


# -- over real sockets: a full disk ----------------------------------------------------------------------------------


class Kept:
    """A checkpoint from try to try."""

    saved: Any = None

    def load(self) -> Any:
        """See `CheckpointStore.load`."""
        return self.saved

    def save(self, checkpoint: Any, *, completed: bool) -> None:
        """See `CheckpointStore.save`."""
        self.saved = None if completed else json.loads(json.dumps(checkpoint))


@contextmanager
def small_files() -> Iterator[None]:
    """As a disk that is full: no file gets longer than 50 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("ordering", ["none", "identity"])
def test_a_full_disk_ends_the_delivery_with_a_report_and_a_retry_goes_on(
    ordering: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "MEMORY_BYTES", 20_000)
    accepted: Counter[str] = Counter()
    there = False

    async def answer(request: web.Request) -> web.StreamResponse:
        row = await request.text()
        missing = not there and int(row) % 2
        accepted[row] += not missing
        return web.json_response("missing" if missing else "delivered")

    options = DeliveryOptions(on_missing_entry="wait", missing_entry_timeout=60, ordering=ordering)
    store = Kept()
    with odd_server(answer) as server:
        endpoint = Endpoint(server.url, {}, timeout_seconds=5.0, max_connections=4)
        plan = Plan("plain", options, Limits(1, 4, 5.0), SENT_AT, retry_policy=QUICK)
        tries = [Delivery(PlainWire(), lambda: open_transport(endpoint), plan, (), None, store) for _ in range(2)]
        with small_files(), pytest.raises(DeliveryError, match=r"File too large") as caught:
            tries[0].run(chunked(rows(2000)))
        report = caught.value.report
        assert caught.value.retryable
        assert report
        assert report.delivered == accepted.total()
        assert report.delivered + report.unsent == report.read
        there = True
        second = tries[1].run(chunked(rows(2000)))
    assert (second.resumed, second.delivered) == (report.delivered, 2000 - report.delivered)
    assert set(accepted.values()) == {1}
    assert len(accepted) == 2000


# -- over real sockets: the vendors that know who is missing ---------------------------------------------------------


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("vendor", ["embeddables", "vibetrace"])
def test_the_events_of_one_missing_customer_ask_once_and_then_all_arrive(vendor: str, events_sandbox: Sandbox) -> None:
    events_sandbox.add_entries(vendor, [{"email": "late@example.com"}], appears_after=0.5)
    late = [Event("paid", {"email": "late@example.com"}, SENT_AT, {"n": n}) for n in range(300)]
    report = delivery(vendor_at(events_sandbox, vendor), on_missing_entry="wait").run(records(late))
    assert (report.delivered, report.unsent) == (300, 0)
    assert sent_numbers(events_sandbox, vendor) == list(range(300))
    assert report.requests <= 300 + MAX_IN_FLIGHT + 6
