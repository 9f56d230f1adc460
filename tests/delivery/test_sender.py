"""One request until its answer means something: what is repeated, how long, and what ends it. In simulated time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import pytest

from airflow_provider_events.contract import Answer, Outcome, Request, Verdict
from airflow_provider_events.delivery.accounts import Counters
from airflow_provider_events.delivery.pacing import RateLimiter, RetryBudget, RetryPolicy, Stopped
from airflow_provider_events.delivery.sender import Sender
from airflow_provider_events.exceptions import (
    CredentialsRefused,
    DeliveryError,
    EndpointRefused,
    RateLimited,
    UnknownAnswer,
    VendorUnavailable,
)
from airflow_provider_events.http.contract import TransportError
from tests.delivery.harness import FakeTransport, PlainWire, Run, chunked, rows, said, simulate
from tests.vendors.wires import HTML, vendor

OK = said(200, "delivered")
LATER = said(503, "retry")
DISTANT = 1_000_000.0  # a bound that no test reaches
ENDLESS = 2000  # requests after which a test gives up


def answers(*script: Answer | TransportError) -> Callable[[Request], Awaitable[Answer]]:
    """These in turn, and then the last one for ever."""
    left = list(script)
    count = 0

    async def answer(request: Request) -> Answer:
        nonlocal count
        count += 1
        assert count < ENDLESS, "repeated without end"
        await asyncio.sleep(0.1)
        said_now = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(said_now, TransportError):
            raise said_now
        return said_now

    return answer


class Carried:
    """One request, carried in simulated time."""

    def __init__(
        self, script: Iterable[Answer | TransportError], policy: RetryPolicy | None = None, *, stores: bool = True
    ) -> None:
        self.stores = stores
        self.transport = FakeTransport(answers(*script))
        self.counters = Counters()
        self.policy = policy or RetryPolicy()
        self.seconds = 0.0

    def result(self) -> Outcome:
        """The verdict it ended with."""
        return simulate(self._carry())

    async def _carry(self) -> Outcome:
        sender = Sender(
            self.transport, RateLimiter(None), self.policy, asyncio.Event(), self.counters, stores=self.stores
        )
        wire = PlainWire()
        try:
            _, reading = await sender.send(
                Request("POST", "/", b"1"), lambda answer: wire.read(answer, 1), sender.budget()
            )
        finally:
            self.seconds = asyncio.get_running_loop().time()
        assert isinstance(reading, Outcome)
        return reading

    @property
    def times(self) -> list[float]:
        """When each attempt was made."""
        return [at for at, _ in self.transport.sent]


@pytest.mark.parametrize("verdict", [Verdict.DELIVERED, Verdict.REJECTED, Verdict.MISSING])
def test_a_verdict_ends_it_at_the_first_attempt(verdict: Verdict) -> None:
    carried = Carried([said(200, verdict.value)])
    assert carried.result().verdict is verdict
    assert (carried.counters.requests, carried.counters.retries) == (1, 0)


def test_what_can_heal_is_repeated_until_it_does() -> None:
    carried = Carried([LATER, TransportError("cut"), said(429, "retry"), said(503, "retry", retry_after="3"), OK])
    assert carried.result().verdict is Verdict.DELIVERED
    counters = carried.counters
    assert (counters.requests, counters.retries, counters.throttled) == (5, 4, 2)


def test_a_stale_connection_costs_no_pause_once() -> None:
    stale = TransportError("closed while it rested", stale=True)
    carried = Carried([stale, OK], RetryPolicy(base_seconds=60))
    assert carried.result().verdict is Verdict.DELIVERED
    assert carried.seconds < 1
    assert (carried.counters.requests, carried.counters.retries) == (2, 1)  # it may have been read, so it is told


def test_the_second_stale_connection_of_a_request_is_a_failure() -> None:
    stale = TransportError("closed while it rested", stale=True)
    carried = Carried([stale] * 1000, RetryPolicy(budget_seconds=30))
    with pytest.raises(VendorUnavailable):
        carried.result()
    assert carried.seconds > 0


def test_waiting_as_told_is_no_failure() -> None:
    """Three minutes of waiting, with a budget for failures of one second."""
    carried = Carried([*[said(429, "retry", retry_after="60")] * 3, OK], RetryPolicy(budget_seconds=1))
    assert carried.result().verdict is Verdict.DELIVERED
    assert carried.seconds == pytest.approx(180.4)


@pytest.mark.parametrize("status", [429, 503])
def test_a_cap_never_means_waiting_less_than_told(status: int) -> None:
    policy = RetryPolicy(base_seconds=0.01, cap_seconds=1.0)
    carried = Carried([said(status, "retry", retry_after="90"), OK], policy)
    carried.result()
    assert carried.times[1] - carried.times[0] >= 90


def test_a_429_pauses_all_who_use_the_quota() -> None:
    async def answer(request: Request) -> Answer:
        await asyncio.sleep(0.5)
        return said(429, "retry", retry_after="40") if len(run.transport.sent) == 4 and refusals.pop() else OK

    refusals = [False, False, False, True]  # of the first four, sent together, one is answered with 429
    run = Run(answer, batch_size=1, max_in_flight=4)
    report = simulate(run.through(chunked(rows(40))))
    times = [at for at, _ in run.transport.sent]
    assert report.delivered == 40
    assert not [at for at in times if 0.5 < at < 40.5]
    assert max(times) > 40.5


def test_a_longer_pause_than_allowed_is_handed_back_with_its_length() -> None:
    carried = Carried([said(429, "retry", retry_after="3600")], RetryPolicy(max_wait_seconds=900))
    with pytest.raises(RateLimited) as caught:
        carried.result()
    assert (caught.value.retry_after, caught.value.status, caught.value.code) == (3600.0, 429, "code")
    assert caught.value.retryable
    assert carried.counters.requests == 1


def test_many_pauses_that_sum_up_to_too_much_are_handed_back() -> None:
    carried = Carried([said(429, "retry", retry_after="300")], RetryPolicy(max_wait_seconds=900))
    with pytest.raises(RateLimited):
        carried.result()
    assert carried.counters.requests == 4
    assert carried.seconds < 1000


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_zero_for_ever_comes_to_an_end(status: int) -> None:
    policy = RetryPolicy(budget_seconds=20, max_wait_seconds=20, base_seconds=0.5)
    carried = Carried([said(status, "retry", retry_after="0")], policy)
    with pytest.raises((RateLimited, VendorUnavailable)):
        carried.result()


@pytest.mark.parametrize(
    ("bad", "reason"), [(LATER, "the reason"), (TransportError("no answer from host:1"), "no answer from host:1")]
)
def test_the_budget_ends_it_with_the_last_reason(bad: Answer | TransportError, reason: str) -> None:
    carried = Carried([bad], RetryPolicy(budget_seconds=60))
    with pytest.raises(VendorUnavailable, match=reason) as caught:
        carried.result()
    assert carried.seconds <= 60.5
    assert caught.value.retryable
    assert caught.value.status == (503 if isinstance(bad, Answer) else None)


def test_the_default_budget_outlasts_the_one_minute_window_of_a_quota() -> None:
    carried = Carried([*[LATER] * 7, OK], RetryPolicy())
    assert carried.result().verdict is Verdict.DELIVERED
    for _ in range(20):
        hopeless = Carried([LATER])
        with pytest.raises(VendorUnavailable):
            hopeless.result()
        assert 60 < hopeless.seconds <= 301


@pytest.mark.parametrize(
    ("final", "error", "words"),
    [
        (said(401, "fatal"), CredentialsRefused, "the reason"),
        (said(403, "fatal"), CredentialsRefused, "the reason"),
        (said(404, "fatal"), EndpointRefused, "the reason"),
        (said(301, "fatal"), EndpointRefused, "the reason"),
        (TransportError("not trusted", final=True), EndpointRefused, "not trusted"),
    ],
)
def test_what_no_further_request_can_heal_ends_it_at_once(
    final: Answer | TransportError, error: type[DeliveryError], words: str
) -> None:
    """A wrong URL or certificate is not told as a wrong key."""
    carried = Carried([final])
    with pytest.raises(error, match=words) as caught:
        carried.result()
    assert type(caught.value) is error
    assert carried.counters.requests == 1
    assert not caught.value.retryable


def test_an_error_says_what_the_answer_said() -> None:
    """Mistake 8 of the peers: the vendor's error text thrown away."""
    carried = Carried([said(403, "fatal", x_request_id="abc-1")])
    with pytest.raises(DeliveryError) as caught:
        carried.result()
    error = caught.value
    assert (error.status, error.code, error.request_id) == (403, "code", "abc-1")
    assert "the reason" in str(error)


@pytest.mark.parametrize("script", [[LATER], [said(429, "retry", retry_after="300")]], ids=["backing off", "told"])
def test_a_stop_ends_any_wait_at_once(script: list[Answer]) -> None:
    async def main() -> float:
        stopping, loop = asyncio.Event(), asyncio.get_running_loop()
        wire = PlainWire()
        transport = FakeTransport(answers(*script))
        policy = RetryPolicy(base_seconds=1000, cap_seconds=1000, budget_seconds=DISTANT, max_wait_seconds=DISTANT)
        sender = Sender(transport, RateLimiter(None), policy, stopping, Counters())
        loop.call_later(1.0, stopping.set)
        with pytest.raises(Stopped):
            await sender.send(Request("POST", "/"), lambda answer: wire.read(answer, 1), RetryBudget(policy))
        return loop.time()

    assert simulate(main()) <= 1.2


def test_a_stop_does_not_abandon_an_answer_under_way() -> None:
    async def main() -> Verdict:
        stopping, wire = asyncio.Event(), PlainWire()
        sender = Sender(FakeTransport(answers(OK)), RateLimiter(None), RetryPolicy(), stopping, Counters())
        asyncio.get_running_loop().call_later(0.05, stopping.set)
        _, reading = await sender.send(Request("POST", "/"), lambda answer: wire.read(answer, 1), sender.budget())
        assert isinstance(reading, Outcome)
        return reading.verdict

    assert simulate(main()) is Verdict.DELIVERED


# -- a success in an unknown form ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stores", [True, False], ids=["stores", "reads only"])
@pytest.mark.parametrize("script", [[(200, {})], [(204, {})], [(202, {"retry_after": "3"})], [(204, {}), (201, {})]])
def test_a_success_in_an_unknown_form_is_tried_three_times(
    script: list[tuple[int, dict[str, str]]], stores: bool
) -> None:
    carried = Carried([said(status, "retry", **headers) for status, headers in script], stores=stores)
    with pytest.raises(UnknownAnswer, match="3 times a success in an unknown form; last: answer 2") as caught:
        carried.result()
    assert carried.counters.requests == 3
    assert carried.seconds < 10
    assert caught.value.status == script[-1][0]
    assert caught.value.retryable is not stores
    assert ("may be stored at the vendor up to 3 times" in str(caught.value)) is stores


def test_outages_between_are_not_counted_as_successes_in_an_unknown_form() -> None:
    unknown = said(204, "retry")
    carried = Carried([LATER, unknown, LATER, TransportError("cut"), unknown, LATER, OK])
    assert carried.result().verdict is Verdict.DELIVERED
    assert carried.counters.requests == 7


# -- a page instead of the vendor's word ---------------------------------------------------------------------------

PAGES = {"a web page": HTML, "an empty answer": b" ", "no JSON": b"Access denied"}
FOREIGN = [301, 302, 304, 308, 400, 401, 403, 404, 405, 406, 409, 410, 418, 422, 451]


def page(status: int, body: bytes = HTML, **headers: str) -> Answer:
    """What a firewall says."""
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


class Dialogue:
    """Requests one after the other through one sender, read as a vendor reads them."""

    def __init__(self, *script: Answer | TransportError, conn_type: str = "vibetrace", resumed: int = 0) -> None:
        self.transport = FakeTransport(answers(*script))
        self.vendor = vendor(conn_type)
        self.counters = Counters()
        self.counters.resumed = resumed
        self.seconds = 0.0

    def read(self, count: int) -> list[Verdict]:
        """The verdicts of so many requests."""
        return simulate(self._read(count))

    async def _read(self, count: int) -> list[Verdict]:
        sender = Sender(self.transport, RateLimiter(None), RetryPolicy(), asyncio.Event(), self.counters)
        verdicts = []
        try:
            for _ in range(count):
                request = Request("POST", "/", b"1")
                _, reading = await sender.send(request, partial(self.vendor.read, count=1), sender.budget())
                assert isinstance(reading, Outcome)
                verdicts.append(reading.verdict)
        finally:
            self.seconds = asyncio.get_running_loop().time()
        return verdicts


GOOD = Answer(200, {}, b'{"results": {"message": "ok"}}')


@pytest.mark.parametrize("status", FOREIGN)
@pytest.mark.parametrize("kind", PAGES)
def test_a_page_between_good_answers_is_an_outage(status: int, kind: str) -> None:
    foreign = page(status, PAGES[kind])
    healed = Dialogue(GOOD, foreign, foreign, GOOD)
    assert healed.read(2) == [Verdict.DELIVERED] * 2
    hopeless = Dialogue(GOOD, foreign)
    with pytest.raises(VendorUnavailable, match=f"{kind}: a firewall or proxy in between") as caught:
        hopeless.read(2)
    assert caught.value.retryable
    assert caught.value.status == status
    assert 60 < hopeless.seconds <= 301


def test_the_vendors_rejection_is_a_good_answer_too() -> None:
    missing = Answer(404, {}, b'{"errors": [{"message": "User not found"}]}')
    rejected = Answer(400, {}, b'{"errors": [{"message": "Invalid data format/type"}]}')
    for first, verdict in ((missing, Verdict.MISSING), (rejected, Verdict.REJECTED)):
        assert Dialogue(first, page(403), GOOD).read(2) == [verdict, Verdict.DELIVERED]


def test_a_page_is_an_outage_from_the_start_where_an_earlier_try_was_let_in() -> None:
    assert Dialogue(page(403), GOOD, resumed=500).read(1) == [Verdict.DELIVERED]


@pytest.mark.parametrize("status", FOREIGN)
def test_a_page_that_says_when_to_come_back_is_waited_for(status: int) -> None:
    for script in ([GOOD, page(status, retry_after="50"), GOOD], [page(status, retry_after="50"), GOOD, GOOD]):
        told = Dialogue(*script)
        assert told.read(2) == [Verdict.DELIVERED] * 2
        assert 50 < told.seconds < 51
    with pytest.raises(RateLimited):
        Dialogue(page(status, retry_after="3600")).read(1)


@pytest.mark.parametrize("status", FOREIGN)
def test_a_page_instead_of_the_first_good_answer_ends_it_or_rejects_the_event(status: int) -> None:
    first = Dialogue(page(status))
    if status in (400, 406, 409, 418, 422, 451):
        assert first.read(1) == [Verdict.REJECTED]
    else:
        error = CredentialsRefused if status in (401, 403) else EndpointRefused
        with pytest.raises(error, match="a web page: a firewall or proxy in between, or ") as caught:
            first.read(1)
        assert not caught.value.retryable
    assert first.counters.requests == 1
    after_pages = Dialogue(page(400), page(400), page(403))
    with pytest.raises(CredentialsRefused):
        after_pages.read(3)


@pytest.mark.parametrize("status", [413, 414, 431])
def test_a_page_about_the_size_of_a_request_concerns_that_request(status: int) -> None:
    assert Dialogue(GOOD, page(status), GOOD).read(3) == [Verdict.DELIVERED, Verdict.REJECTED, Verdict.DELIVERED]


@pytest.mark.parametrize(
    ("status", "error"), [(401, CredentialsRefused), (403, CredentialsRefused), (404, EndpointRefused)]
)
@pytest.mark.parametrize("body", [b'{"message": "no"}', b"null", b'"no"', b"[]", b"0"])
def test_the_vendors_own_word_stays_final(status: int, error: type[DeliveryError], body: bytes) -> None:
    with pytest.raises(error):
        Dialogue(GOOD, page(status, body)).read(2)


def test_a_proxy_that_wants_credentials_is_final_at_any_time() -> None:
    with pytest.raises(EndpointRefused, match="a proxy in between asks for credentials"):
        Dialogue(GOOD, page(407)).read(2)


@pytest.mark.parametrize("status", [421, 423])
@pytest.mark.parametrize("body", [HTML, b'{"errors": [{"message": "Locked"}]}'])
def test_misdirected_and_locked_are_for_later(status: int, body: bytes) -> None:
    assert Dialogue(page(status, body), GOOD).read(1) == [Verdict.DELIVERED]
