"""What a hook sends by itself: one event or upsert, and the probe of a connection; and the bounds of a delivery."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_events.contract import Verdict
from airflow_provider_events.delivery.encoding import at_its_time, encoded
from airflow_provider_events.delivery.options import DeliveryOptions, Limits
from airflow_provider_events.delivery.sender import open_sender, refusal
from airflow_provider_events.events import Event, Receipt
from airflow_provider_events.exceptions import (
    ConfigurationError,
    CredentialsRefused,
    EndpointRefused,
    EntryMissing,
    EventRejected,
    EventsError,
    UnknownAnswer,
    VendorUnavailable,
)
from airflow_provider_events.http import open_transport
from airflow_provider_events.http.contract import TransportError
from airflow_provider_events.redaction import Private

if TYPE_CHECKING:
    from airflow_provider_events.contract import Codec
    from airflow_provider_events.hooks.base import EventsHook
    from airflow_provider_events.vendors.base import Vendor

__all__ = ["advice", "limits_of", "probe", "send_one"]


async def send_one(hook: EventsHook, event: Event, codec: Codec) -> Receipt:
    """Deliver one event; see `EventsHook.send`.

    :param codec: how it travels: as an event of the hook's vendor, or as an upsert.
    """
    event = at_its_time(event, codec, datetime.now(UTC))
    fragment = encoded(event, codec)
    redactor = hook.redactor

    def about() -> list[Private]:
        return [Private(event.identity, (event.properties, event.id))]

    async with open_sender(hook.endpoint(1), redactor, hook.retry_policy, hook.rate_limiter) as sender:
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
        hook.conn_type,
        codec.key(event),
        answer.status,
        redactor.label(outcome.reference, about),
        request_id,
        sender.counters.requests,
    )


async def probe(hook: EventsHook) -> tuple[bool, str]:
    """Whether the vendor lets the connection in, and its words; see `EventsHook.test_connection`."""
    vendor, endpoint = hook.vendor, hook.endpoint(1)
    warned = "".join(f". Warning: {warning}" for warning in vendor.warnings())
    where = f"{vendor.base_url} by the proxy {endpoint.proxy_host}" if endpoint.proxy else vendor.base_url
    try:
        async with open_transport(endpoint) as transport:
            answer = await transport.send(vendor.probe())
    except TransportError as error:
        return False, f"{error}: check the API base URL {vendor.base_url}{warned}"
    outcome = hook.redactor.outcome(vendor.read_probe(answer))
    if outcome.verdict is Verdict.DELIVERED:
        return True, f"{vendor.label} accepts this connection ({where}){warned}"
    said = f"{vendor.label} at {where} answered {answer.status} ({outcome.code}): {outcome.reason}"
    kind = refusal(answer) if outcome.verdict is Verdict.FATAL else EventRejected
    return False, said + advice(vendor, kind(said)) + warned


def advice(vendor: Vendor, error: EventsError) -> str:
    """Which fields of the connection's form an error may come from; nothing where it comes from none."""
    unheard = isinstance(error, VendorUnavailable) and error.status is None and not isinstance(error, UnknownAnswer)
    leads = {"host"} if unheard or isinstance(error, EndpointRefused) else set()
    proves = {"login", "password"} if isinstance(error, CredentialsRefused) and not leads else set()
    fields = [f"{field.label!r} ({field.name})" for field in vendor.standard_fields if field.name in leads | proves]
    if isinstance(error, CredentialsRefused):
        fields += [f"{field.label!r} (extra key {field.name!r})" for field in vendor.extra_fields if field.required]
    return f"; in the connection's form look at {', '.join(fields)}" if fields else ""


def limits_of(hook: EventsHook, wanted: DeliveryOptions) -> tuple[Limits, float | None]:
    """Bounds and requests per minute: as wanted, else the connection's, else the vendor's.

    :raises ConfigurationError: more events per request than the vendor takes.
    """
    vendor, extra = hook.vendor, hook.vendor.extra
    batch_size = wanted.batch_size or extra["batch_size"] or vendor.max_batch_size
    if batch_size > vendor.max_batch_size:
        raise ConfigurationError(
            f"connection {hook.conn_id!r}: batch_size {batch_size} is more than the {vendor.max_batch_size} "
            f"that {vendor.label} takes in one request"
        )
    quota = hook.quota(wanted.requests_per_minute or extra["requests_per_minute"], vendor.quota(batch_size))
    return Limits(batch_size, wanted.max_in_flight or extra["max_in_flight"] or vendor.max_in_flight), quota
