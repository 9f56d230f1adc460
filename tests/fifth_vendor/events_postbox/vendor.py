"""Postbox: notes of what people did, at most ten in a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_events.contract import Answer, EventContent, Outcome, Request, Verdict
from airflow_provider_events.exceptions import InvalidEvent
from airflow_provider_events.values import iso_utc
from airflow_provider_events.vendors.base import (
    ExtraField,
    StandardField,
    Vendor,
    by_status,
    delivered,
    dumps,
    found,
    json_body,
    one_line,
    quote_segment,
)

__all__ = ["Postbox"]


class Postbox(Vendor):
    """People are known by their `person`; a note for somebody unknown is refused by itself."""

    conn_type = "postbox"
    label = "Postbox"
    docs_url = "https://postbox.example/docs"
    default_host = "https://api.postbox.example"
    standard_fields = (
        StandardField("host", "API base URL", "https://api.postbox.example"),
        StandardField("password", "API key", "pb_…", required=True),
    )
    extra_fields = (ExtraField("box", "Box", "Name of the box that the notes go into", required=True),)
    max_batch_size = 10
    identity_keys = "`person`"
    deduplication = "none"

    def headers(self) -> dict[str, str]:
        """A header of its own."""
        return {"X-Postbox-Key": self.password}

    def encode_content(self, content: EventContent) -> bytes:
        """`person`, `note`, `at` and `details`."""
        if list(content.identity) != ["person"]:
            raise InvalidEvent("identity", "Postbox takes person, and nothing else")
        note: dict[str, Any] = {"person": content.identity["person"], "note": content.name}
        if content.moment is not None:
            note["at"] = iso_utc(content.moment)
        return dumps({**note, "details": content.properties})

    def request(self, fragments: Sequence[bytes]) -> Request:
        """`POST /postbox/{box}/notes`."""
        return Request("POST", f"{self._box}/notes", b"[" + b",".join(fragments) + b"]")

    def read(self, answer: Answer, count: int) -> Outcome | list[Outcome]:
        """200 with `results`, one for each note: `ok`, or why not."""
        data = json_body(answer)
        results = data.get("results") if isinstance(data, dict) else None
        if answer.status != 200 or not isinstance(results, list) or len(results) != count:
            return by_status(answer, reason=one_line(data.get("error")) if isinstance(data, dict) else "")
        return [_outcome(result) for result in results]

    def lookup(self, identity: Mapping[str, str | int]) -> Request:
        """`GET /postbox/{box}/people/{person}`."""
        return Request("GET", f"{self._box}/people/{quote_segment(str(identity['person']))}")

    def read_lookup(self, answer: Answer) -> Outcome:
        """200, or 404 in the vendor's own words."""
        data = json_body(answer)
        if answer.status == 200 and isinstance(data, dict) and "person" in data:
            return found()
        if answer.status == 404 and isinstance(data, dict) and data.get("error") == "nobody":
            return Outcome(Verdict.MISSING, "nobody", "")
        return by_status(answer)

    def probe(self) -> Request:
        """`GET /postbox/{box}`."""
        return Request("GET", self._box)

    def read_probe(self, answer: Answer) -> Outcome:
        """200 with the box."""
        data = json_body(answer)
        return delivered() if answer.status == 200 and isinstance(data, dict) and "box" in data else by_status(answer)

    @property
    def _box(self) -> str:
        return f"/postbox/{quote_segment(self.extra['box'])}"


def _outcome(result: object) -> Outcome:
    if result == "ok":
        return delivered()
    verdict = Verdict.MISSING if result == "nobody" else Verdict.REJECTED
    return Outcome(verdict, one_line(result) or "refused", "")
