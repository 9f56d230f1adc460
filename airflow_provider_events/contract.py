"""What crosses between vendors and delivery: a request, its answer and what that means; and who writes and reads them.

A `Codec` writes events, or upserts, and reads answers; a `LookupCodec` asks for entries. Nothing else of a vendor is
known to a delivery or a search.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from codecs import BOM_UTF8
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple, Protocol, cast

import orjson

from airflow_provider_events.events import Event, Record
from airflow_provider_events.values import TimeFormat, iso_utc, json_object

__all__ = [
    "Answer",
    "BulkRecords",
    "Codec",
    "EventColumns",
    "EventContent",
    "Fragment",
    "Listing",
    "LookupCodec",
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

    :param identities: the ids in them are text where the codec says `stringify_identity`.
    :param ids: None too where the codec does not look at them.
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


class Fragment(NamedTuple):
    """What an encoder says of one event, as it travels through a delivery: packed into bytes, which only it reads.

    A codec whose requests need nothing but bodies may do without, and give the body alone.

    :param body: the event's part of a request's body, without a line feed.
    :param head: what a request needs beside it, such as a path or what its id is made of; no line feed either.
    """

    body: bytes
    head: bytes = b""

    def __repr__(self) -> str:
        """Without the event."""
        return f"<Fragment of {len(self.body)} bytes>"

    def pack(self) -> bytes:
        """Head and body in one."""
        return self.head + b"\n" + self.body

    @classmethod
    def unpack(cls, packed: bytes) -> Fragment:
        """The inverse."""
        head, _, body = packed.partition(b"\n")
        return cls(body, head)

    @staticmethod
    def pack_each(bodies: Iterator[bytes], heads: Iterator[bytes]) -> list[bytes]:
        """`pack` for many."""
        return list(map(b"\n".join, zip(heads, bodies, strict=True)))

    @staticmethod
    def bodies(packed: Sequence[bytes]) -> list[bytes]:
        """The bodies of many."""
        return b"\n".join(packed).split(b"\n")[1::2]


class Codec(ABC):
    """How events of a vendor, or upserts of its entries, become requests, and what the answers mean.

    `encode_content` is the rule for one event. Neighbouring rows of the same columns come to `encode_columns` without
    ever being an `Event`; by default it applies that rule to each. A codec that can write them faster says so in
    `encode_columns_fast`, to the same bytes.

    :ivar conn_type: connection type of the vendor.
    :ivar max_request_bytes: bound of a request body of more than one event; default 1,000,000.
    :ivar fragment_overhead: bytes at most that an event costs in a body beside its own; the envelope costs no more
        either. Default 1, for a comma.
    :ivar timestamp_sent: whether the time of an event is looked at; default True.
    :ivar uses_event_id: whether an event's own id is looked at; default False.
    :ivar stringify_identity: whether a customer's ids are sent as text, whatever they are; default False.
    :ivar max_bulk_properties: events with more properties have to be encoded one by one; default 1000.
    :ivar overwrites: of two of one customer the later one replaces what the earlier one says, so that their order is
        kept, asked for or not; default False.
    :ivar scope_names: names in an identity that say where its customer is known, and tell no customers apart.
    """

    conn_type: str
    max_request_bytes: int = 1_000_000
    fragment_overhead: int = 1
    timestamp_sent: bool = True
    uses_event_id: bool = False
    stringify_identity: bool = False
    max_bulk_properties: int = 1000
    overwrites: bool = False
    scope_names: Collection[str] = ()

    # -- writing -----------------------------------------------------------------------------------------------------

    def encode(self, event: Event) -> bytes:
        """The event as a fragment of a request, never empty.

        :raises InvalidEvent: the vendor would refuse it; names field and reason.
        """
        return self.encode_content(self.content(event))

    @abstractmethod
    def encode_content(self, content: EventContent) -> bytes:
        """What an event says as a fragment of this vendor's requests, with a timestamp where the vendor takes one.

        Most often JSON, and never the same for two events that the vendor is to tell apart; see `Fragment`.

        :param content: already found to be an event; its properties are JSON-safe and not to be changed.
        :raises InvalidEvent: the vendor would refuse it; names field and reason.
        """

    def encode_columns(self, contents: EventColumns) -> Sequence[bytes | None]:
        """The same for many events; None for one that has to be encoded by itself, to find the words for its fault."""
        with suppress(TypeError):  # orjson's, for one value among all of them
            if (alike := self.encode_columns_fast(contents)) is not None:
                return alike
        fragments: list[bytes | None] = []
        for content in contents.each():
            try:
                fragments.append(self.encode_content(content))
            except (ValueError, OverflowError, TypeError):  # of the last, orjson makes its own errors
                fragments.append(None)
        return fragments

    def encode_columns_fast(self, contents: EventColumns) -> Sequence[bytes] | None:
        """The same bytes without a look at each event; None where not all of them are of the usual kind.

        :raises TypeError: one holds what cannot be written.
        """
        return None

    def content(self, event: Event) -> EventContent:
        """What an event says.

        :raises InvalidEvent: naming a property that has no place in JSON.
        """
        properties = json_object(event.properties, "properties", self.time_format)
        return EventContent(self.conn_type, event.name, event.identity, event.timestamp, properties, event.id)

    def time_format(self, name: str) -> TimeFormat:
        """How an aware time is written in the property `name`; by default as `2026-03-01T09:30:00Z`, in UTC."""
        return iso_utc

    def key(self, event: Event) -> str:
        """The idempotency key under which an event is sent by itself, 32 hex digits.

        :raises InvalidEvent: as from `encode`.
        """
        return self.content(event).key

    # -- requests and answers ----------------------------------------------------------------------------------------

    @abstractmethod
    def request(self, fragments: Sequence[bytes]) -> Request:
        """One request for one or more events, as many as the vendor takes at most."""

    @abstractmethod
    def read(self, answer: Answer, count: int) -> Outcome | list[Outcome]:
        """What an answer means: one outcome for the whole request, or one for each of its `count` events in order."""


class BulkRecords(Sequence[Record]):
    """Records with consecutive numbers that can be encoded together, without becoming events.

    :ivar first_row: number of the first one.
    """

    first_row: int

    @abstractmethod
    def encoded(self, codec: Codec, sent_at: datetime | None) -> list[bytes | None]:
        """Each record as a fragment of a request, at `sent_at` if it has no time.

        None for one that has to be encoded by itself.
        """

    def identity(self, at: int) -> Mapping[str, Any]:
        """The identity of a record that is known to be an event."""
        event = self[at].event
        return event.identity if event else {}


class LookupCodec(Protocol):
    """How a vendor is asked for entries, and what it answers."""

    def lookup(self, identity: Mapping[str, str | int]) -> Request | None:
        """A new request that asks for one entry; None where only a listing can tell.

        :raises InvalidEvent: the vendor cannot be asked for such an identity.
        :raises ConfigurationError: the vendor or the connection allows no look-ups.
        """

    def read_lookup(self, answer: Answer) -> Outcome:
        """FOUND, MISSING, or why there is no telling."""

    def listing(self, identities: Sequence[Mapping[str, str | int]]) -> Listing | None:
        """Pages in which `identities` are searched, where the vendor has them."""
