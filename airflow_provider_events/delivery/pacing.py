"""When the next request may go out: the quota, what the vendor asks for, and backoff."""

from __future__ import annotations

import asyncio
import math
import random
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from airflow_provider_events.exceptions import ConfigurationError

__all__ = ["RateLimiter", "RetryBudget", "RetryPolicy", "Stopped", "limiter_of", "retry_after_seconds", "sleep_unless"]

MAX_TOLD_SECONDS = 999_999_999.0
_SECONDS = re.compile(r"\d+(\.\d*)?", re.ASCII)


class Stopped(Exception):
    """The delivery is being stopped: nothing new is to be sent."""


async def sleep_unless(stopping: asyncio.Event, seconds: float) -> None:
    """Sleep, unless `stopping` is set before the time is over.

    :raises Stopped: it was.
    """
    if not stopping.is_set() and seconds > 0:
        try:
            await asyncio.wait_for(stopping.wait(), seconds)
        except TimeoutError:
            return
    if stopping.is_set():
        raise Stopped


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to go on when answers fail.

    :param budget_seconds: one request may fail for so long, waits that the vendor asked for not counted.
    :param max_wait_seconds: longest wait, in one piece or in sum, that the vendor may ask of one request before the
        delivery ends with `RateLimited` and leaves the waiting to Airflow.
    :param base_seconds: upper bound of the first backoff; it doubles from attempt to attempt.
    :param cap_seconds: upper bound of any backoff; longer than the one-minute windows of the vendors' quotas.
    :param max_unknown: so many successes in an unknown form end a request: each of them may have stored its events.
    :raises ConfigurationError: one of them is no such number.
    """

    budget_seconds: float = 300.0
    max_wait_seconds: float = 900.0
    base_seconds: float = 0.5
    cap_seconds: float = 90.0
    max_unknown: int = 3

    def __post_init__(self) -> None:
        for name in ("budget_seconds", "max_wait_seconds", "base_seconds", "cap_seconds"):
            if not _is_number(value := getattr(self, name)) or value < 0:
                raise ConfigurationError(f"{name} has to be a number of seconds, not {value!r}")
        if not _is_number(self.max_unknown) or not isinstance(self.max_unknown, int) or self.max_unknown < 1:
            raise ConfigurationError(f"max_unknown has to be a whole number of at least 1, not {self.max_unknown!r}")

    def backoff(self, attempt: int) -> float:
        """Full jitter: anything between 0 and the bound of this attempt, counted from 0."""
        return random.uniform(0, min(self.cap_seconds, self.base_seconds * 2 ** min(attempt, 30)))


class RetryBudget:
    """How long one batch has been failing, and how often; times the vendor asked for are kept apart.

    :ivar unknown: how many answers were a success in an unknown form.
    """

    unknown = 0
    _failures = 0
    _throttles = 0
    _failing_seconds = 0.0
    _waited_seconds = 0.0

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy

    def failed(self, took_seconds: float) -> float | None:
        """The pause before the next attempt in seconds, or None when the budget is spent."""
        pause = self._policy.backoff(self._failures)
        self._failures += 1
        self._failing_seconds += took_seconds + pause
        return pause if self._failing_seconds <= self._policy.budget_seconds else None

    def not_understood(self) -> bool:
        """Whether a success in an unknown form may be tried once more."""
        self.unknown += 1
        return self.unknown < self._policy.max_unknown

    def throttled(self, asked_seconds: float | None) -> float | None:
        """The pause after a 429 or a `Retry-After` in seconds, or None when it is more than a worker should wait.

        As told; where nothing is told, or no time at all, it grows from time to time.
        """
        pause = asked_seconds or self._policy.backoff(self._throttles)
        self._throttles += 1
        self._waited_seconds += pause
        return pause if self._waited_seconds <= self._policy.max_wait_seconds else None


class RateLimiter:
    """One turn after the other, evenly spaced: shared by all that use one quota, on any thread of the process.

    :param requests_per_minute: None for no limit. Of a quota 99 % are used, so that the network's jitter never packs
        one request too many into a minute.
    :raises ConfigurationError: no number above 0.
    :ivar free: whether anybody may go at any time: there is no quota, and there was never a reason to slow down.
    """

    def __init__(self, requests_per_minute: float | None = None) -> None:
        if requests_per_minute is not None and not (_is_number(requests_per_minute) and requests_per_minute > 0):
            raise ConfigurationError(f"requests_per_minute has to be a number above 0, not {requests_per_minute!r}")
        self.requests_per_minute = requests_per_minute
        self._lock = threading.Lock()  # deliveries on other threads may share it
        self._interval = 60.0 / (0.99 * requests_per_minute) if requests_per_minute else 0.0
        self._next_turn = 0.0
        self._resume_at = 0.0
        self.free = not self._interval

    def __deepcopy__(self, memo: object) -> RateLimiter:
        """Itself, as Airflow copies tasks with all that they were given: what is shared stays shared."""
        return self

    async def acquire(self, stopping: asyncio.Event) -> None:
        """Wait for the next turn; a pause that comes while waiting puts it off.

        :raises Stopped: `stopping` was set.
        """
        loop = asyncio.get_running_loop()
        while True:
            with self._lock:
                now = loop.time()
                mine = max(now, self._next_turn)
                self._next_turn = mine + self._interval
            if mine > now:
                await sleep_unless(stopping, mine - now)
            elif stopping.is_set():
                raise Stopped
            if self._resume_at <= mine:
                return

    def observe(self, headers: Mapping[str, str]) -> None:
        """Slow down when an answer says that the last hundredth of a minute's quota is being used.

        Others may share it. The fewer requests remain, the wider they are spaced; in a steady state 99 % are used.
        """
        if "x-ratelimit-remaining" not in headers:
            return
        remaining, limit = headers["x-ratelimit-remaining"], headers.get("x-ratelimit-limit", "")
        if remaining.isdecimal() and limit.isdecimal() and (left := int(remaining[:9])) <= int(limit[:9]) / 100:
            spacing = 60.0 / 100 / max(left, 0.5)
            self._next_turn = max(self._next_turn, asyncio.get_running_loop().time() + spacing)
            self.free = False

    def pause(self, seconds: float) -> None:
        """No turn before `seconds` from now, for anybody."""
        self._resume_at = max(self._resume_at, asyncio.get_running_loop().time() + seconds)
        self._next_turn = max(self._next_turn, self._resume_at)
        self.free = False


def limiter_of(quota: RateLimiter | float | None) -> RateLimiter:
    """What keeps a quota: itself, or requests per minute of it."""
    return quota if isinstance(quota, RateLimiter) else RateLimiter(quota)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """The `Retry-After` header in seconds, from either of its forms; None when absent or unreadable.

    A date is compared with the answer's own `Date`, and with this machine's clock only where there is none.
    """
    value = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        return min(float(value), MAX_TOLD_SECONDS)
    until = _timestamp(value)
    if until is None:
        return None
    now = _timestamp(headers.get("date", ""))
    return max(0.0, until - (time.time() if now is None else now))


def _timestamp(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
