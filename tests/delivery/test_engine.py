"""The engine's bounds and accounts: batches, windows, ends. Fake answers, simulated time; a property test of all."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_events.contract import Answer, Request
from airflow_provider_events.delivery.options import DeliveryOptions
from airflow_provider_events.events import Record
from airflow_provider_events.exceptions import (
    CredentialsRefused,
    DeliveryError,
    DeliveryInterrupted,
    EntryMissing,
    RateLimited,
    UnknownAnswer,
    VendorUnavailable,
)
from airflow_provider_events.http.contract import TransportError
from tests.delivery.harness import Given, KeptSink, PlainWire, Run, chunked, faulty, mixed, rows, said, simulate


async def deliver_all(request: Request) -> Answer:
    """Everything is fine, after a moment."""
    await asyncio.sleep(0.1)
    return said(200, "delivered")


def bodies(run: Run) -> list[list[str]]:
    """The events of each request, in order of sending."""
    return [ids for _, ids in run.transport.sent]


# -- batches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(0, 10, []), (1, 10, [1]), (10, 10, [10]), (11, 10, [10, 1]), (25, 10, [10, 10, 5]), (3, 1, [1, 1, 1])],
)
def test_batches_are_cut_by_count(count: int, batch_size: int, sizes: list[int]) -> None:
    run = Run(deliver_all, batch_size=batch_size)
    report = simulate(run.through(chunked(rows(count))))
    assert [len(ids) for ids in bodies(run)] == sizes
    assert (report.read, report.delivered, report.requests) == (count, count, len(sizes))


@pytest.mark.parametrize(("size_bytes", "sizes"), [(9, [10, 10, 5]), (19, [5] * 5), (99, [1] * 25), (500, [1] * 25)])
def test_batches_are_cut_by_bytes(size_bytes: int, sizes: list[int]) -> None:
    """An event larger than the bound goes alone: the vendor, or its own validation, has the last word."""
    wire = PlainWire(max_request_bytes=101, fragment_overhead=1)  # the envelope costs as much as a fragment does
    run = Run(deliver_all, wire=wire, batch_size=10)
    report = simulate(run.through(chunked(rows(25, size_bytes))))
    assert [len(ids) for ids in bodies(run)] == sizes
    assert report.delivered == 25


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 60), max_size=80), st.data())
def test_batches_depend_on_the_rows_alone(sizes: list[int], data: st.DataObject) -> None:
    """However the source cuts its chunks, and however fast the answers are: the same requests."""
    source = [mixed(*[size > 5] * row, size_bytes=size)[-1] for row, size in enumerate(sizes, start=1)]

    def sent(chunk_size: int, max_in_flight: int) -> list[list[str]]:
        async def answer(request: Request) -> Answer:
            await asyncio.sleep(random.random())
            return said(200, "delivered")

        wire = PlainWire(max_request_bytes=100)
        run = Run(answer, wire=wire, batch_size=5, max_in_flight=max_in_flight)
        simulate(run.through(chunked(source, chunk_size)))
        return bodies(run)

    chunk_size, max_in_flight = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 8))
    assert sent(chunk_size, max_in_flight) == sent(1000, 1)


def test_runs_of_faulty_rows_are_settled_a_thousand_at_a_time() -> None:
    """Else a source of faulty rows alone would be held in memory until its end."""
    seen: list[int] = []

    def source() -> Iterator[list[Record]]:
        for n in range(50):
            seen.append(run.ledger.counters.read)
            yield faulty(100, 1 + 100 * n)

    run = Run(deliver_all, batch_size=10, max_in_flight=1, dead_letters=KeptSink())
    report = simulate(run.through(Given(source())))
    assert (report.read, report.rejected, report.requests) == (5000, 5000, 0)
    read_ahead = [100 * n - settled for n, settled in enumerate(seen)]
    assert max(read_ahead) <= 2 * 1000 + 200  # a thousand in use, a thousand ahead


def test_faulty_rows_do_not_take_places_in_a_request() -> None:
    source = mixed(*[False, True] * 20)
    run = Run(deliver_all, batch_size=10)
    report = simulate(run.through(chunked(source, 7)))
    assert [len(ids) for ids in bodies(run)] == [10, 10]
    assert (report.read, report.delivered, report.rejected) == (40, 20, 20)
    assert report.reasons == {"invalid: name: missing": 20}


# -- windows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_in_flight", [1, 3, 16])
def test_no_more_requests_than_allowed_are_open_and_all_places_are_used(max_in_flight: int) -> None:
    open_now = most_open = 0

    async def answer(request: Request) -> Answer:
        nonlocal open_now, most_open
        open_now += 1
        most_open = max(most_open, open_now)
        await asyncio.sleep(random.random())
        open_now -= 1
        return said(503, "retry") if random.random() < 0.2 else said(200, "delivered")

    run = Run(answer, batch_size=3, max_in_flight=max_in_flight)
    assert simulate(run.through(chunked(rows(300)))).delivered == 300
    assert most_open == max_in_flight


@pytest.mark.parametrize("ordering", ["none", "identity"])
def test_few_events_use_all_places_too(ordering: Any) -> None:
    """A window of them is read at once; whoever comes for the last of it finds the source at its end."""

    async def answer(request: Request) -> Answer:
        await asyncio.sleep(1)
        return said(200, "delivered")

    run = Run(answer, batch_size=1, max_in_flight=8, options=DeliveryOptions(ordering=ordering))

    async def seconds() -> float:
        await run.through(chunked(rows(8)))
        return asyncio.get_running_loop().time()

    assert simulate(seconds()) < 1.5


def test_the_source_is_read_no_more_than_two_chunks_ahead() -> None:
    given_out = 0
    ahead: list[int] = []

    def source() -> Iterator[list[Record]]:
        nonlocal given_out
        for _ in range(40):
            given_out += 50
            yield rows(50)

    async def answer(request: Request) -> Answer:
        counters = run.ledger.counters
        ahead.append(given_out - counters.delivered)
        await asyncio.sleep(0.1)
        return said(200, "delivered")

    run = Run(answer, batch_size=5, max_in_flight=4)
    assert simulate(run.through(Given(source()))).delivered == 2000
    assert max(ahead) <= 2 * 50 + 4 * 5


def test_batches_go_out_before_the_source_ends() -> None:
    """Streaming: the first request does not wait for the last row."""
    delivered_at_row: list[int] = []

    def source() -> Iterator[list[Record]]:
        for _ in range(20):
            delivered_at_row.append(run.ledger.counters.requests)
            yield rows(10)

    run = Run(deliver_all, batch_size=10, max_in_flight=1)
    simulate(run.through(Given(source())))
    assert delivered_at_row[-1] >= 17


# -- outcomes ------------------------------------------------------------------------------------------------------


def test_each_outcome_is_counted_by_itself() -> None:
    """Mistake 4 of the peers: a batch is not successful because one of its rows was."""
    verdicts = ["delivered", "rejected", "missing", "delivered"]

    async def answer(request: Request) -> Answer:
        return said(200, verdicts)

    dead_letters = KeptSink()
    run = Run(answer, batch_size=4, options=DeliveryOptions(on_missing_entry="skip"), dead_letters=dead_letters)
    report = simulate(run.through(chunked(rows(8))))
    assert (report.read, report.delivered, report.rejected, report.skipped) == (8, 4, 2, 2)
    assert dead_letters.rows == [2, 6]


def test_only_what_an_answer_left_open_is_sent_again() -> None:
    async def answer(request: Request) -> Answer:
        ids = (request.body or b"").decode().split(",")
        first = len(run.transport.sent) == 1
        return said(200, ["retry" if first and int(n) % 3 == 0 else "delivered" for n in ids])

    run = Run(answer, batch_size=10)
    report = simulate(run.through(chunked(rows(10))))
    assert bodies(run) == [[str(n) for n in range(1, 11)], ["3", "6", "9"]]
    assert report.delivered == 10


def test_events_without_a_result_of_their_own_are_sent_three_times_at_most() -> None:
    async def answer(request: Request) -> Answer:
        await asyncio.sleep(0.1)
        others = (request.body or b"").count(b",")
        return said(200, ["delivered"] * max(others, 1) + ["retry"] * bool(others))

    async def never(request: Request) -> Answer:
        await asyncio.sleep(0.1)
        count = (request.body or b"").count(b",") + 1
        return said(200, ["retry"] * count)

    healed = Run(answer, batch_size=10)
    assert simulate(healed.through(chunked(rows(10)))).delivered == 10
    hopeless = Run(never, batch_size=10)
    with pytest.raises(UnknownAnswer, match=r"without a result.*may be stored.*up to 3 times: rows 1 to 10") as caught:
        simulate(hopeless.through(chunked(rows(10))))
    assert not caught.value.retryable
    assert hopeless.ledger.report().unsent == 10
    assert len(hopeless.transport.sent) == 3


def test_what_may_be_stored_is_told_of_all_requests_under_way() -> None:
    """Four at once, each answered in an unknown form; the others are told of as well as the one that ends it."""

    async def unknown(request: Request) -> Answer:
        ids = [int(n) for n in (request.body or b"").decode().split(",")]
        await asyncio.sleep(0.001 * ids[0])
        return said(204, "delivered" if 21 in ids else "retry")

    run = Run(unknown, batch_size=10, max_in_flight=4)
    with pytest.raises(UnknownAnswer, match=r"answer 204: the reason;.*: 30 of the rows 1 to 40$"):
        simulate(run.through(chunked(rows(40))))
    assert run.ledger.report().delivered == 10
    assert max(Counter(ids[0] for _, ids in run.transport.sent).values()) <= 3


@pytest.mark.parametrize("bad", [set(), {1}, {10}, {4, 5}, set(range(1, 11))], ids=str)
def test_an_opaque_refusal_is_bisected(bad: set[int]) -> None:
    async def answer(request: Request) -> Answer:
        ids = [int(n) for n in (request.body or b"").decode().split(",")]
        return said(400, "rejected") if bad.intersection(ids) else said(200, "delivered")

    dead_letters = KeptSink()
    run = Run(answer, batch_size=10, dead_letters=dead_letters)
    report = simulate(run.through(chunked(rows(10))))
    assert dead_letters.rows == sorted(bad)
    assert (report.delivered, report.rejected) == (10 - len(bad), len(bad))
    assert report.requests <= 1 + 2 * 4 * len(bad)


def test_bisecting_sends_no_event_twice_that_was_accepted() -> None:
    accepted: Counter[str] = Counter()

    async def answer(request: Request) -> Answer:
        ids = (request.body or b"").decode().split(",")
        if {"7", "8", "23"}.intersection(ids):
            return said(400, "rejected")
        accepted.update(ids)
        return said(200, "delivered")

    simulate(Run(answer, batch_size=25).through(chunked(rows(100))))
    assert set(accepted.values()) == {1}
    assert len(accepted) == 97


def test_credentials_refused_for_one_command_end_the_delivery() -> None:
    """A batch whose answers come one by one may say so for each; it concerns every further request as well."""

    async def answer(request: Request) -> Answer:
        await asyncio.sleep(0.1)
        return said(200, ["fatal"] * ((request.body or b"").count(b",") + 1))

    run = Run(answer, batch_size=10, max_in_flight=2)
    with pytest.raises(CredentialsRefused):
        simulate(run.through(chunked(rows(1000))))
    assert len(run.transport.sent) <= 2


@pytest.mark.parametrize(("policy", "rejected", "skipped"), [("reject", 1, 0), ("skip", 0, 1)])
def test_a_missing_entry(policy: Any, rejected: int, skipped: int) -> None:
    async def answer(request: Request) -> Answer:
        return said(404, "missing") if request.body == b"3" else said(200, "delivered")

    report = simulate(
        Run(answer, batch_size=1, options=DeliveryOptions(on_missing_entry=policy)).through(chunked(rows(5)))
    )
    assert (report.delivered, report.rejected, report.skipped) == (4, rejected, skipped)


def test_a_missing_entry_that_shall_fail_ends_the_delivery_and_names_the_row() -> None:
    async def answer(request: Request) -> Answer:
        await asyncio.sleep(0.1)
        return said(404, "missing", x_request_id="r-1") if request.body == b"3" else said(200, "delivered")

    run = Run(answer, batch_size=1, max_in_flight=2, options=DeliveryOptions(on_missing_entry="fail"))
    with pytest.raises(EntryMissing, match="row 3") as caught:
        simulate(run.through(chunked(rows(500))))
    assert (caught.value.status, caught.value.request_id, caught.value.retryable) == (404, "r-1", True)
    report = run.ledger.report()
    assert report.read <= 6
    assert report.rejected == 1


# -- ends ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_seconds", [0.0, 0.05, 0.1, 1.0, 3.3])
def test_a_stop_drains_what_is_in_flight_and_closes_the_accounts(at_seconds: float) -> None:
    answered = 0

    async def answer(request: Request) -> Answer:
        nonlocal answered
        await asyncio.sleep(0.7)
        answered += 10
        return said(200, "delivered")

    run = Run(answer, batch_size=10, max_in_flight=4)

    async def main() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(at_seconds, lambda: run.engine.stop())
        with pytest.raises(DeliveryInterrupted):
            await run.through(chunked(rows(5000)))
        return loop.time()

    assert simulate(main()) <= at_seconds + 0.8
    report = run.ledger.report()
    assert report.delivered == answered
    assert report.read == report.delivered + report.unsent


def test_answers_that_never_end_hold_a_stop_no_longer_than_the_time_for_draining() -> None:
    async def answer(request: Request) -> Answer:
        await asyncio.sleep(0.5 if len(run.transport.sent) % 2 else 10_000)
        return said(200, "delivered")

    run = Run(answer, max_in_flight=4, drain_seconds=15)

    async def main() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(2.0, lambda: run.engine.stop())
        with pytest.raises(DeliveryInterrupted):
            await run.through(chunked(rows(1000)))
        return loop.time()

    assert simulate(main()) == pytest.approx(17.0, abs=0.1)
    report = run.ledger.report()
    assert report.unsent == 40
    assert report.delivered == report.read - 40


def test_the_first_failure_is_the_one_that_is_raised() -> None:
    async def answer(request: Request) -> Answer:
        await asyncio.sleep(0.1 * len(run.transport.sent))
        return said(401, "fatal") if request.body == b"2" else said(404, "missing")

    run = Run(answer, batch_size=1, max_in_flight=3, options=DeliveryOptions(on_missing_entry="fail"))
    with pytest.raises(EntryMissing, match="row 1"):
        simulate(run.through(chunked(rows(3))))
    assert run.ledger.report().rejected == 2


def test_a_defect_in_a_vendor_ends_the_delivery_with_closed_accounts() -> None:
    """Too few outcomes in a list: an error, never a shift of one event's outcome to another."""

    async def answer(request: Request) -> Answer:
        return said(200, ["delivered", "delivered"])

    run = Run(answer, batch_size=3)
    with pytest.raises(ValueError, match="zip"):
        simulate(run.through(chunked(rows(30))))
    report = run.ledger.report()
    assert report.read == report.delivered + report.unsent


# -- everything at once --------------------------------------------------------------------------------------------

MOODS = ["delivered", "opaque", "list", "503", "429", "later", "error"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 120),
    batch_size=st.integers(1, 12),
    max_in_flight=st.integers(1, 6),
    moods=st.lists(st.sampled_from(MOODS), min_size=1, max_size=6, unique=True),
    policy=st.sampled_from(["reject", "skip", "fail"]),
    stop_after=st.none() | st.floats(0, 60),
)
def test_every_event_has_exactly_one_outcome_and_the_sums_close(
    seed: int,
    count: int,
    batch_size: int,
    max_in_flight: int,
    moods: list[str],
    policy: Any,
    stop_after: float | None,
) -> None:
    """Whatever the vendor answers, in whatever order, and whenever somebody stops it."""
    chance = random.Random(seed)
    kinds = chance.choices([True, False], [9, 1], k=count)
    events = [str(row) for row, good in enumerate(kinds, start=1) if good]
    fate = {n: chance.choices(["delivered", "rejected", "missing"], [8, 1, 1])[0] for n in events}
    accepted: Counter[str] = Counter()

    async def answer(request: Request) -> Answer:
        ids = (request.body or b"").decode().split(",")
        await asyncio.sleep(chance.random() * 3)
        match chance.choice(moods):
            case "503":
                return said(503, "retry")
            case "429":
                return said(429, "retry", retry_after=str(chance.randrange(1, 40)))
            case "later":
                return said(429, "retry")
            case "error":
                raise TransportError("no answer from host:1")
            case "opaque" if all(fate[n] != "delivered" for n in ids) or len(ids) > 1:
                if any(fate[n] != "delivered" for n in ids):
                    return said(400, "rejected" if len(ids) > 1 else fate[ids[0]])
                accepted.update(ids)
                return said(200, "delivered")
            case _:
                verdicts = [fate[n] if chance.random() < 0.8 else "retry" for n in ids]
                accepted.update(n for n, verdict in zip(ids, verdicts, strict=True) if verdict == "delivered")
                return said(200, verdicts)

    dead_letters = KeptSink()
    run = Run(
        answer,
        batch_size=batch_size,
        max_in_flight=max_in_flight,
        options=DeliveryOptions(on_missing_entry=policy),
        dead_letters=dead_letters,
    )
    source = mixed(*kinds)

    async def main() -> DeliveryError | None:
        if stop_after is not None:
            asyncio.get_running_loop().call_later(stop_after, lambda: run.engine.stop())
        try:
            await run.through(chunked(source, chance.randrange(1, 50)))
        except DeliveryError as error:
            return error
        return None

    error = simulate(main())
    report = run.ledger.report()  # raises where the sums do not close
    rejected = dead_letters.rows
    assert set(accepted.values()) <= {1}
    assert report.delivered == len(accepted)
    assert report.rejected == len(rejected) == len(set(rejected))
    assert not set(rejected) & {int(n) for n in accepted}
    if error is None:
        assert report.unsent == 0
        assert report.read == len(source)
        assert {n for n, said_of in fate.items() if said_of == "delivered"} == set(accepted)
        missing = sum(said_of == "missing" for said_of in fate.values())
        assert report.skipped == (missing if policy == "skip" else 0)
    else:
        assert isinstance(error, DeliveryInterrupted | EntryMissing | RateLimited | VendorUnavailable)


def test_the_bodies_of_a_repeated_request_are_the_same() -> None:
    """Mistake 7 of the peers: ids made anew for each attempt."""

    async def answer(request: Request) -> Answer:
        return said(503, "retry") if len(run.transport.sent) < 4 else said(200, "delivered")

    run = Run(answer, batch_size=10)
    simulate(run.through(chunked(rows(10))))
    assert len(bodies(run)) == 4
    assert len({json.dumps(body) for body in bodies(run)}) == 1
