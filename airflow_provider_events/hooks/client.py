"""All calls to a vendor through one connection: send, upsert, deliver, look up, probe. Knows no Airflow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_events.contract import Codec, Verdict
from airflow_provider_events.delivery.encoding import at_its_time, encoded
from airflow_provider_events.delivery.job import Delivery, Plan
from airflow_provider_events.delivery.observers import DeliveryObserver, LogObserver
from airflow_provider_events.delivery.options import DeliveryOptions, Limits
from airflow_provider_events.delivery.pacing import RateLimiter, RetryPolicy, limiter_of
from airflow_provider_events.delivery.sender import open_sender, refusal
from airflow_provider_events.events import Event, Receipt, checked_identities
from airflow_provider_events.exceptions import (
    ConfigurationError,
    CredentialsRefused,
    DeliveryError,
    EndpointRefused,
    EntryMissing,
    EventRejected,
    EventsError,
    InvalidEvent,
    UnknownAnswer,
    VendorUnavailable,
)
from airflow_provider_events.frames import name_connection
from airflow_provider_events.hooks.route import proxy_of, secrets_of, verify_of
from airflow_provider_events.http import open_transport
from airflow_provider_events.http.contract import Endpoint, TransportError
from airflow_provider_events.lookups.search import Line, Search, open_line
from airflow_provider_events.redaction import Private, Redactor
from airflow_provider_events.values import filled

if TYPE_CHECKING:
    from airflow_provider_events.delivery.checkpoint import CheckpointStore
    from airflow_provider_events.delivery.dead_letter import DeadLetterFile
    from airflow_provider_events.delivery.pending import PendingEvents
    from airflow_provider_events.delivery.resume import Source
    from airflow_provider_events.reports import DeliveryReport
    from airflow_provider_events.vendors.base import Vendor

__all__ = ["VendorClient"]

log = logging.getLogger(__name__)


class VendorClient:
    """A vendor that is spoken to. Its errors name the connection, where it leads and which of its fields to look at.

    :param vendor: as its connection configures it.
    :param retry_policy: how long to go on when answers fail. Default: `RetryPolicy()`.
    :param rate_limiter: keeps the quota, in place of the connection's or the vendor's.
    :param observers: are told how each delivery goes, beside the log.
    """

    def __init__(
        self,
        vendor: Vendor,
        *,
        retry_policy: RetryPolicy | None = None,
        rate_limiter: RateLimiter | None = None,
        observers: Sequence[DeliveryObserver] = (),
    ) -> None:
        self.vendor = vendor
        self._retry_policy = retry_policy or RetryPolicy()
        self._rate_limiter = rate_limiter
        self._observers = observers

    # -- sending -----------------------------------------------------------------------------------------------------

    async def send(self, event: Event | Mapping[str, Any]) -> Receipt:
        """Deliver one event.

        :raises InvalidEvent: our own validation refused it.
        :raises EventRejected: the vendor refused it for good.
        :raises EntryMissing: the customer's entry does not exist (yet).
        :raises DeliveryError: credentials refused, vendor unavailable, or rate limited for long.
        """
        with self._naming():
            return await self._send(Event.from_dict(event), self.vendor)

    async def upsert(
        self,
        identity: Mapping[str, str | int],
        attributes: Mapping[str, Any] | None = None,
        sent_at: datetime | None = None,
    ) -> Receipt:
        """Create the customer's entry, or update its attributes; see `EventsHook.upsert`.

        :raises ConfigurationError: the vendor documents no such call.
        :raises DeliveryError: as from `send`.
        """
        with self._naming():
            codec = self.vendor.upserts()
            return await self._send(Event("upsert", identity, sent_at, filled(attributes or {})), codec)

    async def _send(self, event: Event, codec: Codec) -> Receipt:
        event = at_its_time(event, codec, datetime.now(UTC))
        fragment = encoded(event, codec)
        redactor = self.redactor

        def about() -> list[Private]:
            return [Private(event.identity, (event.properties, event.id))]

        async with open_sender(self.endpoint(), redactor, self._retry_policy, self._rate_limiter) as sender:
            answer, outcome = await sender.send(
                codec.request([fragment]), lambda answer: codec.read(answer, 1), sender.budget(), about
            )
        if isinstance(outcome, list):
            (outcome,) = outcome
        request_id = redactor.label(answer.headers.get("x-request-id"), about)
        if outcome.verdict is not Verdict.DELIVERED:
            kind = EntryMissing if outcome.verdict is Verdict.MISSING else EventRejected
            raise kind(
                f"{outcome.code}: {outcome.reason}",
                status=answer.status,
                code=outcome.code,
                request_id=request_id,
            )
        return Receipt(
            self.vendor.conn_type,
            codec.key(event),
            answer.status,
            redactor.label(outcome.reference, about),
            request_id,
            sender.counters.requests,
        )

    def deliver(
        self,
        source: Source,
        options: DeliveryOptions | None = None,
        *,
        codec: Codec | None = None,
        dead_letters: DeadLetterFile | None = None,
        sent_at: datetime | None = None,
        fingerprint: str = "",
        store: CheckpointStore | None = None,
        entry_delay_seconds: float = 0.0,
        observers: Sequence[DeliveryObserver] = (),
        pending: PendingEvents | None = None,
        begun: Callable[[Delivery], None] = lambda delivery: None,
    ) -> DeliveryReport:
        """Deliver the records of a source, on an event loop of its own.

        :param codec: how a record travels. Default: as an event.
        :param dead_letters: where rejected events go; None for nowhere.
        :param sent_at: the time of events that have none. Default: now.
        :param fingerprint: of query, mapping and options; a checkpoint of another one is not continued.
        :param store: keeps the checkpoint from try to try.
        :param entry_delay_seconds: the customers' entries were made just before; see `Limits`.
        :param observers: are told how it goes, beside the log and the client's own.
        :param pending: takes events that are rejected for a reason that time can cure.
        :param begun: is given the delivery before it runs: it can be stopped, and has the accounts.
        :raises DeliveryError: with the accounts so far as its `report`.
        """
        options = options or DeliveryOptions()
        limits = self.limits(options)
        endpoint = self.endpoint(limits.max_in_flight)
        plan = Plan(
            self.vendor.conn_type,
            options,
            replace(limits, entry_delay_seconds=entry_delay_seconds),
            sent_at or datetime.now(UTC),
            fingerprint,
            self.vendor.conn_id,
            limiter_of(self._quota(options.requests_per_minute, self.vendor.quota(limits.batch_size))),
            self._retry_policy,
            self.redactor,
        )
        told = [LogObserver(log), *self._observers, *observers]
        delivery = Delivery(
            codec or self.vendor, lambda: open_transport(endpoint), plan, told, dead_letters, store, pending
        )
        begun(delivery)
        with self._naming(DeliveryError):
            return delivery.run(source)

    # -- looking up --------------------------------------------------------------------------------------------------

    async def lookup(self, identities: Sequence[Mapping[str, str | int]]) -> list[bool]:
        """For each of the identities whether the vendor has an entry; see `EventsHook.entry_exists`."""
        with self._naming():
            search = Search(checked_identities(identities))
            search.prepare(self.vendor)
            await self.look_once(search)
            return search.exist()

    async def look_once(self, search: Search, *, seconds: float | None = None) -> None:
        """`look` on a line that is opened for it."""
        async with self.open_line() as line:
            await self.look(search, line, seconds=seconds)

    async def look(self, search: Search, line: Line, *, seconds: float | None = None) -> None:
        """One round of a prepared search: the one look that all modes of the sensor take.

        :param seconds: how long it may take; what is found by then stays found. None: as long as it takes.
        :raises DeliveryError: `VendorUnavailable` also where that time brought failures alone.
        """
        answers, retries = search.answers, line.sender.counters.retries
        with self._naming(DeliveryError):
            try:
                async with asyncio.timeout(seconds):
                    await search.round(self.vendor, line)
            except TimeoutError:
                if search.answers == answers and line.sender.counters.retries > retries:
                    words = f"no usable answer within the {seconds or 0:.0f} s that were left"
                    raise VendorUnavailable(words) from None

    @asynccontextmanager
    async def open_line(self) -> AsyncIterator[Line]:
        """The line for look-ups, shared by all that use it on this event loop: on the quota, and no more at once than
        the connection allows."""
        in_flight = self.vendor.extra["max_in_flight"] or self.vendor.max_in_flight
        quota = self._quota(None, self.vendor.lookup_quota())
        async with open_line(self.endpoint(in_flight), quota, in_flight, self.redactor, self._retry_policy) as line:
            yield line

    # -- the connection ------------------------------------------------------------------------------------------------

    async def probe(self) -> tuple[bool, str]:
        """Whether the vendor lets the connection in, by the least harmful documented call, and its words."""
        vendor, endpoint = self.vendor, self.endpoint()
        warned = "".join(f". Warning: {warning}" for warning in vendor.warnings())
        where = f"{vendor.base_url} by the proxy {endpoint.proxy_host}" if endpoint.proxy else vendor.base_url
        try:
            async with open_transport(endpoint) as transport:
                answer = await transport.send(vendor.probe())
        except TransportError as error:
            return False, f"{error}: check the API base URL {vendor.base_url}{warned}"
        outcome = self.redactor.outcome(vendor.read_probe(answer))
        if outcome.verdict is Verdict.DELIVERED:
            return True, f"{vendor.label} accepts this connection ({where}){warned}"
        said = f"{vendor.label} at {where} answered {answer.status} ({outcome.code}): {outcome.reason}"
        kind = refusal(answer) if outcome.verdict is Verdict.FATAL else EventRejected
        return False, said + _advice(vendor, kind(said)) + warned

    def endpoint(self, max_connections: int = 1) -> Endpoint:
        """Where the connection leads, with its credentials.

        :raises ConfigurationError: its CA bundle cannot be read, or the environment's proxy is none.
        """
        vendor = self.vendor
        return Endpoint(
            vendor.base_url,
            vendor.headers(),
            timeout_seconds=vendor.extra["timeout"],
            verify=verify_of(vendor),
            proxy=proxy_of(vendor),
            max_connections=max_connections,
        )

    @cached_property
    def redactor(self) -> Redactor:
        """Takes this connection's secrets out of whatever the vendor says."""
        return Redactor(secrets_of(self.vendor))

    def check(self, options: DeliveryOptions) -> None:
        """Raise what a delivery would raise before its first event.

        :raises ConfigurationError: connection, environment and options do not fit together.
        """
        self.limits(options)
        self.endpoint()

    def limits(self, options: DeliveryOptions) -> Limits:
        """Bounds of a delivery: as wanted, else the connection's, else the vendor's.

        :raises ConfigurationError: more events per request than the vendor takes, or two paces.
        """
        if self._rate_limiter is not None and options.requests_per_minute is not None:
            raise ConfigurationError("requests_per_minute: the hook's rate_limiter keeps the quota; give one of them")
        vendor, extra = self.vendor, self.vendor.extra
        batch_size = options.batch_size or extra["batch_size"] or vendor.max_batch_size
        if batch_size > vendor.max_batch_size:
            raise ConfigurationError(
                f"connection {vendor.conn_id!r}: batch_size {batch_size} is more than the {vendor.max_batch_size} "
                f"that {vendor.label} takes in one request"
            )
        return Limits(batch_size, options.max_in_flight or extra["max_in_flight"] or vendor.max_in_flight)

    def _quota(self, wanted: float | None, published: float | None) -> RateLimiter | float | None:
        """What keeps the pace; else requests a minute: as wanted, else the connection's, at most what is published."""
        if self._rate_limiter is not None:
            return self._rate_limiter
        wanted = wanted or self.vendor.extra["requests_per_minute"]
        if wanted is None or published is None or wanted <= published:
            return wanted or published
        words = "%g requests per minute are above %s's published %g: keeping to these"
        log.warning(words, wanted, self.vendor.label, published)
        return published

    def explained(self, error: EventsError) -> EventsError:
        """`error`, saying which connection it was; of what the vendor answered also where that leads, and which fields
        of the connection's form to look at."""
        vendor = self.vendor
        named = f"connection {vendor.conn_id!r}"
        if isinstance(error, DeliveryError):
            error.conn_id = vendor.conn_id
        if str(error).startswith(named) or not isinstance(error, DeliveryError | InvalidEvent):
            name_connection(error, named)
            return error
        proxy = urlsplit(proxy_of(vendor) or "").netloc.rpartition("@")[2]
        way = f" by the proxy {proxy}" if proxy and proxy not in str(error) else ""
        error.args = (f"{named}: {vendor.label} at {vendor.base_url}{way}: {error}{_advice(vendor, error)}",)
        return error

    @contextmanager
    def _naming(self, kind: type[EventsError] = EventsError) -> Iterator[None]:
        """Errors of this kind are explained."""
        try:
            yield
        except kind as error:
            raise self.explained(error) from None


def _advice(vendor: Vendor, error: EventsError) -> str:
    """Which fields of the connection's form an error may come from; nothing where it comes from none."""
    unheard = isinstance(error, VendorUnavailable) and error.status is None and not isinstance(error, UnknownAnswer)
    leads = {"host"} if unheard or isinstance(error, EndpointRefused) else set()
    proves = {"login", "password"} if isinstance(error, CredentialsRefused) and not leads else set()
    fields = [f"{field.label!r} ({field.name})" for field in vendor.standard_fields if field.name in leads | proves]
    if isinstance(error, CredentialsRefused):
        fields += [f"{field.label!r} (extra key {field.name!r})" for field in vendor.extra_fields if field.required]
    return f"; in the connection's form look at {', '.join(fields)}" if fields else ""
