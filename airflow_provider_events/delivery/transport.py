"""HTTP behind a small protocol, so that it can be replaced and measured."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import urlsplit

from airflow_provider_events.exchange import Answer, Request

__all__ = ["Endpoint", "Transport", "TransportError", "open_transport", "tls_context"]

MAX_ANSWER_BYTES = 1_048_576


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


class TransportError(Exception):
    """No answer came. `final` when no later attempt can do better (an untrusted certificate)."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


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
    """The transport for an endpoint, to be entered: our own client, or aiohttp where there is a proxy."""
    if endpoint.proxy:
        from airflow_provider_events.delivery.proxied import AiohttpTransport

        return AiohttpTransport(endpoint)
    from airflow_provider_events.delivery.http1 import Http1Transport

    return Http1Transport(endpoint)


def tls_context(verify: bool | str) -> ssl.SSLContext:
    """What `verify` means; a CA bundle is read anew each time, as it may have been exchanged.

    :raises OSError: there are no CAs at this path.
    """
    return ssl.create_default_context(cafile=verify) if isinstance(verify, str) else _usual_context(verify)


@lru_cache
def _usual_context(verify: bool) -> ssl.SSLContext:
    """Made once: to load the system's CAs takes tens of milliseconds."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
