"""The fields of an Airflow connection: what each is called in the form, and how it is read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.shown import did_you_mean

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))(?:[\w.~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)*/*", re.ASCII)

__all__ = [
    "COMMON_EXTRAS",
    "COMMON_STANDARD",
    "ConnectionValues",
    "ExtraField",
    "StandardField",
    "base_url",
    "is_loopback",
    "missing_field",
    "proxy_url",
    "read_extra",
    "read_extra_text",
]


@dataclass(frozen=True, slots=True)
class ConnectionValues:
    """The fields of an Airflow connection, as a vendor reads them."""

    conn_id: str
    host: str | None = field(default=None, repr=False)
    port: int | None = None
    scheme: str | None = None
    login: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class StandardField:
    """One of Airflow's own connection fields (`host`, `port`, `login`, `password`), under the vendor's name for it."""

    name: str
    label: str
    placeholder: str = ""
    required: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class ExtraField:
    """One key of a connection's extra, and its widget in the connection form."""

    name: str
    label: str
    description: str
    type: Literal["string", "integer", "number", "boolean"] = "string"
    required: bool = False
    choices: tuple[str, ...] = ()
    default: str | int | float | bool | None = None
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
        if self.type == "boolean":
            if (text := str(value).strip().lower()) not in ("true", "false"):
                raise ValueError("has to be true or false")
            return text == "true"
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


# Shown, so that a number can be written into it: Airflow 3.3.2 tests no connection whose port is blank.
COMMON_STANDARD = (StandardField("port", "Port", "443", description="Left aside where the URL names a port itself"),)

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
    ExtraField("verify", "Verify TLS", "true (as blank), false, or the path of a CA bundle"),
    ExtraField("proxy", "Proxy URL", "HTTP proxy for this connection, e.g. http://proxy.example.com:3128"),
    ExtraField(
        "allow_http",
        "Allow plain HTTP",
        "Send key and customers unencrypted, to http:// hosts other than this machine",
        "boolean",
        default=False,
    ),
)


def read_extra_text(conn_id: str, text: str | None) -> dict[str, Any]:
    """A connection's extra, read whole or not at all.

    :raises ConfigurationError: it is no JSON object.
    """
    value: Any = (text or "").strip() or {}
    with suppress(ValueError, RecursionError):
        for _ in range(2):  # tools that write connections give the object as a JSON text at times
            value = json.loads(value) if isinstance(value, str) else value
    if not isinstance(value, dict):
        raise ConfigurationError(
            f'connection {conn_id!r}: the extra has to be a JSON object such as {{"timeout": 30}}, or blank'
        )
    return value


def read_extra(values: ConnectionValues, fields: Sequence[ExtraField], label: str) -> dict[str, Any]:
    """The extra as a closed, typed schema: every field of it with its value or default.

    :param label: name of the vendor, for the error.
    :raises ConfigurationError: naming an unknown key and its nearest neighbour, a wrong value, or a missing field.
    """
    conn_id = values.conn_id
    known = {extra.name: extra for extra in fields}
    for name in values.extra:
        if name not in known:
            raise ConfigurationError(
                f"connection {conn_id!r}: unknown extra key {str(name)!r}; {did_you_mean(name, known)}"
            )
    read = {}
    for name, extra in known.items():
        try:
            read[name] = extra.read(values.extra.get(name))
        except ValueError as error:
            raise ConfigurationError(f"connection {conn_id!r}: {extra.label!r} (extra key {name!r}) {error}") from None
        if extra.required and not read[name]:
            raise missing_field(conn_id, label, extra.label, f"extra key {name!r}")
    try:
        read["proxy"] = proxy_url(read["proxy"]) if read.get("proxy") else None
    except ValueError:
        raise ConfigurationError(
            f"connection {conn_id!r}: 'Proxy URL' (extra key 'proxy') has to be a URL such as "
            "http://proxy.example.com:3128, with what is special in a password percent-encoded"
        ) from None
    return read


def missing_field(conn_id: str, vendor: str, label: str, where: str) -> ConfigurationError:
    """The error for a required field that is blank."""
    return ConfigurationError(
        f"connection {conn_id!r} ({vendor}): fill in the field {label!r} ({where}) of the connection form"
    )


def base_url(values: ConnectionValues, default: str) -> str:
    """All that comes before the documented resources, without a trailing slash.

    :param default: for a blank host.
    :raises ConfigurationError: the host is no URL, or holds credentials.
    """
    host = (values.host or "").strip()
    if not host:
        return default
    if "://" not in host:
        scheme = (values.scheme or "").lower()
        host = f"{scheme if scheme in ('http', 'https') else 'https'}://{host}"
    try:
        parts, name = _http_url(host)
        port = parts.port or values.port
        if port and not 0 < int(port) < 65536:
            raise ValueError("no port")
    except ValueError:
        raise ConfigurationError(
            f"connection {values.conn_id!r}: the host has to be a URL such as {default}, without query or fragment, "
            "or the host alone"
        ) from None
    if "@" in parts.netloc:
        raise ConfigurationError(f"connection {values.conn_id!r}: the host must not hold credentials")
    usual = port in (None, 0, {"https": 443, "http": 80}[parts.scheme])
    return f"{parts.scheme}://{name}{'' if usual else f':{port}'}{parts.path.rstrip('/')}"


def proxy_url(text: str) -> str:
    """The URL of an HTTP proxy, its host in ASCII.

    :raises ValueError: it is none.
    """
    parts, name = _http_url(text)
    if parts.path.strip("/"):
        raise ValueError("a proxy has no path")
    credentials, at, _ = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{credentials}{at}{name}{f':{parts.port}' if parts.port else ''}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself, by its name."""
    host = host.strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _http_url(text: str) -> tuple[SplitResult, str]:
    """The parts of a URL, and its host as it travels: in ASCII, an IPv6 address in its brackets.

    :raises ValueError: HTTP is spoken to no such URL.
    """
    if not text.isprintable() or set(text) & set(" \\?#"):
        raise ValueError("no URL")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or parts.port == 0 or parts.netloc.endswith(":"):
        raise ValueError("no URL of HTTP")
    if not _PATH.fullmatch(parts.path):
        raise ValueError("no path")
    name = parts.hostname or ""
    if "[" in parts.netloc.rpartition("@")[2]:
        if IPv6Address(name).scope_id is not None:
            raise ValueError("an address of one link")
        return parts, f"[{name}]"
    if not name.isascii():
        import idna

        name = idna.encode(name, uts46=True).decode("ascii")
    name = name.removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)) or name in ("http", "https"):
        raise ValueError("no host")
    if _NUMBER.fullmatch(labels[-1]):
        IPv4Address(name)
    return parts, name
