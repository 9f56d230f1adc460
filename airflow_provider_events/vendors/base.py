"""What a vendor is: a connection form, an encoder, and a reader of answers. Pure: no Airflow, no I/O.

A vendor class says what differs from the others; the rest of the package reads it from here. Its connection form,
the provider info and its reference page are generated from the class attributes.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import quote, unquote, urlsplit

import orjson

from airflow_provider_events.events import Event
from airflow_provider_events.exceptions import ConfigurationError, InvalidEvent
from airflow_provider_events.exchange import Answer, Encoded, Listing, Outcome, Request, Verdict

__all__ = ["ConnectionValues", "ExtraField", "StandardField", "Upserts", "Vendor", "registry"]


@dataclass(frozen=True, slots=True)
class ConnectionValues:
    """The fields of an Airflow connection, as a vendor reads them."""

    conn_id: str
    host: str | None = None
    port: int | None = None
    scheme: str | None = None
    login: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class StandardField:
    """One of Airflow's own connection fields (`host`, `login`, `password`), under the vendor's name for it."""

    name: str
    label: str
    placeholder: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class ExtraField:
    """One key of a connection's extra, and its widget in the connection form."""

    name: str
    label: str
    description: str
    type: Literal["string", "integer", "number"] = "string"
    required: bool = False
    choices: tuple[str, ...] = ()
    default: str | int | float | None = None
    minimum: float | None = None

    def read(self, value: Any) -> Any:
        """`value` in the field's type.

        :raises ValueError: saying what it should be.
        """
        if value is None or value == "":
            return self.default
        if self.type == "string":
            if not isinstance(value, str):
                value = str(value).lower() if isinstance(value, bool) else str(value)
            value = value.strip()
            if self.choices and value not in self.choices:
                raise ValueError(f"has to be one of {', '.join(self.choices)}")
            return value
        whole = self.type == "integer"
        try:
            number = float("nan" if isinstance(value, bool) else value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number) or (whole and not number.is_integer()):
            raise ValueError("has to be a whole number" if whole else "has to be a number")
        if self.minimum is not None and not number >= self.minimum:
            raise ValueError(f"has to be at least {self.minimum:g}")
        return int(number) if whole else number

    def schema(self) -> dict[str, Any]:
        """The JSON schema from which Airflow's form draws the widget; optional fields are nullable there."""
        schema: dict[str, Any] = {"type": self.type if self.required else [self.type, "null"]}
        if self.choices:
            schema["enum"] = list(self.choices)
        if self.default is not None:
            schema["default"] = self.default
        if self.minimum is not None:
            schema["minimum"] = self.minimum
        return schema


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

COMMON_EXTRAS = (
    ExtraField(
        "requests_per_minute",
        "Requests per minute",
        "Upper bound on the request rate; blank: the vendor's published quota",
        "number",
        minimum=0.1,
    ),
    ExtraField(
        "max_in_flight",
        "Requests in flight",
        "How many requests may wait for an answer at once",
        "integer",
        minimum=1,
    ),
    ExtraField(
        "batch_size",
        "Events per request",
        "At most; blank: what the vendor takes in one request",
        "integer",
        minimum=1,
    ),
    ExtraField("timeout", "Timeout (s)", "Seconds to wait for an answer", "number", default=30, minimum=0.1),
    ExtraField("verify", "Verify TLS", "true, false, or the path of a CA bundle", default="true"),
    ExtraField("proxy", "Proxy URL", "HTTP proxy for this connection, e.g. http://proxy.example.com:3128"),
)


class Upserts(ABC):
    """How a vendor's entries are created or updated, under the same bounds as its events.

    An entry travels as an event does: its attributes are the event's properties, its name is not sent.
    """

    timestamp_sent: ClassVar[bool] = True
    max_request_bytes: int
    piece_overhead: int

    @abstractmethod
    def encode(self, event: Event) -> Encoded:
        """Identity and attributes on the wire.

        :raises InvalidEvent: the vendor would refuse them.
        """

    @abstractmethod
    def request(self, pieces: Sequence[Encoded]) -> Request:
        """One request for 1 to `Vendor.max_batch_size` entries."""

    @abstractmethod
    def read(self, answer: Answer, count: int) -> Outcome | list[Outcome]:
        """What an answer means, as in `Vendor.read`."""


class Vendor(ABC):
    """A vendor, configured by one connection.

    :raises ConfigurationError: naming the connection, the form's label of the field, and the fix.
    """

    conn_type: ClassVar[str]
    label: ClassVar[str]
    docs_url: ClassVar[str]
    default_host: ClassVar[str]
    standard_fields: ClassVar[tuple[StandardField, ...]]
    extra_fields: ClassVar[tuple[ExtraField, ...]] = ()
    max_batch_size: ClassVar[int] = 1
    max_in_flight: ClassVar[int] = 16
    max_request_bytes: ClassVar[int] = 1_000_000
    piece_overhead: ClassVar[int] = 1
    identity_keys: ClassVar[str]
    deduplication: ClassVar[str]
    timestamp_sent: ClassVar[bool] = True

    def __init__(self, values: ConnectionValues) -> None:
        self.conn_id = values.conn_id
        self.login = (values.login or "").strip()
        self.password = (values.password or "").strip()
        self.extra = self._read_extra(values.extra)
        if (proxy := self.extra["proxy"]) and not _is_url(proxy):
            raise ConfigurationError(
                f"connection {self.conn_id!r}: 'Proxy URL' (extra key 'proxy') has to be a URL such as "
                "http://proxy.example.com:3128, with what is special in a password percent-encoded"
            )
        for required in self.standard_fields:
            if required.required and not getattr(self, required.name):
                raise self._missing(required.label, required.name)
        self.base_url = _base_url(values, self.host_default())

    # -- what each vendor says ---------------------------------------------------------------------------------------

    @abstractmethod
    def headers(self) -> dict[str, str]:
        """Authentication headers of every request."""

    @abstractmethod
    def encode(self, event: Event) -> Encoded:
        """The event on this vendor's wire, with a timestamp where the vendor takes one.

        :raises InvalidEvent: the vendor would refuse it; names field and reason.
        """

    @abstractmethod
    def request(self, pieces: Sequence[Encoded]) -> Request:
        """One request for 1 to `max_batch_size` events."""

    @abstractmethod
    def read(self, answer: Answer, count: int) -> Outcome | list[Outcome]:
        """What an answer means: one outcome for the whole request, or one for each of its `count` events in order."""

    @abstractmethod
    def probe(self) -> Request:
        """The least harmful documented request that shows whether the connection works."""

    @abstractmethod
    def read_probe(self, answer: Answer) -> Outcome:
        """DELIVERED when the probe shows that the connection works."""

    # -- what a vendor says that documents look-ups --------------------------------------------------------------------

    def lookup(self, identity: Mapping[str, str | int]) -> Request | None:
        """A new read-only request that asks whether one entry exists; None where only a `listing` can tell.

        :raises InvalidEvent: entries cannot be looked up by such an identity.
        :raises ConfigurationError: the vendor documents no look-up, or the connection allows none.
        """
        raise ConfigurationError(f"{self.label} documents no way to look an entry up")

    def read_lookup(self, answer: Answer) -> Outcome:
        """FOUND, MISSING on the vendor's own words alone, or why there is no telling. A profile is not kept."""
        return by_status(answer)

    def listing(self, identities: Sequence[Mapping[str, str | int]]) -> Listing | None:
        """Pages of entries in which `identities` are searched; needed where `lookup` gives None."""
        return None

    def lookup_quota(self) -> float | None:
        """Published look-ups per minute; None: no published limit."""
        return None

    def upserts(self) -> Upserts:
        """How entries are created or updated.

        :raises ConfigurationError: the vendor documents no such call.
        """
        raise ConfigurationError(f"{self.label} documents no way to create or update an entry")

    # -- settings ----------------------------------------------------------------------------------------------------

    def quota(self, batch_size: int) -> float | None:
        """Published requests per minute when sending `batch_size` events per request; None: no published limit."""
        return None

    def host_default(self) -> str:
        """Base URL of a connection whose host is blank."""
        return self.default_host

    def secrets(self) -> list[str]:
        """Every secret of the connection in every form in which it travels."""
        proxy = (self.extra["proxy"] and urlsplit(self.extra["proxy"]).password) or ""
        held = [self.password, *self.headers().values(), proxy, unquote(proxy)]
        forms = [form for value in held for form in (value, quote(value, safe=""), value.rpartition(" ")[2])]
        return list(dict.fromkeys(form for form in forms if form))

    # -- connection settings -----------------------------------------------------------------------------------------

    @classmethod
    def all_extra_fields(cls) -> tuple[ExtraField, ...]:
        """The vendor's own extra fields and those that all vendors share."""
        return cls.extra_fields + COMMON_EXTRAS

    def _read_extra(self, given: Mapping[str, Any]) -> dict[str, Any]:
        known = {extra.name: extra for extra in self.all_extra_fields()}
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
                raise ConfigurationError(f"connection {self.conn_id!r}: unknown extra key {str(name)!r}; {hint}")
        values = {}
        for name, extra in known.items():
            try:
                values[name] = extra.read(given.get(name))
            except ValueError as error:
                raise ConfigurationError(
                    f"connection {self.conn_id!r}: {extra.label!r} (extra key {name!r}) {error}"
                ) from None
            if extra.required and not values[name]:
                raise self._missing(extra.label, f"extra key {name!r}")
        return values

    def _missing(self, label: str, where: str) -> ConfigurationError:
        return ConfigurationError(
            f"connection {self.conn_id!r} ({self.label}): fill in the field {label!r} ({where}) of the connection form"
        )

    def key(self, event: Event, properties: Mapping[str, Any]) -> str:
        """The idempotency key: from the caller's id with name and customer, else from the whole content.

        :param properties: the event's, JSON-safe.
        """
        moment = event.timestamp and (event.timestamp - _EPOCH) // _MICROSECOND
        content = [moment, properties] if event.id is None else event.id
        identity = {name: str(value) for name, value in event.identity.items()}
        text = orjson.dumps([self.conn_type, event.name, identity, content], option=orjson.OPT_SORT_KEYS)
        return hashlib.blake2b(text, digest_size=16).hexdigest()


def dumps(value: Any, field_name: str = "event") -> bytes:
    """Compact JSON.

    :raises InvalidEvent: what the encoder cannot take, without the value.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        raise InvalidEvent(field_name, "holds a value that cannot be written as JSON") from None


def segment(text: str) -> str:
    """`text` percent-encoded as one segment of a path; `~` stays, as RFC 3986 leaves it unreserved."""
    return quote(text, safe="~")


def found() -> Outcome:
    """The entry exists."""
    return Outcome(Verdict.FOUND)


def delivered(reference: str | None = None) -> Outcome:
    """The vendor accepted it."""
    return Outcome(Verdict.DELIVERED, reference=reference)


def json_body(answer: Answer) -> Any:
    """The parsed body of an answer, or None where it is not JSON."""
    try:
        return orjson.loads(answer.body)
    except ValueError:
        return None


def by_status(answer: Answer, code: str = "", reason: str = "") -> Outcome:
    """What a status says when the body says no more: the common ground of all vendors.

    Overload and outage are for later; authentication and addressing concern every request; the other 4xx concern
    the event; a 2xx that no vendor documents is no acceptance, so it is for later as well.
    """
    status = answer.status
    code = code or f"http_{status}"
    if is_later(answer) or status < 300:
        return Outcome(Verdict.RETRY, code, reason or "no documented answer")
    if status in (401, 402, 403, 407):
        return Outcome(Verdict.REFUSED, code, reason or "the credentials were refused")
    if status < 400 or status in (404, 405, 410):
        return Outcome(Verdict.REFUSED, code, reason or "nothing is served at this URL: check host, project and path")
    return Outcome(Verdict.REJECTED, code, reason or "refused without a reason")


def is_later(answer: Answer) -> bool:
    """Overload or outage: whatever the body says, it says nothing about the event."""
    return answer.status in (408, 425, 429) or answer.status >= 500


def words(value: object, limit: int = 200) -> str:
    """A vendor's text for a log: one line, cut to `limit` characters; empty for anything but text."""
    return " ".join(value[: 4 * limit].split())[:limit] if isinstance(value, str) else ""


def _base_url(values: ConnectionValues, default: str) -> str:
    host = (values.host or "").strip()
    if not host:
        return default
    if "://" not in host:
        scheme = values.scheme if values.scheme in ("http", "https") else "https"
        host = f"{scheme}://{host}"
    if not _is_url(host) or (parts := urlsplit(host)).query or parts.fragment:
        raise ConfigurationError(
            f"connection {values.conn_id!r}: the host has to be a URL such as {default}, without query or fragment"
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(f"connection {values.conn_id!r}: the host must not hold credentials")
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = parts.port or values.port
    return f"{parts.scheme}://{name}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and " " not in text
    except ValueError:
        return False


def registry() -> dict[str, type[Vendor]]:
    """Every vendor of this package by its connection type: all modules beside this one are imported."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{package}.{module.name}")
    return {vendor.conn_type: vendor for vendor in Vendor.__subclasses__()}
