"""One request until its answer means something: what is repeated, how long, and what ends it. In simulated time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import pytest

from airflow_provider_events.delivery.courier import Courier
from airflow_provider_events.delivery.observer import Counters
from airflow_provider_events.delivery.pacing import Pacer, Patience, RetryPolicy, Stopped
from airflow_provider_events.delivery.transport import TransportError
from airflow_provider_events.exceptions import CredentialsRefused, DeliveryError, RateLimited, VendorUnavailable
from airflow_provider_events.exchange import Answer, Outcome, Request, Verdict
from tests.delivery.harness import FakeTransport, PlainWire, Run, chunked, rows, said, simulate

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

    def __init__(self, script: Iterable[Answer | TransportError], policy: RetryPolicy | None = None) -> None:
        self.transport = FakeTransport(answers(*script))
        self.counters = Counters()
        self.policy = policy or RetryPolicy()
        self.seconds = 0.0

    def result(self) -> Outcome:
        """The verdict it ended with."""
        return simulate(self._carry())

    async def _carry(self) -> Outcome:
        courier = Courier(self.transport, Pacer(None), self.policy, asyncio.Event(), self.counters)
        wire = PlainWire()
        try:
            _, reading = await courier.carry(
                Request("POST", "/", b"1"), lambda answer: wire.read(answer, 1), courier.patience()
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
    ("final", "words"),
    [
        (said(401, "refused"), "the reason"),
        (TransportError("not trusted", final=True), "not trusted"),
    ],
)
def test_a_refusal_of_the_credentials_ends_it_at_once(final: Answer | TransportError, words: str) -> None:
    carried = Carried([final])
    with pytest.raises(CredentialsRefused, match=words) as caught:
        carried.result()
    assert carried.counters.requests == 1
    assert not caught.value.retryable


def test_an_error_says_what_the_answer_said() -> None:
    """Mistake 8 of the peers: the vendor's error text thrown away."""
    carried = Carried([said(403, "refused", x_request_id="abc-1")])
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
        courier = Courier(transport, Pacer(None), policy, stopping, Counters())
        loop.call_later(1.0, stopping.set)
        with pytest.raises(Stopped):
            await courier.carry(Request("POST", "/"), lambda answer: wire.read(answer, 1), Patience(policy))
        return loop.time()

    assert simulate(main()) <= 1.2


def test_a_stop_does_not_abandon_an_answer_under_way() -> None:
    async def main() -> Verdict:
        stopping, wire = asyncio.Event(), PlainWire()
        courier = Courier(FakeTransport(answers(OK)), Pacer(None), RetryPolicy(), stopping, Counters())
        asyncio.get_running_loop().call_later(0.05, stopping.set)
        _, reading = await courier.carry(Request("POST", "/"), lambda answer: wire.read(answer, 1), courier.patience())
        assert isinstance(reading, Outcome)
        return reading.verdict

    assert simulate(main()) is Verdict.DELIVERED
