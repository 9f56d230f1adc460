"""Sending one event or upsert through a hook, and the answer as a receipt."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_events.delivery.courier import alone
from airflow_provider_events.delivery.job import encode
from airflow_provider_events.events import Event, Receipt
from airflow_provider_events.exceptions import DeliveryError, EntryMissing, EventRejected
from airflow_provider_events.exchange import Verdict

if TYPE_CHECKING:
    from airflow_provider_events.delivery.job import Codec
    from airflow_provider_events.hooks.base import EventsHook

__all__ = ["send_one"]


async def send_one(hook: EventsHook, event: Event, codec: Codec) -> Receipt:
    """Deliver one event; see `EventsHook.send`.

    :param codec: how it travels: as an event of the hook's vendor, or as an upsert.
    """
    encoded = encode(codec, event, datetime.now(UTC))
    try:
        async with alone(hook.endpoint(1)) as courier:
            answer, outcome = await courier.carry(
                codec.request([encoded]), lambda answer: codec.read(answer, 1), courier.patience()
            )
    except DeliveryError as error:
        raise hook.named(error) from error.__cause__
    if isinstance(outcome, list):
        (outcome,) = outcome
    request_id = answer.headers.get("x-request-id")
    if outcome.verdict is not Verdict.DELIVERED:
        kind = EntryMissing if outcome.verdict is Verdict.MISSING else EventRejected
        raise kind(
            f"{outcome.code}: {outcome.reason}",
            status=answer.status,
            code=outcome.code,
            request_id=request_id,
            conn_id=hook.conn_id,
        )
    return Receipt(
        hook.conn_type,
        encoded.key,
        answer.status,
        outcome.reference,
        request_id,
        courier.counters.requests,
    )
