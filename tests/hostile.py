"""A vendor that repeats all that it is sent, in every place of an answer and in every spelling.

The first step of the path says how: `http://127.0.0.1:40123/refusing` and so on, by `MANNERS`. Each answer takes the
next spelling, so that many requests see all of them.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from tests.spellings import SPELLINGS

__all__ = ["MANNERS", "HostileVendor", "hostile_vendor"]

LONGEST_HEADER = 3000
SECRET_HEADERS = ("Authorization", "X-Api-Key", "Proxy-Authorization")


class Asked(NamedTuple):
    """A request as it came, and the spelling of its answer."""

    path: str
    headers: Mapping[str, str]
    body: str
    spell: Callable[[str], str]
    number: int

    @property
    def pieces(self) -> list[str]:
        """What there is to repeat: keys, path, body, and whatever is in this."""
        keys = [key for name in SECRET_HEADERS if (key := self.headers.get(name))]
        pieces = [*keys, *(key.split(" ")[-1] for key in keys), self.path, unquote(self.path), self.body]
        with suppress(ValueError):
            pieces += _leaves(json.loads(self.body))
        return list(dict.fromkeys(filter(None, pieces)))

    @property
    def texts(self) -> list[str]:
        """The pieces in this answer's spelling, each answer beginning with another one."""
        texts = [self.spell(piece) for piece in self.pieces]
        start = self.number % len(texts) if texts else 0
        return texts[start:] + texts[:start] or [""]


class Said(NamedTuple):
    """An answer."""

    status: int
    body: bytes
    kind: str = "application/json"
    headers: tuple[tuple[str, Any], ...] = ()


def _leaves(value: Any) -> Iterator[str]:
    """The texts in a JSON document, and in JSON that is a text of it."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    elif value is not None:
        yield str(value)
        with suppress(ValueError):
            inner = json.loads(value) if isinstance(value, str) and value[:1] in '[{"' else None
            yield from _leaves(inner)


def _refusal(status: int) -> Callable[[Asked], Said]:
    def answer(asked: Asked) -> Said:
        texts = asked.texts
        said = " | ".join(texts)
        errors: Any = [{"message": text, "description": text, "property": text} for text in texts]
        if asked.number % 3 == 1:
            errors = texts
        elif asked.number % 3 == 2:
            errors = {"_global": texts, "description": said}
        body = {
            "error": {"code": texts[0], "message": said},
            "response": {"status": "error", "message": said},
            "errors": errors,
            "message": said,
            "success": False,
        }
        return Said(status, json.dumps(body).encode())

    return answer


def _missing(asked: Asked) -> Said:
    """In each vendor's own words for a customer without an entry, and more."""
    said = " ".join(asked.texts)
    body = {
        "error": {"code": "entry_not_found", "message": said},
        "errors": [{"message": "User not found"}, {"message": said}],
        "response": {"status": "error", "message": f"not a known user {said}"},
        "success": False,
    }
    if "/track/" in asked.path or "/data/" in asked.path:
        body["errors"] = [f"Customer does not exist {said}"]
    return Said(400 if "/accounts/" in asked.path else 404, json.dumps(body).encode())


def _accepting(asked: Asked) -> Said:
    """A success in each vendor's form, with a profile that repeats everything."""
    texts = asked.texts
    done: dict[str, Any] = {
        "entry_id": texts[0],
        "email": "@".join(texts),
        "subject_request_id": texts[0],
        "response": {"status": "queued", "message": texts},
        "success": True,
        "results": {"said": texts},
        "properties": texts,
    }
    if asked.path.endswith("/batch"):
        commands = json.loads(asked.body)["commands"]
        done["results"] = [{"success": True, "command_id": each["command_id"], "note": texts} for each in commands]
    if "/entries?" in asked.path or asked.path.endswith("/embeddables"):
        return Said(200, b"[]")
    return Said(200, json.dumps(done).encode())


def _half(asked: Asked) -> Said:
    """A batch whose commands failed one by one; else a success that nobody knows."""
    texts = asked.texts
    if not asked.path.endswith("/batch"):
        return Said(200, json.dumps({"status": " ".join(texts), "data": texts}).encode())
    commands = json.loads(asked.body)["commands"]
    results = [{"success": False, "command_id": each["command_id"], "errors": texts} for each in commands]
    return Said(200, json.dumps({"success": True, "results": results}).encode())


def _page(asked: Asked) -> Said:
    said = "<br>".join(asked.texts)
    return Said(403, f"<html><title>{said}</title><body>{said}</body></html>".encode(), "text/html")


def _text(asked: Asked) -> Said:
    return Said(502, "\n".join(asked.texts).encode(), f"text/plain; said={_header(asked.texts[0])}")


def _moved(asked: Asked) -> Said:
    return Said(302, b"", headers=(("Location", f"/{quote(' '.join(asked.texts))[:LONGEST_HEADER]}"),))


def _busy(asked: Asked) -> Said:
    """For much later."""
    return _refusal(429)(asked)._replace(headers=(("Retry-After", "86400"),))


def _header(text: str) -> str:
    return "".join(char if " " <= char <= "~" else "?" for char in text)[:LONGEST_HEADER]


MANNERS: Mapping[str, Callable[[Asked], Said]] = {
    "accepting": _accepting,
    "rejecting": _refusal(400),
    "unprocessable": _refusal(422),
    "refusing": _refusal(401),
    "missing": _missing,
    "failing": _refusal(503),
    "busy": _busy,
    "half": _half,
    "page": _page,
    "text": _text,
    "moved": _moved,
    "garbled": _text,  # written past HTTP, below
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HostileVendor

    def do_GET(self) -> None:
        """Any method."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode("utf-8", "replace")
        _, manner, rest = self.path.split("/", 2)
        number = next(self.server.numbers)
        spelling = self.server.spellings[number % len(self.server.spellings)]
        asked = Asked(f"/{rest}", dict(self.headers), body, SPELLINGS[spelling], number)
        self.server.heard.append("\n".join([self.path, *asked.headers.values(), body]))
        if manner == "garbled":
            self._garble(asked)
            return
        said = MANNERS[manner](asked)
        names = ("X-Request-Id", "Server", "Set-Cookie", "Via", "WWW-Authenticate", "X-RateLimit-Remaining")
        repeated = _header(asked.texts[number % len(asked.texts)])
        headers = [("Content-Type", said.kind), ("Content-Length", len(said.body)), *said.headers]
        headers += [(name, repeated) for name in names]
        lines = [f"HTTP/1.1 {said.status} {_header(asked.texts[0])}", *(f"{name}: {value}" for name, value in headers)]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode() + said.body)  # at once, or the client waits for an ACK

    do_POST = do_PUT = do_GET

    def _garble(self, asked: Asked) -> None:
        """Repeat it where HTTP has its own words: in the first line, a header's name, a length, a chunk's size."""
        said = " ".join(asked.texts)[:LONGEST_HEADER].encode()
        places = (
            said,
            b"HTTP/1.1 " + said,
            b"HTTP/1.1 200 OK\r\n" + said + b": x\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: " + said,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + said,
            b"HTTP/1.1 200 OK\r\nContent-Encoding: " + said + b"\r\nContent-Length: 0",
        )
        self.wfile.write(places[asked.number % len(places)] + b"\r\n\r\n")
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class HostileVendor(ThreadingHTTPServer):
    """All four vendors at one address of loopback.

    :ivar heard: what was sent to it, as text.
    :ivar spellings: names of those that its answers take in turn.
    """

    daemon_threads = True
    address_family = socket.AF_INET
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.heard: list[str] = []
        self.spellings = list(SPELLINGS)
        self.numbers = count()

    def url(self, manner: str) -> str:
        """The base URL at which it behaves in one of `MANNERS`."""
        return f"http://127.0.0.1:{self.server_address[1]}/{manner}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are none."""


@contextmanager
def hostile_vendor() -> Iterator[HostileVendor]:
    """One that runs."""
    with HostileVendor() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
