"""The quota is kept and used; what the vendor asks for is obeyed; backoff spreads. All in simulated time."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from email.utils import formatdate
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_events.contract import Answer, Request
from airflow_provider_events.delivery.pacing import (
    RateLimiter,
    RetryBudget,
    RetryPolicy,
    Stopped,
    retry_after_seconds,
    sleep_unless,
)
from tests.delivery.harness import Run, chunked, rows, said, simulate

MINUTE = 60.0


def busiest_minute(times: list[float]) -> int:
    """The most turns in any 60 s."""
    return max(bisect_left(times, at + MINUTE) - first for first, at in enumerate(times))


# -- quotas --------------------------------------------------------------------------------------------------------


def check_ten_minutes(times: list[float], quota: int) -> None:
    """The quota was used, and never broken."""
    assert sum(at < 10 * MINUTE for at in times) >= 0.98 * 10 * quota
    assert busiest_minute(times) <= quota


def test_a_quota_of_500_is_used_and_never_broken_over_ten_minutes() -> None:
    async def answer(request: Request) -> Answer:
        await asyncio.sleep(0.3)
        return said(200, "delivered")

    run = Run(answer, batch_size=1, max_in_flight=8, requests_per_minute=500)
    simulate(run.through(chunked(rows(5000), 1000)))
    check_ten_minutes([at for at, _ in run.transport.sent], 500)


def test_a_quota_of_6000_is_used_and_never_broken_over_ten_minutes() -> None:
    async def main() -> list[float]:
        rate_limiter, stopping, loop = RateLimiter(6000), asyncio.Event(), asyncio.get_running_loop()
        times: list[float] = []

        async def work() -> None:
            while loop.time() < 10 * MINUTE:
                await rate_limiter.acquire(stopping)
                times.append(loop.time())
                await asyncio.sleep(0.2)

        await asyncio.gather(*(work() for _ in range(32)))
        return times

    check_ten_minutes(simulate(main()), 6000)


@pytest.mark.parametrize("quota", [0.5, 1, 2, 7, 59, 60, 61, 101])
def test_small_quotas_are_never_broken_either(quota: float) -> None:
    async def twenty_minutes() -> list[float]:
        rate_limiter, stopping, loop = RateLimiter(quota), asyncio.Event(), asyncio.get_running_loop()
        times: list[float] = []
        while loop.time() < 20 * MINUTE:
            await rate_limiter.acquire(stopping)
            times.append(loop.time())
        return times

    times = simulate(twenty_minutes())
    assert busiest_minute(times) <= max(quota, 1)
    assert len(times) >= 0.97 * 20 * quota


def test_turns_that_nobody_took_are_not_made_up_for() -> None:
    """After a minute of silence the vendor's window is empty, yet ours starts at the even pace again."""

    async def main() -> list[float]:
        rate_limiter, stopping, loop = RateLimiter(60), asyncio.Event(), asyncio.get_running_loop()
        await rate_limiter.acquire(stopping)
        await asyncio.sleep(MINUTE)
        times = []
        for _ in range(5):
            await rate_limiter.acquire(stopping)
            times.append(loop.time())
        return times

    times = simulate(main())
    assert all(later - earlier >= 1.0 for earlier, later in pairwise(times))


def test_without_a_quota_nothing_waits() -> None:
    async def main() -> float:
        rate_limiter, stopping = RateLimiter(None), asyncio.Event()
        for _ in range(1000):
            await rate_limiter.acquire(stopping)
        return asyncio.get_running_loop().time()

    assert simulate(main()) == 0.0


def test_retries_take_turns_too() -> None:
    async def answer(request: Request) -> Answer:
        return said(503, "retry") if len(run.transport.sent) % 3 else said(200, "delivered")

    run = Run(answer, batch_size=1, requests_per_minute=600, policy=RetryPolicy(base_seconds=0.001))
    simulate(run.through(chunked(rows(200))))
    times = [at for at, _ in run.transport.sent]
    assert len(times) > 500
    assert all(later - earlier > 0.1 for earlier, later in pairwise(times))


@pytest.mark.parametrize(
    ("remaining", "limit", "spacing_seconds"),
    [
        ("500", "500", 0.01),
        ("6", "500", 0.01),
        ("5", "500", 0.12),
        ("1", "500", 0.6),
        ("0", "500", 1.2),
        ("60", "6000", 0.01),
        ("30", "6000", 0.02),
        ("many", "500", 0.01),
        ("-1", "500", 0.01),
        ("1", "", 0.01),
        ("0", "0", 1.2),
    ],
)
def test_the_last_hundredth_of_a_quota_is_used_slowly(remaining: str, limit: str, spacing_seconds: float) -> None:
    """Others may use the same quota; a vendor that counts aloud is believed."""

    async def main() -> float:
        rate_limiter, loop = RateLimiter(60 / 0.0099), asyncio.get_running_loop()
        await rate_limiter.acquire(asyncio.Event())
        rate_limiter.observe({"x-ratelimit-remaining": remaining, "x-ratelimit-limit": limit})
        await rate_limiter.acquire(asyncio.Event())
        return loop.time()

    assert simulate(main()) == pytest.approx(spacing_seconds, rel=0.05)


def test_a_quota_that_is_shared_is_not_run_into_over_and_over() -> None:
    """Somebody else takes half of a quota of 500, we were told of all of it, and the vendor counts aloud."""
    quota = 500
    taken: list[float] = []
    refused = 0

    async def answer(request: Request) -> Answer:
        nonlocal refused
        now = asyncio.get_running_loop().time()
        others = quota // 2
        ours = sum(at > now - MINUTE for at in taken)
        left = quota - others - ours
        if left <= 0:
            refused += 1
            return said(429, "retry", x_ratelimit_limit=str(quota), x_ratelimit_remaining="0")
        taken.append(now)
        return said(200, "delivered", x_ratelimit_limit=str(quota), x_ratelimit_remaining=str(left - 1))

    run = Run(answer, batch_size=1, max_in_flight=8, requests_per_minute=quota)
    report = simulate(run.through(chunked(rows(5 * quota // 2))))
    assert report.delivered == 5 * quota // 2
    assert refused < 0.1 * len(taken)


# -- pauses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quota", [None, 600])
def test_a_pause_holds_everybody_back_those_who_wait_already_too(quota: float | None) -> None:
    async def main() -> list[float]:
        rate_limiter, stopping, loop = RateLimiter(quota), asyncio.Event(), asyncio.get_running_loop()
        times: list[float] = []

        async def worker() -> None:
            await rate_limiter.acquire(stopping)
            times.append(loop.time())

        await rate_limiter.acquire(stopping)
        if quota:
            waiting = [asyncio.create_task(worker()) for _ in range(3)]
            await asyncio.sleep(0)
            rate_limiter.pause(30)
        else:
            rate_limiter.pause(30)
            waiting = [asyncio.create_task(worker()) for _ in range(3)]
        await asyncio.gather(*waiting)
        return times

    times = simulate(main())
    assert len(times) == 3
    assert min(times) >= 30.0


def test_a_shorter_pause_does_not_cut_a_longer_one_short() -> None:
    async def main() -> float:
        rate_limiter = RateLimiter(None)
        rate_limiter.pause(30)
        rate_limiter.pause(5)
        await rate_limiter.acquire(asyncio.Event())
        return asyncio.get_running_loop().time()

    assert simulate(main()) == pytest.approx(30.0)


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_stop_ends_waiting_for_a_turn(when: str) -> None:
    async def main() -> float:
        rate_limiter, stopping, loop = RateLimiter(1), asyncio.Event(), asyncio.get_running_loop()
        if when == "before":
            stopping.set()
        else:
            await rate_limiter.acquire(stopping)
            loop.call_later(3.0, stopping.set)
        with pytest.raises(Stopped):
            await rate_limiter.acquire(stopping)
        return loop.time()

    assert simulate(main()) == pytest.approx(0.0 if when == "before" else 3.0)


@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_a_sleep_ends_at_its_time_or_with_the_stop(seconds: float) -> None:
    async def main() -> float:
        stopping, loop = asyncio.Event(), asyncio.get_running_loop()
        await sleep_unless(stopping, seconds)
        slept = loop.time()
        stopping.set()
        with pytest.raises(Stopped):
            await sleep_unless(stopping, seconds)
        assert loop.time() == slept
        return slept

    assert simulate(main()) == pytest.approx(seconds)


# -- backoff and budgets -------------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.floats(0.01, 10), st.floats(10, 1000))
def test_backoff_stays_within_its_bound(attempt: int, base: float, cap: float) -> None:
    pause = RetryPolicy(base_seconds=base, cap_seconds=cap).backoff(attempt)
    assert 0 <= pause <= cap
    if attempt < 30:
        assert pause <= base * 2**attempt


def test_backoff_has_full_jitter() -> None:
    pauses = [RetryPolicy(base_seconds=1.0).backoff(3) for _ in range(1000)]
    assert min(pauses) < 1.0
    assert max(pauses) > 7.0
    assert 3.5 < sum(pauses) / len(pauses) < 4.5


def test_backoff_can_outlast_the_one_minute_window_of_a_quota() -> None:
    assert RetryPolicy().cap_seconds > MINUTE
    assert max(RetryPolicy().backoff(20) for _ in range(200)) > MINUTE


def test_a_budget_counts_failing_and_backing_off_but_no_waits_the_vendor_asked_for() -> None:
    budget = RetryBudget(RetryPolicy(budget_seconds=10, max_wait_seconds=100, base_seconds=0, cap_seconds=0))
    assert budget.throttled(60) == 60
    assert [budget.failed(4), budget.failed(4)] == [0, 0]
    assert budget.throttled(40) == 40
    assert budget.failed(4) is None


def test_waits_asked_for_have_a_bound_of_their_own() -> None:
    budget = RetryBudget(RetryPolicy(max_wait_seconds=100))
    assert budget.throttled(60) == 60
    assert budget.throttled(60) is None
    assert RetryBudget(RetryPolicy(max_wait_seconds=100)).throttled(101) is None


def test_being_told_to_wait_for_no_time_again_and_again_comes_to_an_end() -> None:
    """`Retry-After: 0`, or a date that our clock has passed: not a licence to hammer for ever."""
    policy = RetryPolicy(budget_seconds=5, max_wait_seconds=5, base_seconds=0.1, cap_seconds=1)
    budget = RetryBudget(policy)
    assert any(budget.throttled(0.0) is None for _ in range(10_000))


def test_a_429_without_a_time_backs_off_longer_each_time() -> None:
    policy = RetryPolicy(max_wait_seconds=1e9, base_seconds=1.0, cap_seconds=90)
    seen: list[list[float]] = [[], [], []]
    for _ in range(300):
        budget = RetryBudget(policy)
        for pauses in seen:
            pauses.append(budget.throttled(None) or 0.0)
    averages = [sum(pauses) / len(pauses) for pauses in seen]
    assert averages == sorted(averages)


# -- Retry-After ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("99999999999999999999", 999_999_999.0),
        ("", None),
        ("-5", None),
        ("1.5", 1.5),
        ("0.25", 0.25),
        ("3.", 3.0),
        (".5", None),
        ("1e3", None),
        ("1,5", None),
        ("\u0663", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("Wed, 99 Foo 2026 99:99:99 GMT", None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
    ],
)
def test_retry_after_as_a_number_and_what_is_none(value: str, seconds: float | None) -> None:
    assert retry_after_seconds({"retry-after": value}) == seconds


def test_no_retry_after() -> None:
    assert retry_after_seconds({}) is None


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/New_York"])
@pytest.mark.parametrize("form", ["rfc", "rfc850", "asctime"])
def test_retry_after_as_a_date_is_gmt_wherever_we_are(form: str, zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All three forms of HTTP dates, which are in GMT by definition."""
    later = time.time() + 90
    patterns = {"rfc850": "%A, %d-%b-%y %H:%M:%S GMT", "asctime": "%a %b %d %H:%M:%S %Y"}
    text = time.strftime(patterns[form], time.gmtime(later)) if form in patterns else formatdate(later, usegmt=True)
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert retry_after_seconds({"retry-after": text}) == pytest.approx(90, abs=3)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("hours", [-30, -1, 0, 1, 30])
def test_a_date_is_compared_with_the_clock_of_who_names_it(hours: int) -> None:
    """The answer's own `Date`; a worker's clock may be wrong."""
    now = time.time() + hours * 3600
    headers = {"retry-after": formatdate(now + 90, usegmt=True), "date": formatdate(now, usegmt=True)}
    assert retry_after_seconds(headers) == 90
    assert retry_after_seconds({**headers, "retry-after": formatdate(now - 5, usegmt=True)}) == 0


def test_without_a_readable_date_this_clock_has_to_do() -> None:
    headers = {"retry-after": formatdate(time.time() + 90, usegmt=True), "date": "today"}
    assert retry_after_seconds(headers) == pytest.approx(90, abs=3)
