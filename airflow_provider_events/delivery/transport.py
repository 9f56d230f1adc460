"""HTTP behind a small protocol, so that it can be replaced and measured."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import urlsplit

from airflow_provider_events.exchange import Answer, Request

__all__ = ["Endpoint", "Transport", "TransportError", "not_trusted", "open_transport", "tls_context"]

MAX_ANSWER_BYTES = 1_048_576
# By OpenSSL's X509_V_ERR_…; all others say in some way that nobody known has signed it.
_CERTIFICATE_FAULTS = {
    9: "is not valid yet: is the clock of this machine right?",
    10: "has expired",
    23: "was revoked",
    62: "is for another name",
    64: "is for another name",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go, and how.

    :param base_url: all that comes before a request's path; no trailing slash.
    :param headers: sent with every request; they hold the credentials.
    :param timeout_seconds: for one whole answer; connecting may take 10 of them at most.
    :param verify: check the TLS certificate; a path names a CA bundle.
    :param proxy: URL of an HTTP proxy.
    :param max_connections: open at once.
    """

    base_url: str
    headers: Mapping[str, str] = field(repr=False)
    timeout_seconds: float = 30.0
    verify: bool | str = True
    proxy: str | None = field(default=None, repr=False)
    max_connections: int = 16

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return urlsplit(self.base_url).netloc

    @property
    def proxy_host(self) -> str:
        """Host and port of the proxy, without its user and password; empty where there is none."""
        return urlsplit(self.proxy or "").netloc.rpartition("@")[2]

    @property
    def name(self) -> str:
        """The host, and the proxy that leads there."""
        return f"{self.host} by the proxy {self.proxy_host}" if self.proxy else self.host


class TransportError(Exception):
    """No answer came.

    :ivar final: no later attempt can do better (an untrusted certificate).
    :ivar stale: the server closed a connection that had rested, before it said anything: most likely it has not read
        the request either, and is to be asked again at once.
    """

    def __init__(self, message: str, *, final: bool = False, stale: bool = False) -> None:
        super().__init__(message)
        self.final = final
        self.stale = stale


class Transport(Protocol):
    """Sends requests to one endpoint; usable as an async context manager."""

    async def send(self, request: Request) -> Answer:
        """The vendor's answer, whatever its status.

        :raises TransportError: there was none.
        """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_transport(endpoint: Endpoint) -> Transport:
    """The transport for an endpoint, to be entered."""
    from airflow_provider_events.delivery.http1 import Http1Transport

    return Http1Transport(endpoint)


def not_trusted(whose: str, error: ssl.SSLCertVerificationError) -> str:
    """What is wrong with a certificate."""
    fault = _CERTIFICATE_FAULTS.get(error.verify_code, "is not trusted")
    return f"the TLS certificate of {whose} {fault}"


def tls_context(verify: bool | str) -> ssl.SSLContext:
    """What `verify` means; a CA bundle (or a folder of CAs) is read anew each time, as it may have been exchanged.

    :raises OSError: there are no CAs at this path.
    """
    if not isinstance(verify, str):
        return _usual_context(verify)
    if Path(verify).is_dir():
        return ssl.create_default_context(capath=verify)
    return ssl.create_default_context(cafile=verify)


@lru_cache
def _usual_context(verify: bool) -> ssl.SSLContext:
    """Made once: to load the system's CAs takes tens of milliseconds."""
    context = ssl.create_default_context()
    if not _has_authorities(context):
        import certifi

        context.load_verify_locations(certifi.where())
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _has_authorities(context: ssl.SSLContext) -> bool:
    """Whether the system has any; those in a folder are loaded only when they are needed."""
    folder = ssl.get_default_verify_paths().capath
    return bool(context.cert_store_stats()["x509_ca"] or (folder and any(Path(folder).iterdir())))
