"""Embeddables: one custom event per request, attached to an existing entry.

https://docs.embeddables.com/how-to/send-data-to-embeddables
https://docs.embeddables.com/api-reference/events/create-event
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from airflow_provider_events.events import Event
from airflow_provider_events.exceptions import InvalidEvent
from airflow_provider_events.exchange import Answer, Encoded, Outcome, Request, Verdict
from airflow_provider_events.values import json_object
from airflow_provider_events.vendors.base import (
    ExtraField,
    StandardField,
    Vendor,
    by_status,
    delivered,
    dumps,
    json_body,
    segment,
    words,
)

_SNAKE_CASE = re.compile(r"[a-z][a-z0-9_]*")


class Embeddables(Vendor):
    """Entries are found by one key of their User Data; `embeddable_id` may come with the event's identity."""

    conn_type = "embeddables"
    label = "Embeddables"
    docs_url = "https://docs.embeddables.com/how-to/send-data-to-embeddables"
    default_host = "https://api.embeddables.com"
    standard_fields = (
        StandardField("host", "API base URL", "https://api.embeddables.com"),
        StandardField("password", "API key", "rk_…", required=True),
    )
    extra_fields = (
        ExtraField("project_id", "Project ID", "Starts with pr_; Settings > Credentials and Endpoints", required=True),
        ExtraField("embeddable_id", "Embeddable ID", "Starts with flow_; for events whose identity names none"),
    )
    identity_keys = "exactly one User Data key (`email`, …), and optionally `embeddable_id`"
    deduplication = "none documented"

    def headers(self) -> dict[str, str]:
        """`X-Api-Key`, as the vendor's own examples send it."""
        return {"X-Api-Key": self.password}

    def encode(self, event: Event) -> Encoded:
        """`custom_event_props` is a JSON document in a string, and so is the identifier's value."""
        identity = dict(event.identity)
        embeddable_id = identity.pop("embeddable_id", None) or self.extra["embeddable_id"]
        if not embeddable_id:
            raise InvalidEvent("identity.embeddable_id", "needed here, or as 'Embeddable ID' of the connection")
        if len(identity) != 1:
            raise InvalidEvent("identity", f"Embeddables takes exactly one identifier, not {len(identity)}")
        if not _SNAKE_CASE.fullmatch(event.name):
            raise InvalidEvent("name", "has to be snake_case: lower-case letters, digits and underscores")
        if event.timestamp is None:
            raise InvalidEvent("timestamp", "Embeddables requires one")
        ((key, value),) = identity.items()
        body = dumps(
            {
                "embeddable_id": embeddable_id,
                "timestamp": _milliseconds(event.timestamp),
                "custom_event_name": event.name,
                "custom_event_props": dumps(json_object(event.properties, "properties"), "properties").decode(),
                "identifiers": [{"key": key, "value": dumps(value, f"identity.{key}").decode()}],
            }
        )
        return Encoded(body, self.key(event, body))

    def request(self, pieces: Sequence[Encoded]) -> Request:
        """`POST /projects/{projectId}/events`."""
        return Request("POST", f"/projects/{segment(self.extra['project_id'])}/events", pieces[0].body)

    def read(self, answer: Answer, count: int) -> Outcome:
        """200 with the stored event; 401 `unauthorized`; 404 `entry_not_found` in either case."""
        data = json_body(answer)
        error = data.get("error") if isinstance(data, dict) else None
        code = words(error.get("code"), 60) if isinstance(error, dict) else ""
        reason = words(error.get("message")) if isinstance(error, dict) else ""
        if code.lower() == "entry_not_found":
            return Outcome(Verdict.MISSING, code, reason)
        if code.lower() == "unauthorized":
            return Outcome(Verdict.REFUSED, code, reason)
        if error and answer.status < 300:
            return Outcome(Verdict.REJECTED, code or "error", reason or words(error))
        if code.lower() == "embeddable_does_not_exist":
            return Outcome(Verdict.REJECTED, code, reason)
        if 200 <= answer.status < 300 and isinstance(data, dict) and isinstance(data.get("entry_id"), str):
            return delivered(words(data["entry_id"]))
        return by_status(answer, code, reason)

    def probe(self) -> Request:
        """`GET /projects/{projectId}/embeddables`: needs the key, returns no customer."""
        return Request("GET", f"/projects/{segment(self.extra['project_id'])}/embeddables")

    def read_probe(self, answer: Answer) -> Outcome:
        """200 with a list."""
        if answer.status == 200 and isinstance(json_body(answer), list):
            return delivered()
        return self.read(answer, 1) if answer.status >= 300 else by_status(answer)


def _milliseconds(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
