"""Carries one request until the vendor's answer means something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypedDict

from airflow_provider_events.contract import Answer, Outcome, Request, Verdict
from airflow_provider_events.delivery.accounts import Counters
from airflow_provider_events.delivery.pacing import (
    RateLimiter,
    RetryBudget,
    RetryPolicy,
    retry_after_seconds,
    sleep_unless,
)
from airflow_provider_events.exceptions import (
    CredentialsRefused,
    EndpointRefused,
    RateLimited,
    UnknownAnswer,
    VendorUnavailable,
)
from airflow_provider_events.http import open_transport
from airflow_provider_events.http.contract import Endpoint, Transport, TransportError
from airflow_provider_events.redaction import About, Redactor, nobody

__all__ = ["Sender", "open_sender", "refusal"]

Reading = Outcome | list[Outcome]
_UNUSUAL = (Verdict.RETRY, Verdict.FATAL, Verdict.REJECTED)
_TOO_LARGE = (413, 414, 431)  # whoever is in between says it of this request alone


class Facts(TypedDict, total=False):
    """What an answer adds to an error."""

    status: int
    code: str
    request_id: str | None


NO_FACTS: Facts = {}


class Sender:
    """Retries what can heal, waits as told, and stops at refused credentials.

    :param transport: open, and shared by all requests.
    :param rate_limiter: shared by all that use the same quota.
    :param stopping: once set, no further attempt is made.
    :param stores: requests store something, so that repeating one may store it twice.
    :param redactor: knows the secrets that no answer may repeat.
    :ivar budget: gives a fresh budget for one batch.
    :ivar let_in: the vendor itself has answered; a page of a firewall is from then on an outage.
    """

    def __init__(
        self,
        transport: Transport,
        rate_limiter: RateLimiter,
        policy: RetryPolicy,
        stopping: asyncio.Event,
        counters: Counters,
        redactor: Redactor | None = None,
        *,
        stores: bool = True,
    ) -> None:
        self._stores = stores
        self._transport = transport
        self._rate_limiter = rate_limiter
        self._stopping = stopping
        self._time = asyncio.get_running_loop().time
        self.counters = counters
        self.redactor = redactor or Redactor()
        self.budget = partial(RetryBudget, policy)
        self.let_in = False

    async def send(
        self,
        request: Request | Callable[[], Request],
        read: Callable[[Answer], Reading],
        budget: RetryBudget,
        about: About = nobody,
    ) -> tuple[Answer, Reading]:
        """The first answer with a verdict, and that verdict, in words that may be shown.

        :param request: a function makes a new one for each attempt, where the vendor takes none twice.
        :param about: whom the request concerns, where the vendor's words may repeat it.
        :raises CredentialsRefused: the vendor refused key or project.
        :raises EndpointRefused: the URL leads to no vendor, or its certificate is not trusted.
        :raises VendorUnavailable: the retry budget is spent.
        :raises UnknownAnswer: a success in an unknown form came again.
        :raises RateLimited: the vendor asks for a longer pause than the policy allows.
        :raises Stopped: the delivery is being stopped.
        """
        again_at_once = True
        while True:
            if not self._rate_limiter.free or self._stopping.is_set():
                await self._rate_limiter.acquire(self._stopping)
            started = self._time()
            self.counters.requests += 1
            try:
                answer = await self._transport.send(request if isinstance(request, Request) else request())
            except TransportError as error:
                if error.final:
                    raise EndpointRefused(str(error)) from error
                if error.stale and again_at_once:
                    again_at_once = False
                    self.counters.retries += 1
                    continue
                await self._back_off(budget, self._time() - started, str(error))
                continue
            self._rate_limiter.observe(answer.headers)
            reading = read(answer)
            if isinstance(reading, list):
                self.let_in = True
                return answer, self.redactor.outcomes(reading, about)
            if reading.reason or reading.code:
                reading = self.redactor.outcome(reading, about)
            if reading.verdict not in _UNUSUAL:
                self.let_in = True
                return answer, reading
            if self._is_final(answer, reading, about):
                return answer, reading
            if 200 <= answer.status < 300 and not budget.not_understood():
                facts = self._facts(answer, reading, about)
                raise self._unknown(budget, f"answer {answer.status}: {reading.reason}", facts)
            asked = retry_after_seconds(answer.headers)
            if answer.status == 429 or asked is not None:
                self._wait_as_told(budget, asked, self._facts(answer, reading, about))
            else:
                facts = self._facts(answer, reading, about)
                await self._back_off(budget, self._time() - started, reading.reason, facts)

    def _is_final(self, answer: Answer, reading: Outcome, about: About) -> bool:
        """Whether the vendor has spoken of the events; False for what is for later.

        :raises CredentialsRefused: no further request can succeed.
        """
        if reading.verdict is Verdict.RETRY:
            return False
        foreign = answer.status != 407 and answer.foreign
        if foreign and retry_after_seconds(answer.headers) is not None:
            return False
        if foreign and answer.status not in _TOO_LARGE and (self.let_in or self.counters.resumed):
            return False
        if reading.verdict is Verdict.FATAL:
            raise self.access_denied(answer, reading, about)
        self.let_in = self.let_in or not foreign
        return True

    async def pause(self, budget: RetryBudget, why: str) -> None:
        """Back off once, on behalf of events that an otherwise good answer left open.

        :raises UnknownAnswer: it is not the first such answer to their request.
        """
        if not budget.not_understood():
            raise self._unknown(budget, why)
        await self._back_off(budget, 0.0, why)

    def _wait_as_told(self, budget: RetryBudget, asked: float | None, facts: Facts) -> None:
        pause = budget.throttled(asked)
        if pause is None:
            raise RateLimited(
                "the vendor asks for a longer pause than a task should wait",
                retry_after=asked,
                **facts,
            )
        self.counters.throttled += 1
        self.counters.retries += 1
        self._rate_limiter.pause(pause)

    async def _back_off(self, budget: RetryBudget, took_seconds: float, why: str, facts: Facts = NO_FACTS) -> None:
        pause = budget.failed(took_seconds)
        if pause is None:
            raise VendorUnavailable(f"no usable answer within the retry budget; last: {why}", **facts)
        self.counters.retries += 1
        await sleep_unless(self._stopping, pause)

    def _unknown(self, budget: RetryBudget, why: str, facts: Facts = NO_FACTS) -> UnknownAnswer:
        doubt = f"what was sent may be stored at the vendor up to {budget.unknown} times"
        error = UnknownAnswer(
            f"{budget.unknown} times a success in an unknown form; last: {why}{f'; {doubt}' if self._stores else ''}",
            **facts,
        )
        error.retryable = not self._stores
        return error

    def access_denied(self, answer: Answer, outcome: Outcome, about: About) -> CredentialsRefused:
        """The error for refused credentials, or for a URL that leads to no vendor."""
        return refusal(answer)(f"{outcome.code}: {outcome.reason}", **self._facts(answer, outcome, about))

    def _facts(self, answer: Answer, reading: Outcome, about: About) -> Facts:
        request_id = self.redactor.label(answer.headers.get("x-request-id"), about)
        return {"status": answer.status, "code": reading.code, "request_id": request_id}


def refusal(answer: Answer) -> type[CredentialsRefused]:
    """Whether the key is refused, or the URL leads to no vendor, by an answer that concerns every request."""
    astray = 300 <= answer.status < 400 or answer.status in (404, 405, 407, 410)
    return EndpointRefused if astray else CredentialsRefused


@asynccontextmanager
async def open_sender(
    endpoint: Endpoint,
    redactor: Redactor,
    retry_policy: RetryPolicy | None = None,
    rate_limiter: RateLimiter | None = None,
) -> AsyncIterator[Sender]:
    """A sender with a transport of its own, for single calls."""
    limiter, policy = rate_limiter or RateLimiter(), retry_policy or RetryPolicy()
    async with open_transport(endpoint) as transport:
        yield Sender(transport, limiter, policy, asyncio.Event(), Counters(), redactor)
