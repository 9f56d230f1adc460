"""WebEngage: single events and bulks of at most 25, queued by the vendor.

https://docs.webengage.com/docs/rest-api-getting-started
https://docs.webengage.com/docs/rest-api-tracking-events
https://docs.webengage.com/docs/bulk-user-api
https://docs.webengage.com/docs/system-event-name-updates-complete-reference
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, repeat
from operator import attrgetter
from typing import Any
from uuid import uuid4

import orjson

from airflow_provider_events.contract import Answer, EventColumns, EventContent, Fragment, Outcome, Request, Verdict
from airflow_provider_events.events import Event
from airflow_provider_events.exceptions import ConfigurationError, InvalidEvent
from airflow_provider_events.values import TimeFormat, all_utc, iso_utc, json_value, kind, utc_milliseconds
from airflow_provider_events.vendors.base import (
    ConnectionValues,
    ExtraField,
    StandardField,
    Upserts,
    Vendor,
    by_status,
    delivered,
    dumps,
    found,
    json_body,
    one_line,
    quote_segment,
)

HOSTS = {
    "global": "https://api.webengage.com",
    "in": "https://api.in.webengage.com",
    "ksa": "https://api.ksa.webengage.com",
    "eug": "https://api.eug.webengage.com",
}
MAX_ID_LENGTH = 100
MAX_NAME_LENGTH = 50
MAX_TEXT_LENGTH = 1000
MAX_ATTRIBUTES_PER_TYPE = 25
_SYSTEM_EVENTS = frozenset(
    f"{prefix}_{what}"
    for prefix, whats in {
        "app": "installed upgraded crashed uninstalled",
        "user": "logged_in logged_out session_started",
        "goal": "accomplish",
        "gcm": "registered notification_response",
        "apns": "registration_failed",
        "push_notification": "queued accepted rejected received view click close failed item_view rating_submitted "
        "registered unregistered control_group window_view window_denied window_allowed "
        "subscribe_notification_allowed prompt_view prompt_allowed prompt_denied",
        "notification": "view click close abs_view control_group",
        "inbox_notification": "sent view click read unread close delete control_group",
        "feedback": "view close submit",
        "survey": "view close complete submit abs_view",
        "email": "queued accepted attempted processed sent rejected discarded bounce delivered open click unsubscribe "
        "resubscribe spam abusereport complaint control_group",
        "sms": "queued accepted sent rejected failed click control_group",
        "whatsapp": "queued accepted sent rejected failed read click control_group",
        "rcs": "queued accepted delivered rejected failed read click control_group control_attempted",
        "viber": "queued accepted sent rejected failed read click control_group",
        "web_personalization": "view click control_group",
        "app_personalization": "view click failed received control_group",
    }.items()
    for what in whats.split()
)
_USER_KEYS = {"userId", "anonymousId"}
# What a user has beside `attributes`.
USER_FIELDS = {"firstName", "lastName", "birthDate", "gender", "email", "phone", "company"}
CONSENT_FIELDS = {"emailOptIn", "smsOptIn", "whatsappOptIn", "rcsOptIn"}
USER_FIELDS |= {"hashedEmail", "hashedPhone", *CONSENT_FIELDS}
_microsecond = attrgetter("microsecond")
_TYPES = {str: "text", bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}


class WebEngage(Vendor):
    """The vendor answers "queued" and drops in silence what breaks its rules, so that they are checked here."""

    conn_type = "webengage"
    label = "WebEngage"
    docs_url = "https://docs.webengage.com/docs/rest-api-tracking-events"
    default_host = HOSTS["global"]
    standard_fields = (
        StandardField("host", "API base URL", "blank: the host of the region"),
        StandardField("password", "API key", "a service account's key with the role Data Ingestion", required=True),
    )
    extra_fields = (
        ExtraField("license_code", "License code", "As in the dashboard; may start with ~", required=True),
        ExtraField(
            "region",
            "Region",
            "Data centre of the account; eug (Europe) is not in the REST documentation",
            choices=tuple(HOSTS),
            default="global",
        ),
        ExtraField(
            "existence_check",
            "Existence check",
            "portability: look users up by registering a GDPR portability request",
            choices=("none", "portability"),
            default="none",
        ),
        ExtraField(
            "allow_system_events",
            "Allow system events",
            "Send events that are named like WebEngage's own, such as email_open, instead of rejecting them",
            "boolean",
            default=False,
        ),
    )
    max_batch_size = 25
    fragment_overhead = 16
    max_in_flight = 8
    uses_event_id = True
    stringify_identity = True
    max_bulk_properties = MAX_ATTRIBUTES_PER_TYPE
    identity_keys = "`userId` or `anonymousId`, exactly one"
    deduplication = "single events, by `x-request-id`, for 4 hours; for bulks not in the REST documentation"

    def __init__(self, values: ConnectionValues) -> None:
        super().__init__(values)
        self._account = f"/v1/accounts/{quote_segment(self.extra['license_code'])}"
        self._reserved = frozenset() if self.extra["allow_system_events"] else _SYSTEM_EVENTS

    def host_default(self) -> str:
        """The host of the connection's region."""
        return HOSTS[self.extra["region"]]

    def headers(self) -> dict[str, str]:
        """The same bearer header for personal keys and service accounts."""
        return {"Authorization": f"Bearer {self.password}"}

    def quota(self, batch_size: int) -> float:
        """5,000 requests per minute on `/events`, 500 on `/bulk-events`."""
        return 5000 if batch_size == 1 else 500

    def encode(self, event: Event) -> bytes:
        """The event, after a count of its attributes: JSON does not tell texts from dates."""
        if len(event.properties) > MAX_ATTRIBUTES_PER_TYPE:
            _check_counts(event.properties)
        return super().encode(event)

    def encode_content(self, content: EventContent) -> bytes:
        """`userId` or `anonymousId`, `eventName`, `eventTime` to the second with its own offset, `eventData`.

        The fragment's head is what the id of its request is made of. With an id of the caller's it is a JSON list, of
        that with name and user, and all there is to it. Else it is what the time has below a second, and the id is made
        of the body too.
        """
        _, name, identity, moment, properties, event_id = content
        wire: dict[str, Any] = _user(identity)
        head: Any = moment.microsecond if moment else 0
        if event_id is not None:
            head = [self.conn_type, name, wire.copy(), event_id]
        _check_name("name", name, MAX_NAME_LENGTH)
        if name in self._reserved:
            raise InvalidEvent("name", "a system event of WebEngage: only WebEngage itself makes events of this name")
        wire["eventName"] = name
        if moment is not None:
            wire["eventTime"] = _event_time(moment)
        wire["eventData"] = properties
        for attribute, value in properties.items():
            _check_attribute(attribute, value)
        return Fragment(dumps(wire), dumps(head)).pack()

    def encode_columns_fast(self, contents: EventColumns) -> Sequence[bytes] | None:
        """See `Codec.encode_columns_fast`."""
        _, names, identities, moments, properties, ids = contents
        if moments is None or not self._all_usual(contents):
            return None
        columns = zip(identities, names, _event_times(moments), properties, strict=True)
        wires = [{**i, "eventName": n, "eventTime": t, "eventData": p} for i, n, t, p in columns]
        heads = zip(repeat(self.conn_type), names, identities, ids) if ids else map(_microsecond, moments)
        fragments = Fragment.pack_each(map(orjson.dumps, wires), map(orjson.dumps, heads))
        long = max(map(len, fragments)) >= MAX_TEXT_LENGTH and any(map(_has_long_text, properties))
        return None if long else fragments

    def _all_usual(self, contents: EventColumns) -> bool:
        """Whether nothing but a text can be too long, or be called what WebEngage ignores."""
        names, identities = set(contents.names), contents.identities
        attributes = set[str]().union(*contents.properties)
        return (
            max(map(len, identities)) == 1
            and self._reserved.isdisjoint(names)
            and _USER_KEYS.issuperset(chain.from_iterable(identities))
            and max(map(len, chain.from_iterable(map(dict.values, identities)))) <= MAX_ID_LENGTH
            and max(map(len, names)) <= MAX_NAME_LENGTH
            and max(map(len, attributes), default=0) < MAX_NAME_LENGTH
            and not any(name.startswith("we_") for name in names | attributes)
        )

    def time_format(self, name: str) -> TimeFormat:
        """A date attribute: with milliseconds."""
        return utc_milliseconds

    def key(self, event: Event) -> str:
        """The `x-request-id` of the event's own request."""
        return _request_id(self.encode(event))

    def request(self, fragments: Sequence[bytes]) -> Request:
        """`POST …/events` for one event, `POST …/bulk-events` for more, with a hex `x-request-id` from the content."""
        return self.posted("events", fragments)

    def posted(self, name: str, fragments: Sequence[bytes]) -> Request:
        """One record by itself, or a bulk of them, which is the same again only if all of its fragments are."""
        if len(fragments) > 1:
            request_id = hashlib.blake2b(b"\n".join(fragments), digest_size=16).hexdigest()
            body = b'{"%b":[%b]}' % (name.encode(), b",".join(Fragment.bodies(fragments)))
            return Request("POST", f"{self._account}/bulk-{name}", body, {"x-request-id": request_id})
        body, request_id = Fragment.unpack(fragments[0]).body, _request_id(fragments[0])
        return Request("POST", f"{self._account}/{name}", body, {"x-request-id": request_id})

    def read(self, answer: Answer, count: int) -> Outcome:
        """2xx whose `response.status` is `queued` or `success`; `error` with a message, whatever the status."""
        data = json_body(answer)
        response = data.get("response") if isinstance(data, dict) else None
        said, reason = "", ""
        if isinstance(response, dict):
            said, reason = one_line(response.get("status"), 20).lower(), one_line(response.get("message"))
        if 200 <= answer.status < 300 and said in ("queued", "success"):
            return delivered()
        if 200 <= answer.status < 300 and said == "error":
            return Outcome(Verdict.REJECTED, f"http_{answer.status}", reason or "an answer of status error")
        return by_status(answer, reason=reason)

    def lookup(self, identity: Mapping[str, str | int]) -> Request:
        """A GDPR portability request: nothing else that is documented reads a user. Only if the connection says so.

        Its id must be new each time: a repeated one would be refused in the same words as an unknown user.
        https://docs.webengage.com/docs/rest-api-gdpr-requests
        """
        if self.extra["existence_check"] != "portability":
            raise ConfigurationError(
                f"connection {self.conn_id!r}: WebEngage documents no way to look a user up. Send without asking, or "
                "set 'Existence check' (extra key 'existence_check') to portability: each user found is then on record "
                "in the account with a GDPR portability request"
            )
        if list(identity) != ["userId"]:
            raise InvalidEvent("identity", "WebEngage looks users up by userId, and by nothing else")
        user = {"identity_type": "cuid", "identity_value": _user_id("userId", identity["userId"])}
        body = {
            "subject_request_id": uuid4().hex,
            "subject_request_type": "portability",
            "subject_identities": [user],
        }
        return Request("POST", f"{self._account}/opengdpr_requests", dumps(body))

    def read_lookup(self, answer: Answer) -> Outcome:
        """201 with the profile; 400 for an unknown user, where it says so: other causes have the same status."""
        data = json_body(answer)
        response = data.get("response") if isinstance(data, dict) else None
        reason = one_line(response.get("message")) if isinstance(response, dict) else ""
        if answer.status in (200, 201) and isinstance(data, dict) and "subject_request_id" in data:
            return found()
        if answer.status == 400 and isinstance(data, dict):
            said = reason.lower()
            if "not a known user" in said:
                return Outcome(Verdict.MISSING, "http_400", reason)
            if "licen" in said:
                return Outcome(Verdict.FATAL, "http_400", reason)
            if "rate" in said.split() or "limit" in said.split():
                return Outcome(Verdict.RETRY, "http_400", reason)
        return by_status(answer, reason=reason)

    def lookup_quota(self) -> float:
        """100 GDPR requests per minute."""
        return 100

    def upserts(self) -> Upserts:
        """`POST …/users`, or `…/bulk-users`."""
        return UserUpserts(self)

    def probe(self) -> Request:
        """An event without user and name: the API documents no read call, and this one can store nothing."""
        return Request("POST", f"{self._account}/events", b"{}")

    def read_probe(self, answer: Answer) -> Outcome:
        """The documented refusal of an empty event comes from behind the key check."""
        outcome = self.read(answer, 1)
        empty = outcome.verdict is Verdict.REJECTED and "cannot be empty" in outcome.reason
        return delivered() if empty else outcome


class UserUpserts(Upserts):
    """Attributes that WebEngage knows stay beside the id, all others go into `attributes`.

    https://docs.webengage.com/docs/rest-api-tracking-users
    https://docs.webengage.com/docs/bulk-user-api
    """

    def __init__(self, vendor: WebEngage) -> None:
        super().__init__(vendor)
        self._vendor = vendor

    def encode_content(self, content: EventContent) -> bytes:
        """Texts that would be cut off, and names that would be ignored, are refused here.

        The fragment's head is the time, which is not sent: the same attributes at another time are another upsert.
        """
        wire: dict[str, Any] = _user(content.identity)
        attributes: dict[str, Any] = {}
        for name, value in content.properties.items():
            if name in USER_FIELDS:
                wire[name] = _consent(name, value) if name in CONSENT_FIELDS else value
            else:
                _check_attribute(name, value)
                attributes[name] = value
        if attributes:
            wire["attributes"] = attributes
        return Fragment(dumps(wire), iso_utc(content.moment).encode() if content.moment else b"").pack()

    def time_format(self, name: str) -> TimeFormat:
        """As in an event, for the fields of a user; as in a date attribute, for all else."""
        return _event_time if name in USER_FIELDS else utc_milliseconds

    def key(self, event: Event) -> str:
        """The `x-request-id` of the entry's own request."""
        return _request_id(self.encode(event))

    def request(self, fragments: Sequence[bytes]) -> Request:
        """`POST …/users` for one, `POST …/bulk-users` for more."""
        return self._vendor.posted("users", fragments)

    def read(self, answer: Answer, count: int) -> Outcome:
        """As for events."""
        return self._vendor.read(answer, count)


def _consent(name: str, value: Any) -> bool | None:
    """A consent as the boolean that the vendor takes, where a source gives it as text or number."""
    if value is None or isinstance(value, bool):
        return value
    text = str(value).strip().lower() if isinstance(value, str | int) else ""
    if text not in ("true", "false", "1", "0"):
        raise InvalidEvent(f"properties.{name}", f"a consent has to be true or false, not another {kind(value)}")
    return text in ("true", "1")


def _user(identity: Mapping[str, str | int]) -> dict[str, str]:
    for name, value in identity.items():
        if name in _USER_KEYS and len(identity) == 1:
            return {name: _user_id(name, value)}
    raise InvalidEvent("identity", "WebEngage takes exactly one of userId and anonymousId")


def _user_id(name: str, value: str | int) -> str:
    text = str(value)
    if len(text) > MAX_ID_LENGTH:
        raise InvalidEvent(f"identity.{name}", f"longer than {MAX_ID_LENGTH} characters")
    return text


def _check_name(field: str, name: str, limit: int) -> None:
    if len(name) > limit:
        raise InvalidEvent(field, f"longer than {limit} characters")
    if name.startswith("we_"):
        raise InvalidEvent(field, "names that start with we_ are reserved: WebEngage ignores them in silence")


def _check_attribute(name: str, value: Any) -> None:
    _check_name(f"properties.{name}", name, MAX_NAME_LENGTH - 1)
    if isinstance(value, str) and len(value) >= MAX_TEXT_LENGTH:
        raise InvalidEvent(f"properties.{name}", f"text has to be shorter than {MAX_TEXT_LENGTH} characters")


def _has_long_text(properties: Mapping[str, Any]) -> bool:
    return any(isinstance(value, str) and len(value) >= MAX_TEXT_LENGTH for value in properties.values())


def _check_counts(properties: Mapping[str, Any]) -> None:
    counts: Counter[str] = Counter()
    for name, value in properties.items():
        if isinstance(value, datetime):
            counts["date"] += 1
        elif value is not None:
            counts[_TYPES[type(json_value(value, f"properties.{name}"))]] += 1
    for type_name, count in counts.items():
        if count > MAX_ATTRIBUTES_PER_TYPE:
            raise InvalidEvent("properties", f"more than 25 attributes of type {type_name}")


def _event_time(moment: datetime) -> str:
    if moment.tzinfo is UTC:
        return orjson.dumps(moment)[1:20].decode() + "+0000"
    offset = moment.utcoffset()
    if offset is None or offset.total_seconds() % 60:
        moment = moment.astimezone(UTC)
    text = moment.isoformat(timespec="seconds")
    return text[:-3] + text[-2:]


def _event_times(moments: Sequence[datetime]) -> list[str]:
    if not all_utc(moments):
        return list(map(_event_time, moments))
    text = orjson.dumps(moments, option=orjson.OPT_OMIT_MICROSECONDS).decode()
    return text[2:-1].replace('+00:00"', '+0000"')[:-1].split('","')


def _request_id(fragment: bytes) -> str:
    """That of a record by itself: the same for the same content, or for the same id of the caller's."""
    head = Fragment.unpack(fragment).head
    return hashlib.blake2b(head if head.startswith(b"[") else fragment, digest_size=16).hexdigest()
