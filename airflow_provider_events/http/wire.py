"""Requests as the bytes that go out over HTTP/1.1."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import urlsplit

from airflow_provider_events import __version__
from airflow_provider_events.contract import Request
from airflow_provider_events.http.contract import Endpoint, TransportError
from airflow_provider_events.http.proxy import authorization

__all__ = ["FRAMING", "Writing"]

_DEFAULTS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": f"airflow-provider-events/{__version__}",
}
FRAMING = ("content-length", "transfer-encoding")
_START = re.compile(r"(GET|POST|PUT) /[!-~]*")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*")


class Writing:
    """Writes the requests to one endpoint; what most of them share is made once."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        url = urlsplit(endpoint.base_url)
        host = (url.hostname or "").rstrip(".")
        host = f"[{host}]" if ":" in host else host
        usual = url.port in (None, 443 if url.scheme == "https" else 80)
        self._authority = host if usual else f"{host}:{url.port}"
        self._prefix = url.path
        self._server = ""  # named in the request line where a proxy reads it
        self._proxy_headers: dict[str, str] = {}
        if endpoint.proxy and url.scheme == "http":
            self._server = f"http://{self._authority}"
            if value := authorization(endpoint.proxy):
                self._proxy_headers["Proxy-Authorization"] = value
        self._head = lru_cache(maxsize=64)(self._made_head)

    def written(self, request: Request) -> bytes:
        """Head and body.

        :raises TransportError: HTTP cannot carry it, as its method, path or headers are; final.
        """
        method, path, body, headers = request
        if headers:
            own = "".join(map(self._line, headers, headers.values()))
            head = self._head(method, path, *headers) + own.encode()
        else:
            head = self._head(method, path)
        if body is None and method == "GET":
            return head + b"\r\n"
        return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body or b""), body or b"")

    def _made_head(self, method: str, path: str, *own: str) -> bytes:
        """The request line, and all headers that the request does not have as its own."""
        if not _START.fullmatch(f"{method} {self._prefix}{path}"):
            raise TransportError(f"{self._endpoint.name} cannot be sent such a method or path", final=True)
        lines: dict[str, str] = {}  # by lower-case name, so that what comes later takes the place of the same earlier
        for some in ({"Host": self._authority}, _DEFAULTS, self._proxy_headers, self._endpoint.headers):
            lines.update({name.lower(): self._line(name, value) for name, value in some.items()})
        for name in own:
            lines.pop(name.lower(), None)
        return f"{method} {self._server}{self._prefix}{path} HTTP/1.1\r\n{''.join(lines.values())}".encode()

    def _line(self, name: str, value: str) -> str:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value) or name.lower() in FRAMING:
            raise TransportError(f"{self._endpoint.name} cannot be sent such a header", final=True)
        return f"{name}: {value}\r\n"
