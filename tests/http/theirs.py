"""HTTP through aiohttp, as another opinion of what an answer means."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from airflow_provider_events.contract import Answer, Request
from airflow_provider_events.http.contract import MAX_ANSWER_BYTES, Endpoint, TransportError
from airflow_provider_events.http.tls import tls_context

if TYPE_CHECKING:
    import aiohttp

__all__ = ["AiohttpTransport"]


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
