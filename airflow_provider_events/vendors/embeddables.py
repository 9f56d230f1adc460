"""Embeddables: one custom event per request, attached to an existing entry.

https://docs.embeddables.com/how-to/send-data-to-embeddables
https://docs.embeddables.com/api-reference/events/create-event
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from typing import Any

import orjson

from airflow_provider_events.contract import (
    Answer,
    EventColumns,
    EventContent,
    Listing,
    Outcome,
    Page,
    Request,
    Verdict,
)
from airflow_provider_events.exceptions import InvalidEvent
from airflow_provider_events.values import parse_time, plain_integer, utc_milliseconds, utc_milliseconds_of_each
from airflow_provider_events.vendors.base import (
    ConnectionValues,
    ExtraField,
    StandardField,
    Vendor,
    by_status,
    delivered,
    dumps,
    dumps_each,
    found,
    is_transient,
    json_body,
    one_line,
    quote_segment,
)

_is_snake_case = lru_cache(maxsize=1024)(re.compile(r"[a-z][a-z0-9_]*").fullmatch)


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
        ExtraField(
            "lookup_days",
            "Look-up window (days)",
            "How many days back entries are searched, by their last update",
            "number",
            default=30,
            minimum=0.001,
        ),
    )
    identity_keys = "exactly one User Data key (`email`, …), and optionally `embeddable_id`"
    deduplication = "none documented"
    scope_names = ("embeddable_id",)

    def __init__(self, values: ConnectionValues) -> None:
        super().__init__(values)
        self._embeddable_id = self.extra["embeddable_id"]
        self._project = f"/projects/{quote_segment(self.extra['project_id'])}"

    def headers(self) -> dict[str, str]:
        """`X-Api-Key`, as the vendor's own examples send it."""
        return {"X-Api-Key": self.password}

    def encode_content(self, content: EventContent) -> bytes:
        """`custom_event_props` is a JSON document in a string, and so is the identifier's value."""
        _, name, identity, moment, properties, _ = content
        embeddable_id, key, value = self._identified(identity)
        if not _is_snake_case(name):
            raise InvalidEvent("name", "has to be snake_case: lower-case letters, digits and underscores")
        if moment is None:
            raise InvalidEvent("timestamp", "Embeddables requires one")
        return dumps(
            {
                "embeddable_id": str(embeddable_id),
                "timestamp": utc_milliseconds(moment),
                "custom_event_name": name,
                "custom_event_props": dumps(properties, "properties").decode(),
                "identifiers": [{"key": key, "value": dumps(value, f"identity.{key}").decode()}],
            }
        )

    def encode_columns_fast(self, contents: EventColumns) -> Sequence[bytes] | None:
        """See `Codec.encode_columns_fast`."""
        _, names, identities, moments, properties, _ = contents
        keys = list(chain.from_iterable(identities))
        usual = self._embeddable_id and max(map(len, identities)) == 1 and "embeddable_id" not in keys
        if moments is None or not usual or not all(map(_is_snake_case, set(names))):
            return None
        embeddable_id = str(self._embeddable_id)
        times = utc_milliseconds_of_each(moments)
        values = map(bytes.decode, map(orjson.dumps, chain.from_iterable(map(dict.values, identities))))
        texts = map(bytes.decode, map(orjson.dumps, properties))
        return dumps_each(
            {
                "embeddable_id": embeddable_id,
                "timestamp": time,
                "custom_event_name": name,
                "custom_event_props": text,
                "identifiers": [{"key": key, "value": value}],
            }
            for time, name, text, key, value in zip(times, names, texts, keys, values, strict=True)
        )

    def _identified(self, given: Mapping[str, str | int]) -> tuple[str | int, str, str | int]:
        """Embeddable, and key and value of the one identifier."""
        embeddable_id, identity = self._embeddable_id, given
        if "embeddable_id" in given:
            identity = dict(given)
            embeddable_id = identity.pop("embeddable_id") or embeddable_id
        if not embeddable_id:
            raise InvalidEvent("identity.embeddable_id", "needed here, or as 'Embeddable ID' of the connection")
        if len(identity) != 1:
            raise InvalidEvent("identity", f"Embeddables takes exactly one identifier, not {len(identity)}")
        ((key, value),) = identity.items()
        if isinstance(value, int):
            plain_integer(value, f"identity.{key}")
        return embeddable_id, key, value

    def request(self, fragments: Sequence[bytes]) -> Request:
        """`POST /projects/{projectId}/events`."""
        return Request("POST", f"{self._project}/events", fragments[0])

    def read(self, answer: Answer, count: int) -> Outcome:
        """200 with the stored event; 401 `unauthorized`; 404 `entry_not_found` in either case."""
        data = json_body(answer)
        known = data if isinstance(data, dict) else {}
        error, entry_id = known.get("error"), known.get("entry_id")
        if not error and isinstance(entry_id, str) and 200 <= answer.status < 300:
            return delivered(one_line(entry_id))
        code = one_line(error.get("code")) if isinstance(error, dict) else ""
        reason = one_line(error.get("message")) if isinstance(error, dict) else ""
        if is_transient(answer):
            return by_status(answer, code, reason)
        if code.lower() == "entry_not_found":
            return Outcome(Verdict.MISSING, code, reason)
        if code.lower() == "unauthorized":
            return Outcome(Verdict.FATAL, code, reason)
        if error and answer.status < 300:
            return Outcome(Verdict.REJECTED, code or "error", reason or one_line(error))
        if code.lower() == "embeddable_does_not_exist":
            return Outcome(Verdict.REJECTED, code, reason)
        return by_status(answer, code, reason)

    def lookup(self, identity: Mapping[str, str | int]) -> Request | None:
        """`GET …/entries/{entry_id}` where the identity is the entry's id; any other key has to be searched for."""
        if "entry_id" not in identity:
            self._identified(identity)
            return None
        if len(identity) != 1:
            raise InvalidEvent("identity", "entry_id stands alone")
        return Request("GET", f"{self._project}/entries/{quote_segment(str(identity['entry_id']))}")

    def read_lookup(self, answer: Answer) -> Outcome:
        """200 with the entry; 404 `entry_not_found`."""
        outcome = self.read(answer, 1)
        return found() if outcome.verdict is Verdict.DELIVERED else outcome

    def listing(self, identities: Sequence[Mapping[str, str | int]]) -> Listing:
        """`GET …/entries`, the latest update first."""
        return EntryPages(
            f"{self._project}/entries",
            timedelta(days=self.extra["lookup_days"]),
            [self._identified(identity) for identity in identities],
            self.read_probe,
        )

    def probe(self) -> Request:
        """`GET /projects/{projectId}/embeddables`: needs the key, returns no customer."""
        return Request("GET", f"{self._project}/embeddables")

    def read_probe(self, answer: Answer) -> Outcome:
        """200 with a list."""
        listed = json_body(answer)
        if answer.status == 200 and isinstance(listed, list):
            known = all(isinstance(one, dict) and "embeddable_id" in one for one in listed)
            return delivered() if known else by_status(answer)
        return self.read(answer, 1) if answer.status >= 300 else by_status(answer)


class EntryPages:
    """The project's entries, searched for identifiers. Only what is compared is read of an entry's User Data.

    The API has no filter by embeddable or User Data, and no page number: pages are cut by time.

    :param wanted: embeddable, key and value of each identifier.
    :param refusal: reads an answer that is no list.
    """

    def __init__(
        self,
        path: str,
        window: timedelta,
        wanted: Sequence[tuple[str | int, str, str | int]],
        refusal: Callable[[Answer], Outcome],
    ) -> None:
        self.window = window
        self._path = path
        self._refusal = refusal
        self._wanted: dict[Any, dict[str, dict[str | int, list[int]]]] = {}
        for position, (embeddable_id, key, value) in enumerate(wanted):
            self._wanted.setdefault(embeddable_id, {}).setdefault(key, {}).setdefault(value, []).append(position)

    def request(self, limit: int, after: datetime | None, before: datetime | None, down: bool) -> Request:
        """`limit`, `direction`, `updated_after`, `updated_before`; sorted by last update by default."""
        times = {"updated_after": after, "updated_before": before}
        query = "".join(f"&{name}={quote_segment(_bound(time))}" for name, time in times.items() if time)
        return Request("GET", f"{self._path}?limit={limit}&direction={'DESC' if down else 'ASC'}{query}")

    def read(self, answer: Answer) -> Outcome | Page:
        """A bare list of entries; one without its fields is passed over."""
        entries = json_body(answer)
        if answer.status != 200 or not isinstance(entries, list):
            outcome = self._refusal(answer)
            return outcome if outcome.verdict is not Verdict.DELIVERED else by_status(answer)
        times: list[datetime] = []
        positions: list[int] = []
        passed_over: list[str] = []
        for entry in entries:
            if not isinstance(entry, dict) or "entry_id" not in entry:
                return Outcome(Verdict.RETRY, "http_200", "a list of something else than entries")
            matches, time = self._matches(entry), _time(entry.get("updated_at"))
            positions += matches or ()
            if time is not None:
                times.append(time)
            if time is None or matches is None:
                passed_over.append(str(entry["entry_id"]))
        return Page(times, len(entries), positions, passed_over)

    def _matches(self, entry: Mapping[str, Any]) -> list[int] | None:
        """Positions of the identifiers that the entry has; None where there is no telling."""
        embeddable_id, data = entry.get("embeddable_id"), entry.get("entry_data")
        if not isinstance(embeddable_id, str | int) or not isinstance(data, str):
            return None
        keys = self._wanted.get(embeddable_id)
        if keys is None:
            return []
        try:
            known = orjson.loads(data)
        except ValueError:
            return None
        found_at: list[int] = []
        for key, positions in keys.items():
            value = known.get(key) if isinstance(known, dict) else None
            if isinstance(value, str | int) and not isinstance(value, bool):
                found_at += positions.get(value, ())
        return found_at


def _time(value: Any) -> datetime | None:
    try:
        return parse_time(value, "updated_at")
    except (InvalidEvent, TypeError):
        return None


def _bound(time: datetime) -> str:
    """With as many digits as the vendor itself writes."""
    if not time.microsecond % 1000:
        return utc_milliseconds(time)
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
