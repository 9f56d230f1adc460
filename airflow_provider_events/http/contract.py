"""HTTP behind a small protocol, so that it can be replaced and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import urlsplit

from airflow_provider_events.contract import Answer, Request

__all__ = ["MAX_ANSWER_BYTES", "Endpoint", "Transport", "TransportError"]

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
