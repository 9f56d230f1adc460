"""A delivery from records to a report: dry runs, stops of every kind over real sockets, and how a source ends."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import re
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import count
from types import FrameType
from typing import Any

import pytest

from airflow_provider_events.contract import Answer, Request
from airflow_provider_events.delivery import runtime
from airflow_provider_events.delivery.job import Delivery
from airflow_provider_events.delivery.pacing import RetryPolicy
from airflow_provider_events.delivery.runtime import few_collections, on_own_loop
from airflow_provider_events.events import DeliveryReport, Event, Record
from airflow_provider_events.exceptions import (
    CredentialsRefused,
    DeliveryInterrupted,
    InvalidEvent,
    RejectedNotWritten,
    SourceError,
    TooManyRejected,
    VendorUnavailable,
)
from airflow_provider_events.http.contract import TransportError
from tests.conftest import CUSTOMERS, IDENTITY_KEYS
from tests.delivery.harness import (
    QUICK,
    SENT_AT,
    VENDORS,
    FakeTransport,
    Given,
    KeptSink,
    PlainWire,
    Silent,
    chunked,
    delivery,
    events,
    faulty,
    planned,
    records,
    rows,
    said,
    sent_numbers,
    vendor_at,
)


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Returns as soon as the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition was never met")
        time.sleep(0.002)


def stop_when(condition: Callable[[], bool], job: Delivery) -> threading.Thread:
    """A thread that stops the delivery as soon as the condition holds."""

    def wait_and_stop() -> None:
        try:
            until(condition)
        finally:
            job.stop()

    thread = threading.Thread(target=wait_and_stop)
    thread.start()
    return thread


def endless(vendor: str) -> Iterator[list[Record]]:
    """Different events without end, ten in a chunk."""
    for first in count(0, 10):
        yield [
            Record(
                n + 1,
                Event(
                    "order_paid",
                    {IDENTITY_KEYS[vendor]: CUSTOMERS[n % 100]},
                    SENT_AT + timedelta(seconds=n),
                    {"n": n},
                ),
            )
            for n in range(first, first + 10)
        ]


def plain_delivery(answer: Callable[[Request], Awaitable[Answer]], **changes: Any) -> Delivery:
    """A delivery to a vendor made of nothing."""
    policy = RetryPolicy(budget_seconds=0.1, base_seconds=0.01, cap_seconds=0.02)
    return planned(
        PlainWire(), lambda: FakeTransport(answer), **{"max_in_flight": 2, "retry_policy": policy, **changes}
    )


async def accept(request: Request) -> Answer:
    """Everything is fine."""
    return said(200, "delivered")


# -- from events to a report ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", VENDORS)
def test_everything_arrives_and_the_sums_close(vendor: str, connections: Any) -> None:
    report = delivery(vendor_at(connections, vendor)).run(records(events(vendor, 123)))
    assert (report.vendor, report.read, report.delivered, report.unsent) == (vendor, 123, 123, 0)
    assert sent_numbers(connections, vendor) == list(range(123))
    assert report.requests == len(connections.requests(vendor))
    assert connections.violations(vendor) == []


@pytest.mark.parametrize("vendor", VENDORS)
def test_nothing_to_deliver_is_a_success(vendor: str, connections: Any) -> None:
    report = delivery(vendor_at(connections, vendor)).run(Given(iter(())))
    assert (report.read, report.delivered, report.requests) == (0, 0, 0)
    assert connections.requests(vendor) == []


def test_events_without_a_time_get_the_one_of_the_delivery(connections: Any) -> None:
    """The same one for all tries, so that a repeated event has the same bytes."""
    source = [Event("signed_up", {"registered": email}) for email in CUSTOMERS[:3]]
    for _ in range(2):
        delivery(vendor_at(connections, "bloomreach")).run(records(source))
    assert {event.wire["timestamp"] for event in connections.events("bloomreach")} == {SENT_AT.timestamp()}
    assert len(connections.events("bloomreach")) == 3
    assert len(connections.events("bloomreach", "duplicate")) == 3


def test_events_keep_their_microseconds() -> None:
    """Mistake 6 of the peers: times cut to seconds, so that different events become one."""
    at = datetime.fromisoformat("2026-03-01T09:30:00.123456+00:00")
    from airflow_provider_events.vendors.base import ConnectionValues
    from airflow_provider_events.vendors.bloomreach import Bloomreach

    vendor = Bloomreach(ConnectionValues("c", password="token", extra={"project_token": "project"}))
    first, second = (vendor.encode(Event("e", {"registered": "c-1"}, at + timedelta(microseconds=n))) for n in range(2))
    assert b"1772357400.123456" in first
    assert first != second


def test_invalid_events_are_rejected_with_row_and_field_and_the_rest_is_delivered(connections: Any) -> None:
    source = [*events("webengage", 10), Event("we_reserved", {"userId": "c-1"}), Event("e", {"cuid": "c-1"})]
    broken = Record(13, None, {"name": None}, InvalidEvent("name", "missing"))
    job = delivery(vendor_at(connections, "webengage"), max_rejected=3)
    report = job.run(Given(iter([[*next(records(source).records()), broken]])))
    assert (report.read, report.delivered, report.rejected) == (13, 10, 3)
    assert len(report.reasons) == 3
    assert all(reason.startswith(("invalid: name: ", "invalid: identity: ")) for reason in report.reasons)


def test_task_is_not_green_while_rows_failed(connections: Any) -> None:
    """Mistake 2 of the peers. All that can be delivered is delivered first, and the error has the accounts."""
    source = [*events("webengage", 30), Event("we_reserved", {"userId": "c-1"})]
    with pytest.raises(TooManyRejected, match=r"1 of 31 events were rejected \(max_rejected=0\)") as caught:
        delivery(vendor_at(connections, "webengage")).run(records(source))
    assert caught.value.report is not None
    assert (caught.value.report.delivered, caught.value.report.rejected) == (30, 1)
    assert not caught.value.retryable
    assert len(connections.events("webengage")) == 30


# -- dry runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_dry_run_reads_validates_shows_one_request_and_sends_none(
    vendor: str, connections: Any, caplog: pytest.LogCaptureFixture
) -> None:
    target = vendor_at(connections, vendor)
    source = [*events(vendor, 120), Event("order_paid", {"a": "1", "b": "2", "c": "3"})]
    bad = int(vendor != "bloomreach")  # which takes any ids
    with caplog.at_level("INFO"):
        report = delivery(target, dry_run=True, max_rejected=1).run(records(source))
    assert (report.read, report.delivered, report.rejected, report.unsent) == (121, 0, bad, 121 - bad)
    assert connections.requests(vendor) == []
    (shown,) = [message for message in caplog.messages if "the first request would be" in message]
    assert re.search(r"would be: (POST|PUT) /\S+ [\[{].{50}", shown)
    assert target.password not in shown
    assert len(shown) < 5000


def test_a_dry_run_judges_what_would_be_rejected(connections: Any) -> None:
    source = [Event("we_reserved", {"userId": "c-1"})]
    with pytest.raises(TooManyRejected):
        delivery(vendor_at(connections, "webengage"), dry_run=True).run(records(source))


def test_a_dry_run_can_be_stopped() -> None:
    """A task that is killed must not go on reading its query to the end."""
    chunks_read = 0

    def source() -> Iterator[Sequence[Record]]:
        nonlocal chunks_read
        for _ in range(1000):
            chunks_read += 1
            yield rows(10)
            job.stop()

    job = plain_delivery(accept, dry_run=True)
    with pytest.raises(DeliveryInterrupted) as caught:
        job.run(Given(source()))
    assert chunks_read < 10
    assert caught.value.report is not None
    assert caught.value.report.read == caught.value.report.unsent


# -- stops ---------------------------------------------------------------------------------------------------------


class TaskTimeout(BaseException):
    """As Airflow's own, which is no `Exception` either."""


@contextmanager
def handler(number: signal.Signals, handle: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """A signal handler; gives what sends the signal to the main thread."""

    def handle_signal(received: int, frame: FrameType | None) -> None:
        handle()

    main = threading.main_thread().ident
    assert main is not None
    before = signal.signal(number, handle_signal)
    try:
        yield lambda: signal.pthread_kill(main, number)
    finally:
        signal.signal(number, before)


def interrupted(source: Iterator[list[Record]], at_chunk: int, interrupt: Callable[[], None]) -> Iterator[list[Record]]:
    """`source`, with an interruption when a chunk is asked for."""
    for number, chunk in enumerate(source):
        if number == at_chunk:
            interrupt()
        yield chunk


def check_accounts(sandbox: Any, vendor: str, report: DeliveryReport | None) -> None:
    """Nothing that the vendor has is uncounted, and nothing counted is missing there."""
    assert report is not None
    assert report.delivered == len(sandbox.events(vendor))
    assert report.read == report.delivered + report.unsent


@pytest.mark.parametrize("at_chunk", [0, 1, 7, 20])
@pytest.mark.parametrize("vendor", VENDORS)
def test_a_stop_from_another_thread_drains_what_is_in_flight(vendor: str, at_chunk: int, connections: Any) -> None:
    connections.fault("delay", vendor=vendor, seconds=0.03)
    job = delivery(vendor_at(connections, vendor))
    with pytest.raises(DeliveryInterrupted) as caught:
        job.run(Given(interrupted(endless(vendor), at_chunk, job.stop)))
    assert caught.value.retryable
    check_accounts(connections, vendor, caught.value.report)


@pytest.mark.parametrize("vendor", ["vibetrace", "webengage"])
def test_a_stop_from_a_signal_handler_as_on_kill_does(vendor: str, connections: Any) -> None:
    """Airflow's SIGTERM handler calls `on_kill` and returns: the delivery itself has to end."""
    connections.fault("delay", vendor=vendor, seconds=0.03)
    job = delivery(vendor_at(connections, vendor))
    with handler(signal.SIGTERM, job.stop) as send_signal, pytest.raises(DeliveryInterrupted) as caught:
        job.run(Given(interrupted(endless(vendor), 12, send_signal)))
    check_accounts(connections, vendor, caught.value.report)


@pytest.mark.parametrize("vendor", ["embeddables", "bloomreach"])
def test_a_timeout_raised_by_a_signal_handler_is_held_until_all_is_accounted_for(vendor: str, connections: Any) -> None:
    """As `execution_timeout` does it."""

    def time_is_over() -> None:
        raise TaskTimeout("time is over")

    connections.fault("delay", vendor=vendor, seconds=0.03)
    observer = Silent()
    job = delivery(vendor_at(connections, vendor), observer=observer)
    with handler(signal.SIGALRM, time_is_over) as send_signal, pytest.raises(TaskTimeout, match="time is over"):
        job.run(Given(interrupted(endless(vendor), 12, send_signal)))
    check_accounts(connections, vendor, observer.report)
    requests = len(connections.requests(vendor))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("events-delivery")]
    assert len(connections.requests(vendor)) == requests


def test_a_stop_while_the_vendor_is_down_does_not_wait_for_it_to_come_back(connections: Any) -> None:
    connections.fault("status", vendor="bloomreach", after=5)
    policy = RetryPolicy(base_seconds=1000, cap_seconds=1000, budget_seconds=1e6)
    job = delivery(vendor_at(connections, "bloomreach"), retry_policy=policy)
    stopper = stop_when(lambda: len(connections.requests("bloomreach")) >= 9, job)
    started = time.monotonic()
    with pytest.raises(DeliveryInterrupted) as caught:
        job.run(Given(endless("bloomreach")))
    stopper.join()
    assert time.monotonic() - started < 5
    check_accounts(connections, "bloomreach", caught.value.report)


def test_a_stop_while_told_to_wait_ends_the_waiting(connections: Any) -> None:
    connections.fault("status", vendor="webengage", status=429, retry_after=600, after=3)
    job = delivery(vendor_at(connections, "webengage"), retry_policy=RetryPolicy())
    stopper = stop_when(lambda: len(connections.requests("webengage")) >= 4, job)
    started = time.monotonic()
    with pytest.raises(DeliveryInterrupted) as caught:
        job.run(Given(endless("webengage")))
    stopper.join()
    assert time.monotonic() - started < 5
    check_accounts(connections, "webengage", caught.value.report)


def test_answers_that_trickle_hold_a_stop_no_longer_than_the_time_for_draining(connections: Any) -> None:
    connections.fault("dribble", vendor="bloomreach", seconds=0.5, after=6)
    job = delivery(vendor_at(connections, "bloomreach"), timeout_seconds=60, drain_seconds=0.3)
    stopped_at: list[float] = []

    def stop() -> None:
        until(lambda: len(connections.requests("bloomreach")) == 10)  # six answered, four trickle
        stopped_at.append(time.monotonic())
        job.stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(DeliveryInterrupted) as caught:
        job.run(Given(endless("bloomreach")))
    took_seconds = time.monotonic() - stopped_at[0]
    stopper.join()
    assert 0.25 < took_seconds < 2
    report = caught.value.report
    assert report is not None
    assert (report.read, report.delivered, report.unsent) == (500, 300, 200)
    assert len(connections.events("bloomreach")) == 500  # the retry sends the window again; the vendor knows it


def test_a_source_that_hangs_holds_a_stop_no_longer_than_the_time_for_draining() -> None:
    release = threading.Event()
    asked = threading.Event()

    def source() -> Iterator[Sequence[Record]]:
        yield rows(10)
        asked.set()
        release.wait(30)
        yield rows(10)

    job = plain_delivery(accept, drain_seconds=0.3)
    stopper = stop_when(asked.is_set, job)
    started = time.monotonic()
    try:
        with pytest.raises(DeliveryInterrupted) as caught:
            job.run(Given(source()))
        assert time.monotonic() - started < 2
    finally:
        release.set()
        stopper.join()
    assert caught.value.report is not None
    assert caught.value.report.delivered == 10


def test_a_stop_before_the_start_sends_nothing(connections: Any) -> None:
    job = delivery(vendor_at(connections, "bloomreach"))
    job.stop()
    with pytest.raises(DeliveryInterrupted) as caught:
        job.run(Given(endless("bloomreach")))
    check_accounts(connections, "bloomreach", caught.value.report)
    assert connections.requests("bloomreach") == []


def test_a_stop_after_the_end_changes_nothing() -> None:
    job = plain_delivery(accept)
    assert job.run(chunked(rows(10))).delivered == 10
    job.stop()


# -- how a source ends ---------------------------------------------------------------------------------------------


class Source:
    """A source that knows whether its reading was closed; it may raise at its end, or in its own closing."""

    cursor = None
    keyed = False

    def __init__(self, chunks: int, error: Exception | None = None, close_error: Exception | None = None) -> None:
        self.closed = threading.Event()
        self.on_chunk: Callable[[int], None] = lambda number: None
        self._chunks = chunks
        self._error = error
        self._close_error = close_error

    def keys(self, records: Sequence[Record]) -> None:
        """There are none."""

    def count(self, limit: int) -> None:
        """It is not known."""

    def records(self, after: Any = None, first_row: int = 1) -> Iterator[Sequence[Record]]:
        """Ten events in each chunk."""
        try:
            for number in range(self._chunks):
                self.on_chunk(number)
                yield rows(10)
            if self._error:
                raise self._error
        finally:
            self.closed.set()
            if self._close_error:
                raise self._close_error


async def refuse(request: Request) -> Answer:
    """Nobody comes in."""
    return said(401, "fatal")


async def outage(request: Request) -> Answer:
    """Down for good."""
    raise TransportError("no answer from host:1")


ENDS: list[tuple[str, Callable[[Request], Awaitable[Answer]], Source, type[Exception] | None]] = [
    ("success", accept, Source(5), None),
    ("empty", accept, Source(0), None),
    ("refused", refuse, Source(5000), CredentialsRefused),
    ("outage", outage, Source(5000), VendorUnavailable),
    ("broken source", accept, Source(5, SourceError("connection lost")), SourceError),
]


@pytest.mark.parametrize(("name", "answer", "source", "error"), ENDS, ids=[name for name, *_ in ENDS])
def test_the_source_is_closed_in_every_end(
    name: str,
    answer: Callable[[Request], Awaitable[Answer]],
    source: Source,
    error: type[Exception] | None,
) -> None:
    """By the delivery, not by chance: whoever catches an error holds all its frames."""
    job = plain_delivery(answer)
    caught: BaseException | None = None
    try:
        job.run(source)
    except Exception as raised:
        caught = raised
    assert (type(caught) if caught else None) is error
    assert source.closed.is_set()


@pytest.mark.parametrize("dry_run", [False, True])
def test_the_source_is_closed_by_a_stop(dry_run: bool) -> None:
    source = Source(500)
    job = plain_delivery(accept, dry_run=dry_run)
    source.on_chunk = lambda number: job.stop() if number == 5 else None
    with pytest.raises(DeliveryInterrupted) as caught:
        job.run(source)
    assert source.closed.is_set()
    assert caught.value.report is not None
    assert caught.value.report.read < 500


def test_what_a_source_gave_before_it_failed_is_delivered() -> None:
    observer = Silent()
    job = plain_delivery(accept, batch_size=7, observer=observer)
    with pytest.raises(SourceError, match="connection lost"):
        job.run(Source(5, SourceError("connection lost")))
    assert (observer.report.read, observer.report.delivered) == (50, 50)


def test_an_error_while_closing_a_source_does_not_hide_why_the_delivery_ended() -> None:
    source = Source(5000, close_error=OSError("rollback failed"))
    with pytest.raises(CredentialsRefused):
        plain_delivery(refuse).run(source)
    assert source.closed.is_set()


def test_an_error_at_the_very_end_of_a_source_is_raised() -> None:
    observer = Silent()
    job = plain_delivery(accept, observer=observer)
    with pytest.raises(SourceError, match="commit failed"):
        job.run(Source(5, close_error=SourceError("commit failed")))
    assert observer.report.delivered == 50


# -- rejected events that cannot be kept ---------------------------------------------------------------------------


@pytest.mark.parametrize("source", [faulty(10), rows(10)], ids=["rejected by us", "rejected by the vendor"])
def test_rejected_events_that_cannot_be_written_are_an_error_with_closed_accounts(source: list[Record]) -> None:
    async def answer(request: Request) -> Answer:
        return said(200, ["rejected", *["delivered"] * 9])

    job = plain_delivery(answer, dead_letters=KeptSink(room=0), max_rejected=9)
    with pytest.raises(RejectedNotWritten, match="No space left") as caught:
        job.run(chunked(source))
    report = caught.value.report
    assert report is not None
    assert report.read == report.delivered + report.rejected == 10
    assert caught.value.retryable


# -- the loop of its own -------------------------------------------------------------------------------------------


def test_a_result_or_an_error_comes_back_from_the_loop() -> None:
    async def seven() -> int:
        return 7

    async def fail() -> int:
        raise KeyError("no")

    assert on_own_loop(seven, lambda: None) == 7
    with pytest.raises(KeyError):
        on_own_loop(fail, lambda: None)


def test_the_thread_of_a_loop_has_ended_when_its_result_is_there() -> None:
    async def own_thread() -> threading.Thread:
        return threading.current_thread()

    for _ in range(20):
        assert not on_own_loop(own_thread).is_alive()


def test_a_loop_that_cannot_be_closed_is_a_warning_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    class Unclosable(asyncio.SelectorEventLoop):
        closed = 0

        def close(self) -> None:
            super().close()
            self.closed += 1
            if self.closed == 1:
                raise OSError(5, "Input/output error")

    async def seven() -> int:
        return 7

    monkeypatch.setattr(runtime, "_new_loop", Unclosable)
    assert on_own_loop(seven) == 7
    assert caplog.messages == ["the event loop of a delivery could not be closed (OSError)"]
    assert capsys.readouterr().err == ""


def test_a_loop_that_cannot_be_made_is_an_error_and_no_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> asyncio.AbstractEventLoop:
        raise OSError(24, "Too many open files")

    async def never() -> None: ...

    monkeypatch.setattr(runtime, "_new_loop", none_left)
    with pytest.raises(OSError, match="Too many open files"):
        on_own_loop(never)


def test_the_loop_sees_the_context_of_its_caller() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set by the caller")

    async def read() -> str:
        return variable.get()

    assert on_own_loop(read, lambda: None) == "set by the caller"


def test_a_source_is_read_and_closed_in_the_context_of_the_caller() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set by the caller")
    seen: list[str] = []

    def read() -> Iterator[list[Record]]:
        try:
            for row in rows(3):
                seen.append(variable.get())
                yield [row]
        finally:
            seen.append(variable.get())

    assert plain_delivery(accept).run(Given(read())).delivered == 3
    assert seen == ["set by the caller"] * 4


def test_what_the_host_froze_stays_frozen_after_a_delivery() -> None:
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        plain_delivery(accept).run(chunked(rows(25)))
        assert gc.get_freeze_count() >= frozen * 0.9  # some of it may have been freed since
    finally:
        gc.unfreeze()


def test_nothing_stays_frozen_after_a_delivery_where_nothing_was() -> None:
    before = gc.get_freeze_count()
    plain_delivery(accept).run(chunked(rows(25)))
    assert gc.get_freeze_count() == before


class Kept:
    """An object that the garbage collector tracks."""


def is_frozen(kept: Kept) -> bool:
    return not any(one is kept for one in gc.get_objects())


@pytest.mark.parametrize("inner", [0, 1, 2])
@pytest.mark.parametrize("frozen_at", ["before", "within", "within the inner", "after the inner", "never"])
def test_what_the_host_freezes_at_any_time_stays_frozen(frozen_at: str, inner: int) -> None:
    def host(moment: str) -> None:
        if moment == frozen_at:
            gc.freeze()

    kept = Kept()
    try:
        host("before")
        with few_collections():
            host("within")
            for _ in range(inner):
                with few_collections():
                    host("within the inner")
            host("after the inner")
        wanted = frozen_at != "never" and (inner or frozen_at != "within the inner")
        assert is_frozen(kept) == bool(wanted)
    finally:
        gc.unfreeze()


def test_thresholds_are_as_they_were_or_as_the_host_has_set_them() -> None:
    before = gc.get_threshold()
    try:
        first, second = few_collections(), few_collections()
        first.__enter__()
        second.__enter__()
        assert gc.get_threshold() == (runtime.NEW_OBJECTS, *before[1:])
        first.__exit__(None, None, None)  # those that run at the same time end in any order
        assert gc.get_threshold() == (runtime.NEW_OBJECTS, *before[1:])
        second.__exit__(None, None, None)
        assert gc.get_threshold() == before
        with few_collections():
            gc.set_threshold(123, 4, 5)
        assert gc.get_threshold() == (123, 4, 5)
    finally:
        gc.set_threshold(*before)


def test_a_delivery_can_be_made_where_a_loop_is_running_already() -> None:
    async def main() -> DeliveryReport:
        return plain_delivery(accept).run(chunked(rows(25)))

    assert asyncio.run(main()).delivered == 25


def test_faulty_rows_alone_need_no_request() -> None:
    job = plain_delivery(refuse, max_rejected=5)
    with pytest.raises(TooManyRejected) as caught:
        job.run(chunked(faulty(5)))
    report = caught.value.report
    assert report is not None
    assert (report.read, report.rejected, report.requests) == (5, 5, 0)


def test_no_thread_outlives_a_delivery(connections: Any) -> None:
    """What a client library queues in the background is lost when the process ends; here nothing is left."""
    before = {thread.name for thread in threading.enumerate()}
    delivery(vendor_at(connections, "bloomreach"), retry_policy=QUICK).run(records(events("bloomreach", 100)))
    until(lambda: {thread.name for thread in threading.enumerate()} <= before)
