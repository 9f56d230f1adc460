"""A request to a vendor, its answer, and what that means: the values that cross between vendors and delivery."""

from __future__ import annotations

import hashlib
from codecs import BOM_UTF8
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import orjson

__all__ = [
    "Answer",
    "BulkCodec",
    "EventColumns",
    "EventContent",
    "Listing",
    "Outcome",
    "Page",
    "Request",
    "Verdict",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Request(NamedTuple):
    """An HTTP request without its authentication, which the transport adds.

    :param method: `"GET"`, `"POST"` or `"PUT"`.
    :param path: path and query behind the base URL, percent-encoded, with its leading slash.
    :param body: JSON document, or None.
    :param headers: headers of this request alone.
    """

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] | None = None

    def __repr__(self) -> str:
        """Without path and body: a customer's data has no place in a log."""
        return f"<Request {self.method}, {len(self.body or b'')} bytes>"


class Answer(NamedTuple):
    """What came back. Header names are lower case; the body is cut off at the transport's limit."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        """Without the body: some tracebacks print the values they pass through, and it may be a customer's profile."""
        return f"<Answer {self.status}, {len(self.body)} bytes>"

    def json(self) -> Any:
        """The parsed body, or None where it is not JSON; a byte-order mark before it is no part of it."""
        try:
            return orjson.loads(self.body)
        except ValueError:
            pass
        try:
            return orjson.loads(self.body.removeprefix(BOM_UTF8))
        except ValueError:
            return None

    @property
    def foreign(self) -> str:
        """What a 3xx or 4xx is instead of the vendor's word, which is always JSON; else empty."""
        if not 300 <= self.status < 500 or self.json() is not None or self.body.strip() == b"null":
            return ""
        if b"<" in self.body or "html" in self.headers.get("content-type", ""):
            return "a web page"
        return "no JSON" if self.body.strip() else "an empty answer"


class EventContent(NamedTuple):
    """What an event says, as far as its idempotency key is made of it; `properties` are JSON-safe."""

    vendor: str
    name: str
    identity: Mapping[str, str | int]
    moment: datetime | None
    properties: Mapping[str, Any]
    id: str | None

    def __repr__(self) -> str:
        """Without customer and properties."""
        return f"<EventContent of {len(self.properties)} properties>"

    @property
    def key(self) -> str:
        """The idempotency key, 32 hex digits: from the caller's id with name and customer, else from everything."""
        vendor, name, identity, moment, properties, event_id = self
        content: Any = event_id
        if event_id is None:
            content = [moment and (moment - _EPOCH) // _MICROSECOND, properties]
        customer = {key: str(value) for key, value in identity.items()}
        text = orjson.dumps([vendor, name, customer, content], option=orjson.OPT_SORT_KEYS)
        return hashlib.blake2b(text, digest_size=16).hexdigest()


class EventColumns(NamedTuple):
    """What at least one event says, column by column; a column is there for all of them or for none.

    :param identities: the ids in them are text where the writer says `stringify_identity`.
    """

    vendor: str
    names: Sequence[str]
    identities: Sequence[dict[str, Any]]
    moments: Sequence[datetime] | None
    properties: Sequence[dict[str, Any]]
    ids: Sequence[str] | None

    def __repr__(self) -> str:
        """Without customers and properties."""
        return f"<EventColumns of {len(self.names)} events>"

    def each(self) -> Iterator[EventContent]:
        """One event after the other."""
        vendor, names, identities, moments, properties, ids = self
        nothing = repeat(None)
        return map(_content, zip(repeat(vendor), names, identities, moments or nothing, properties, ids or nothing))


_content = cast(Callable[[Any], EventContent], partial(tuple.__new__, EventContent))


@runtime_checkable
class BulkCodec(Protocol):
    """Writes what events say without the events."""

    @property
    def conn_type(self) -> str:
        """The vendor of the contents."""

    @property
    def uses_event_id(self) -> bool:
        """Whether an event's own id is looked at."""

    @property
    def stringify_identity(self) -> bool:
        """Whether a customer's ids are sent as text, whatever they are."""

    @property
    def max_bulk_properties(self) -> int:
        """Events with more properties have to be encoded one by one."""

    def render_time(self, moment: datetime) -> str:
        """A time among the properties."""

    def encode_columns(self, contents: EventColumns) -> Sequence[bytes | None]:
        """Each event as a fragment of a request; None for one that has to be encoded by itself."""


class Page(NamedTuple):
    """What one page of a listing says about the entries that are searched; nothing else of it is kept.

    :param times: last updates of the entries on it, in its order.
    :param length: how many entries are on it.
    :param found: which of the searched identities are on it, by their position.
    :param passed_over: the vendor's ids of those that cannot be compared, or have no time.
    """

    times: Sequence[datetime]
    length: int
    found: Collection[int]
    passed_over: Collection[str] = ()

    def __repr__(self) -> str:
        """Without the entries."""
        return f"<Page of {self.length} entries, {len(self.found)} found>"


class Listing(Protocol):
    """Pages of entries by their last update, for a vendor that cannot be asked for a single one."""

    @property
    def window(self) -> timedelta:
        """How far back the first look goes."""

    def request(self, limit: int, after: datetime | None, before: datetime | None, down: bool) -> Request:
        """At most `limit` entries that were updated after one time and before another; `down`: the latest first."""

    def read(self, answer: Answer) -> Outcome | Page:
        """Which of the searched identities are on a page."""


class Verdict(Enum):
    """What an answer says about an event, or about a whole request."""

    DELIVERED = "delivered"
    FOUND = "found"  # answer to a look-up: the entry exists
    REJECTED = "rejected"
    MISSING = "missing"  # the customer's entry does not exist
    RETRY = "retry"  # later: overload, quota, outage, or an answer that says nothing
    FATAL = "fatal"  # credentials, project or URL: no further request can succeed


class Outcome(NamedTuple):
    """A verdict with its grounds.

    :param code: the vendor's error code, or `http_<status>` where it gives none.
    :param reason: the vendor's own words, cut to a readable length.
    :param reference: what the vendor calls the stored event's entry, if it says so.
    """

    verdict: Verdict
    code: str = ""
    reason: str = ""
    reference: str | None = None
