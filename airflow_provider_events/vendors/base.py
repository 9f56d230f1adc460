"""What a vendor is: a connection form, an encoder, and a reader of answers. Pure: no Airflow, no I/O.

A vendor class says what differs from the others; the rest of the package reads it from here. Its connection form,
the provider info and its reference page are generated from the class attributes.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, unquote, urlsplit

import orjson

from airflow_provider_events.contract import Answer, Codec, Listing, Outcome, Request, Verdict
from airflow_provider_events.exceptions import ConfigurationError, InvalidEvent
from airflow_provider_events.vendors.connection import (
    COMMON_EXTRAS,
    COMMON_STANDARD,
    ConnectionValues,
    ExtraField,
    StandardField,
    base_url,
    is_loopback,
    missing_field,
    read_extra,
)

__all__ = ["COMMON_EXTRAS", "ConnectionValues", "ExtraField", "StandardField", "Upserts", "Vendor", "registry"]


# Keys are often copied with the word before them, which the vendors' headers have by themselves or must not have.
_SCHEME_WORD = re.compile(r"^(?:authorization\s*:\s*)?(?:bearer|token)\s+", re.IGNORECASE)


class Upserts(Codec):
    """How a vendor's entries are created or updated, under the same bounds as its events.

    An entry travels as an event does: its attributes are the event's properties, its name is not sent.

    :param vendor: whose entries they are.
    """

    overwrites = True

    def __init__(self, vendor: Vendor) -> None:
        self.conn_type = vendor.conn_type
        self.max_request_bytes, self.fragment_overhead = vendor.max_request_bytes, vendor.fragment_overhead
        self.stringify_identity = vendor.stringify_identity


class Vendor(Codec):
    """A vendor, configured by one connection; as a codec, of its events.

    :raises ConfigurationError: naming the connection, the form's label of the field, and the fix.
    """

    label: ClassVar[str]
    docs_url: ClassVar[str]
    default_host: ClassVar[str]
    standard_fields: ClassVar[tuple[StandardField, ...]]
    extra_fields: ClassVar[tuple[ExtraField, ...]] = ()
    max_batch_size: ClassVar[int] = 1
    max_in_flight: ClassVar[int] = 16
    identity_keys: ClassVar[str]
    deduplication: ClassVar[str]

    def __init__(self, values: ConnectionValues) -> None:
        self.conn_id = values.conn_id
        self.login = (values.login or "").strip()
        self.password = _SCHEME_WORD.sub("", (values.password or "").strip())
        self.extra = read_extra(values, self.all_extra_fields(), self.label)
        for required in self.standard_fields:
            if required.required and not getattr(self, required.name):
                raise missing_field(self.conn_id, self.label, required.label, required.name)
        self.base_url = base_url(values, self.host_default())
        self._check_what_travels()

    def _check_what_travels(self) -> None:
        if self._unencrypted and not self.extra["allow_http"]:
            raise ConfigurationError(
                f"connection {self.conn_id!r}: http:// would send the key and the customers unencrypted: give the host "
                "as https://, or set 'Allow plain HTTP' (extra key 'allow_http') to true"
            )
        if not all(value.isascii() and value.isprintable() for value in self.headers().values()):
            label = next(standard.label for standard in self.standard_fields if standard.name == "password")
            raise ConfigurationError(
                f"connection {self.conn_id!r}: {label!r} (password) holds a character that no key has, such as a line "
                "break or a letter with an accent: copy it once more"
            )

    # -- what each vendor says ---------------------------------------------------------------------------------------

    @abstractmethod
    def headers(self) -> dict[str, str]:
        """Authentication headers of every request."""

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

    @property
    def verify(self) -> bool | str:
        """Whether TLS certificates are checked; a path names a CA bundle."""
        verify: str = self.extra["verify"] or "true"
        return {"true": True, "false": False}.get(verify.lower(), verify)

    @property
    def _unencrypted(self) -> bool:
        url = urlsplit(self.base_url)
        return url.scheme == "http" and not is_loopback(url.hostname or "")

    def warnings(self) -> list[str]:
        """What the connection allows though it should not."""
        warnings = []
        if self._unencrypted:
            warnings.append("plain http:// shows the key and the customers to everybody on the way")
        if self.base_url.startswith("https:") and self.verify is False:
            warnings.append("'Verify TLS' is false: anybody on the way can pretend to be the vendor and read the key")
        return warnings

    def secrets(self) -> list[str]:
        """Every secret of the connection in every form in which it travels."""
        proxy = (self.extra["proxy"] and urlsplit(self.extra["proxy"]).password) or ""
        held = [self.password, *self.headers().values(), proxy, unquote(proxy)]
        forms = [form for value in held for form in (value, quote(value, safe=""), value.rpartition(" ")[2])]
        return list(dict.fromkeys(form for form in forms if form))

    # -- connection settings -----------------------------------------------------------------------------------------

    @classmethod
    def all_standard_fields(cls) -> tuple[StandardField, ...]:
        """Airflow's own fields that the connection uses: the vendor's own, then those that all vendors share."""
        return (*cls.standard_fields, *COMMON_STANDARD)

    @classmethod
    def all_extra_fields(cls) -> tuple[ExtraField, ...]:
        """The vendor's own extra fields and those that all vendors share."""
        return cls.extra_fields + COMMON_EXTRAS


_DELIVERED = Outcome(Verdict.DELIVERED)


def dumps(value: Any, field_name: str = "event") -> bytes:
    """Compact JSON.

    :raises InvalidEvent: what the encoder cannot take, without the value.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        raise InvalidEvent(field_name, "holds a value that cannot be written as JSON") from None


def dumps_each(values: Iterable[Any]) -> list[bytes]:
    """Compact JSON of each value.

    :raises TypeError: one cannot be written.
    """
    # Joining copies them: what orjson returns lies in a kilobyte's block, dear to keep by the hundred.
    return list(map(b"".join, zip(map(orjson.dumps, values), repeat(b""))))


def quote_segment(text: str) -> str:
    """`text` percent-encoded as one segment of a path; `~` stays, as RFC 3986 leaves it unreserved."""
    return quote(text, safe="~")


def found() -> Outcome:
    """The entry exists."""
    return Outcome(Verdict.FOUND)


def delivered(reference: str | None = None) -> Outcome:
    """The vendor accepted it."""
    return Outcome(Verdict.DELIVERED, "", "", reference) if reference else _DELIVERED


def json_body(answer: Answer) -> Any:
    """The parsed body of an answer, or None where it is not JSON."""
    return answer.json()


def by_status(answer: Answer, code: str = "", reason: str = "") -> Outcome:
    """What a status says when the body says no more: the common ground of all vendors.

    Overload and outage are for later; authentication and addressing concern every request; the other 4xx concern
    the event; a 2xx that no vendor documents is no acceptance, so it is tried again, but not often.
    """
    status = answer.status
    code = code or f"http_{status}"
    if is_transient(answer) or status < 300:
        return Outcome(Verdict.RETRY, code, reason or "no documented answer")
    verdict, usual = Verdict.REJECTED, "refused without a reason"
    if status in (401, 402, 403):
        verdict, usual = Verdict.FATAL, "the credentials were refused"
    elif status == 407:
        verdict, usual = Verdict.FATAL, "a proxy in between asks for credentials of its own"
    elif status < 400 or status in (404, 405, 410):
        verdict, usual = Verdict.FATAL, "nothing is served at this URL: check host, project and path"
    if not reason and status != 407 and (foreign := answer.foreign):
        usual = f"{foreign}: a firewall or proxy in between, or {usual}"
    return Outcome(verdict, code, reason or usual)


def is_transient(answer: Answer) -> bool:
    """Overload or outage: whatever the body says, it says nothing about the event."""
    return answer.status in (408, 421, 423, 425, 429) or answer.status >= 500


def one_line(value: object, limit: int = 400) -> str:
    """A vendor's text as one line, cut to `limit` characters; empty for anything but text.

    What it repeats is taken out where it is used; so it is cut to what is read of it, and not yet to what is shown.
    """
    if not isinstance(value, str):
        return ""
    one_word = value.isidentifier() and len(value) <= limit  # as ids, codes and states mostly are
    return value if one_word else " ".join(value[: 4 * limit].split())[:limit]


def registry() -> dict[str, type[Vendor]]:
    """Every vendor of this package by its connection type: all modules beside this one are imported.

    Those of other packages are known to Airflow alone.
    """
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{package}.{module.name}")
    ours = [vendor for vendor in Vendor.__subclasses__() if vendor.__module__.startswith(f"{package}.")]
    return {vendor.conn_type: vendor for vendor in ours}
