"""HTTP behind a small protocol, so that it can be replaced and measured."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self
from urllib.parse import urlsplit

from airflow_provider_events.exchange import Answer, Request

if TYPE_CHECKING:
    import aiohttp

__all__ = ["AiohttpTransport", "Endpoint", "Transport", "TransportError", "tls_context"]

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


class AiohttpTransport:
    """aiohttp with bounded connections, no redirects, and answers cut off at one mebibyte."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        import aiohttp

        endpoint = self._endpoint
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=endpoint.max_connections, ssl=tls_context(endpoint.verify)),
            headers={"Content-Type": "application/json", "Accept": "application/json", **endpoint.headers},
            timeout=aiohttp.ClientTimeout(total=endpoint.timeout_seconds, sock_connect=10.0),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(self, request: Request) -> Answer:
        """See `Transport.send`."""
        import aiohttp
        from yarl import URL

        endpoint = self._endpoint
        url = URL(endpoint.base_url + request.path, encoded=True)
        try:
            async with self._session.request(
                request.method,
                url,
                data=request.body,
                headers=request.headers,
                proxy=endpoint.proxy,
                allow_redirects=False,
            ) as response:
                body = await _read_capped(response.content)
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status, headers, body)
        except aiohttp.ClientConnectorCertificateError as error:
            raise TransportError(f"the TLS certificate of {endpoint.host} is not trusted", final=True) from error
        except TimeoutError as error:
            raise TransportError(f"no answer from {endpoint.host} in {endpoint.timeout_seconds:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise TransportError(f"no answer from {endpoint.host} ({type(error).__name__})") from error


async def _read_capped(stream: aiohttp.StreamReader) -> bytes:
    parts: list[bytes] = []
    size = 0
    while size < MAX_ANSWER_BYTES and (part := await stream.readany()):
        parts.append(part)
        size += len(part)
    return b"".join(parts)[:MAX_ANSWER_BYTES]


def tls_context(verify: bool | str) -> ssl.SSLContext | bool:
    """What `verify` means to an HTTP client: True and False as they are, a path as a context that trusts its CAs."""
    return ssl.create_default_context(cafile=verify) if isinstance(verify, str) else verify
