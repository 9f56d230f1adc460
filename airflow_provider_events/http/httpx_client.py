"""The client that users get: httpx, with the connection's credentials for the vendor alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

    from airflow_provider_events.http.contract import Endpoint

__all__ = ["open_httpx"]


def open_httpx(endpoint: Endpoint) -> httpx.Client:
    """A client for an endpoint; to be closed.

    It adds the credentials to requests to the base URL's origin and to no other: neither absolute URLs nor redirects.
    """
    import httpx

    from airflow_provider_events.http.tls import tls_context

    class OwnOrigin(httpx.HTTPTransport):
        """Adds them to a copy, so that nothing that follows from a request carries them on."""

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if _origin(request.url) == origin:
                headers = httpx.Headers(dict(endpoint.headers))
                headers.update(request.headers)
                request = httpx.Request(
                    request.method, request.url, headers=headers, stream=request.stream, extensions=request.extensions
                )
            return super().handle_request(request)

    origin = _origin(httpx.URL(endpoint.base_url))
    return httpx.Client(
        base_url=endpoint.base_url,
        timeout=endpoint.timeout_seconds,
        transport=OwnOrigin(verify=tls_context(endpoint.verify), proxy=endpoint.proxy, trust_env=False),
        trust_env=False,
    )


def _origin(url: httpx.URL) -> tuple[str, bytes, int | None]:
    return url.scheme, url.raw_host, url.port
