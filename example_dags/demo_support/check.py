"""Whether what arrived is what was delivered: event by event, against an independent reading of the shop.

Nothing here is shared with the code that sends events: the bodies are written out as each vendor documents them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_provider_events.sandbox import Sandbox
from airflow_provider_events.sandbox.shop import SHOP_ZONE, Order


def problems(vendor: str, report: Mapping[str, Any], orders: Iterable[Order], sandbox: Sandbox) -> list[str]:
    """What does not add up; nothing, when all is well."""
    orders = list(orders)
    rejected = _rejected_orders(report["rejected_path"])
    skipped = _skipped_orders(vendor, orders) - rejected
    expected = Counter(
        _canonical(BODIES[vendor](order)) for order in orders if order.order_id not in rejected | skipped
    )
    arrived = Counter(_canonical(_unpacked(event.wire)) for event in sandbox.events(vendor))
    accounted = report["delivered"] + report["rejected"] + report["skipped"] + report["resumed"]
    checks = {
        f"{report['read']} rows were read, and the shop has {len(orders)} orders": report["read"] == len(orders),
        f"{report['read']} were read, and {accounted} accounted for": report["read"] == accounted,
        f"{report['unsent']} were left unsent": report["unsent"] == 0,
        f"{report['rejected']} were rejected, and {len(rejected)} are in the file": report["rejected"] == len(rejected),
        f"{report['skipped']} were skipped, and {len(skipped)} have no entry": report["skipped"] == len(skipped),
        f"{report['delivered']} were delivered, and {arrived.total()} arrived": report["delivered"] == arrived.total(),
        f"{(expected - arrived).total()} expected events are missing": not expected - arrived,
        f"{(arrived - expected).total()} events arrived that nobody expected": not arrived - expected,
        f"the sandbox found fault with the client: {sandbox.violations(vendor)[:3]}": not sandbox.violations(vendor),
    }
    return [f"{vendor}: {problem}" for problem, holds in checks.items() if not holds]


def _rejected_orders(path: str | None) -> set[int]:
    """The ids of the orders in a file of rejected events."""
    if path is None:
        return set()
    lines = Path(path.removeprefix("file://")).read_text(encoding="utf-8").splitlines()
    return {json.loads(line)["data"]["order_id"] for line in lines}


def _skipped_orders(vendor: str, orders: Iterable[Order]) -> set[int]:
    """Orders of customers without an entry, where the DAG says `on_missing_entry="skip"`."""
    if vendor != "embeddables":
        return set()
    return {order.order_id for order in orders if not order.filled_in_form}


def _embeddables(order: Order) -> dict[str, Any]:
    return {
        "embeddable_id": "flow_sandbox",
        "timestamp": f"{_utc(order):%Y-%m-%dT%H:%M:%S}.{_utc(order).microsecond // 1000:03d}Z",
        "custom_event_name": order.status,
        "custom_event_props": _without_nulls(
            order_id=order.order_id, total=order.total, currency=order.currency, discount=order.discount
        ),
        "identifiers": [{"key": "email", "value": f'"{order.email}"'}],
    }


def _vibetrace(order: Order) -> dict[str, Any]:
    about = _without_nulls(orderId=str(order.order_id), total=order.total, discount=order.discount)
    return {"user": {"email": order.email}, "event": {"confirmation": {"items": [], "generic": about}}}


def _webengage(order: Order) -> dict[str, Any]:
    return {
        "userId": str(order.customer_id),
        "eventName": order.status,
        "eventTime": f"{_local(order):%Y-%m-%dT%H:%M:%S%z}",
        "eventData": _without_nulls(
            order_id=order.order_id,
            total=order.total,
            currency=order.currency,
            discount=order.discount,
            note=order.note,
        ),
    }


def _bloomreach(order: Order) -> dict[str, Any]:
    return {
        "customer_ids": {"registered": str(order.customer_id)},
        "event_type": "purchase",
        "timestamp": _local(order).timestamp(),
        "properties": _without_nulls(
            purchase_id=order.order_id,
            total_price=order.total,
            currency=order.currency,
            discount=order.discount,
            note=order.note,
        ),
    }


BODIES: dict[str, Callable[[Order], dict[str, Any]]] = {
    "embeddables": _embeddables,
    "vibetrace": _vibetrace,
    "webengage": _webengage,
    "bloomreach": _bloomreach,
}


def _without_nulls(**properties: Any) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value is not None}


def _local(order: Order) -> datetime:
    return datetime.fromisoformat(order.placed_at).replace(tzinfo=SHOP_ZONE)


def _utc(order: Order) -> datetime:
    return _local(order).astimezone(UTC)


def _unpacked(wire: dict[str, Any]) -> dict[str, Any]:
    """Embeddables takes the properties as JSON in a string; everybody else's body is returned as it is."""
    if "custom_event_props" in wire:
        return {**wire, "custom_event_props": json.loads(wire["custom_event_props"])}
    return wire


def _canonical(body: dict[str, Any]) -> str:
    return json.dumps(body, sort_keys=True)
