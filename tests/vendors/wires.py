"""The vendors' wires as their documents describe them, read by code of our own: what the vendors' tests share.

`DIALECTS` is all that the conformance suite has to be told about a vendor; a new one adds its line there.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from airflow_provider_events.contract import Answer, Outcome, Request, Verdict
from airflow_provider_events.events import Event
from airflow_provider_events.sandbox.webengage_names import SYSTEM_EVENTS
from airflow_provider_events.vendors.base import ConnectionValues, Vendor, registry

PASSWORD = "s3cr3t-pass+word/=="
T = datetime(2026, 3, 1, 9, 30, 0, 123456, UTC)
HTML = b"<!DOCTYPE html><html><body><h1>Something happened</h1></body></html>"
TRUNCATED = b'{"results": {"message": "Event cre'


def values_for(vendor: type[Vendor], **changes: Any) -> ConnectionValues:
    """The least that the vendor's connection form asks for, with `changes`."""
    filled = {"password": PASSWORD, **{f.name: f"given-{f.name}" for f in vendor.standard_fields if f.required}}
    filled["password"] = PASSWORD
    extra = {f.name: f.choices[0] if f.choices else f"given_{f.name}" for f in vendor.extra_fields if f.required}
    return ConnectionValues("warehouse_events", **{**filled, "extra": extra, **changes})


def vendor(conn_type: str, **extra: Any) -> Vendor:
    """The vendor with the least connection, and `extra` beside what it requires."""
    kind = registry()[conn_type]
    values = values_for(kind)
    return kind(values_for(kind, extra={**values.extra, **extra}))


def answer(status: int, body: Any = b"", **headers: str) -> Answer:
    """An answer with `body`, as JSON unless it is bytes."""
    return Answer(status, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


def one(reading: Outcome | list[Outcome]) -> Outcome:
    """The outcome of a request as a whole."""
    assert isinstance(reading, Outcome)
    return reading


def parsed(request: Request) -> Any:
    """The JSON body of a request, as any JSON parser reads it."""
    assert request.body is not None
    return json.loads(request.body)


def sent(chosen: Vendor, *events: Event) -> Request:
    """The request that carries `events`."""
    return chosen.request([chosen.encode(event) for event in events])


VIBETRACE_TYPES = (
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
)


def usable(name: str) -> bool:
    """Whether no vendor gives `name` a meaning of its own."""
    return bool(name.strip()) and not name.startswith("we_") and name not in {*VIBETRACE_TYPES, *SYSTEM_EVENTS}


snake_case: st.SearchStrategy[str] = st.from_regex(r"[a-z][a-z0-9_]{0,30}", fullmatch=True).filter(usable)
free_names: st.SearchStrategy[str] = st.text(min_size=1, max_size=40).filter(usable)


@dataclass(frozen=True)
class Decoded:
    """An event as the vendor reads it. `time` is None where the wire has no place for it."""

    name: str
    identity: dict[str, str | int]
    time: datetime | None
    properties: dict[str, Any]


@dataclass(frozen=True)
class Dialect:
    """What the conformance suite has to know of a vendor.

    :param identity: an identity of the vendor, from a customer's name.
    :param decode: the vendor's side of the wire.
    :param time: what the vendor keeps of a time.
    :param attribute_time: the documented text of a time among the properties.
    :param failures: every documented body that says failure.
    """

    identity: Callable[[str], dict[str, str | int]]
    decode: Callable[[Request], list[Decoded]]
    time: Callable[[datetime], datetime | None]
    attribute_time: Callable[[datetime], str]
    failures: tuple[Mapping[str, Any], ...]
    names: st.SearchStrategy[str] = snake_case
    reserved_properties: tuple[str, ...] = ()


def read_embeddables(request: Request) -> list[Decoded]:
    body = parsed(request)
    [identifier] = body["identifiers"]
    return [
        Decoded(
            body["custom_event_name"],
            {"embeddable_id": body["embeddable_id"], identifier["key"]: json.loads(identifier["value"])},
            datetime.fromisoformat(body["timestamp"]),
            json.loads(body["custom_event_props"]),
        )
    ]


def read_vibetrace(request: Request) -> list[Decoded]:
    body = parsed(request)
    [(name, attributes)] = body["event"].items()
    if name == "generic":
        attributes = dict(attributes["generic"])
        name = attributes.pop("event_name")
    return [Decoded(name, body["user"], None, attributes)]


def read_webengage(request: Request) -> list[Decoded]:
    body = parsed(request)
    events = body["events"] if request.path.endswith("/bulk-events") else [body]
    return [
        Decoded(
            event["eventName"],
            {key: event[key] for key in ("userId", "anonymousId") if key in event},
            datetime.strptime(event["eventTime"], "%Y-%m-%dT%H:%M:%S%z"),
            event["eventData"],
        )
        for event in events
    ]


def read_bloomreach(request: Request) -> list[Decoded]:
    body = parsed(request)
    events = [command["data"] for command in body["commands"]] if request.path.endswith("/batch") else [body]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return [
        Decoded(
            event["event_type"],
            event["customer_ids"],
            epoch + timedelta(microseconds=int(Decimal(repr(event["timestamp"])) * 1_000_000)),
            event["properties"],
        )
        for event in events
    ]


def utc_text(moment: datetime) -> str:
    there = moment.astimezone(UTC)
    fraction = f".{there.microsecond:06d}" if there.microsecond else ""
    return f"{there:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def utc_text_in_milliseconds(moment: datetime) -> str:
    there = moment.astimezone(UTC)
    return f"{there:%Y-%m-%dT%H:%M:%S}.{there.microsecond // 1000:03d}Z"


DIALECTS = {
    "embeddables": Dialect(
        identity=lambda customer: {"embeddable_id": "flow_myexampleflow", "email": customer},
        decode=read_embeddables,
        time=lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000),
        attribute_time=utc_text,
        failures=(
            {
                "error": {
                    "code": "unauthorized",
                    "message": "You are not authorized to access this project with the API key provided.",
                },
                "projectId": "pr_myexampleproject",
            },
            {
                "error": {
                    "code": "entry_not_found",
                    "message": "The entry with the specified ID does not exist or you don't have permission to "
                    "access it.",
                },
                "entryId": "entry_doesnotexist",
            },
            {
                "error": {"code": "embeddable_does_not_exist", "message": "The embeddable does not exist"},
                "projectId": "pr_myexampleproject",
                "embeddableId": "flow_doesnotexist",
            },
            {
                "error": {
                    "code": "embeddable_version_does_not_exist",
                    "message": "The embeddable version does not exist",
                },
                "projectId": "pr_myexampleproject",
                "embeddableId": "flow_myexampleembeddable",
                "versionNumber": 123456789,
            },
        ),
    ),
    "vibetrace": Dialect(
        identity=lambda customer: {"email": customer},
        decode=read_vibetrace,
        time=lambda moment: None,
        attribute_time=utc_text,
        failures=(
            {
                "errors": [
                    {
                        "message": "Missing event information",
                        "description": "Please send event information along with user",
                    }
                ]
            },
            {"errors": [{"message": "User not found", "description": "This email does not exist in our database."}]},
            {
                "errors": [
                    {"message": "Invalid data format/type", "description": "Error validating user attributes"},
                ]
            },
        ),
        names=free_names,
        reserved_properties=("event_name",),
    ),
    "webengage": Dialect(
        identity=lambda customer: {"userId": customer},
        decode=read_webengage,
        time=lambda moment: moment.replace(microsecond=0),
        attribute_time=utc_text_in_milliseconds,
        failures=({"response": {"message": "Error: userId and anonymousId cannot be empty.", "status": "error"}},),
        names=free_names,
    ),
    "bloomreach": Dialect(
        identity=lambda customer: {"registered": customer, "cookie": "382d4221-3441-44b7-a676-3eb5f515157f"},
        decode=read_bloomreach,
        time=lambda moment: moment,
        attribute_time=utc_text,
        failures=(
            {"success": False, "errors": ["At least one id should be specified."]},
            {"success": False, "errors": "Field project_id is required"},
            {"success": False, "errors": ["Invalid customer_id"]},
            {"success": False, "message": "No commands"},
            {"success": False, "message": "Invalid JSON"},
            {"success": False, "error": "Could not authenticate"},
            {"success": False, "error": "Invalid project id"},
            {"success": False, "error": "access key not found"},
            {"errors": ["not authorized to update specified customer properties"], "success": False},
            {"errors": {"_global": ["Customer does not exist"]}, "success": False},
            {"errors": {"code": 404, "description": "The requested URL was not found on the server"}},
        ),
        names=free_names,
    ),
}


def event_for(conn_type: str, customer: str = "ada@example.com", **changes: Any) -> Event:
    """An ordinary event of one of the vendor's customers, with `changes`."""
    fields = {
        "name": "order_placed",
        "identity": DIALECTS[conn_type].identity(customer),
        "timestamp": T,
        "properties": {"total": 39.8, "currency": "EUR"},
    }
    return Event(**{**fields, **changes})


BY_STATUS: list[tuple[int, Verdict]] = [
    (100, Verdict.RETRY),
    (200, Verdict.RETRY),
    (201, Verdict.RETRY),
    (204, Verdict.RETRY),
    (301, Verdict.FATAL),
    (302, Verdict.FATAL),
    (304, Verdict.FATAL),
    (308, Verdict.FATAL),
    (400, Verdict.REJECTED),
    (401, Verdict.FATAL),
    (402, Verdict.FATAL),
    (403, Verdict.FATAL),
    (404, Verdict.FATAL),
    (405, Verdict.FATAL),
    (407, Verdict.FATAL),
    (408, Verdict.RETRY),
    (409, Verdict.REJECTED),
    (410, Verdict.FATAL),
    (413, Verdict.REJECTED),
    (418, Verdict.REJECTED),
    (421, Verdict.RETRY),
    (422, Verdict.REJECTED),
    (423, Verdict.RETRY),
    (425, Verdict.RETRY),
    (429, Verdict.RETRY),
    (500, Verdict.RETRY),
    (501, Verdict.RETRY),
    (502, Verdict.RETRY),
    (503, Verdict.RETRY),
    (504, Verdict.RETRY),
    (520, Verdict.RETRY),
]


def examples(count: int) -> settings:
    """Settings for a property test that does not fail because the machine is busy."""
    return settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow])


# -- values, and their places in JSON by the documented table ---------------------------------------------------------

moments = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.timezones())
leaves: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=40),
    st.decimals(-(10**12), 10**12, places=0, allow_nan=False),
    st.decimals(-(10**9), 10**9, places=2, allow_nan=False),
    moments,
    st.dates(date(1000, 1, 1), date(9999, 12, 30)),  # the last one means infinity, and is refused
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.binary(max_size=20),
    st.binary(max_size=20).map(bytearray),
    st.binary(max_size=20).map(lambda content: memoryview(content)),
)
nested = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=8,
)
property_names = st.text(min_size=1, max_size=30).filter(lambda name: not name.startswith("we_"))


def on_the_wire(value: Any, render_time: Callable[[datetime], str] = utc_text) -> Any:
    """The place of `value` in JSON by the documented table."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Decimal():
            return int(value) if "." not in f"{value:f}" else float(str(value))
        case datetime():
            return render_time(value)
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value / timedelta(seconds=1)
        case UUID():
            return f"{value}"
        case bytes() | bytearray() | memoryview():
            return str(b64encode(bytes(value)), "ascii")
        case list() | tuple():
            return [on_the_wire(item, render_time) for item in value]
        case dict():
            return {name: on_the_wire(item, render_time) for name, item in value.items()}
    raise AssertionError(f"no row of the table for {type(value)}")


def exactly(value: Any) -> str:
    """A text in which 1, 1.0 and true differ, and the order of keys does not."""
    return json.dumps(value, sort_keys=True)
