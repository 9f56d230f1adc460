"""The client that users get: httpx, with the connection's credentials for the vendor alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

    from airflow_provider_events.http.contract import Endpoint

__all__ = ["open_httpx"]


def open_httpx(endpoint: Endpoint, holds_secret: Callable[[str], bool]) -> httpx.Client:
    """A client for an endpoint; to be closed.

    It adds the credentials to requests to the base URL's origin and to no other: neither absolute URLs nor redirects.
    What httpx itself writes of an answer (its INFO log, the texts of its errors) has none of the server's words.

    :param holds_secret: whether a text repeats a secret, as no redirect may.
    """
    import httpx

    from airflow_provider_events.http.tls import tls_context

    @contextmanager
    def in_own_words() -> Iterator[None]:
        try:
            yield
        except httpx.RemoteProtocolError:  # quotes what came
            raise httpx.RemoteProtocolError("the answer is no HTTP") from None

    class Body(httpx.SyncByteStream):
        def __init__(self, stream: httpx.SyncByteStream) -> None:
            self._stream = stream

        def __iter__(self) -> Iterator[bytes]:
            with in_own_words():
                yield from self._stream

        def close(self) -> None:
            self._stream.close()

    class OwnOrigin(httpx.HTTPTransport):
        """Adds them to a copy, so that nothing that follows from a request carries them on."""

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if _origin(request.url) == origin:
                headers = httpx.Headers(dict(endpoint.headers))
                headers.update(request.headers)
                request = httpx.Request(
                    request.method, request.url, headers=headers, stream=request.stream, extensions=request.extensions
                )
            with in_own_words():
                response = super().handle_request(request)
            response.extensions.pop("reason_phrase", None)  # httpx knows one for each status
            if holds_secret(response.headers.get("location", "")):
                del response.headers["location"]
            response.stream = Body(response.stream)  # type: ignore[arg-type]  # of a synchronous transport
            return response

    origin = _origin(httpx.URL(endpoint.base_url))
    return httpx.Client(
        base_url=endpoint.base_url,
        timeout=endpoint.timeout_seconds,
        transport=OwnOrigin(verify=tls_context(endpoint.verify), proxy=endpoint.proxy, trust_env=False),
        trust_env=False,
    )


def _origin(url: httpx.URL) -> tuple[str, bytes, int | None]:
    return url.scheme, url.raw_host, url.port
