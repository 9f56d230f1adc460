"""Vibetrace: one event per request, for a user who exists.

https://help.vtcdn.net/kb/how-to-send-events-via-api/
https://help.vtcdn.net/kb/api-overview
https://help.vtcdn.net/kb/confirmation-event/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from operator import contains
from typing import Any

from airflow_provider_events.contract import Answer, EventColumns, EventContent, Fragment, Outcome, Request, Verdict
from airflow_provider_events.exceptions import InvalidEvent
from airflow_provider_events.values import whole_number
from airflow_provider_events.vendors.base import (
    StandardField,
    Upserts,
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

STANDARD_TYPES = frozenset(
    {
        "addtocart",
        "addtowishlist",
        "checkout",
        "confirmation",
        "generic",
        "login",
        "search",
        "update",
        "viewcategory",
        "viewitem",
    }
)
_FLAT_TYPES = STANDARD_TYPES - {"confirmation", "generic"}
_USER_KEYS = {"email", "_id"}


class Vibetrace(Vendor):
    """Standard event types go by their own name, every other name as a `generic` event.

    The API has no field for the time of an event: it counts as of its arrival.
    """

    conn_type = "vibetrace"
    label = "Vibetrace"
    docs_url = "https://help.vtcdn.net/kb/how-to-send-events-via-api/"
    default_host = "https://api.vtcdn.net/v1"
    standard_fields = (
        StandardField("host", "API base URL", "https://api.vtcdn.net/v1"),
        StandardField("password", "API key", "found under your account profile", required=True),
    )
    identity_keys = "`email` or `_id`, exactly one"
    deduplication = "`confirmation` events, by `orderId`; none documented for the others"
    timestamp_sent = False
    uses_event_id = True
    stringify_identity = True

    def headers(self) -> dict[str, str]:
        """The bare key in `Authorization`, without a scheme word."""
        return {"Authorization": self.password}

    def encode_content(self, content: EventContent) -> bytes:
        """`{"user": …, "event": {type: attributes}}`."""
        _, name, identity, _, properties, event_id = content
        if len(identity) != 1 or not _USER_KEYS.issuperset(identity):
            raise InvalidEvent("identity", "Vibetrace takes exactly one of email and _id")
        user = {id_name: str(value) for id_name, value in identity.items()}
        typed: dict[str, Any]
        if name == "confirmation":
            properties = _confirmation(dict(properties), event_id or content.key)
        elif name == "generic":
            inner = properties.get("generic")
            if not isinstance(inner, dict) or not inner.get("event_name"):
                raise InvalidEvent("name", "use the event's own name; it is sent as a generic event by itself")
        if name in STANDARD_TYPES:
            typed = {name: properties}
        elif "event_name" in properties:
            raise InvalidEvent("properties.event_name", "taken by the event's name; rename the property")
        else:
            typed = {"generic": {"generic": {"event_name": name, **properties}}}
        return dumps({"user": user, "event": typed})

    def encode_columns_fast(self, contents: EventColumns) -> Sequence[bytes] | None:
        """See `Codec.encode_columns_fast`."""
        _, names, identities, _, properties, _ = contents
        kinds = set(names)
        events: list[dict[str, Any]]
        if max(map(len, identities)) > 1 or not _USER_KEYS.issuperset(chain.from_iterable(identities)):
            return None
        if kinds <= _FLAT_TYPES:
            events = [{n: p} for n, p in zip(names, properties, strict=True)]
        elif kinds.isdisjoint(STANDARD_TYPES) and not any(map(contains, properties, repeat("event_name"))):
            wrapped = zip(names, properties, strict=True)
            events = [{"generic": {"generic": {"event_name": n, **p}}} for n, p in wrapped]
        else:
            return None
        return dumps_each([{"user": i, "event": e} for i, e in zip(identities, events, strict=True)])

    def request(self, fragments: Sequence[bytes]) -> Request:
        """`POST /event`, without a trailing slash."""
        return Request("POST", "/event", fragments[0])

    def read(self, answer: Answer, count: int) -> Outcome:
        """200 with `results`; otherwise `errors`, of which `User not found` is the missing entry."""
        data = json_body(answer)
        known = data if isinstance(data, dict) else {}
        errors = known.get("errors")
        if not errors and isinstance(known.get("results"), dict) and 200 <= answer.status < 300:
            return delivered()
        said = [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
        reason = one_line("; ".join(filter(None, map(_sentence, said))))
        if is_transient(answer):
            return by_status(answer, reason=reason)
        if any(one_line(error.get("message")).lower() == "user not found" for error in said):
            return Outcome(Verdict.MISSING, "user_not_found", reason)
        if errors and 200 <= answer.status < 300:
            return Outcome(Verdict.REJECTED, f"http_{answer.status}", reason or "an answer with errors")
        return by_status(answer, reason=reason)

    def lookup(self, identity: Mapping[str, str | int]) -> Request:
        """`GET /user/{email}`; https://help.vtcdn.net/knowledge-base/how-to-update-an-user-through-api/"""
        if list(identity) != ["email"] or "@" not in str(identity["email"]):
            raise InvalidEvent("identity", "Vibetrace looks users up by email, and by nothing else")
        return Request("GET", f"/user/{quote_segment(str(identity['email']))}")

    def read_lookup(self, answer: Answer) -> Outcome:
        """200 with a user object, which has its `email`; 404 `User not found`."""
        data = json_body(answer)
        email = data.get("email") if isinstance(data, dict) and not data.get("errors") else None
        if answer.status == 200 and isinstance(email, str) and "@" in email:
            return found()
        outcome = self.read(answer, 1)
        return by_status(answer) if outcome.verdict is Verdict.DELIVERED else outcome

    def upserts(self) -> Upserts:
        """`PUT /user/{email}?upsert=true`."""
        return UserUpserts(self)

    def probe(self) -> Request:
        """`GET /user/{email}` of an address that cannot exist: read-only, and no customer comes back."""
        return Request("GET", f"/user/{quote_segment('connection-test@airflow.invalid')}")

    def read_probe(self, answer: Answer) -> Outcome:
        """The vendor's own 404, or a user object: in both cases it let us in."""
        data = json_body(answer)
        user = answer.status == 200 and isinstance(data, dict) and "email" in data and "errors" not in data
        outcome = self.read(answer, 1)
        return delivered() if user or outcome.verdict is Verdict.MISSING else outcome


class UserUpserts(Upserts):
    """One user per request; `isSubscribed` is an attribute like any other, and never set by itself.

    https://help.vtcdn.net/knowledge-base/how-to-update-an-user-through-api/
    """

    def __init__(self, vendor: Vibetrace) -> None:
        super().__init__(vendor)
        self._vendor = vendor

    def encode_content(self, content: EventContent) -> bytes:
        """The attributes; the user's path is the fragment's head."""
        path = self._vendor.lookup(content.identity).path
        if "email" in content.properties:
            raise InvalidEvent("properties.email", "taken by the identity; an upsert cannot change it")
        return Fragment(dumps(content.properties), path.encode("ascii")).pack()

    def request(self, fragments: Sequence[bytes]) -> Request:
        """`PUT`, which may be repeated without harm."""
        body, path = Fragment.unpack(fragments[0])
        return Request("PUT", f"{path.decode('ascii')}?upsert=true", body)

    def read(self, answer: Answer, count: int) -> Outcome:
        """200 with `results`, here a list."""
        data = json_body(answer)
        if 200 <= answer.status < 300 and isinstance(data, dict) and data.get("results") and not data.get("errors"):
            return delivered()
        return self._vendor.read(answer, count)


def _confirmation(properties: dict[str, Any], order_id: str) -> dict[str, Any]:
    """`items` beside `generic`; flat columns such as `orderId` and `total` belong into `generic`."""
    order = properties.pop("generic", {})
    if not isinstance(order, dict):
        raise InvalidEvent("properties.generic", "has to be an object with orderId, total and coupons")
    items = properties.pop("items", [])
    if not isinstance(items, list):
        raise InvalidEvent("properties.items", 'has to be a list of {"id": …, "quantity": …}')
    if twice := order.keys() & properties.keys():
        raise InvalidEvent(f"properties.{min(twice)}", "given twice: beside and inside generic")
    order = {**order, **properties}
    order["orderId"] = order_id if order.get("orderId") in (None, "") else whole_number(order["orderId"])
    return {"items": items, "generic": order}


def _sentence(error: dict[str, Any]) -> str:
    return ": ".join(filter(None, (one_line(error.get("message")), one_line(error.get("description")))))
