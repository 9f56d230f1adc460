"""`ordering="identity"`, and upserts: no event overtakes an earlier one of its customer, whatever goes wrong."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_events.contract import Answer, Request
from airflow_provider_events.delivery.job import Delivery, Plan
from airflow_provider_events.delivery.options import DeliveryOptions, Limits
from airflow_provider_events.delivery.ordering import identity_of
from airflow_provider_events.delivery.pacing import RetryPolicy
from airflow_provider_events.events import Event, Record
from airflow_provider_events.exceptions import DeliveryInterrupted
from airflow_provider_events.http import open_transport
from airflow_provider_events.http.contract import Endpoint, TransportError
from tests.delivery.harness import QUICK, SENT_AT, Given, PlainWire, Run, odd_server, records, said
from tests.reliability.clock import simulate
from tests.vendors.wires import vendor

IN_ORDER = DeliveryOptions(ordering="identity", max_rejected=10**6, on_missing_entry="wait")


def of_customers(customers: list[int], size: int = 20) -> Given:
    """An event for each number, by that customer; its id says whose it is and which one."""
    made = [
        Record(row, Event("e", {"id": customer}, id=f"{customer}.{row}"))
        for row, customer in enumerate(customers, start=1)
    ]
    return Given(iter([made[at : at + size] for at in range(0, len(made), size)]))


class Arrivals:
    """The events of each customer in the order in which the vendor accepted them."""

    def __init__(self) -> None:
        self.by_customer: dict[str, list[int]] = defaultdict(list)

    def accept(self, event: str) -> None:
        """One more."""
        customer, _, row = event.partition(".")
        self.by_customer[customer].append(int(row))

    def check(self, customers: list[int]) -> None:
        """All of them, once, in the order of the source."""
        wanted: dict[str, list[int]] = defaultdict(list)
        for row, customer in enumerate(customers, start=1):
            wanted[str(customer)].append(row)
        assert self.by_customer == wanted


# -- over real sockets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_real_server_sees_each_customers_events_in_order_under_random_faults(batch_size: int) -> None:
    """Late answers, 503, 429, half answers, cut connections (before anything was accepted), and single retries."""
    chance = random.Random(7)
    arrivals = Arrivals()
    customers = [chance.randrange(12) for _ in range(1200)]
    unknown: Counter[str] = Counter()

    async def answer(request: web.Request) -> web.StreamResponse:
        body = (await request.read()).decode()
        await asyncio.sleep(chance.random() * 0.004)
        luck = chance.random()
        if luck < 0.05:
            return web.json_response("retry", status=503)
        if luck < 0.10:
            return web.json_response("retry", status=429, headers={"Retry-After": "0"})
        if luck < 0.15:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        verdicts = []
        for event in body.split(","):
            verdicts.append("retry" if unknown[event] < 2 and chance.random() < 0.1 else "delivered")
            unknown[event] += verdicts[-1] == "retry"
            if verdicts[-1] == "delivered":
                arrivals.accept(event)
        return web.json_response(verdicts)

    with odd_server(answer) as server:
        endpoint = Endpoint(server.url, {}, timeout_seconds=5.0, max_connections=6)
        plan = Plan("plain", IN_ORDER, Limits(batch_size, 6), SENT_AT, retry_policy=QUICK)
        report = Delivery(PlainWire(), lambda: open_transport(endpoint), plan).run(of_customers(customers))
    assert report.delivered == 1200
    assert report.retries > 50
    arrivals.check(customers)


def test_without_ordering_they_do_overtake() -> None:
    """Which shows that the test above would notice."""
    arrivals = Arrivals()
    chance = random.Random(7)
    customers = [chance.randrange(3) for _ in range(200)]

    async def answer(request: Request) -> Answer:
        await asyncio.sleep(chance.random())
        events = (request.body or b"").decode().split(",")
        for event in events:
            arrivals.accept(event)
        return said(200, ["delivered"] * len(events))

    simulate(Run(answer, batch_size=5).through(of_customers(customers)))
    with pytest.raises(AssertionError):
        arrivals.check(customers)


# -- in simulated time -----------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.integers(1, 6), max_size=80),
    st.sets(st.integers(1, 6)),
    st.sets(st.integers(1, 80)),
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(0, 2**32),
)
def test_the_order_holds_with_late_customers_and_rejected_events(
    customers: list[int], late: set[int], refused: set[int], batch_size: int, workers: int, seed: int
) -> None:
    """Customers who come late hold back all of their events; a rejected one holds back nothing."""
    chance = random.Random(seed)
    arrivals = Arrivals()
    unknown: Counter[str] = Counter()

    async def answer(request: Request) -> Answer:
        await asyncio.sleep(chance.random())
        now = asyncio.get_running_loop().time()
        verdicts = []
        for event in (request.body or b"").decode().split(","):
            customer, _, row = event.partition(".")
            if int(row) in refused:
                verdict = "rejected"
            elif int(customer) in late and now < 77:
                verdict = "missing"
            else:
                verdict = "retry" if unknown[event] < 2 and chance.random() < 0.2 else "delivered"
            unknown[event] += verdict == "retry"
            if verdict == "delivered":
                arrivals.accept(event)
            verdicts.append(verdict)
        return said(200, verdicts)

    run = Run(answer, batch_size=batch_size, max_in_flight=workers, options=IN_ORDER)
    report = simulate(run.through(of_customers(customers)))
    bad = len(refused & set(range(1, len(customers) + 1)))
    assert (report.rejected, report.delivered) == (bad, len(customers) - bad)
    wanted: dict[str, list[int]] = defaultdict(list)
    for row, customer in enumerate(customers, start=1):
        if row not in refused:
            wanted[str(customer)].append(row)
    assert arrivals.by_customer == wanted


customers_of_two_kinds = st.lists(
    st.dictionaries(st.sampled_from("xy"), st.integers(1, 4), min_size=1), min_size=1, max_size=50
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    customers_of_two_kinds,
    st.booleans(),
    st.sets(st.integers(1, 50), max_size=5),
    st.sets(st.integers(1, 4), max_size=2),
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(3, 30),
    st.integers(0, 2**32),
)
def test_nothing_is_sent_before_what_its_customer_did_earlier_has_its_outcome(
    identities: list[dict[str, int]],
    several_ids: bool,
    poison: set[int],
    late: set[int],
    batch_size: int,
    workers: int,
    max_bytes: int,
    seed: int,
) -> None:
    """Outages, quotas, cut connections, refusals of whole bulks, events tried again alone, and customers who come late;
    with one id each, or with several of which any may be the same as another customer's."""
    chance, tried = random.Random(seed), Counter[str]()
    if not several_ids:
        identities = [dict([min(identity.items())]) for identity in identities]
    events = [Event("e", dict(identity), id=str(row)) for row, identity in enumerate(identities, start=1)]
    outcomes: dict[int, str] = {}

    def are_one(one: int, other: int) -> bool:
        return bool(identities[one - 1].items() & identities[other - 1].items())

    async def answer(request: Request) -> Answer:
        rows = [int(row) for row in (request.body or b"").decode().split(",")]
        for row in rows:
            earlier = [n for n in range(1, row) if are_one(n, row)]
            assert outcomes.keys() >= set(earlier), f"row {row} before one of {earlier}"
            assert not any(are_one(row, other) for other in rows if other != row)
        await asyncio.sleep(chance.random())
        luck = chance.random()
        if luck < 0.1:
            raise TransportError("no answer")
        if luck < 0.2:
            return said(503 if luck < 0.15 else 429, "retry")
        if poison.intersection(rows):
            if len(rows) == 1:
                outcomes[rows[0]] = "rejected"
            return said(400, "rejected")
        verdicts = []
        for row in rows:
            if not several_ids and identities[row - 1].get("x") in late and asyncio.get_running_loop().time() < 60:
                verdicts.append("missing")
            elif tried[str(row)] < 2 and chance.random() < 0.1:
                tried[str(row)] += 1
                verdicts.append("retry")
            else:
                outcomes[row] = "delivered"
                verdicts.append("delivered")
        return said(200, verdicts)

    run = Run(
        answer,
        PlainWire(max_bytes),
        batch_size=batch_size,
        max_in_flight=workers,
        policy=RetryPolicy(budget_seconds=1e9, max_wait_seconds=1e9),
        options=IN_ORDER,
    )
    report = simulate(run.through(records(events, chance.randint(1, 20))))
    rejected = sum(outcome == "rejected" for outcome in outcomes.values())
    assert (report.delivered, report.rejected, report.unsent) == (len(events) - rejected, rejected, 0)


def test_a_request_never_holds_two_events_of_one_customer() -> None:
    """A vendor may take the events of one request in any order, or some of them only."""
    seen: list[list[str]] = []

    async def answer(request: Request) -> Answer:
        events = (request.body or b"").decode().split(",")
        seen.append(events)
        await asyncio.sleep(0.1)
        return said(200, ["delivered"] * len(events))

    customers = [n % 5 for n in range(100)]
    simulate(Run(answer, batch_size=10, max_in_flight=3, options=IN_ORDER).through(of_customers(customers)))
    for events in seen:
        names = [event.partition(".")[0] for event in events]
        assert len(set(names)) == len(names)


def test_one_slow_customer_holds_up_nobody_else() -> None:
    done: dict[str, float] = {}

    async def answer(request: Request) -> Answer:
        events = (request.body or b"").decode().split(",")
        await asyncio.sleep(500 if any(event.startswith("0.") for event in events) else 0.1)
        for event in events:
            done[event] = asyncio.get_running_loop().time()
        return said(200, ["delivered"] * len(events))

    customers = [0, *range(300), *range(300)]
    simulate(Run(answer, batch_size=1, max_in_flight=8, options=IN_ORDER).through(of_customers(customers)))
    assert max(at for event, at in done.items() if not event.startswith("0.")) < 10
    assert [round(done[f"0.{row}"]) for row in (1, 2, 302)] == [500, 1000, 1500]


def test_rows_that_wait_for_their_customer_are_bounded() -> None:
    """However many events somebody has: the source is read no further than a thousand rows ahead of them."""
    read: list[int] = []

    def source() -> Iterator[list[Record]]:
        for start in range(0, 5000, 100):
            read.append(run.ledger.counters.read - run.ledger.counters.delivered)
            yield [Record(row, Event("e", {"id": "one"}, id=f"1.{row}")) for row in range(start + 1, start + 101)]

    async def answer(request: Request) -> Answer:
        await asyncio.sleep(0.01)
        return said(200, "delivered")

    run = Run(answer, batch_size=10, max_in_flight=4, options=IN_ORDER)
    assert simulate(run.through(Given(source()))).delivered == 5000
    assert max(read) <= 1000 + 2 * 100


def test_what_tells_no_customers_apart_does_not_hold_them_up() -> None:
    """As the embeddable in which a customer of Embeddables is known."""

    async def answer(request: Request) -> Answer:
        await asyncio.sleep(1)
        return said(200, "delivered")

    wire = PlainWire()
    wire.scope_names = ("place",)
    events = [Event("e", {"id": n, "place": "p"}, id=str(n)) for n in range(8)]
    run = Run(answer, wire, batch_size=1, max_in_flight=8, options=IN_ORDER)

    async def seconds() -> float:
        await run.through(records(events))
        return asyncio.get_running_loop().time()

    assert simulate(seconds()) < 1.5
    assert vendor("embeddables").scope_names == ("embeddable_id",)


def test_a_row_that_waits_keeps_no_other_in_memory() -> None:
    """One customer is in every request, and slow; the rows of all others are 20 MB."""

    def source() -> Iterator[list[Record]]:
        for start in range(0, 4000, 100):
            yield [
                Record(row, Event("e", {"id": 0 if row % 50 == 7 else row}, id=f"{row:05000}"))
                for row in range(start + 1, start + 101)
            ]

    async def answer(request: Request) -> Answer:
        run.transport.sent.clear()
        await asyncio.sleep(30 if f"{7:05000}".encode() in (request.body or b"") else 0.1)
        return said(200, "delivered")

    run = Run(answer, batch_size=50, max_in_flight=4, options=IN_ORDER)
    tracemalloc.start()
    try:
        assert simulate(run.through(Given(source()))).delivered == 4000
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_batches_are_as_full_as_customers_allow() -> None:
    """Whoever comes again goes with those who follow."""

    async def answer(request: Request) -> Answer:
        await asyncio.sleep(0.1)
        return said(200, "delivered")

    run = Run(answer, batch_size=10, max_in_flight=4, options=IN_ORDER)
    customers = [n - (n % 7 == 3) for n in range(1000)]
    assert simulate(run.through(of_customers(customers))).delivered == 1000
    assert run.ledger.counters.requests <= 100 + 4


def test_what_overwrites_is_in_order_unasked() -> None:
    arrivals = Arrivals()
    chance = random.Random(7)
    customers = [chance.randrange(20) for _ in range(300)]

    async def answer(request: Request) -> Answer:
        await asyncio.sleep(chance.random())
        events = (request.body or b"").decode().split(",")
        for event in events:
            arrivals.accept(event)
        return said(200, ["delivered"] * len(events))

    wire = PlainWire()
    wire.overwrites = True
    simulate(Run(answer, wire, batch_size=5).through(of_customers(customers)))
    arrivals.check(customers)


def test_an_identity_is_the_same_in_whatever_order_its_keys_come() -> None:
    one = Record(1, Event("e", {"registered": "c", "cookie": "k"}))
    other = Record(2, Event("e", {"cookie": "k", "registered": "c"}))
    assert identity_of(one) == identity_of(other)
    assert identity_of(one) != identity_of(Record(3, Event("e", {"registered": "c"})))
    assert identity_of(Record(4, Event("e", {"id": 1}))) == identity_of(Record(5, Event("e", {"id": "1"})))


def test_a_stop_in_order_leaves_a_prefix_of_each_customers_events() -> None:
    arrivals = Arrivals()
    customers = [n % 7 for n in range(400)]
    count = 0

    async def answer(request: Request) -> Answer:
        nonlocal count
        count += 1
        if count == 20:
            run.engine.stop()
        await asyncio.sleep(0.1)
        events = (request.body or b"").decode().split(",")
        for event in events:
            arrivals.accept(event)
        return said(200, ["delivered"] * len(events))

    run = Run(answer, batch_size=4, options=IN_ORDER)
    with pytest.raises(DeliveryInterrupted):
        simulate(run.through(of_customers(customers)))
    assert arrivals.by_customer
    for customer, rows in arrivals.by_customer.items():
        mine = [row for row, whose in enumerate(customers, start=1) if str(whose) == customer]
        assert rows == mine[: len(rows)]
